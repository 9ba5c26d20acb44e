"""Trained models, stored under a digest of everything they depend on, and loaded when the same training is asked for again.

    model, summary = trained(lambda: LfiCam("resnet8", 10), LFI_CAM.shortened(12), dataset, seed=0)

The training itself is `training.loop.fit`.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import nn

from cam_core.data import Dataset
from cam_core.files import flush, write_json
from cam_core.learned.lcam import LCam
from cam_core.learned.shipped import FOLDER
from training.batches import Tensors, derived_seed, in_memory
from training.cached import l_cam_data
from training.loop import BEST, CHECKPOINT, accuracy, fit, kept_state, launched, load_kept, read_tensors, write_tensors
from training.recipes import PAPERS, Recipe

WEIGHTS, SUMMARY = "model.safetensors", "summary.json"
# Part of every digest: raise it when a change alters the result of a training, so that older models are not found any more.
# tests/training/test_training_version.py fails if that is forgotten.
TRAINING_VERSION = 1
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
    devices: int | None = None,
    nodes: int | None = None,
    stream: bool | None = None,
    progress: bool = True,
    best: bool = False,
    best_on_test: bool = False,
    threads: int | None = None,
) -> tuple[Model, dict[str, Any]]:
    """The model of ``build()`` trained by ``recipe``, in eval mode, and a summary; loaded if this very training was done before.

    It is kept in ``store`` under a digest of: the model as built under ``seed`` (its text and its tensors, a frozen classifier's among
    them), recipe, training set, seed, ``extra`` and `TRAINING_VERSION`. The code of a model of your own is not part of it: give its version
    in ``extra``. A data set is decoded into memory if it `fits`, else (or with ``stream``) read from disk in every epoch; for L-CAM
    `cached.l_cam_data` prepares it. ``summary``: history, seconds, accuracy (percent on ``test``, by the largest logit; recomputed if the
    model was stored with other test images), deviations from the paper's recipe, digest. Two jobs never train the same model at the same
    time; one job may have several processes: ``devices`` of each of ``nodes`` machines, by default as many as torchrun or `fabric run`
    started, else one. They need a store that all can read. ``best``: the weights that were best on the training images that the recipe
    holds out, not the last; ``summary["best"]`` has their epoch, their value there and their own accuracy on ``test``. ``best_on_test``,
    the papers' habit: ``summary["best_on_test"]`` is the highest accuracy on ``test`` after any epoch; no weights are chosen by it.
    ``threads``: train again what is stored, if another number of CPU threads has trained it, which changes the last bits of every sum.
    """
    if best and not recipe.held_out:
        raise ValueError(f"the recipe {recipe.name!r} holds no training images out to choose by: give it held_out, for example 0.1")
    if best_on_test and test is None:
        raise ValueError(f"best_on_test needs test images, and the training {recipe.name!r} was given none: pass test")
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed))
        model = build()
    fabric = launched(device, devices, nodes, recipe.precision)
    of_test = "" if test is None else data_digest(test)
    watched = {"best_on_test": of_test} if best_on_test else {}
    key = digest(model, recipe.record(), data_digest(data), seed, {**(extra or {}), **watched})

    def make(part: Path) -> dict[str, Any]:
        model.to(fabric.device)
        prepared = _read(data, fabric, stream, progress)
        if isinstance(model, LCam):
            prepared = l_cam_data(model, prepared, recipe, progress=progress)
        held_out = None if test is None else _read(test, fabric, None, progress)
        shown = held_out if best_on_test else None
        summary = fit(model, recipe, prepared, out=part, seed=seed, progress=progress, fabric=fabric, watched=shown)
        fabric.barrier()  # wait until the first process has written
        paper = PAPERS.get(recipe.name)
        summary |= {"recipe": recipe.record(), "seed": seed, "threads": torch.get_num_threads()}
        summary["deviations"] = [*(recipe.differs_from(paper) if paper else []), *getattr(model, "deviations", [])]
        return summary if held_out is None else _tested(model, summary, held_out, part, of_test)

    if threads and fabric.device.type == "cpu":
        _remove_other(Path(store) / key[:20], threads, fabric)
    summary = kept(model, key, make, Path(store), fabric)
    if test is not None and summary.get("tested") != of_test:  # stored with other test images, or with none
        summary = _tested(model.to(fabric.device).eval(), summary, _read(test, fabric, None, progress), Path(store) / key[:20], of_test)
    if best:
        file = Path(store) / key[:20] / BEST
        load_kept(model, read_tensors(file), file)
    return model.to(fabric.device).eval(), summary


def _tested(model: Any, summary: dict[str, Any], test: Tensors | Dataset, folder: Path, digest: str) -> dict[str, Any]:
    """The summary with the accuracy on test images with that ``digest``: of the model as it is, and of the best weights in ``folder``."""
    summary = {**summary, "accuracy": accuracy(model.classifier, test), "tested": digest}
    if "best" in summary:
        last = {key: value.clone() for key, value in kept_state(model).items()}  # which are the model's own, on a CPU
        load_kept(model, read_tensors(folder / BEST), folder / BEST)
        summary["best"] = {**summary["best"], "test_accuracy": accuracy(model.classifier, test)}
        load_kept(model, last, folder / BEST)
    return summary


def fits(data: Dataset, processes: int = 1) -> bool:
    """Whether a data set, decoded (a byte a value), takes at most a quarter of the machine's memory in all of its ``processes``."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return len(data) * data[0].image.numel() * processes <= memory / 4


