"""Does a map know what the network would lose without a part? FunnyBirds' scores (Hesse, Schaub-Meyer & Roth, ICCV 2023).

The truth is causal: the parts of an object are drawn away, one by one and in every combination, and the very network that is explained is
asked again (`Removal`). Read in the authors' repository (visinf/funnybirds-framework); what differs here:

- The masks of the parts grow by one pixel at 112 x 112 (there two at 256 x 256).
- A part's share is taken of the positive part of the map, which for maps >= 0 is the same; signed maps have no useful sum.
- A map without any order (constant over the parts) counts as no correlation; there the image is skipped.
- An image on which the network is wrong is left out of every score; there of the controlled check alone.
- Target sensitivity asks about every pair of other classes for which its assumption holds; there about the first one that is found.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.data import Example
from cam_core.metrics.metric import Annotated
from cam_core.metrics.statistics import Array, mean, ratio, total

THRESHOLDS = np.linspace(0.01, 0.5, 80)  # of the share above which a part counts as important
RELEVANT = 0.05  # of the logit: what loses less was irrelevant


@dataclass(frozen=True)
class Removal:
    """What a network answers to one image with parts, and things behind the object, drawn away.

    ``parts`` [P,H,W] and ``around`` [Q,H,W], bool: their visible pixels. ``logits`` [2^P,C]: row s is the answer without the parts p
    whose bit 2^p is set in s, so that row 0 is that to the image itself. ``around_logits`` [Q,C]: without one thing behind. ``sufficient``:
    the smallest sets of parts that tell the class from all others.
    """

    parts: Tensor
    logits: Array
    around: Tensor
    around_logits: Array
    sufficient: Sequence[Sequence[int]] = ()

    @property
    def prediction(self) -> int:
        """The class that the image gets with all its parts."""
        return int(self.logits[0].argmax())

    def without(self, parts: Sequence[int]) -> Array:
        """The logits [C] without these parts."""
        return np.asarray(self.logits[sum(1 << part for part in parts)])

    def falls(self, sets: Sequence[Sequence[int]], target: int) -> Array:
        """How much the logit of ``target`` falls without each set of parts."""
        return np.array([self.logits[0, target] - self.without(one)[target] for one in sets])

    def falls_around(self, target: int) -> Array:
        """How much the logit of ``target`` falls without each thing behind the object, [Q]."""
        return np.asarray(self.logits[0, target] - self.around_logits[:, target])


def within(heat: Tensor, masks: Tensor) -> Array:
    """The sum of maps [...,H,W] in each of the masks [P,H,W], which grow by a pixel: float64 [...,P]."""
    grown = F.max_pool2d(masks.double()[:, None], 3, stride=1, padding=1)[:, 0] if len(masks) else masks.double()
    return np.asarray(torch.einsum("...hw,phw->...p", heat.detach().cpu().double(), grown).numpy())


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's correlation, 0 where one of the two is constant."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm else 0.0


class _OfParts(Annotated):
    """Maps against the `Removal` of their image: ``removals`` has one for each image id, of the network that is explained.

    ``update(maps, removals)``: maps [B,H,W] of the masks' size, signed, of the predicted class.
    """

    protocol = "parts"
    needs = "removal"
    higher_is_better: bool | None = True

    def __init__(self, removals: Mapping[str, Removal] | None = None) -> None:
        super().__init__()
        self.removals = removals or {}

    def truth(self, example: Example, target: int) -> Removal | None:
        """The removal of an image that the network gets right; None for the others."""
        removal = self.removals.get(example.image_id)
        return removal if removal is not None and removal.prediction == target else None

    def _measure(self, maps: Tensor, removals: Sequence[Removal]) -> Tensor:
        for heat, removal in zip(maps, removals, strict=True):
            if heat.shape[-2:] != removal.parts.shape[-2:]:
                size = tuple(removal.parts.shape[-2:])
                raise ValueError(f"{self.name}: maps must have the size of the parts' masks {size}, got {tuple(heat.shape[-2:])}")
        return torch.from_numpy(np.array([self._row(heat, removal) for heat, removal in zip(maps, removals, strict=True)], np.float64))

    def _row(self, heat: Tensor, removal: Removal) -> Array:
        raise NotImplementedError


class SingleDeletion(_OfParts):
    """Rank correlation of the map's sum in each part with the logit's fall without it, (1 + rho) / 2 in percent; 50 is chance.

    The mean over images; FunnyBirds' correctness. A map of ones has the order of the parts' areas.
    """

    name = "single_deletion"
    size = 1

    def _row(self, heat: Tensor, removal: Removal) -> Array:
        own = within(heat, removal.parts)
        sets = list(combinations(range(len(own)), self.size))
        return np.array([rank_correlation(own[np.array(sets)].sum(1), removal.falls(sets, removal.prediction))])

    def each(self, rows: Array) -> Array:
        """(1 + rho) / 2."""
        return (1 + rows[:, 0]) / 2


class PairDeletion(SingleDeletion):
    """The same over every pair of parts (ours): does the map add up where parts replace each other?"""

    name = "pair_deletion"
    size = 2


class _Important(_OfParts):
    """The measure of completeness and its four parts: which parts, and things behind, hold more than a share of the map.

    Rows [B,4,80] over `THRESHOLDS`: controlled check, preservation, deletion, distractibility. As in the paper, one threshold for each
    method, at which completeness is highest; it is chosen again in each resample.
    """

    column = 0

    @property
    def shares(self) -> Hashable:
        """All five use the same rows."""
        return "important parts", id(self.removals)

    def _row(self, heat: Tensor, removal: Removal) -> Array:
        whole = float(heat.detach().double().relu().sum())
        share, behind = (ratio(within(heat, masks), whole) for masks in (removal.parts, removal.around))
        target, parts = removal.prediction, range(len(share))
        falls = np.concatenate([removal.falls([[part] for part in parts], target), removal.falls_around(target)])
        irrelevant = falls < RELEVANT * abs(removal.logits[0, target])
        rows = np.empty((4, len(THRESHOLDS)))
        for number, threshold in enumerate(THRESHOLDS):
            important = [part for part in parts if share[part] > threshold]
            others = [part for part in parts if part not in important]
            held = [len({*one} & {*important}) / len(one) for one in removal.sufficient]
            named = np.concatenate([share, behind]) > threshold
            rows[:, number] = (
                max(held, default=0.0),
                int(removal.without(others).argmax()) == target,
                int(removal.without(important).argmax()) != target,
                1 - float(ratio((named & irrelevant).sum(), irrelevant.sum())),
            )
        return rows

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """The mean of this score at the threshold of the highest completeness, in percent."""
        means = mean(rows, weights)  # [...,4,80]
        complete = (means[..., :3, :].mean(-2) + means[..., 3, :]) / 2
        best = complete.argmax(-1, keepdims=True)
        return 100 * np.take_along_axis(self._at(means, complete), best, -1)[..., 0]

    def _at(self, means: Array, _complete: Array) -> Array:
        return means[..., self.column, :]


class ControlledCheck(_Important):
    """Controlled synthetic data check: the share of a smallest sufficient set of parts (the best one) that the map calls important."""

    name = "controlled_check"


class PreservationCheck(_Important):
    """How often the prediction stays when all parts go that the map does not call important."""

    name = "preservation_check"
    column = 1


class DeletionCheck(_Important):
    """How often the prediction changes when the parts go that the map calls important."""

    name = "deletion_check"
    column = 2


class Distractibility(_Important):
    """The share of irrelevant parts and things behind that the map does *not* call important. A map that calls nothing so is perfect."""

    name = "distractibility"
    column = 3


class Completeness(_Important):
    """The mean of distractibility and the mean of the three checks, as FunnyBirds sums them up."""

    name = "completeness"

    def _at(self, _means: Array, complete: Array) -> Array:
        return complete


class BackgroundIndependence(_OfParts):
    """The share of things behind the object without which the logit loses less than 5 %: of the network, whatever the map."""

    name = "background_independence"
    higher_is_better = None

    def _row(self, _heat: Tensor, removal: Removal) -> Array:
        target = removal.prediction
        falls = removal.falls_around(target)
        return np.array([(falls < RELEVANT * abs(removal.logits[0, target])).sum(), len(falls)])

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Irrelevant things over things, in percent."""
        return 100 * ratio(total(rows[:, 0], weights), total(rows[:, 1], weights))


