"""Do the bright pixels lie on the object? Ranked pixels against boxes, bright area outside them, pixels against a mask."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numba import njit
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cam_core.data import Dataset, Example
from cam_core.metrics.localization import InBoxes
from cam_core.metrics.metric import Annotated, Rate
from cam_core.metrics.statistics import Array, ratio, total
from cam_core.options import one_of

# ---------------------------------------------------------------- pixels against the boxes


class PixelPrecision(InBoxes):
    """Average precision of the pixels of one image against the union of its boxes, mean over images in percent; higher is better.

    By rank, ties together (precision at each distinct value times the gain in recall), so any strictly growing change of the map, such
    as a power, leaves it as it is. Maps [B,H,W] of any range, boxes [n,4] inclusive in map pixels. Rows [B,2]: average precision, and the
    boxes' share of the image, which is what a constant map scores.
    """

    name = "pixel_precision"
    higher_is_better = True

    def _pixels(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> Sequence[float]:
        return ranked_precision(heat, truth), float(truth.mean())


class MaximumInBox(Rate, InBoxes):
    """How often the first maximum in scan order lies inside a box, in percent: pointing without tolerance, in pixels of the view.

    For data without VOC's protocol (`PointingGame`). Maps [B,H,W], boxes [n,4] inclusive in map pixels. Rows [B,2]: hit, and the boxes'
    share of the image, which is what a random point scores. Higher is better.
    """

    name = "maximum_in_box"
    higher_is_better = True

    def _pixels(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> Sequence[float]:
        return float(truth.flat[heat.argmax()]), float(truth.mean())


class FalseActivation(InBoxes):
    """Area above the threshold and outside every box, mean over images in percent; lower is better.

    ``of``: "image" (share of all pixels; a map that shows little wins) or "active" (share of those above the threshold; 0 if there are
    none). Maps [B,H,W] in [0, 1], strictly above ``threshold``; boxes [n,4] inclusive in map pixels. Rows [B,3], shares of the image:
    false, active, boxes.
    """

    name = "false_activation"
    higher_is_better = False

    def __init__(self, threshold: float = 0.2, of: str = "image", protocol: str = "energy") -> None:
        super().__init__(protocol)
        one_of("of", of, ("image", "active"))
        self.threshold, self.of = threshold, of
        self.setting = f"{100 * threshold:g}%" + (" of active" if of == "active" else "")

    @property
    def shares(self) -> Hashable:
        """Both shares use the same areas."""
        return self.name, self.threshold, self.protocol

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        self._refuse_range(maps)
        return super()._measure(maps, boxes)

    def _pixels(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> Sequence[float]:
        active = heat > self.threshold
        return float((active & ~truth).mean()), float(active.mean()), float(truth.mean())

    def each(self, rows: Array) -> Array:
        """The false area."""
        return ratio(rows[:, 0], rows[:, 1]) if self.of == "active" else rows[:, 0]


def ranked_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Average precision in [0, 1] of scores (any shape) for the positive pixels, tied scores taken together; 0 if none is positive."""
    scores, positive = np.asarray(scores).ravel(), np.asarray(positive, bool).ravel()
    order = np.argsort(scores)[::-1]
    hits = positive[order].cumsum(dtype=np.float64)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # where each run of equal scores ends
    return float(ratio((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum(), hits[-1]))


# ---------------------------------------------------------------- pixels against a mask

_EDGES = np.append(np.arange(0, 1, 0.001), 1.0)  # the official thresholds: not exactly i / 1000
_NEXT = np.append(_EDGES[1:], np.inf)
_LOG = 10 ** -np.arange(0, 7, 0.007)[::-1]  # CALM's: 1.0162e-7 to 1
BINS = len(_EDGES)  # even: [t_i, t_i+1) ..., and one for 1 itself; log: the same, and before them one for what lies below the first


def pixel_histogram(scores: ArrayLike, positive: ArrayLike, thresholds: str = "even") -> NDArray[np.int64]:
    """Counts [2, 1001] of the scores in [0, 1] at negative and positive pixels, in the official bins of PxAP.

    ``positive``: one truth value a pixel, or -1 where it is not counted. ``thresholds``: "even", arange(0, 1, .001), or "log", CALM's
    10^-t for t = 0 ... 6.993. Bin 0 of "log" is what lies below 10^-6.993: the official histogram has no such bin and loses those pixels.
    ValueError if a score lies outside.
    """
    scores, truth = np.asarray(scores).ravel(), np.asarray(positive).ravel().astype(np.int8)
    if scores.shape != truth.shape:
        raise ValueError(f"a histogram needs one truth value for each score, got {truth.size} for {scores.size}")
    if thresholds == "log":
        bins = np.searchsorted(_LOG, scores[truth >= 0].astype(np.float64), side="right") + BINS * truth[truth >= 0].astype(np.int64)
        return np.bincount(bins, minlength=2 * BINS).reshape(2, BINS)
    counts = np.zeros((2, BINS), np.int64)
    if not _count(scores, truth, counts):
        raise ValueError("a histogram of PxAP takes scores from 0 to 1; use maps.min_max")
    return counts


@njit(cache=True)
def _count(scores, truth, counts):  # type: ignore[no-untyped-def]
    """Count every score in its bin; False at one outside [0, 1]."""
    for i in range(scores.size):
        score = np.float64(scores[i])
        if truth[i] < 0:
            continue
        if not 0 <= score <= 1:
            return False
        place = int(score * 1000)  # at most one bin off
        if score < _EDGES[place]:
            place -= 1
        elif score >= _NEXT[place]:
            place += 1
        counts[truth[i], place] += 1
    return True


def average_precision(negative: ArrayLike, positive: ArrayLike) -> Array:
    """Pixel average precision [...] in percent of histograms [..., bins]: precision × gain in recall, top bin first; 0 if none positive."""
    negative, positive = np.asarray(negative, np.float64), np.asarray(positive, np.float64)
    found = np.empty(positive.shape[:-1])
    _integrate(negative.reshape(-1, negative.shape[-1]), positive.reshape(-1, positive.shape[-1]), found.reshape(-1))
    return found


@njit(cache=True)
def _integrate(negative, positive, found):  # type: ignore[no-untyped-def]
    """Fill ``found`` from histograms [R,bins], in one pass: the resampled ones of a table do not fit into a cache."""
    for r in range(len(found)):
        hits = seen = area = 0.0
        for b in range(positive.shape[1] - 1, -1, -1):
            seen += negative[r, b] + positive[r, b]
            if positive[r, b] > 0:
                hits += positive[r, b]
                area += hits / seen * positive[r, b]
        found[r] = 100 * area / hits if hits > 0 else 0.0


def pixel_truth(instances: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Int8 [H,W]: 1 in the union of the instance masks [n,H,W], -1 where ``ignore`` [H,W] is set and no instance lies, else 0."""
    truth = (instances > 0.5).any(0)
    neither = torch.zeros_like(truth) if ignore is None else (ignore > 0.5) & ~truth
    return truth.to(torch.int8) - neither.to(torch.int8)


class PxAP(Annotated):
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
    histograms = True

    def truth(self, example: Example, _target: int) -> Tensor | None:
        """The mask; -1 where the data set says that pixels are not counted."""
        whole, ignored = example.segmentation, example.ignored
        return whole if whole is None or ignored is None else pixel_truth(whole[None], ignored)

    def lacking(self, dataset: Dataset) -> str:
        """Masks."""
        held = any(item.segmentation is not None for item in dataset.annotations)
        return super().lacking(dataset) if held else "segmentation masks; take a data set that has (CUB200 with them)"

    def _measure(self, maps: Tensor, masks: Tensor | Sequence[Tensor]) -> Tensor:
        self._refuse_range(maps)
        if len(masks) != len(maps) or any(mask.shape != maps.shape[1:] for mask in masks):
            shapes = sorted({tuple(mask.shape) for mask in masks})
            raise ValueError(
                f"{self.name}: {len(maps)} maps {tuple(maps.shape[1:])} need as many masks of that size, got {len(masks)} {shapes}"
            )
        pairs = zip(maps.detach().cpu().numpy(), masks, strict=True)
        rows = [pixel_histogram(heat, mask.cpu().numpy()).ravel() for heat, mask in pairs]
        return torch.from_numpy(np.array(rows, np.float64).reshape(-1, 2 * BINS))

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Average precision of the summed histograms; 0 for a resample without positive pixels."""
        counts = total(rows, weights)
        if weights is None and not counts[BINS:].any():
            raise ValueError(f"{self.name}: no mask has a positive pixel, so there is no recall to integrate over")
        return average_precision(counts[..., :BINS], counts[..., BINS:])
