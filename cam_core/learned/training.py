"""One training loop for every learned model, on Lightning Fabric; killed at any moment and resumed, a CPU run ends with the same bits.

    model, summary = trained(lambda: LfiCam("resnet8", 10), LFI_CAM.shortened(12), dataset, seed=0)

Trained models are kept under a digest of everything they depend on, and loaded when the same training is asked for again.
"""

import ast
import fcntl
import hashlib
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from cam_core import networks
from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.learned.batches import Tensors, as_float, batches, derived_seed, in_memory, size
from cam_core.learned.recipes import PAPERS, Recipe
from cam_core.results import flush, write_json

CHECKPOINT, WEIGHTS, SUMMARY = "checkpoint.safetensors", "model.safetensors", "summary.json"
Model = TypeVar("Model", bound=nn.Module)


class TrainingError(RuntimeError):
    """A training that cannot go on."""


@dataclass
class Progress:
    """Where a training stands: the next batch, what the epoch has summed up so far, and what the epochs before it gave."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    running: dict[str, float] = field(default_factory=dict)  # sums over the epoch's images, "images" itself among them
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    model: nn.Module,
    recipe: Recipe,
    data: Tensors | Dataset,
    *,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    every: float = 60.0,
    progress: bool = True,
    fabric: Fabric | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place by its ``loss(batch) -> (loss, what to log)`` and leave it in eval mode.

    A checkpoint (weights, optimiser, position; one file, replaced atomically) goes to ``out`` about ``every`` seconds and is resumed
    from if it is there. Randomness of a step follows from (seed, epoch, batch), so there is no generator's state to keep.
    ``fabric`` stands in for one made of ``device``, for several processes. Returns history per epoch, seconds, updates.
    Raises `TrainingError` at a loss or weight that is not finite, naming the batch; the last checkpoint stays.
    """
    fabric = fabric or Fabric(accelerator=device, devices=1, precision=cast("Any", recipe.precision))
    optimizer = torch.optim.SGD(_groups(model, recipe), lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    wrapped, stepped = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("loss")
    identity = hashlib.sha256(repr((recipe, seed, size(data))).encode()).hexdigest()
    file = out / CHECKPOINT if out else None
    at = _resume(file, model, optimizer, identity) if file else Progress()
    file = file if fabric.global_rank == 0 else None  # all read it, one writes
    per_epoch = math.ceil(size(data) / recipe.batch)
    began = saved = time.monotonic()
    before = at.seconds
    shown = progress and fabric.global_rank == 0
    done, total = at.epoch * per_epoch + at.batch, recipe.epochs * per_epoch
    bar = tqdm(total=total, initial=done, desc=recipe.name, unit="batch", disable=not shown, mininterval=1)
    with bar, torch.random.fork_rng():
        while at.epoch < recipe.epochs:
            _train_mode(model, recipe)
            for index, batch in batches(data, recipe, seed, at.epoch, first=at.batch, rank=fabric.global_rank, world=fabric.world_size):
                _set_rates(optimizer, recipe, at.epoch + (at.batch + 0.5) / per_epoch)
                torch.manual_seed(derived_seed(seed, at.epoch, at.batch, 1))  # dropout
                logged = _step(fabric, wrapped, stepped, batch, f"epoch {at.epoch}, batch {at.batch} (examples {index[:8]} ...)")
                for key, value in {"images": 1.0, **logged}.items():
                    at.running[key] = at.running.get(key, 0.0) + value * len(index)
                at.batch += 1
                at.seconds = before + time.monotonic() - began
                bar.update()
                bar.set_postfix_str(_postfix(at, logged), refresh=False)
                if file and time.monotonic() - saved >= every and at.batch < per_epoch:
                    _save(file, model, optimizer, at, identity)
                    saved = time.monotonic()
            _end_epoch(at, recipe)
            if file and (time.monotonic() - saved >= every or at.epoch == recipe.epochs):
                _save(file, model, optimizer, at, identity)
                saved = time.monotonic()
    model.eval()
    updates = recipe.epochs * per_epoch
    return {"history": at.history, "seconds": at.seconds, "updates": updates, "images": size(data), "epochs": recipe.epochs}


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters that learn, by learning rate; their order is the model's, so that a resumed optimiser finds its state."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(recipe.multiplier(name), []).append(parameter)
    return [{"params": group, "multiplier": m, "weight_decay": recipe.weight_decay} for m, group in groups.items()]


def _train_mode(model: nn.Module, recipe: Recipe) -> None:
    model.train()
    if recipe.frozen_batchnorm:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, position: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * recipe.rate(position) * group["multiplier"]


def _step(fabric: Fabric, model: Any, optimizer: Any, batch: dict[str, Tensor], where: str) -> dict[str, float]:
    batch = fabric.to_device(batch)
    if "images" in batch:  # channels_last: a third faster on a CPU
        batch["images"] = as_float(batch["images"]).contiguous(memory_format=torch.channels_last)
    loss, log = model.loss(batch)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"the loss is {value} in {where}: lower the learning rate, or look at these examples; the checkpoint stays")
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    return {"loss": value, **{key: float(term) for key, term in log.items()}}


