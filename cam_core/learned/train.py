"""The training loop, one for every learned model, on Lightning Fabric.

Killed at any moment and resumed, a run on the same CPU and as many threads ends with the same bits.

    history = fit(model, LFI_CAM.shortened(12), data, out=folder)["history"]

Several processes (``fabric run``, torchrun, `launched`) share each batch and end with the weights that one would have: BatchNorm is frozen
or synchronised, but dropout draws for each process anew.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.learned.batches import Tensors, apart, as_float, batches, derived_seed, in_order, size
from cam_core.learned.checkpoint import BEST, CHECKPOINT, Progress, TrainingError, kept_state, resume, save, write_tensors
from cam_core.learned.plain import Loss
from cam_core.learned.processes import launched, synchronise
from cam_core.learned.recipes import Recipe


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
    """Train ``model`` in place by its ``loss(batch) -> (loss, what to log)`` and leave it in eval mode.

    A checkpoint (weights, optimiser, position; one file, replaced atomically) goes to ``out`` about ``every`` seconds and is resumed
    from if it is there. Randomness of a step follows from (seed, epoch, batch), so there is no generator's state to keep.
    Where the recipe holds training images out, the weights that do best on them are kept there too; the model itself ends with the last.
    Where torchrun or ``fabric run`` started several processes, they train one model together; ``fabric`` stands in for the one that
    `launched` makes. ``watched``: images whose accuracy is taken after each epoch (for the papers' "best on test"); it changes nothing.
    Returns history per epoch, seconds, updates, "best" and "best_on_test".
    Raises `TrainingError` at a loss or weight that is not finite, naming the batch; the last checkpoint stays.
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
    told = f"{type(model).__name__} {model.extra_repr()}"  # not all of it: BatchNorm is another class where processes share it
    identity = hashlib.sha256(repr((recipe, seed, size(data), told)).encode()).hexdigest()
    at = resume(out / CHECKPOINT, model, optimizer, identity) if out else Progress()
    out = out if fabric.global_rank == 0 else None  # all read it, one writes
    among, held_out = apart(data, recipe.held_out, seed)
    share: dict[str, Any] = {"rank": fabric.global_rank, "world": fabric.world_size}
    per_epoch = math.ceil(len(among) / recipe.batch)
    began = saved = time.monotonic()
    before = at.seconds
    shown = progress and fabric.global_rank == 0
    done, total = at.epoch * per_epoch + at.batch, recipe.epochs * per_epoch
    bar = tqdm(total=total, initial=done, desc=recipe.name, unit="batch", disable=not shown, mininterval=1)
    with bar, torch.random.fork_rng():
        while at.epoch < recipe.epochs:
            _train_mode(model, recipe)
            for index, batch in batches(data, recipe, seed, at.epoch, among=among, first=at.batch, **share):
                _set_rates(optimizer, recipe, at.epoch + (at.batch + 0.5) / per_epoch)
                torch.manual_seed(derived_seed(seed, at.epoch, at.batch, 1 + 2 * fabric.global_rank))  # dropout; 2 is `apart`
                logged = _step(fabric, wrapped, stepped, batch, index, f"epoch {at.epoch}, batch {at.batch}")
                if len(held_out) and recipe.criterion not in logged:
                    raise ValueError(
                        f"{type(model).__name__} logs no {recipe.criterion}, by which {recipe.name!r} chooses its best weights: "
                        f"take a criterion among {', '.join(logged)}"
                    )
                for key, value in {"images": 1.0, **logged}.items():
                    at.running[key] = at.running.get(key, 0.0) + value * len(index)
                at.batch += 1
                at.seconds = before + time.monotonic() - began
                bar.update()
                bar.set_postfix_str(_postfix(at, logged), refresh=False)
                if out and time.monotonic() - saved >= every and at.batch < per_epoch:
                    save(out / CHECKPOINT, model, optimizer, at, identity)
                    saved = time.monotonic()
            measured = _measure(fabric, model, recipe, data, held_out, seed) if len(held_out) else {}
            if watched is not None:
                measured["watched_accuracy"] = accuracy(cast("Classifier", model.eval().classifier), watched)
            _end_epoch(at, measured)
            if len(held_out) and _is_best(at, measured[f"held_out_{recipe.criterion}"], recipe) and out:
                write_tensors(out / BEST, kept_state(model), {"identity": identity, "best": json.dumps(at.best)})
            if out and (time.monotonic() - saved >= every or at.epoch == recipe.epochs):
                save(out / CHECKPOINT, model, optimizer, at, identity)
                saved = time.monotonic()
    model.eval()
    updates = recipe.epochs * per_epoch
    summary = {"history": at.history, "seconds": at.seconds, "updates": updates, "images": len(among), "epochs": recipe.epochs}
    if watched is not None:
        first = max(at.history, key=lambda epoch: epoch["watched_accuracy"])
        summary["best_on_test"] = {"epoch": first["epoch"], "accuracy": first["watched_accuracy"], "n": size(watched)}
    return summary | ({"best": at.best} if at.best else {})


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


def _step(fabric: Fabric, model: Any, optimizer: Any, batch: dict[str, Tensor], index: list[int], where: str) -> dict[str, float]:
    loss, log = _loss(fabric, model, batch)
    # Gradients are averaged over the processes: the weight makes that the mean over the batch where its last shares differ in size.
    weight = len(next(iter(batch.values()))) * fabric.world_size / len(index)
    logged = _shared(fabric, {"loss": loss, **log}, weight)
    if not math.isfinite(logged["loss"]):  # known to all processes, so that none is left waiting
        raise TrainingError(
            f"the loss is {logged['loss']} in {where} (examples {index[:8]} ...): lower the learning rate, or look at these examples; "
            "the checkpoint stays"
        )
    optimizer.zero_grad()
    fabric.backward(loss if weight == 1 else loss * weight)
    optimizer.step()
    learn = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not math.isfinite(nn.utils.get_total_norm(learn)):  # a finite loss may have a gradient that is not, and be the last
        raise TrainingError(
            f"a weight is not finite after {where} (examples {index[:8]} ...), whose loss was {logged['loss']:.4g}: lower the learning "
            "rate, or look at these examples; the checkpoint stays"
        )
    return logged


def _loss(fabric: Fabric, model: Any, batch: dict[str, Tensor]) -> Loss:
    with fabric.autocast():  # Fabric casts in forward alone, and one process calls a marked method past it
        loss: Loss = model.loss(_ready(fabric, batch))
    return loss


def _ready(fabric: Fabric, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    batch = fabric.to_device(batch)
    if "images" in batch:  # channels_last: a third faster on a CPU
        batch["images"] = as_float(batch["images"]).contiguous(memory_format=torch.channels_last)
    return batch


def _shared(fabric: Fabric, log: Mapping[str, Tensor], weight: float) -> dict[str, float]:
    """What is logged, averaged over the examples of all processes."""
    values = torch.stack([term.detach().double() for term in log.values()]) * weight
    values = cast("Tensor", fabric.all_reduce(values, reduce_op="mean")) if fabric.world_size > 1 else values
    return dict(zip(log, values.tolist(), strict=True))


@torch.no_grad()
def _measure(fabric: Fabric, model: Any, recipe: Recipe, data: Tensors | Dataset, held_out: Tensor, seed: int) -> dict[str, float]:
    """Loss and what the model logs on the held-out images, in eval mode, on one still view of each."""
    model.eval()
    total: dict[str, float] = {}
    for index, batch in batches(data, recipe, seed, 0, among=held_out, still=True, rank=fabric.global_rank, world=fabric.world_size):
        loss, log = _loss(fabric, model, batch)
        weight = len(next(iter(batch.values()))) * fabric.world_size / len(index)
        for key, value in _shared(fabric, {"loss": loss, **log}, weight).items():
            total[f"held_out_{key}"] = total.get(f"held_out_{key}", 0.0) + value * len(index)
    return {key: value / len(held_out) for key, value in total.items()}


def _is_best(at: Progress, value: float, recipe: Recipe) -> bool:
    """Whether the epoch just ended is better than those before it, which it then replaces in ``at``."""
    known = at.best.get(recipe.criterion)
    better = math.isfinite(value) and (known is None or (value > known if recipe.criterion == "accuracy" else value < known))
    at.best = {"epoch": at.epoch - 1, recipe.criterion: value} if better else at.best
    return better


def _postfix(at: Progress, logged: Mapping[str, float]) -> str:
    seen = at.running["images"] + sum(epoch["images"] for epoch in at.history)
    shown = ", ".join(f"{key} {logged[key]:.3g}" for key in ("loss", "accuracy") if key in logged)
    return f"epoch {at.epoch}, {shown}, {seen / max(at.seconds, 1e-9):.0f} images/s"


def _end_epoch(at: Progress, measured: Mapping[str, float]) -> None:
    images = at.running.pop("images")
    means = {key: value / images for key, value in at.running.items()}
    at.history.append({"epoch": at.epoch, "images": images, **means, **measured})
    at.epoch, at.batch, at.running = at.epoch + 1, 0, {}


# --- reading off -----------------------------------------------------------------------------------------------------------------------


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
