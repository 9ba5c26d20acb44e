"""Boxes around the bright regions of a map, compared with the object's: MaxBoxAcc and V2, localization error, box IoU."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics import components
from cam_core.metrics.localization import Boxed
from cam_core.metrics.metric import Rate
from cam_core.metrics.statistics import Array, mean
from cam_core.options import one_of
from cam_core.protocol import Explained


def iou(boxes: ArrayLike, others: ArrayLike) -> Array:
    """Intersection over union [m,n] of boxes [m,4] and [n,4], inclusive x0, y0, x1, y1 (a side is x1 - x0 + 1).

    >>> iou([1, 2, 5, 6], [3, 1, 4, 5]) == 8 / 27
    array([[ True]])
    """
    a, b = (np.asarray(each, np.int64).reshape(-1, 4).T for each in (boxes, others))
    sides = [np.clip(np.minimum(a[i + 2, :, None], b[i + 2]) - np.maximum(a[i, :, None], b[i]) + 1, 0, None) for i in (0, 1)]
    overlap = (sides[0] * sides[1]).astype(np.float64)
    area_a, area_b = ((each[2] - each[0] + 1) * (each[3] - each[1] + 1) for each in (a, b))
    return np.asarray(overlap / (area_a[:, None] + area_b - overlap))


def quantize(maps: Tensor, calibration: str = "min_max") -> NDArray[np.uint8]:
    """Maps [...,h,w] as the official evaluator stores them: rescaled, times 255, truncated, in the precision of the map.

    ``calibration``: "min_max" (the benchmark) or "max" (what is below zero cut off, divided by the maximum: CAM's own form); see `rescale`.
    """
    return (rescale(maps, calibration) * 255).to(torch.uint8).cpu().numpy()


def rescale(maps: Tensor, calibration: str) -> Tensor:
    """Maps [...,h,w] brought into [0, 1]: by "min_max", by "max" (divided by the maximum), or by "clipping" alone.

    Values are clipped to [0, 1] afterwards; constant and non-finite maps become zeros (CALM's released code). A map that is negative
    everywhere gives zeros under "max"; the release divides by the negative maximum and gives ones.
    """
    if calibration == "min_max":
        return map_ops.min_max(maps)
    one_of("calibration", calibration, ("min_max", "max", "clipping"))
    top = maps.amax((-2, -1), keepdim=True)
    scaled = maps / torch.where(top > 0, top, 1.0) if calibration == "max" else maps
    return torch.where(map_ops.is_empty(maps)[..., None, None], 0.0, scaled.clamp(0, 1))


def largest_boxes(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The box of the contour with the largest area at each of the 255 levels (MaxBoxAcc V1), [255,4] in the evaluator's convention.

    Among equal areas OpenCV lists first the one whose first pixel comes last. A level without foreground gives [0, 0, 0, 0].
    """
    nodes = components.components(components.fill_holes(image))
    rank = nodes[:, components.AREA] * 2.0**31 + nodes[:, components.FIRST]  # by area, then by the first pixel; exact in float64
    best = components.best_node(nodes, rank)
    boxes = np.zeros((components.LEVELS, 4), np.int64)
    boxes[best >= 0] = _evaluator_boxes(nodes, image)[best[best >= 0]]
    return boxes


def best_iou(image: NDArray[np.uint8], boxes: ArrayLike, single: bool = False) -> Array:
    """Best intersection over union with any of ``boxes`` at each level k (foreground: image > k), [255].

    ``single``: only the contour with the largest area competes (V1), else all contours, holes included (V2).
    """
    if single:
        return np.asarray(iou(largest_boxes(image), boxes).max(1))
    nodes = np.concatenate([components.components(image), components.holes(image)])
    overlap = iou(_evaluator_boxes(nodes, image), boxes).max(1)
    best = components.best_node(nodes, overlap)
    nothing = iou([0, 0, 0, 0], boxes).max()  # the evaluator's result without any contour
    return np.where(best >= 0, overlap[best] if len(overlap) else 0.0, nothing)


def _evaluator_boxes(nodes: components.Nodes, image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Boxes as in the official evaluator: x + w and y + h, which is one pixel too far except at the border, then used as inclusive."""
    boxes = nodes[:, components.X0 : components.Y1 + 1].astype(np.int64)
    boxes[:, 2:] = np.minimum(boxes[:, 2:] + 1, [image.shape[1] - 1, image.shape[0] - 1])
    return boxes


class MaxBoxAcc(Boxed):
    """Share of images (percent) whose largest region's box has an IoU >= 50 % with a ground-truth box, at the best common threshold.

    Choe et al., "Evaluating weakly supervised object localization methods right" (CVPR 2020), the official evaluator to the bit. Maps
    [B,H,W] are min-maxed and quantised here; boxes [n,4] are inclusive x0, y0, x1, y1 in map pixels (the benchmark's own: truncated from
    the official integers). Its 1000 thresholds arange(0, 1, .001) reduce to the levels k = int(threshold * 255) = 0..254. Rows [B,255]:
    best IoU at each level, kept in float32, which still tells an IoU from the limits. A constant map gives the box [0, 0, 0, 0]. Its 95 %
    interval covers the true value in 91 to 92 % of simulations with 30 to 128 images, in 94 % with more (`studies/coverage.py`).
    """

    name = "max_box_acc"
    protocol = "wsol"
    higher_is_better = True
    row_type = torch.float32
    single = True
    limits: tuple[float, ...] = (0.5,)

    def _row(self, heat: Tensor, boxes: Tensor) -> ArrayLike:
        return best_iou(quantize(heat), boxes, self.single)

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · largest share of images, over the levels, with IoU >= limit; mean over the limits."""
        best = [mean(rows >= float(np.float32(limit)), weights).max(-1) for limit in self.limits]
        return np.asarray(100 * np.mean(best, axis=0))


class MaxBoxAccV2(MaxBoxAcc):
    """MaxBoxAcc with every contour (holes included) competing, mean over IoU limits of 30, 50 and 70 %, each at its own best threshold."""

    name = "max_box_acc_v2"
    single = False
    limits = (0.3, 0.5, 0.7)


class _AtThreshold(Boxed):
    """The measure that `LocalizationError` and `BoxIoU` share, whatever their threshold.

    Maps [B,H,W]; boxes [n,4], inclusive x0, y0, x1, y1 in map pixels, one set for each map; ``correct`` bool [B], whether the network's
    prediction is the label. The box is that of the largest region of image > int(threshold · 255) in the official evaluator's convention
    (V1). Measured rows are [B,256]: best IoU with any box at each level, and correct; of these each metric keeps its own level: [B,2].
    """

    needs = "boxes, correct"

    def __init__(self, threshold: float = 0.2, *, calibration: str = "min_max", protocol: str = "wsol") -> None:
        super().__init__(protocol)
        if not 0 <= threshold < 1:
            raise ValueError(f"a threshold is a share of the map's maximum in [0, 1), got {threshold}")
        one_of("calibration", calibration, ("min_max", "max"))
        self.threshold, self.calibration = threshold, calibration
        self.setting = f"{100 * threshold:g}%" + (" of max" if calibration == "max" else "")

    @property
    def shares(self) -> Hashable:
        """All thresholds use the same component tree."""
        return "at threshold", self.calibration, self.protocol

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor], correct: Tensor | Sequence[bool] | None = None) -> Tensor:
        known = torch.ones(len(maps)) if correct is None else torch.as_tensor(correct).cpu()
        if known.shape != (len(maps),):
            raise ValueError(f"{self.name}: correct must be one truth value for each of {len(maps)} maps, got {tuple(known.shape)}")
        return torch.cat([super()._measure(maps, boxes), known[:, None].double()], 1)

    def _row(self, heat: Tensor, boxes: Tensor) -> ArrayLike:
        return best_iou(quantize(heat, self.calibration), boxes, single=True)

    def beside(self, explained: Explained, held: Sequence[int]) -> tuple[Any, ...]:
        """Whether the prediction is the label, if one class per image is explained."""
        predicted = explained.probe.logits.argmax(1).tolist()
        return () if self._several else ([predicted[i] == explained.examples[i].label for i in held],)

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        super()._keep(keys, rows[:, [int(self.threshold * 255), components.LEVELS]])


class LocalizationError(Rate, _AtThreshold):
    """Share of images (percent) whose box at a fixed threshold has an IoU below 50 % with every ground-truth box; lower is better.

    GT-known (``top1`` False) uses the map of the label and only checks the box; top-1 also requires that the prediction is the label, so
    ``correct`` must be passed (if it is correct, the two maps are the same). Thresholds: 0.2 of the maximum (CAM, Zhou et al. 2016), 0.15
    (Grad-CAM; LayerCAM). ``calibration`` "max" is the papers' own "of the maximum" and needs maps that were not rescaled; "min_max" is the
    benchmark's. ``update(maps, boxes, correct)``: see `BoxIoU`. Rows [n,2]: IoU, correct.
    """

    name = "localization_error"
    higher_is_better = False

    def __init__(self, threshold: float = 0.2, *, top1: bool = False, calibration: str = "min_max", protocol: str = "wsol") -> None:
        super().__init__(threshold, calibration=calibration, protocol=protocol)
        self.top1 = top1
        self.setting = ("top-1 " if top1 else "GT-known ") + self.setting

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor], correct: Tensor | Sequence[bool] | None = None) -> Tensor:
        if self.top1 and correct is None:
            raise ValueError(f"{self.name}: top-1 needs correct, whether each prediction is the label; update(maps, boxes, correct)")
        return super()._measure(maps, boxes, correct)

    def each(self, rows: Array) -> Array:
        """IoU < 1/2, or with ``top1`` a wrong prediction."""
        found = rows[:, 0] >= 0.5
        return (~(found & (rows[:, 1] > 0)) if self.top1 else ~found).astype(float)


class BoxIoU(_AtThreshold):
    """Mean IoU, in percent, of the largest region's box at a fixed threshold with the ground-truth box it fits best; higher is better.

    ``update(maps [B,H,W], boxes)`` with boxes [n,4], inclusive x0, y0, x1, y1 in map pixels. Rows [n,2]: IoU, correct (1 if not asked).
    """

    name = "box_iou"
    higher_is_better = True
