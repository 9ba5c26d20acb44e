"""Training: one loop for every learned model, on Lightning Fabric; its checkpoints; its processes.

    history = fit(model, LFI_CAM.shortened(12), data, out=folder)["history"]

A model has ``loss(batch) -> (loss, what to log)``. Killed at any moment and resumed, a training on the same CPU with as many threads ends
with the same bits. Several processes (``fabric run``, torchrun, `launched`) share each batch and end with the weights of a single process:
BatchNorm is frozen or synchronised; only dropout is drawn by each process on its own.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.files import replacing
from cam_core.progress import Bar
from training.batches import Tensors, apart, as_float, batches, derived_seed, in_order, size
from training.recipes import Recipe

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


class TrainingError(RuntimeError):
    """A training that cannot continue."""


@dataclass
class Progress:
    """The state of a training: the next batch, the sums over the epoch so far, and the results of earlier epochs."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    running: dict[str, float] = field(default_factory=dict)  # sums over the epoch's images, "images" itself among them
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)  # "epoch" and the criterion's value on the held-out images

    def add(self, logged: Mapping[str, float], count: int) -> None:
        """Add a batch of ``count`` images and its logged means."""
        for key, value in {"images": 1.0, **logged}.items():
            self.running[key] = self.running.get(key, 0.0) + value * count
        self.batch += 1

    def end_epoch(self, measured: Mapping[str, float]) -> None:
        """Append the epoch's means, and what was ``measured`` after it, to the history."""
        images = self.running.pop("images")
        means = {key: value / images for key, value in self.running.items()}
        self.history.append({"epoch": self.epoch, "images": images, **means, **measured})
        self.epoch, self.batch, self.running = self.epoch + 1, 0, {}

    def improved(self, criterion: str) -> bool:
        """Whether the last epoch is better on the held-out images than all earlier ones; if so it becomes the best."""
        value, known = self.history[-1][f"held_out_{criterion}"], self.best.get(criterion)
        better = math.isfinite(value) and (known is None or (value > known if criterion == "accuracy" else value < known))
        self.best = {"epoch": self.epoch - 1, criterion: value} if better else self.best
        return better

    def line(self, logged: Mapping[str, float]) -> str:
        """The text of the progress bar."""
        seen = self.running["images"] + sum(epoch["images"] for epoch in self.history)
        shown = ", ".join(f"{key} {logged[key]:.3g}" for key in ("loss", "accuracy") if key in logged)
        return f"epoch {self.epoch}, {shown}, {seen / max(self.seconds, 1e-9):.0f} images/s"


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
    watched: Tensors | Dataset | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place and leave it in eval mode.

    A checkpoint (weights, optimiser, position; one file, replaced atomically) goes to ``out`` about ``every`` seconds and is resumed from
    if it is there. Randomness of a step follows from (seed, epoch, batch), so there is no generator's state to keep. If the recipe holds
    training images out, the weights that are best on them are saved too; the model itself ends with the last. Several processes started by
    torchrun or ``fabric run`` train one model together; ``fabric`` replaces the one that `launched` makes. ``watched``: images on which the
    accuracy is measured after each epoch (for the papers' "best on test"); training does not depend on it. Returns history per epoch,
    seconds, updates, "best" and "best_on_test". Raises `TrainingError` at a loss or weight that is not finite, naming the batch; the last
    checkpoint stays.
    """
    if recipe.precision == "16-mixed":
        raise ValueError("no checkpoint keeps the scale of gradients in float16, so a resumed training would differ: take bf16-mixed")
    fabric = fabric or launched(device, None, None, recipe.precision)
    if fabric._precision.precision != recipe.precision:
        raise ValueError(f"the recipe asks for {recipe.precision}, the fabric computes in {fabric._precision.precision}: make them one")
    synchronise(model, recipe, fabric)
    optimizer = torch.optim.SGD(_groups(model, recipe), lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    wrapped, stepped = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("loss")

    told = f"{type(model).__name__} {model.extra_repr()}"  # not the whole repr: several processes replace BatchNorm by another class
    identity = hashlib.sha256(repr((recipe, seed, size(data), told)).encode()).hexdigest()
    at = resume(out / CHECKPOINT, model, optimizer, identity) if out else Progress()
    out = out if fabric.global_rank == 0 else None  # all read it, one writes
    among, held_out = apart(data, recipe.held_out, seed)
    per_epoch = math.ceil(len(among) / recipe.batch)
    updates = recipe.epochs * per_epoch
    began = saved = time.monotonic()
    before, shown = at.seconds, progress and fabric.global_rank == 0
    bar = Bar(total=updates, initial=at.epoch * per_epoch + at.batch, desc=recipe.name, unit="batch", disable=not shown, mininterval=1)
    with bar, torch.random.fork_rng():
        while at.epoch < recipe.epochs:
            _train_mode(model, recipe)
            of_epoch = batches(data, recipe, seed, at.epoch, among=among, first=at.batch, rank=fabric.global_rank, world=fabric.world_size)
            for index, batch in of_epoch:
                rate = recipe.lr * recipe.rate(at.epoch + (at.batch + 0.5) / per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["multiplier"]
                torch.manual_seed(derived_seed(seed, at.epoch, at.batch, 1 + 2 * fabric.global_rank))  # dropout; 2 is `apart`
                logged = _step(fabric, wrapped, stepped, batch, index, f"epoch {at.epoch}, batch {at.batch}")
                if len(held_out) and recipe.criterion not in logged:
                    raise ValueError(
                        f"{type(model).__name__} logs no {recipe.criterion}, by which {recipe.name!r} chooses its best weights: "
                        f"take a criterion among {', '.join(logged)}"
                    )
                at.add(logged, len(index))
                at.seconds = before + time.monotonic() - began
                bar.update()
                bar.set_postfix_str(at.line(logged), refresh=False)
                if out and time.monotonic() - saved >= every and at.batch < per_epoch:
                    save(out / CHECKPOINT, model, optimizer, at, identity)
                    saved = time.monotonic()
            measured = _measure(fabric, model, recipe, data, held_out, seed) if len(held_out) else {}
            if watched is not None:
                measured["watched_accuracy"] = accuracy(cast("Classifier", model.eval().classifier), watched)
            at.end_epoch(measured)
            if len(held_out) and at.improved(recipe.criterion) and out:
                write_tensors(out / BEST, kept_state(model), {"identity": identity, "best": json.dumps(at.best)})
            if out and (time.monotonic() - saved >= every or at.epoch == recipe.epochs):
                save(out / CHECKPOINT, model, optimizer, at, identity)
                saved = time.monotonic()
    model.eval()
    summary = {"history": at.history, "seconds": at.seconds, "updates": updates, "images": len(among), "epochs": recipe.epochs}
    if watched is not None:
        first = max(at.history, key=lambda epoch: epoch["watched_accuracy"])
        summary["best_on_test"] = {"epoch": first["epoch"], "accuracy": first["watched_accuracy"], "n": size(watched)}
    return summary | ({"best": at.best} if at.best else {})


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Trainable parameters by learning rate, in the model's order, so that a resumed optimiser finds its state."""
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


def _step(fabric: Fabric, model: Any, optimizer: Any, batch: dict[str, Tensor], index: list[int], where: str) -> dict[str, float]:
    loss, logged = _loss(fabric, model, batch, len(index))
    if not math.isfinite(logged["loss"]):  # the same in all processes, so that none waits for another
        raise TrainingError(
            f"the loss is {logged['loss']} in {where} (examples {index[:8]} ...): lower the learning rate, or look at these examples; "
            "the checkpoint stays"
        )
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    learn = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not math.isfinite(nn.utils.get_total_norm(learn)):  # a finite loss may have a gradient that is not finite, in the last batch too
        raise TrainingError(
            f"a weight is not finite after {where} (examples {index[:8]} ...), whose loss was {logged['loss']:.4g}: lower the learning "
            "rate, or look at these examples; the checkpoint stays"
        )
    return logged


def _loss(fabric: Fabric, model: Any, batch: dict[str, Tensor], count: int) -> tuple[Tensor, dict[str, float]]:
    """The loss to differentiate, and the logged means over the ``count`` examples of the whole batch in all processes."""
    batch = fabric.to_device(batch)
    if "images" in batch:  # channels_last: a third faster on a CPU
        batch["images"] = as_float(batch["images"]).contiguous(memory_format=torch.channels_last)
    with fabric.autocast():  # Fabric autocasts only forward; a single process calls a marked method directly
        loss, log = model.loss(batch)
    # Gradients are averaged over the processes: the weight makes this the mean over the batch if their shares differ in size.
    weight = len(next(iter(batch.values()))) * fabric.world_size / count
    log = {"loss": loss, **log}
    values = torch.stack([term.detach().double() for term in log.values()]) * weight
    values = cast("Tensor", fabric.all_reduce(values, reduce_op="mean")) if fabric.world_size > 1 else values
    return loss if weight == 1 else loss * weight, dict(zip(log, values.tolist(), strict=True))


@torch.no_grad()
def _measure(fabric: Fabric, model: Any, recipe: Recipe, data: Tensors | Dataset, held_out: Tensor, seed: int) -> dict[str, float]:
    """Loss and logged values on the held-out images, in eval mode, on one fixed view of each."""
    model.eval()
    total: dict[str, float] = {}
    for index, batch in batches(data, recipe, seed, 0, among=held_out, still=True, rank=fabric.global_rank, world=fabric.world_size):
        for key, value in _loss(fabric, model, batch, len(index))[1].items():
            total[f"held_out_{key}"] = total.get(f"held_out_{key}", 0.0) + value * len(index)
    return {key: value / len(held_out) for key, value in total.items()}


@torch.no_grad()
def predict(classifier: Classifier, images: Tensor, *, batch: int = 64) -> Tensor:
    """Logits [N,C] on the CPU of images [N,3,H,W], uint8 or in [0, 1]; the classifier must be in eval mode."""
    device = classifier.mean.device
    return torch.cat([classifier(as_float(part.to(device))).cpu() for part in images.split(batch)])


def accuracy(classifier: Classifier, data: Tensors | Dataset) -> float:
    """Share of ``images`` whose largest logit is their label's, in percent."""
    parts = in_order(data) if isinstance(data, Dataset) else [data]
    hits = [predict(classifier, part["images"]).argmax(1) == part["labels"] for part in parts]
    return float(torch.cat(hits).double().mean()) * 100


# --- checkpoints -----------------------------------------------------------------------------------------------------------------------


def kept_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors to store: those of every child of ``model`` that has trainable parameters or is named in its ``keeps``.

    A frozen classifier is not stored; it is built again.
    """
    keeps = getattr(model, "keeps", ())
    learns = [f"{name}." for name, child in model.named_children() if name in keeps or any(p.requires_grad for p in child.parameters())]
    state = {k: v for k, v in model.state_dict().items() if k.startswith(tuple(learns)) or k in dict(model.named_parameters(recurse=False))}
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def save(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, at: Progress, identity: str) -> None:
    """Write weights, optimiser and progress to ``file`` atomically; `TrainingError` and no file if a weight is not finite."""
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
    write_tensors(file, tensors, {"identity": identity, "progress": json.dumps(asdict(at))})


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically and flush it to the disk."""
    with replacing(file) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def resume(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Progress:
    """Load ``file`` into model and optimiser and return its progress; without a file the start of a training.

    `TrainingError` if it is damaged or was written under another ``identity``.
    """
    if not file.exists():
        return Progress()
    tensors = read_tensors(file)
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    if metadata.get("identity") != identity:
        raise TrainingError(
            f"{file} belongs to another model, recipe, seed or size of the training set: remove it, or train into another folder"
        )
    load_kept(model, {key[len("model.") :]: value for key, value in tensors.items() if key.startswith("model.")}, file)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return Progress(**json.loads(metadata["progress"]))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `TrainingError` if it is damaged."""
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file} cannot be read ({error}): remove it to train again") from error


def load_kept(model: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Load the tensors of `kept_state`, read from ``file``, into ``model``; `TrainingError` if they do not fit."""
    expected = kept_state(model)
    wrong = sorted({*expected} ^ {*state}) or [key for key in expected if expected[key].shape != state[key].shape]
    if wrong:
        raise TrainingError(f"{file} does not fit the model ({wrong[0]} and {len(wrong) - 1} more differ): remove it to train again")
    model.load_state_dict(state, strict=False)


# --- processes -------------------------------------------------------------------------------------------------------------------------

# How many processes torchrun or `fabric run` started on this machine and in total; if Fabric launches them, only the total is set.
STARTED = tuple(int(os.environ[name]) if "LOCAL_WORLD_SIZE" in os.environ else 1 for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))


@cache  # a process joins the others once, however many models it trains
def launched(device: str, devices: int | None, nodes: int | None, precision: str) -> Fabric:
    """Fabric for one process, or for ``devices`` on each of ``nodes`` machines; it starts these processes unless they run already."""
    here, everywhere = STARTED
    devices, nodes = devices or here, nodes or max(1, everywhere // here)
    several = devices * nodes > 1
    fabric = Fabric(
        accelerator=device, devices=devices, num_nodes=nodes, strategy="ddp" if several else "auto", precision=cast("Any", precision)
    )
    if fabric.world_size != devices * nodes:  # Fabric takes the number of processes from Slurm, where that has started this one
        raise ValueError(
            f"{devices} devices of {nodes} machines are {devices * nodes} processes, and {fabric.world_size} were started: "
            f"take srun --ntasks={devices * nodes} --nodes={nodes} --ntasks-per-node={devices}, or leave devices and nodes out"
        )
    if several and "LT_CLI_USED" not in os.environ:  # `fabric run` has launched already, and allows no second time
        fabric.launch()
    return fabric


def synchronise(model: nn.Module, recipe: Recipe, fabric: Fabric) -> None:
    """Let trainable BatchNorm use the whole batch of several processes; ValueError on a CPU, where it cannot."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if fabric.world_size == 1 or recipe.frozen_batchnorm or not any(p.requires_grad for m in norms for p in m.parameters()):
        return
    if fabric.device.type != "cuda":
        raise ValueError(
            f"{fabric.world_size} processes on {fabric.device.type} cannot share BatchNorm's statistics: "
            "train in one process, on GPUs, or with frozen_batchnorm"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
