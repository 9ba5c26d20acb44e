"""Does the map point at the object: energy in the box, the maximum, boxes round the bright regions; pixels against a box or a mask."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics import components
from cam_core.metrics.metric import Metric
from cam_core.metrics.statistics import Array, mean, ratio, total, wilson
from cam_core.protocol import PROTOCOLS

# ---------------------------------------------------------------- energy and pointing


def inside(boxes: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bool [H,W]: pixels in the union of ``boxes`` [n,4], inclusive x0, y0, x1, y1."""
    mask = torch.zeros(tuple(size), dtype=torch.bool)
    for x0, y0, x1, y1 in boxes.tolist():
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def _checked(boxes: Sequence[Tensor], count: int, size: Sequence[int], name: str) -> list[Tensor]:
    """Boxes as int64 [n,4]; ValueError unless there is one non-empty set per map, inside it."""
    if len(boxes) != count:
        raise ValueError(f"{name}: got {count} maps and {len(boxes)} sets of boxes; pass one [n,4] tensor for each map")
    whole = [torch.as_tensor(box).cpu().long().reshape(-1, 4) for box in boxes]
    for number, box in enumerate(whole):
        if not len(box):
            raise ValueError(f"{name}: map {number} has no box; leave such images out")
        if bool((box < 0).any() | (box[:, :2] > box[:, 2:]).any() | (box[:, 2:] >= torch.tensor([size[1], size[0]])).any()):
            raise ValueError(
                f"{name}: boxes of map {number} are not inclusive x0, y0, x1, y1 in pixels of a {size[0]} x {size[1]} map: {box.tolist()}"
            )
    return whole


class EnergyPointingGame(Metric):
    """Share of the map's energy that lies inside the union of the boxes, in percent (Score-CAM; higher is better).

    Maps [B,H,W] must be >= 0; boxes [n,4] are inclusive x0, y0, x1, y1 in map pixels. Rows [B,2]: energy inside, energy in all.
    A map without energy counts 0 and is reported by `empty`. Under ``protocol`` "energy_present" every class with a box is a row of its
    own, with the boxes of that class, kept under image * stride + class.
    """

    name = "energy_pointing_game"
    needs = "boxes"
    higher_is_better = True

    def __init__(self, protocol: str = "energy") -> None:
        super().__init__()
        self.protocol = protocol
        self.stride = 1000 if PROTOCOLS[protocol].target == "present" else 1

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        if maps.numel() and float(maps.amin()) < 0:
            raise ValueError(f"{self.name}: maps must be >= 0, got {float(maps.amin()):.4g}; rescale them with maps.min_max")
        size = maps.shape[-2:]
        masks = [inside(box, size) for box in _checked(boxes, len(maps), size, self.name)]
        energy = maps.detach().cpu().double()
        return torch.stack([torch.stack([(m * mask).sum(), m.sum()]) for m, mask in zip(energy, masks, strict=True)])

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(energy inside / energy)."""
        return 100 * mean(ratio(rows[:, 0], rows[:, 1]), weights)

    def empty(self) -> int:
        """How many of the recorded maps have no energy at all."""
        return int((self.per_image()[1][:, 1] == 0).sum())


class Present(NamedTuple):
    """A class present in an image: index, all its boxes [n,4] (inclusive, 0-based, original pixels), whether the pair counts as hard."""

    label: int
    boxes: Tensor
    hard: bool = False


def points_at(point: tuple[float, float], boxes: ArrayLike, tolerance: float = 15) -> bool:
    """Whether some pixel of the boxes [n,4] (inclusive) lies strictly nearer than ``tolerance`` pixels to ``point`` (x, y)."""
    x, y = point
    x0, y0, x1, y1 = np.asarray(boxes).reshape(-1, 4).T
    dx, dy = np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0)
    return bool((dx**2 + dy**2 < tolerance**2).any())


class PointingGame(Metric):
    """How often the map's maximum falls on the class, mean over classes in percent (Zhang et al. 2016, TorchRay's protocol).

    One trial per (image, class present); pairs whose objects are all `difficult` are no trials: pass none. Maps come at the size of the
    original image: a tensor or a list of [H,W], one for each `Present` in ``points``. The first maximum in scan order hits if it is
    strictly nearer than ``tolerance`` pixels to a pixel of the class's boxes. Rows [n,3]: class, hit, hard. ``hard_only``: only hard pairs.
    The mean is over the classes that have a trial (TorchRay counts a class without any as 0; on all of VOC2007 there is none).
    Ids are those of the images; an image's classes are told apart, and drawn together by the bootstrap. Higher is better.
    """

    name = "pointing_game"
    protocol = "pointing"
    needs = "points"
    higher_is_better = True
    stride = 1000

    def __init__(self, tolerance: float = 15, hard_only: bool = False) -> None:
        super().__init__()
        self.tolerance, self.hard_only = tolerance, hard_only
        self.setting = f"{tolerance:g}px" + (" difficult" if hard_only else "")

    @property
    def shares(self) -> Hashable:
        """All pairs and the hard ones come from the same trials."""
        return self.name, self.tolerance

    def _measure(self, maps: Tensor | Sequence[Tensor], points: Sequence[Present]) -> Tensor:
        if len(maps) != len(points):
            raise ValueError(f"{self.name}: got {len(maps)} maps for {len(points)} (image, class) pairs; pass one map for each")
        rows = []
        for one, present in zip(maps, points, strict=True):
            heat = one.detach().cpu().numpy()
            [boxes] = _checked([present.boxes], 1, heat.shape, self.name)
            y, x = divmod(int(heat.argmax()), heat.shape[1])
            rows.append([present.label, points_at((x, y), boxes, self.tolerance), present.hard])
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        super()._keep(torch.where(keys < 0, keys, keys * self.stride + rows[:, 0].long().cpu()), rows)

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean over classes of hits / trials."""
        trial = rows[:, :1] == np.unique(rows[:, 0])  # [n, classes]
        if self.hard_only:
            trial = trial & (rows[:, 2:] > 0)
        trials = total(trial, weights)
        share = ratio(total(trial * rows[:, 1:2], weights), trials)
        return 100 * ratio(share.sum(-1), (trials > 0).sum(-1))