class TargetSensitivity(_OfParts):
    """Do the maps of two other classes each favour the parts that speak for their class (contrastivity)? In percent of trials.

    ``same`` [C,C,P] bool: whether two classes look alike in a part. For an image of class k and classes a, b, S_a are the parts that k
    shares with a and not with b. The network must agree: without S_a, a's logit falls more than without S_b, and the other way round. Then
    a's map must have more in S_a than b's map has, and b's more in S_b than a's. A map that is the same for all classes scores 0.

    ``update(maps [B,C,H,W], removals)``: signed maps of all classes.
    """

    name = "target_sensitivity"
    protocol = "part_classes"

    def __init__(self, removals: Mapping[str, Removal] | None = None, same: Tensor | None = None) -> None:
        super().__init__(removals)
        self.same = torch.zeros(0, 0, 0, dtype=torch.bool) if same is None else same

    def _measure(self, maps: Tensor, removals: Sequence[Removal]) -> Tensor:
        sized = [map_ops.upsample(heat, removal.parts.shape[-2:]) for heat, removal in zip(maps, removals, strict=True)]
        return super()._measure(torch.stack(sized), removals)

    def _row(self, heat: Tensor, removal: Removal) -> Array:
        own, label, same = within(heat, removal.parts), removal.prediction, self.same.numpy()
        hits = trials = 0
        for a, b in combinations([c for c in range(len(same)) if c != label], 2):
            for_a, for_b = same[label, a] & ~same[label, b], same[label, b] & ~same[label, a]
            if not (for_a.any() and for_b.any()):
                continue
            sets = [np.flatnonzero(for_a).tolist(), np.flatnonzero(for_b).tolist()]
            (a_without_a, a_without_b), (b_without_a, b_without_b) = (removal.falls(sets, c) for c in (a, b))
            if a_without_a > a_without_b and b_without_b > b_without_a:
                trials += 2
                hits += int(own[a, for_a].sum() > own[b, for_a].sum()) + int(own[b, for_b].sum() > own[a, for_b].sum())
        return np.array([hits, trials])

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """The mean over the images that have trials."""
        return 100 * ratio(total(ratio(rows[:, 0], rows[:, 1]), weights), total(rows[:, 1] > 0, weights))
