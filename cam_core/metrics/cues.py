"""Cue localization on CUB (CALM): does the difference of two classes' maps lie on the parts in which the classes differ?"""

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics.localization import BINS, average_precision, pixel_histogram
from cam_core.metrics.metric import Metric
from cam_core.metrics.statistics import Array, ratio, total

PARTS = ("head", "back", "belly", "breast", "tail", "leg", "wing")
_HEAD_WORDS = ("bill", "crown", "eye", "forehead", "head", "nape", "throat")
# CUB's key points (numbered from 1 in parts.txt) of each part; the head is one point, their mean, every other key point stands for itself
_HEAD_POINTS = (2, 5, 6, 7, 10, 11, 15)
_OTHER_POINTS = ((1, "back"), (3, "belly"), (4, "breast"), (14, "tail"), (8, "leg"), (12, "leg"), (9, "wing"), (13, "wing"))


class ClassPair(NamedTuple):
    """Two classes (indices, first < second) and the parts (of `PARTS`) in which their attributes differ."""

    first: int
    second: int
    parts: frozenset[str]


class Cue(NamedTuple):
    """What one image offers: class, the part of each pixel (int [H,W]: index in PARTS, -1 outside the bird), the visible parts."""

    label: int
    cells: Tensor
    visible: frozenset[str]


def part_of(attribute: str) -> str | None:
    """The part an attribute speaks of, by the words in its name; None for the whole bird.

    >>> part_of("has_bill_shape::dagger"), part_of("has_under_tail_color::red"), part_of("has_size::small_(5_-_9_in)")
    ('head', 'tail', None)
    """
    if any(word in attribute for word in _HEAD_WORDS):
        return "head"
    return next((part for part in PARTS[1:] if part in attribute), None)


def class_pairs(attributes: ArrayLike, names: Sequence[str], counts: Collection[int] = (1, 2, 3)) -> list[ClassPair]:
    """Pairs of classes that differ in ``counts`` parts, by that number, then in order of the classes.

    ``attributes`` [C,A] are percentages (present from 50 on), ``names`` [A]. All 200 classes of CUB give 31, 64 and 96 pairs.
    """
    present = np.asarray(attributes) >= 50
    if present.ndim != 2 or present.shape[1] != len(names):
        raise ValueError(f"attributes must be [classes, {len(names)}], as many columns as names, got {present.shape}")
    parts = np.array([part_of(name) or "" for name in names])
    pairs = [
        ClassPair(first, second, frozenset(parts[present[first] != present[second]]) - {""})
        for first in range(len(present))
        for second in range(first + 1, len(present))
    ]
    return sorted((pair for pair in pairs if len(pair.parts) in counts), key=lambda pair: len(pair.parts))


def cue(label: int, points: Tensor, bird: Tensor) -> Cue:
    """The cue of an image: every pixel of ``bird`` (bool [H,W]) goes to the part of the nearest visible key point.

    ``points`` [15,3] are x, y, visible in pixels of the view, truncated to integers; ties go to the first in the order head, back, belly,
    breast, tail, legs, wings. Where no segmentation exists, ``bird`` is the bounding box and the metric is another one (`CueLocalization`).
    """
    if points.shape != (15, 3) or bird.ndim != 2:
        raise ValueError(f"a cue needs points [15,3] and a mask [H,W], got {tuple(points.shape)} and {tuple(bird.shape)}")
    xyv = points.double().cpu().numpy()
    head = [xyv[i - 1, :2] for i in _HEAD_POINTS if xyv[i - 1, 2] > 0]
    seen = [("head", np.mean(head, axis=0))] if head else []
    seen += [(part, xyv[i - 1, :2]) for i, part in _OTHER_POINTS if xyv[i - 1, 2] > 0]
    cells = torch.full(bird.shape, -1, dtype=torch.int8)
    if seen:
        y, x = np.ogrid[: bird.shape[0], : bird.shape[1]]
        distance = np.stack([(x - int(px)) ** 2 + (y - int(py)) ** 2 for _, (px, py) in seen])
        owner = np.array([PARTS.index(part) for part, _ in seen], np.int8)[distance.argmin(0)]
        cells = torch.where(bird.cpu() > 0, torch.from_numpy(owner), cells)
    return Cue(label, cells, frozenset(part for part, _ in seen))


