"""Is a map stable when it should be: agreement of the maps of two trainings, compared with that of maps of different images (LFI-CAM)."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics.metric import Metric
from cam_core.metrics.statistics import Array, ratio
from cam_core.options import one_of


def mask_iou(first: ArrayLike, second: ArrayLike) -> Array:
    """Intersection over union [...] of masks bool [...,h,w]; 0 if both are empty, since empty maps do not count as agreement."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    return ratio((a & b).sum((-2, -1)), (a | b).sum((-2, -1)))


def mask_dice(first: ArrayLike, second: ArrayLike) -> Array:
    """Dice's coefficient, twice the intersection over the sum of the areas [...], of masks bool [...,h,w]; 0 where both are empty."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    return ratio(2 * (a & b).sum((-2, -1)), a.sum((-2, -1)) + b.sum((-2, -1)))


def script_mask(maps: ArrayLike, threshold: int = 100) -> NDArray[np.bool_]:
    """The bright pixels by LFI-CAM's release, bool [...,h,w], of maps [...,h,w] in [0, 1] at image size.

    The map is written as an 8-bit picture (255 times its value, rounded), read back, min-maxed over the picture, and becomes 256 times
    that, cut off, in 8 bits: what shares the picture's maximum becomes 256, wraps round to 0 and is dark. A constant picture is 0.
    """
    picture = np.rint(np.asarray(maps) * 255).astype(np.int64)
    picture -= picture.min((-2, -1), keepdims=True)
    stretched = 256 * picture // np.maximum(picture.max((-2, -1), keepdims=True), 1)
    bright: NDArray[np.bool_] = stretched % 256 > threshold
    return bright


def script_agreement(first: ArrayLike, second: ArrayLike, threshold: int = 100, *, dice: bool = False) -> Array:
    """LFI-CAM's released "IoU", or "Dice", [...] of maps [...,h,w] in [0, 1], errors included; only to compare with its published figures.

    The masks of `script_mask` are compared row by row, over three equal channels, smoothed by 1e-6, and averaged: a row that is empty in
    both has an IoU of 1 and a Dice of 2.
    """
    a, b = script_mask(first, threshold), script_mask(second, threshold)
    both, areas = 3 * (a & b).sum(-1), 3 * (a.sum(-1) + b.sum(-1))
    rows = 2 * (both + 1e-6) / (areas + 1e-6) if dice else (both + 1e-6) / (areas - both + 1e-6)
    return np.asarray(rows.mean(-1))


def top_area(maps: ArrayLike, area: float) -> NDArray[np.bool_]:
    """Bool [...,h,w]: the round(area · pixels) highest pixels of each map [...,h,w], the first in scan order among equals."""
    heat = np.asarray(maps)
    flat = heat.reshape(*heat.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")[..., : round(area * flat.shape[-1])]
    chosen = np.zeros(flat.shape, bool)
    np.put_along_axis(chosen, order, True, -1)
    return chosen.reshape(heat.shape)


KINDS = ("iou", "iou_script", "iou_area", "dice", "dice_script", "correlation")


class Stability(Metric):
    """Agreement of the maps that two trainings give the same image (LFI-CAM's stability), mean over images.

    ``kind``: "iou" and "dice", of the pixels strictly above ``threshold`` (LFI-CAM: 100 of 255); "iou_script" and "dice_script", the values
    of its released script (`script_agreement`); "iou_area", of each map's highest ``area`` of the pixels, which a larger spot does not
    increase; "correlation". All but the correlation, which lies in [-1, 1], are percentages (the script's Dice up to 200). Higher is
    better.

    An IoU depends on the area of the spots and on where objects usually lie, so each value is compared with that of maps of different
    images: ``of`` "pair", "shuffled" or "excess" (pair minus shuffled), which share one measure. ``update(maps, others, strangers)``: maps
    [B,H,W] in [0, 1] of one training, of another one for the same images, and of the other one for other images (`partners`). Rows [B,2]:
    agreement with the other, with the stranger.
    """

    needs = "maps of another training, the same of other images"
    unit = 1
    higher_is_better = True

    def __init__(
        self, kind: str = "iou", of: str = "pair", *, threshold: float = 100 / 255, area: float = 0.2, protocol: str = "energy"
    ) -> None:
        super().__init__()
        one_of("kind", kind, KINDS)
        one_of("of", of, ("pair", "shuffled", "excess"))
        self.kind, self.of, self.threshold, self.area, self.protocol = kind, of, threshold, area, protocol
        self.name = f"stability_{kind}"
        detail = {**dict.fromkeys(("iou", "dice"), f"> {threshold:.3g}"), "iou_area": f"{100 * area:g}% area"}.get(kind, "")
        self.setting = ", ".join(part for part in (detail, "" if of == "pair" else of) if part)

    @property
    def shares(self) -> Hashable:
        """Pair, shuffled and excess share one comparison."""
        return self.kind, self.threshold, self.area, self.protocol

    def _measure(self, maps: Tensor, others: Tensor, strangers: Tensor) -> Tensor:
        for other in (others, strangers):
            if maps.ndim != 3 or other.shape != maps.shape:
                raise ValueError(f"{self.name}: both trainings' maps must be [B,H,W] alike, got {tuple(maps.shape)}, {tuple(other.shape)}")
            self.refuse(other)
        for one in (maps, others, strangers):
            self._refuse_range(one)
        own, *both = (one.detach().cpu() for one in (maps, others, strangers))
        return torch.from_numpy(np.stack([self._compare(own, other) for other in both], 1))

    def _compare(self, one: Tensor, other: Tensor) -> Array:
        if self.kind == "correlation":
            return map_ops.correlation(one, other).nan_to_num().numpy()
        first, second = one.numpy(), other.numpy()
        if self.kind in ("iou", "dice"):
            return 100 * {"iou": mask_iou, "dice": mask_dice}[self.kind](first > self.threshold, second > self.threshold)
        if self.kind.endswith("_script"):
            return 100 * script_agreement(first, second, dice=self.kind == "dice_script")
        return 100 * mask_iou(top_area(first, self.area), top_area(second, self.area))

    def each(self, rows: Array) -> Array:
        """The agreement with the same image's map, with a stranger's, or the first minus the second."""
        return {"pair": rows[:, 0], "shuffled": rows[:, 1], "excess": rows[:, 0] - rows[:, 1]}[self.of]


def partners(count: int, seed: int = 0) -> NDArray[np.int64]:
    """For each of ``count`` images another one, each image once: the next on a shuffled ring. [count]"""
    if count < 2:
        raise ValueError(f"shuffling needs at least two images, got {count}")
    ring = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, np.int64)
    other[ring] = np.roll(ring, -1)
    return other


def map_stability(
    first: Tensor, second: Tensor, size: tuple[int, int] | None = None, *, seed: int = 0, batch: int = 64, ids: Sequence[int] | None = None
) -> list[Stability]:
    """All kinds of `Stability`, recorded: raw maps [N,h,w] of two trainings for the same N images, min-maxed and brought to ``size``.

    LFI-CAM's order: min-max at native resolution, then bilinear (``size`` None: not resized). The released script has no min-max before it
    resizes: where both trainings' maps lie in [0, 1], as LFI-CAM's and ABN's do, "iou_script" and "dice_script" resize them as they are.
    """
    if first.ndim != 3 or first.shape[0] != second.shape[0]:
        raise ValueError(f"both trainings must explain the same images, [N,h,w] each; got {tuple(first.shape)} and {tuple(second.shape)}")
    metrics = {kind: [Stability(kind, of) for of in ("pair", "shuffled", "excess")] for kind in KINDS}
    other = torch.from_numpy(partners(len(first), seed))
    numbers = torch.arange(len(first)) if ids is None else torch.as_tensor(ids)
    as_written = all(0 <= float(maps.amin()) <= float(maps.amax()) <= 1 for maps in (first, second))

    def resized(maps: Tensor) -> Tensor:
        return maps if size is None else map_ops.upsample(maps, size)

    for part in torch.arange(len(first)).split(batch):
        raw = first[part], second[part], second[other[part]]
        stretched = [resized(map_ops.min_max(maps)) for maps in raw]
        written = [resized(maps) for maps in raw] if as_written else stretched
        for kind, same in metrics.items():
            rows = same[0].measure(*(written if kind.endswith("_script") else stretched))
            for metric in same:
                metric.record(rows, numbers[part])
    return [metric for same in metrics.values() for metric in same]