def _read(data: Tensors | Dataset, fabric: Fabric, stream: bool | None, progress: bool) -> Tensors | Dataset:
    if not isinstance(data, Dataset) or stream:
        return data
    return in_memory(data, progress=progress) if stream is False or fits(data, fabric.world_size) else data  # as if on one machine


def kept(model: nn.Module, key: str, make: Callable[[Path], dict[str, Any]], store: Path, fabric: Fabric) -> dict[str, Any]:
    """Load ``model`` from ``store``/``key``, or train it with ``make(folder)`` and store it there. Returns the summary.

    The first process of ``fabric`` claims the folder and writes; all of them train.
    """
    folder = store / key[:20]
    if not fabric.broadcast(folder.exists()):
        with _claimed_together(folder.with_name(folder.name + ".part"), folder, fabric) as part:
            if part is not None:
                summary = {**make(part), "digest": key, "model": type(model).__name__}
                if fabric.global_rank == 0:
                    write_tensors(part / WEIGHTS, kept_state(model))
                    write_json(part / SUMMARY, summary)
                    part.rename(folder)
                    (folder / CHECKPOINT).unlink(missing_ok=True)  # last, so that a training killed before this is resumed at its end
                    flush(store)
                fabric.barrier()
                return summary
    load_kept(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return dict(json.loads((folder / SUMMARY).read_text()))


def _remove_other(folder: Path, threads: int, fabric: Fabric) -> None:
    """Remove a stored model if another number of threads than ``threads`` has trained it."""
    stored = json.loads((folder / SUMMARY).read_text()) if (folder / SUMMARY).exists() else {}
    if fabric.global_rank == 0 and stored.get("threads", threads) != threads:
        shutil.rmtree(folder.rename(folder.with_name(folder.name + ".old")))
    fabric.barrier()


@contextmanager
def _claimed_together(part: Path, folder: Path, fabric: Fabric) -> Iterator[Path | None]:
    """`_claimed` by the first process, for all of them."""
    if fabric.global_rank == 0:
        with _claimed(part, folder) as claimed:
            fabric.broadcast(claimed is not None)
            yield claimed
    else:
        yield part if fabric.broadcast(False) else None


@contextmanager
def _claimed(part: Path, folder: Path) -> Iterator[Path | None]:
    """``part``, locked for this process; None if another one finished ``folder`` in the meantime."""
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
    """sha256 of what a trained model depends on: the untrained one, `TRAINING_VERSION`, and ``facts``."""
    total = hashlib.sha256(f"{TRAINING_VERSION} {model!r}".encode())
    for key, value in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):  # the state dict lacks the normalisation
        total.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
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


def ship(model: LCam, summary: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Store a trained mechanism for the package: its attention in half precision, the facts of its training in the metadata."""
    keys = ("images", "epochs", "updates", "seed", "deviations", "digest", "recipe")
    facts = {"weights": model.classifier.weights, "layer": model.classifier.layer, **{key: summary[key] for key in keys}}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{model.name}-{model.classifier.name}.safetensors"
    state = {key: value.half().contiguous() for key, value in model.attention.state_dict().items()}
    save_file(state, file, metadata={"about": json.dumps(facts, sort_keys=True)})
    return file