class CueLocalization(Metric):
    """mPxAP: pixel average precision of |s(A) - s(B)| for the parts in which classes A and B differ, mean over pairs, in percent.

    The per-pair form (the released evaluator is never reset between pairs): an image is measured for every pair that holds its class and
    has a differing part visible; its score is the difference of the two classes' maps, brought to the cells' size, absolute, min-maxed;
    histograms with even thresholds are summed over the pair's images (zeros kept). Higher is better.

    ``parts`` restricts the mean to pairs with that many differing parts; all settings share one measure. ``inside`` names what the cells
    were cut at: "segmentation", or "box" where segmentations are missing, which is recorded as another metric.
    ``update(maps [B,C,h,w], cues, ids=...)``: raw maps of all classes and one `Cue` per image. Rows [N, 2 + 2·1001], one for each (image,
    pair): position in the batch, pair, counts at negative and at positive pixels; kept under image * len(pairs) + pair.
    """

    protocol = "cue"
    needs = "cue"
    higher_is_better = True
    row_type = torch.float32  # counts of pixels: exact

    def __init__(self, pairs: Sequence[ClassPair], parts: int | None = None, inside: str = "segmentation") -> None:
        super().__init__()
        if not any(parts in (None, len(pair.parts)) for pair in pairs):
            raise ValueError(f"no pair of classes differs in {parts or 'any'} parts; class_pairs(...) gave {len(pairs)} pairs")
        if inside not in ("segmentation", "box"):
            raise ValueError(f'cells are cut at the "segmentation" or the "box", got {inside!r}')
        self.pairs, self.parts, self.stride = list(pairs), parts, len(pairs)
        self.name = "cue_localization" + ("_box" if inside == "box" else "")
        self.setting = "all pairs" if parts is None else f"{parts} part{'s' if parts > 1 else ''}"

    @property
    def shares(self) -> Hashable:
        """The same pairs, whatever their number of parts."""
        return self.name, tuple(self.pairs)

    def _measure(self, maps: Tensor, cues: Sequence[Cue]) -> Tensor:
        if maps.ndim != 4 or len(maps) != len(cues):
            raise ValueError(f"{self.name}: maps must be [B,C,h,w] with one cue per image, got {tuple(maps.shape)} and {len(cues)} cues")
        rows = []
        for position, (scores, (label, cells, visible)) in enumerate(zip(maps.detach().cpu(), cues, strict=True)):
            for number, (first, second, differing) in enumerate(self.pairs):
                if label not in (first, second) or not differing & visible:
                    continue
                difference = map_ops.upsample(scores[first] - scores[second], cells.shape).abs()
                positive = np.isin(cells.cpu().numpy(), [PARTS.index(part) for part in differing])
                counts = pixel_histogram(map_ops.min_max(difference).numpy(), positive)
                rows.append(np.concatenate([[position, number], counts.ravel()]))
        return torch.from_numpy(np.array(rows, np.float64).reshape(-1, 2 + 2 * BINS))

    def record(self, rows: Tensor, ids: Tensor | Sequence[int] | None = None) -> None:
        """Keep rows [N,...] of a batch whose images are ``ids`` [B]; without ids each row is an image of its own."""
        images = None if ids is None else torch.as_tensor(ids, dtype=torch.int64).cpu()[rows[:, 0].long()]
        super().record(rows, images)

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        if len(rows):
            super()._keep(torch.where(keys < 0, keys, keys * self.stride + rows[:, 1].long()), rows)

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Mean over pairs of the PxAP of the histograms summed over images; pairs without a positive pixel are left out."""
        numbers = rows[:, 1]
        scores, defined = [], []
        for number in np.unique(numbers):
            if self.parts not in (None, len(self.pairs[int(number)].parts)):
                continue
            own = numbers == number
            counts = total(rows[own, 2:], None if weights is None else weights[:, own])
            negative, positive = counts[..., :BINS], counts[..., BINS:]
            scores.append(average_precision(negative, positive))
            defined.append(positive.any(-1))
        if not scores:
            raise ValueError(f"{self.name}: no recorded image belongs to a pair with {self.parts} differing parts")
        return ratio(np.where(defined, scores, 0).sum(0), np.sum(defined, axis=0))

    def by_pair(self) -> dict[ClassPair, tuple[float, int]]:
        """For each pair with a positive pixel: its PxAP in percent and its number of images."""
        _, rows = self.per_image()
        found: dict[ClassPair, tuple[float, int]] = {}
        for number in np.unique(rows[:, 1]).astype(int):
            own = rows[rows[:, 1] == number, 2:]
            counts: NDArray[np.float64] = own.sum(0)
            if counts[BINS:].any():
                found[self.pairs[number]] = (float(average_precision(counts[:BINS], counts[BINS:])), len(own))
        return found
