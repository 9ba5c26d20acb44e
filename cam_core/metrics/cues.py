"""Cue localization on CUB (CALM): does the difference between the maps of two classes lie on the parts in which the classes differ?"""

from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.data import Example
from cam_core.metrics import localization
from cam_core.metrics.boxes import rescale
from cam_core.metrics.metric import Annotated
from cam_core.metrics.pixels import BINS, average_precision, pixel_histogram
from cam_core.metrics.statistics import Array, ratio, total
from cam_core.options import one_of
from cam_core.protocol import PROTOCOLS

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
    """The cue of one image: class, the part of each pixel (int [H,W]: index in PARTS, -1 outside the bird), the visible parts."""

    label: int
    cells: Tensor
    visible: frozenset[str]


def part_of(attribute: str) -> str | None:
    """The part that an attribute describes, by the words in its name; None for the whole bird.

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


def bird_in_view(mask: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The bird, bool [H,W] of ``size``, of a segmentation uint8 [H0,W0] of the original image, squashed as CALM's release does it.

    Pillow's bicubic resizing, then > 0: in a reduced image a pixel belongs to the bird if any of it does.
    """
    resized = Image.fromarray(mask.cpu().numpy()).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized) > 0)


def cue(label: int, points: Tensor, bird: Tensor) -> Cue:
    """The cue of an image: every pixel of ``bird`` (bool [H,W]) goes to the part of the nearest visible key point.

    ``points`` [15,3] are x, y, visible in pixels of the view, truncated to integers; ties go to the first in the order head, back, belly,
    breast, tail, legs, wings. ``bird`` is `bird_in_view` or, without a segmentation, the bounding box, which makes it another metric
    (`CueLocalization`).
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


THRESHOLDS = ("even", "log")
CALIBRATIONS = ("min_max", "max", "clipping")
VARIANTS = ("zeros kept", "per pair", "released")


class CueLocalization(Annotated):
    """mPxAP: pixel average precision of |s(A) - s(B)| for the parts in which classes A and B differ, mean over pairs, in percent.

    An image is measured for every pair that holds its class and has a differing part visible; its score is the difference of the two
    classes' maps, brought to the cells' size, absolute, calibrated; histograms are summed over the pair's images. Higher is better.

    ``parts`` restricts the mean to pairs with that many differing parts. ``inside`` says how the cells were limited: by the "segmentation"
    or, without one, by the "box", which is recorded as another metric. ``thresholds`` "even" or "log" and ``calibration`` "min_max", "max"
    or "clipping" (none but cutting off at 1) are free in the released code: its README takes log and clipping for CALM. ``variant``, all
    with cells cut as in the release:

    - "zeros kept": a precision for each pair, over all its pixels.
    - "per pair": the same over the binned pixels only: under log thresholds those below 10^-6.993, all exact zeros among them, vanish
      from positives and negatives alike, which flatters sparse maps. Under even thresholds nothing vanishes.
    - "released": as "per pair", but the evaluator is never reset: the value after each pair is that of all pairs so far, in the order of
      ``pairs``, groups of fewer differing parts included; the mean is over these running values. Its CAM is `cam[calm]`, with the bias of
      the class, which s(A) - s(B) keeps.

    Settings that differ in ``parts`` or ``variant`` alone share one measure.

    ``update(maps [B,C,h,w], cues, ids=...)``: raw maps of all classes and one `Cue` per image. Rows [N, 2 + 2·1001], one for each (image,
    pair): position in the batch, pair, counts at negative and at positive pixels; kept under image * len(pairs) + pair.
    """

    protocol = "cue"
    needs = "cue"
    higher_is_better = True
    row_type = torch.float32  # counts of pixels: exact
    histograms = True

    def __init__(
        self,
        pairs: Sequence[ClassPair],
        parts: int | None = None,
        inside: str = "segmentation",
        *,
        thresholds: str = "even",
        calibration: str = "min_max",
        variant: str = "zeros kept",
    ) -> None:
        super().__init__()
        if not any(parts in (None, len(pair.parts)) for pair in pairs):
            raise ValueError(f"no pair of classes differs in {parts or 'any'} parts; class_pairs(...) gave {len(pairs)} pairs")
        one_of("inside", inside, ("segmentation", "box"))
        one_of("thresholds", thresholds, THRESHOLDS)
        one_of("calibration", calibration, CALIBRATIONS)
        one_of("variant", variant, VARIANTS)
        self.pairs, self.parts, self.stride, self.inside = list(pairs), parts, len(pairs), inside
        self.thresholds, self.calibration, self.variant = thresholds, calibration, variant
        self.name = "cue_localization" + ("_box" if inside == "box" else "")
        number = "all pairs" if parts is None else f"{parts} part{'s' if parts > 1 else ''}"
        usual = ((variant, "zeros kept"), (thresholds, "even"), (calibration, "min_max"))
        self.setting = ", ".join([number, *(given for given, default in usual if given != default)])

    @property
    def shares(self) -> Hashable:
        """Metrics that differ only in the number of parts and the variant share a measure."""
        return self.name, tuple(self.pairs), self.thresholds, self.calibration

    def truth(self, example: Example, target: int) -> Cue:
        """The cells of a bird's parts, limited by its segmentation or, without one, by its box."""
        assert example.parts is not None
        size, mask = example.image.shape[-2:], example.official_mask
        bird = localization.inside(PROTOCOLS[self.protocol].boxes(example, target), size) if mask is None else bird_in_view(mask, size)
        return cue(example.label, example.parts, bird)

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
                counts = pixel_histogram(rescale(difference, self.calibration).numpy(), positive, self.thresholds)
                rows.append(np.concatenate([[position, number], counts.ravel()]))
        return torch.from_numpy(np.array(rows, np.float64).reshape(-1, 2 + 2 * BINS))

    def record(self, rows: Tensor, ids: Tensor | Sequence[int] | None = None) -> None:
        """Keep rows [N,...] of a batch whose images are ``ids`` [B]; without ids each row is an image of its own."""
        images = None if ids is None else torch.as_tensor(ids, dtype=torch.int64).cpu()[rows[:, 0].long()]
        super().record(rows, images)

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        super()._keep(torch.where(keys < 0, keys, keys * self.stride + rows[:, 1].long()), rows)

    def counts(self, rows: Array, weights: Array | None = None) -> Iterator[tuple[int, Array, Array]]:
        """For each recorded pair, in order, the counts [..., bins] at negative and at positive pixels from which its value is computed."""
        first = int(self.thresholds == "log" and self.variant != "zeros kept")  # the bin that the official histogram lacks
        running: Array | float = 0.0
        for number in np.unique(rows[:, 1]).astype(int):
            own = rows[:, 1] == number
            counts = total(rows[own, 2:], None if weights is None else weights[:, own])
            if self.variant == "released":
                counts = running = running + counts
            if self.parts in (None, len(self.pairs[number].parts)):
                yield number, counts[..., first:BINS], counts[..., BINS + first :]

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Mean over pairs of the PxAP of the histograms summed over images; pairs without a positive pixel are left out."""
        scores, defined = [], []
        for _, negative, positive in self.counts(rows, weights):
            scores.append(average_precision(negative, positive))
            defined.append(positive.any(-1))
        if not scores:
            raise ValueError(f"{self.name}: no recorded image belongs to a pair with {self.parts or 'some'} differing parts")
        return ratio(np.where(defined, scores, 0).sum(0), np.sum(defined, axis=0))
