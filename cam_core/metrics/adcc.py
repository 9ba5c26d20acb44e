"""Coherency, complexity and ADCC: a method explains an image once more after its own map has masked it."""

import numpy as np
import torch
from torch import Tensor

from cam_core.maps import correlation
from cam_core.metrics.agreement import Explain
from cam_core.metrics.metric import Explaining
from cam_core.metrics.statistics import Array, mean, ratio
from cam_core.options import one_of
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS


class Reexplained(Explaining):
    """The measure that ADCC and its parts share (Poppi et al., CVPRW 2021): one masked pass, one more explanation.

    Maps [B,H,W] in [0, 1] multiply the normalised image (what is lost is the mean colour), and the method explains the result for the
    same class. Rows [B,4]: Y and O, the target's probability without and with the mask; coherency (1 + Pearson(map, second map)) / 2,
    0 where a map is constant; complexity, the map's mean.
    """

    protocol = "adcc"

    @property
    def shares(self) -> str:
        """All three use the same second explanation."""
        return "reexplained"

    def _measure(self, maps: Tensor, probe: Probe, explain: Explain) -> Tensor:
        self._refuse_size(maps, probe)
        self._refuse_range(maps)
        colour = probe.colour(PROTOCOLS[self.protocol].fill)
        second = probe.like(torch.lerp(colour.expand_as(probe.images), probe.images, maps[:, None].to(probe.images)))
        again = explain(second)
        self.refuse(again)
        coherency = ((1 + correlation(maps, again)) / 2).nan_to_num()
        before, after = (probe.of_target(one.probabilities) for one in (probe, second))
        return torch.stack([before, after, coherency, maps.double().mean((1, 2))], 1)


class Coherency(Reexplained):
    """Mean coherency in percent, 0 to 100: does the method give the same map for what its first map shows (higher is better)."""

    name = "coherency"
    higher_is_better = True
    column = 2


class Complexity(Reexplained):
    """Mean complexity in percent, 0 to 100: how much of the image the map shows (lower is better)."""

    name = "complexity"
    higher_is_better = False
    column = 3


class ADCC(Reexplained):
    """Harmonic mean of coherency, 1 - complexity and 1 - average drop, in percent, 0 to 100 (higher is better; 0 if any of them is 0).

    ``averaging`` "images" (the authors' code): of each image, then averaged; "means": of the three means over the images.
    """

    name = "adcc"
    higher_is_better = True

    def __init__(self, averaging: str = "images") -> None:
        super().__init__()
        one_of("averaging", averaging, ("images", "means"))
        self.averaging = averaging
        self.setting = "" if averaging == "images" else "of means"

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """300 / (1/coherency + 1/(1 - complexity) + 1/(1 - drop))."""
        before, after, coherency, complexity = rows.T
        parts = np.stack([coherency, 1 - complexity, 1 - ratio((before - after).clip(0), before)], 1)
        return 100 * (mean(harmonic(parts), weights) if self.averaging == "images" else harmonic(mean(parts, weights)))


def harmonic(parts: Array) -> Array:
    """Harmonic mean over the last dimension, 0 where a part is."""
    positive = np.all(parts > 0, axis=-1, keepdims=True)
    return np.asarray(positive[..., 0] * parts.shape[-1] / (1 / np.where(positive, parts, 1)).sum(-1))