def _postfix(at: Progress, logged: Mapping[str, float]) -> str:
    seen = at.running["images"] + sum(epoch["images"] for epoch in at.history)
    shown = ", ".join(f"{key} {logged[key]:.3g}" for key in ("loss", "accuracy") if key in logged)
    return f"epoch {at.epoch}, {shown}, {seen / max(at.seconds, 1e-9):.0f} images/s"


def _end_epoch(at: Progress, recipe: Recipe) -> None:
    images = at.running.pop("images")
    means = {key: value / images for key, value in at.running.items()}
    at.history.append({"epoch": at.epoch, "images": images, **means})
    at.epoch, at.batch, at.running = at.epoch + 1, 0, {}


# --- checkpoints ---------------------------------------------------------------------------------------------------------------------


def kept_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors worth keeping: those under a child of ``model`` that learns. A frozen classifier is built again, not stored again."""
    learns = [f"{name}." for name, child in model.named_children() if any(p.requires_grad for p in child.parameters())]
    state = {k: v for k, v in model.state_dict().items() if k.startswith(tuple(learns)) or k in dict(model.named_parameters(recurse=False))}
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def _save(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, at: Progress, identity: str) -> None:
    state = kept_state(model)
    broken = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise TrainingError(
            f"{broken[0]} is not finite before epoch {at.epoch}, batch {at.batch}: lower the learning rate; {file.name} stays"
        )
    tensors = {f"model.{key}": value for key, value in state.items()}
    for number, kept in optimizer.state_dict()["state"].items():
        for key, value in kept.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{key}"] = value.cpu().contiguous()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata={"identity": identity, "progress": json.dumps(asdict(at))})
    flush(temporary)
    temporary.replace(file)


def _resume(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Progress:
    if not file.exists():
        return Progress()
    tensors = _read(file)
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    if metadata.get("identity") != identity:
        raise TrainingError(f"{file} belongs to another recipe, seed or training set: remove it, or train into another folder")
    _load(model, {key[len("model.") :]: value for key, value in tensors.items() if key.startswith("model.")}, file)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return Progress(**json.loads(metadata["progress"]))


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file} cannot be read ({error}): remove it to train again") from error


def _load(model: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    expected = kept_state(model)
    wrong = sorted({*expected} ^ {*state}) or [key for key in expected if expected[key].shape != state[key].shape]
    if wrong:
        raise TrainingError(f"{file} does not fit the model ({wrong[0]} and {len(wrong) - 1} more differ): remove it to train again")
    model.load_state_dict(state, strict=False)


# --- trained models, kept by digest --------------------------------------------------------------------------------------------------


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
) -> tuple[Model, dict[str, Any]]:
    """The model of ``build()`` trained by ``recipe``, in eval mode, and a summary; loaded if this very training was done before.

    It is kept in ``store`` under a digest of: the model as built under ``seed`` (its text and its tensors, a frozen classifier's among
    them), recipe, training set, seed, ``extra``, and the code of the loop and the model. A data set is decoded into memory; a model with
    ``prepare`` then makes its own training set of it. ``summary``: history, seconds, accuracy (percent on ``test``, an
    image counted right by the largest logit), deviations from the paper's recipe, digest. Two processes never train the same model at once.
    """
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
        return summary

    summary = kept(model, key, make, Path(store))
    return model.to(device_used).eval(), summary


def kept(model: nn.Module, key: str, make: Callable[[Path], dict[str, Any]], store: Path) -> dict[str, Any]:
    """Load ``model`` from ``store``/``key``, or let ``make(folder)`` change it and keep it there. Returns the summary."""
    folder = store / key[:20]
    if not folder.exists():
        with _claimed(folder.with_name(folder.name + ".part"), folder) as part:
            if part is not None:
                summary = {**make(part), "digest": key, "model": type(model).__name__}
                (part / CHECKPOINT).unlink(missing_ok=True)
                save_file(kept_state(model), part / WEIGHTS)
                flush(part / WEIGHTS)
                write_json(part / SUMMARY, summary)
                part.rename(folder)
                flush(store)
                return summary
    _load(model, _read(folder / WEIGHTS), folder / WEIGHTS)
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
    for key, value in sorted(model.state_dict().items()):
        total.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for file in (inspect.getsourcefile(type(model)), __file__, batches.__code__.co_filename, networks.__file__):
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


@torch.no_grad()
def predict(classifier: Classifier, images: Tensor, *, batch: int = 64) -> Tensor:
    """Logits [N,C] on the CPU of images [N,3,H,W], uint8 or in [0, 1]; the classifier must be in eval mode."""
    device = classifier.mean.device
    return torch.cat([classifier(as_float(part.to(device))).cpu() for part in images.split(batch)])


def accuracy(classifier: Classifier, data: Tensors | Dataset) -> float:
    """Share of ``images`` whose largest logit is their label's, in percent."""
    data = in_memory(data, progress=False) if isinstance(data, Dataset) else data
    return float((predict(classifier, data["images"]).argmax(1) == data["labels"]).double().mean()) * 100