# ---------------------------------------------------------------- boxes round the bright regions


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
    """Maps [...,h,w] as the official evaluator stores them: rescaled, 255 times the value, truncated, in the map's own precision.

    ``calibration``: "min_max" (the benchmark) or "max" (what is below zero cut off, divided by the maximum: CAM's own form); see `rescale`.
    """
    return (rescale(maps, calibration) * 255).to(torch.uint8).cpu().numpy()


def rescale(maps: Tensor, calibration: str) -> Tensor:
    """Maps [...,h,w] brought into [0, 1]: by "min_max", by "max" (divided by the maximum), or by "clipping" alone.

    Cut off at 0 and 1 afterwards; constant and non-finite maps become zeros under each (CALM's released code, section 2).
    """
    if calibration == "min_max":
        return map_ops.min_max(maps)
    if calibration not in ("max", "clipping"):
        raise ValueError(f"maps are calibrated by min_max, max or clipping, got {calibration!r}")
    top = maps.amax((-2, -1), keepdim=True)
    scaled = maps / torch.where(top > 0, top, 1.0) if calibration == "max" else maps
    return torch.where(map_ops.is_empty(maps)[..., None, None], 0.0, scaled.clamp(0, 1))


def largest_boxes(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The box of the contour with the largest area at each of the 255 levels (MaxBoxAcc V1), [255,4] in the evaluator's convention.

    Among equal areas OpenCV lists first the one whose first pixel comes last. A level without foreground gives [0, 0, 0, 0].
    """
    nodes = components.components(components.fill_holes(image))
    rank = nodes[:, components.AREA] * 2.0**31 + nodes[:, components.FIRST]  # the area decides, then the first pixel; exact in float64
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
    nothing = iou([0, 0, 0, 0], boxes).max()  # what the evaluator says where it finds no contour
    return np.where(best >= 0, overlap[best] if len(overlap) else 0.0, nothing)


def _evaluator_boxes(nodes: components.Nodes, image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Boxes as the official evaluator takes them: x + w and y + h, one pixel too far except at the border, and then used inclusively."""
    boxes = nodes[:, components.X0 : components.Y1 + 1].astype(np.int64)
    boxes[:, 2:] = np.minimum(boxes[:, 2:] + 1, [image.shape[1] - 1, image.shape[0] - 1])
    return boxes


class MaxBoxAcc(Metric):
    """Share of images (percent) whose largest region's box has an IoU >= 50 % with a ground-truth box, at the best common threshold.

    Choe et al., "Evaluating weakly supervised object localization methods right" (CVPR 2020), the official evaluator to the bit. Maps
    [B,H,W] are min-maxed and quantised here; boxes [n,4] are inclusive x0, y0, x1, y1 in map pixels (the benchmark's own: truncated from
    the official integers). Its 1000 thresholds arange(0, 1, .001) reduce to the levels k = int(threshold * 255) = 0..254. Rows [B,255]:
    best IoU at each level, kept in float32, which still tells an IoU from the limits. A constant map gives the box [0, 0, 0, 0].
    """

    name = "max_box_acc"
    protocol = "wsol"
    needs = "boxes"
    higher_is_better = True
    row_type = torch.float32
    single = True
    limits: tuple[float, ...] = (0.5,)

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        whole = _checked(boxes, len(maps), maps.shape[-2:], self.name)
        rows = [best_iou(image, box, self.single) for image, box in zip(quantize(maps), whole, strict=True)]
        return torch.from_numpy(np.array(rows).reshape(-1, components.LEVELS))

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · largest share of images, over the levels, with IoU >= limit; mean over the limits."""
        best = [mean(rows >= float(np.float32(limit)), weights).max(-1) for limit in self.limits]
        return np.asarray(100 * np.mean(best, axis=0))


class MaxBoxAccV2(MaxBoxAcc):
    """MaxBoxAcc with every contour (holes included) competing, mean over IoU limits of 30, 50 and 70 %, each at its own best threshold."""

    name = "max_box_acc_v2"
    single = False
    limits = (0.3, 0.5, 0.7)


class _AtThreshold(Metric):
    """The measure that `LocalizationError` and `BoxIoU` share, whatever their threshold.

    Maps [B,H,W]; boxes [n,4], inclusive x0, y0, x1, y1 in map pixels, one set for each map; ``correct`` bool [B], whether the network's
    prediction is the label. The box is that of the largest region of image > int(threshold · 255) in the official evaluator's convention
    (V1). Measured rows are [B,256]: best IoU with any box at each level, and correct; of these each metric keeps its own level: [B,2].
    """

    needs = "boxes, correct"

    def __init__(self, threshold: float = 0.2, *, calibration: str = "min_max", protocol: str = "wsol") -> None:
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"a threshold is a share of the map's maximum in [0, 1), got {threshold}")
        if calibration not in ("min_max", "max"):
            raise ValueError(f"a map is calibrated by min_max or by max before it is thresholded, got {calibration!r}")
        self.threshold, self.calibration, self.protocol = threshold, calibration, protocol
        self.stride = 1000 if PROTOCOLS[protocol].target == "present" else 1
        self.setting = f"{100 * threshold:g}%" + (" of max" if calibration == "max" else "")

    @property
    def shares(self) -> Hashable:
        """One component tree serves every threshold."""
        return "at threshold", self.calibration, self.protocol

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor], correct: Tensor | Sequence[bool] | None = None) -> Tensor:
        whole = _checked(boxes, len(maps), maps.shape[-2:], self.name)
        known = torch.ones(len(maps)) if correct is None else torch.as_tensor(correct).cpu()
        if known.shape != (len(maps),):
            raise ValueError(f"{self.name}: correct must be one truth value for each of {len(maps)} maps, got {tuple(known.shape)}")
        rows = [best_iou(image, box, single=True) for image, box in zip(quantize(maps, self.calibration), whole, strict=True)]
        return torch.cat([torch.from_numpy(np.array(rows).reshape(-1, components.LEVELS)), known[:, None].double()], 1)

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        super()._keep(keys, rows[:, [int(self.threshold * 255), components.LEVELS]])


class LocalizationError(_AtThreshold):
    """Share of images (percent) whose box at a fixed threshold has an IoU below 50 % with every ground-truth box; lower is better.

    GT-known (``top1`` False) shows the map of the label and asks for the box alone; top-1 also wants the prediction to be the label, so
    ``correct`` must be handed over (where it is, the two maps are the same). Thresholds: 0.2 of the maximum (CAM, Zhou et al. 2016), 0.15
    (Grad-CAM; LayerCAM). ``calibration`` "max" is the papers' own "of the maximum" and wants maps that were not rescaled before; after
    "min_max", the benchmark's, the two agree. ``update(maps, boxes, correct)``: see `BoxIoU`. Rows [n,2]: IoU, correct.
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

    def _wrong(self, rows: Array) -> NDArray[np.bool_]:
        found = rows[:, 0] >= 0.5
        return ~(found & (rows[:, 1] > 0)) if self.top1 else ~found

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · share(IoU < 1/2, or with ``top1`` a wrong prediction)."""
        return 100 * mean(self._wrong(rows), weights)

    def interval(self, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Wilson's interval of the rate; where an image has several rows, its classes, images are resampled."""
        if self.stride > 1:
            return super().interval(level, resamples, seed)
        _, rows = self.per_image()
        return wilson(int(self._wrong(rows).sum()), len(rows), level)


class BoxIoU(_AtThreshold):
    """Mean IoU, in percent, of the largest region's box at a fixed threshold with the ground-truth box it fits best; higher is better.

    ``update(maps [B,H,W], boxes)`` with boxes [n,4], inclusive x0, y0, x1, y1 in map pixels. Rows [n,2]: IoU, correct (1 if not asked).
    """

    name = "box_iou"
    higher_is_better = True

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(IoU)."""
        return 100 * mean(rows[:, 0], weights)


# ---------------------------------------------------------------- pixels against the boxes


class _InBoxes(Metric):
    """Pixels against the union of the boxes; under "energy_present" every class with a box is a row of its own (`EnergyPointingGame`)."""

    needs = "boxes"

    def __init__(self, protocol: str = "energy") -> None:
        super().__init__()
        self.protocol = protocol
        self.stride = 1000 if PROTOCOLS[protocol].target == "present" else 1

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        whole = _checked(boxes, len(maps), maps.shape[-2:], self.name)
        rows = [self._row(one.numpy(), inside(box, one.shape).numpy()) for one, box in zip(maps.detach().cpu(), whole, strict=True)]
        return torch.from_numpy(np.array(rows, np.float64).reshape(len(maps), -1))

    def _row(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> Sequence[float]:
        raise NotImplementedError


class PixelPrecision(_InBoxes):
    """Average precision of the pixels of one image against the union of its boxes, mean over images in percent; higher is better.

    By rank, ties together (precision at each distinct value times the gain in recall), so any strictly growing change of the map, such
    as a power, leaves it as it is. Maps [B,H,W] of any range, boxes [n,4] inclusive in map pixels. Rows [B,2]: average precision, and the
    boxes' share of the image, which is what a constant map scores (`chance`).
    """

    name = "pixel_precision"
    higher_is_better = True

    def _row(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> Sequence[float]:
        return ranked_precision(heat, truth), float(truth.mean())

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(average precision)."""
        return 100 * mean(rows[:, 0], weights)

    def chance(self) -> float:
        """What a map without content scores on the recorded images, in percent."""
        return float(100 * mean(self.per_image()[1][:, 1]))


class MaximumInBox(_InBoxes):
    """How often the first maximum in scan order lies inside a box, in percent: pointing without tolerance, in pixels of the view.

    What data without VOC's protocol (`PointingGame`) can be asked. Maps [B,H,W], boxes [n,4] inclusive in map pixels. Rows [B,2]: hit, and
    the boxes' share of the image, which is what a random point scores. Higher is better.
    """

    name = "maximum_in_box"
    higher_is_better = True

    def _row(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> Sequence[float]:
        return float(truth.flat[heat.argmax()]), float(truth.mean())

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(hit)."""
        return 100 * mean(rows[:, 0], weights)


class FalseActivation(_InBoxes):
    """Area above the threshold and outside every box, mean over images in percent; lower is better.

    ``of``: "image" (of all pixels; a map that shows little wins) or "active" (of those above the threshold; none above counts 0).
    Maps [B,H,W] in [0, 1], strictly above ``threshold``; boxes [n,4] inclusive in map pixels. Rows [B,3], shares of the image: false,
    active, boxes.
    """

    name = "false_activation"
    higher_is_better = False

    def __init__(self, threshold: float = 0.2, of: str = "image", protocol: str = "energy") -> None:
        super().__init__(protocol)
        if of not in ("image", "active"):
            raise ValueError(f'{self.name}: the area is a share "of" the "image" or of what is "active", got {of!r}')
        self.threshold, self.of = threshold, of
        self.setting = f"{100 * threshold:g}%" + (" of active" if of == "active" else "")

    @property
    def shares(self) -> Hashable:
        """Both shares come from the same areas."""
        return self.name, self.threshold, self.protocol

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        _unit(maps, self.name)
        return super()._measure(maps, boxes)

    def _row(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> Sequence[float]:
        active = heat > self.threshold
        return float((active & ~truth).mean()), float(active.mean()), float(truth.mean())

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(false area)."""
        return 100 * mean(ratio(rows[:, 0], rows[:, 1]) if self.of == "active" else rows[:, 0], weights)


def ranked_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Average precision in [0, 1] of scores (any shape) for the positive pixels, tied scores taken together; 0 if none is positive."""
    scores, positive = np.asarray(scores).ravel(), np.asarray(positive, bool).ravel()
    order = np.argsort(scores)[::-1]
    hits = positive[order].cumsum(dtype=np.float64)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # where each run of equal scores ends
    return float(ratio((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum(), hits[-1]))


def _unit(maps: Tensor, name: str) -> None:
    if maps.numel() and not 0.0 <= float(maps.amin()) <= float(maps.amax()) <= 1.0:
        raise ValueError(f"{name}: maps must lie in [0, 1], got {float(maps.amin()):.4g} to {float(maps.amax()):.4g}; use maps.min_max")


# ---------------------------------------------------------------- pixels against a mask

_EDGES = np.append(np.arange(0, 1, 0.001), 1.0)  # the official thresholds: not exactly i / 1000
_NEXT = np.append(_EDGES[1:], np.inf)
_LOG = 10 ** -np.arange(0, 7, 0.007)[::-1]  # CALM's: 1.0162e-7 to 1
BINS = len(_EDGES)  # even: [t_i, t_i+1) ..., and one for 1 itself; log: the same, and before them one for what lies below the first


def pixel_histogram(scores: ArrayLike, positive: ArrayLike, thresholds: str = "even") -> NDArray[np.int64]:
    """Counts [2, 1001] of the scores in [0, 1] at negative and positive pixels, in the official bins of PxAP.

    ``thresholds``: "even", arange(0, 1, .001), or "log", CALM's 10^-t for t = 0 ... 6.993. Bin 0 of "log" is what lies below 10^-6.993: the
    official histogram has no such bin and loses those pixels.
    """
    scores = np.asarray(scores, np.float64).ravel()
    if thresholds == "log":
        bins = np.searchsorted(_LOG, scores, side="right")
    else:
        bins = (scores * 1000).astype(np.int64)  # off by at most one from the bin between the true edges
        bins -= scores < _EDGES[bins]
        bins += scores >= _NEXT[bins]
    return np.bincount(bins + BINS * np.asarray(positive, bool).ravel(), minlength=2 * BINS).reshape(2, BINS)


def average_precision(negative: ArrayLike, positive: ArrayLike) -> Array:
    """Pixel average precision [...] in percent of histograms [..., bins]: precision × gain in recall, top bin first; 0 if none positive."""
    negative, positive = np.asarray(negative, np.float64)[..., ::-1], np.asarray(positive, np.float64)[..., ::-1]
    hits, seen = positive.cumsum(-1), (positive + negative).cumsum(-1)
    return 100 * ratio((ratio(hits, seen) * positive).sum(-1), hits[..., -1])


def pixel_truth(instances: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Int8 [H,W]: 1 in the union of the instance masks [n,H,W], -1 where ``ignore`` [H,W] is set and no instance lies, else 0."""
    truth = (instances > 0.5).any(0)
    neither = torch.zeros_like(truth) if ignore is None else (ignore > 0.5) & ~truth
    return truth.to(torch.int8) - neither.to(torch.int8)


class PxAP(Metric):
    """Pixel average precision against masks, in percent: one curve for all pixels of all images (Choe et al. 2020, the official evaluator).

    Maps [B,H,W] in [0, 1] at the masks' size (the WSOL finishing: bicubic, then min-max); masks [B,H,W]: 1 object, 0 background, -1 not
    counted (`pixel_truth`). Histograms over even thresholds are summed over the images (a micro average), integration without
    interpolation. Rows [B, 2·1001]: counts at negative and at positive pixels, exact in float32. Higher is better; a constant map scores
    the share of the object's pixels.
    """

    name = "pxap"
    protocol = "wsol"
    needs = "masks"
    higher_is_better = True
    row_type = torch.float32

    def _measure(self, maps: Tensor, masks: Tensor | Sequence[Tensor]) -> Tensor:
        _unit(maps, self.name)
        if len(masks) != len(maps) or any(mask.shape != maps.shape[1:] for mask in masks):
            shapes = sorted({tuple(mask.shape) for mask in masks})
            raise ValueError(
                f"{self.name}: {len(maps)} maps {tuple(maps.shape[1:])} need as many masks of that size, got {len(masks)} {shapes}"
            )
        rows = []
        for heat, mask in zip(maps.detach().cpu().numpy(), masks, strict=True):
            truth = mask.cpu().numpy()
            counted = truth >= 0
            rows.append(pixel_histogram(heat[counted], truth[counted] > 0).ravel())
        return torch.from_numpy(np.array(rows, np.float64).reshape(-1, 2 * BINS))

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Average precision of the summed histograms; 0 in a resample without a positive pixel."""
        counts = total(rows, weights)
        if weights is None and not counts[BINS:].any():
            raise ValueError(f"{self.name}: no mask has a positive pixel, so there is no recall to integrate over")
        return average_precision(counts[..., :BINS], counts[..., BINS:])
