"""Does a map stay when it should: the agreement of two trainings' maps, beside that of maps of different images (LFI-CAM)."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics.metric import Metric
from cam_core.metrics.statistics import Array, mean, ratio


def mask_iou(first: ArrayLike, second: ArrayLike) -> Array:
    """Intersection over union [...] of masks bool [...,h,w]; 0 where both are empty, for maps that say nothing do not agree."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    return ratio((a & b).sum((-2, -1)), (a | b).sum((-2, -1)))


def script_iou(first: ArrayLike, second: ArrayLike, threshold: int = 100) -> Array:
    """LFI-CAM's released "IoU" [...] of maps [...,h,w] in [0, 1], quirks kept; beside the published figures, and nowhere else.

    Maps become 256 times their value in uint8, so that 1 wraps round to 0 and the brightest pixel drops out; what lies above ``threshold``
    is compared row by row, over three equal channels, smoothed by 1e-6, and averaged: a row that is empty in both scores 1.
    """
    a, b = (((np.asarray(m) * 256).astype(np.int64) % 256 > threshold) for m in (first, second))
    both, either = (3 * pixels.sum(-1) for pixels in (a & b, a | b))
    return np.asarray(((both + 1e-6) / (either + 1e-6)).mean(-1))


def top_area(maps: ArrayLike, area: float) -> NDArray[np.bool_]:
    """Bool [...,h,w]: the round(area · pixels) highest pixels of each map [...,h,w], the first in scan order among equals."""
    heat = np.asarray(maps)
    flat = heat.reshape(*heat.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")[..., : round(area * flat.shape[-1])]
    chosen = np.zeros(flat.shape, bool)
    np.put_along_axis(chosen, order, True, -1)
    return chosen.reshape(heat.shape)


def correlation(first: ArrayLike, second: ArrayLike) -> Array:
    """Pearson's correlation [...] of maps [...,h,w], in [-1, 1]; 0 where one of them is constant."""
    a, b = (np.asarray(m, np.float64) for m in (first, second))
    still = (np.ptp(a, (-2, -1)) == 0) | (np.ptp(b, (-2, -1)) == 0)
    a, b = (m - m.mean((-2, -1), keepdims=True) for m in (a, b))
    found = ratio((a * b).sum((-2, -1)), np.sqrt((a**2).sum((-2, -1)) * (b**2).sum((-2, -1))))
    return np.where(still, 0.0, found.clip(-1, 1))


class Stability(Metric):
    """Agreement of the maps that two trainings give the same image (LFI-CAM's stability), mean over images.

    ``kind``: "iou", of the pixels strictly above ``threshold`` (LFI-CAM: 100 of 255); "iou_script", the value of its released script
    (`script_iou`); "iou_area", of each map's highest ``area`` of the pixels, which a larger spot does not improve; "correlation". IoUs are
    percentages, the correlation lies in [-1, 1]. Higher is better.

    An IoU depends on the spots' area and on where objects use to lie, so each value stands beside that of maps of different images:
    ``of`` "pair", "shuffled" or "excess" (pair minus shuffled), which share one measure. ``update(maps, others, strangers)``: maps
    [B,H,W] in [0, 1] of one training, of another one for the same images, and of the other one for other images (`partners`).
    Rows [B,2]: agreement with the other, with the stranger.
    """

    needs = "maps of another training, the same of other images"
    higher_is_better = True

    def __init__(
        self, kind: str = "iou", of: str = "pair", *, threshold: float = 100 / 255, area: float = 0.2, protocol: str = "energy"
    ) -> None:
        super().__init__()
        if kind not in ("iou", "iou_script", "iou_area", "correlation") or of not in ("pair", "shuffled", "excess"):
            raise ValueError(
                f"stability is the iou, iou_script, iou_area or correlation of a pair, shuffled or its excess; got {kind}, {of}"
            )
        self.kind, self.of, self.threshold, self.area, self.protocol = kind, of, threshold, area, protocol
        self.name = f"stability_{kind}"
        detail = {"iou": f"> {threshold:.3g}", "iou_area": f"{100 * area:g}% area"}.get(kind, "")
        self.setting = ", ".join(part for part in (detail, "" if of == "pair" else of) if part)

    @property
    def shares(self) -> Hashable:
        """The pair, the shuffled and the excess come from one comparison."""
        return self.kind, self.threshold, self.area, self.protocol

    def _measure(self, maps: Tensor, others: Tensor, strangers: Tensor) -> Tensor:
        for other in (others, strangers):
            if maps.ndim != 3 or other.shape != maps.shape:
                raise ValueError(f"{self.name}: both trainings' maps must be [B,H,W] alike, got {tuple(maps.shape)}, {tuple(other.shape)}")
            if not torch.isfinite(other).all():
                raise ValueError(f"{self.name}: a map of the other training contains NaN or infinity; pass it through maps.min_max")
        if (
            maps.numel()
            and not 0 <= min(m.amin() for m in (maps, others, strangers)) <= max(m.amax() for m in (maps, others, strangers)) <= 1
        ):
            raise ValueError(f"{self.name}: maps must lie in [0, 1]; use maps.min_max")
        own = maps.detach().cpu().numpy()
        return torch.from_numpy(np.stack([self._compare(own, other.detach().cpu().numpy()) for other in (others, strangers)], 1))

    def _compare(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> Array:
        if self.kind == "iou":
            return 100 * mask_iou(first > self.threshold, second > self.threshold)
        if self.kind == "iou_script":
            return 100 * script_iou(first, second)
        if self.kind == "iou_area":
            return 100 * mask_iou(top_area(first, self.area), top_area(second, self.area))
        return correlation(first, second)

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Mean of the agreement with the same image's map, with a stranger's, or of the first minus the second."""
        column = {"pair": rows[:, 0], "shuffled": rows[:, 1], "excess": rows[:, 0] - rows[:, 1]}[self.of]
        return mean(column, weights)


def partners(count: int, seed: int = 0) -> NDArray[np.int64]:
    """For each of ``count`` images another one, each image once: neighbours on a shuffled ring, so that none meets itself. [count]"""
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

    LFI-CAM's order: min-max at native resolution, then bilinear (``size`` None: not resized).
    """
    if first.ndim != 3 or first.shape[0] != second.shape[0]:
        raise ValueError(f"both trainings must explain the same images, [N,h,w] each; got {tuple(first.shape)} and {tuple(second.shape)}")
    kinds = ("iou", "iou_script", "iou_area", "correlation")
    metrics = {kind: [Stability(kind, of) for of in ("pair", "shuffled", "excess")] for kind in kinds}
    other = torch.from_numpy(partners(len(first), seed))
    numbers = torch.arange(len(first)) if ids is None else torch.as_tensor(ids)

    def finish(raw: Tensor) -> Tensor:
        return map_ops.min_max(raw) if size is None else map_ops.upsample(map_ops.min_max(raw), size)

    for part in torch.arange(len(first)).split(batch):
        compared = finish(first[part]), finish(second[part]), finish(second[other[part]])
        for same in metrics.values():
            rows = same[0].measure(*compared)
            for metric in same:
                metric.record(rows, numbers[part])
    return [metric for same in metrics.values() for metric in same]
