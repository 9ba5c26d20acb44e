"""Trained models, kept under a digest of everything they depend on, and loaded when the same training is asked for again.

    model, summary = trained(lambda: LfiCam("resnet8", 10), LFI_CAM.shortened(12), dataset, seed=0)

The training itself is `cam_core.learned.loop.fit`.
"""

import ast
import fcntl
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from cam_core import networks
from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.learned import loop
from cam_core.learned.batches import Tensors, batches, derived_seed, in_memory
from cam_core.learned.loop import (
    BEST,
    CHECKPOINT,
    TrainingError,
    accuracy,
    fit,
    kept_state,
    load_kept,
    predict,
    read_tensors,
    write_tensors,
)
from cam_core.learned.recipes import PAPERS, Recipe
from cam_core.results import flush, write_json

__all__ = [
    "BEST", "CHECKPOINT", "SUMMARY", "WEIGHTS", "TrainingError", "accuracy", "data_digest", "digest", "fit", "kept", "kept_state",
    "predict", "trained",
]  # fmt: skip

WEIGHTS, SUMMARY = "model.safetensors", "summary.json"
Model = TypeVar("Model", bound=nn.Module)


def trained(
    build: Callable[[], Model],
    recipe: Recipe,
    data: Tensors | Dataset,
    *,
    seed: int = 0,
    store: Path | str = Path("runs/models"),
    test: Tensors | Dataset | None = None,
    extra: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: bool = True,
    best: bool = False,
) -> tuple[Model, dict[str, Any]]:
    """The model of ``build()`` trained by ``recipe``, in eval mode, and a summary; loaded if this very training was done before.

    It is kept in ``store`` under a digest of: the model as built under ``seed`` (its text and its tensors, a frozen classifier's among
    them), recipe, training set, seed, ``extra``, and the code of the loop and the model. A data set is decoded into memory; a model with
    ``prepare`` then makes its own training set of it. ``summary``: history, seconds, accuracy (percent on ``test``, an
    image counted right by the largest logit), deviations from the paper's recipe, digest. Two processes never train the same model at once.
    ``best``: the weights that were best on the training images that the recipe holds out, not the last; ``summary["best"]`` has their
    epoch, their value there and their own accuracy on ``test``.
    """
    if best and not recipe.held_out:
        raise ValueError(f"the recipe {recipe.name!r} holds no training images out to choose by: give it held_out, for example 0.1")
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed))
        model = build()
    device_used = Fabric(accelerator=device, devices=1).device
    key = digest(model, recipe.record(), data_digest(data), seed, dict(extra or {}))

    def make(part: Path) -> dict[str, Any]:
        model.to(device_used)
        prepared = in_memory(data, progress=progress) if isinstance(data, Dataset) else data
        prepare = getattr(model, "prepare", None)
        prepared = prepare(prepared, recipe, progress=progress) if prepare else prepared
        summary = fit(model, recipe, prepared, out=part, seed=seed, device=device, progress=progress)
        paper = PAPERS.get(recipe.name)
        summary |= {"recipe": recipe.record(), "seed": seed}
        summary["deviations"] = [*(recipe.differs_from(paper) if paper else []), *getattr(model, "deviations", [])]
        if test is not None:
            held_out = in_memory(test, progress=progress) if isinstance(test, Dataset) else test
            summary["accuracy"] = accuracy(cast("Classifier", model.classifier), held_out)
            if "best" in summary:
                last = kept_state(model)
                load_kept(model, read_tensors(part / BEST), part / BEST)
                summary["best"]["test_accuracy"] = accuracy(cast("Classifier", model.classifier), held_out)
                load_kept(model, last, part / BEST)
        return summary

    summary = kept(model, key, make, Path(store))
    if best:
        file = Path(store) / key[:20] / BEST
        load_kept(model, read_tensors(file), file)
    return model.to(device_used).eval(), summary


def kept(model: nn.Module, key: str, make: Callable[[Path], dict[str, Any]], store: Path) -> dict[str, Any]:
    """Load ``model`` from ``store``/``key``, or let ``make(folder)`` change it and keep it there. Returns the summary."""
    folder = store / key[:20]
    if not folder.exists():
        with _claimed(folder.with_name(folder.name + ".part"), folder) as part:
            if part is not None:
                summary = {**make(part), "digest": key, "model": type(model).__name__}
                (part / CHECKPOINT).unlink(missing_ok=True)
                write_tensors(part / WEIGHTS, kept_state(model))
                write_json(part / SUMMARY, summary)
                part.rename(folder)
                flush(store)
                return summary
    load_kept(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return dict(json.loads((folder / SUMMARY).read_text()))


@contextmanager
def _claimed(part: Path, folder: Path) -> Iterator[Path | None]:
    """``part``, locked for this process; None if another one finished ``folder`` while we waited."""
    part.mkdir(parents=True, exist_ok=True)
    handle = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the lock dies with its process
        if not folder.exists():
            yield part
            return
        if part.exists():
            part.rmdir()
        yield None
    finally:
        os.close(handle)


def digest(model: nn.Module, *facts: Any) -> str:
    """sha256 of what a trained model depends on: the untrained one, the code that trains it, and ``facts``."""
    total = hashlib.sha256(repr(model).encode())
    for key, value in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):  # the normalisation is no part of the state
        total.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for file in (inspect.getsourcefile(type(model)), loop.__file__, batches.__code__.co_filename, networks.__file__):
        total.update(ast.dump(ast.parse(Path(str(file)).read_text())).encode())  # comments and layout do not count
    total.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return total.hexdigest()


def data_digest(data: Tensors | Dataset) -> str:
    """sha256 of a training set: its tensors, or what its files and its view are."""
    if isinstance(data, Dataset):
        return hashlib.sha256(f"{data.digest()} {data.transform!r}".encode()).hexdigest()
    total = hashlib.sha256()
    for key, value in sorted(data.items()):
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
