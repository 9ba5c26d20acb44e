"""How the class probability answers when the image is shown through the map."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics.metric import Metric, Rate
from cam_core.metrics.statistics import Array, common, mean, ratio, total, wilson
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS


def check_mask(name: str, maps: Tensor, images: Tensor) -> None:
    """ValueError, in the name of a metric, unless maps [B,H,W] can mask ``images``: one for each, of their size, in [0, 1]."""
    if maps.shape != (len(images), *images.shape[-2:]):
        raise ValueError(f"{name}: maps must have the images' size {tuple(images.shape[-2:])}, got {tuple(maps.shape)}; finish them first")
    if maps.numel() and not 0.0 <= float(maps.amin()) <= float(maps.amax()) <= 1.0:
        raise ValueError(f"{name}: maps must lie in [0, 1], got {float(maps.amin()):.4g} to {float(maps.amax()):.4g}; use maps.min_max")


class Masked(Metric):
    """The measure that Average Drop, Increase in Confidence, Average Gain and the map's mean share: one masked pass.

    L-CAM's form: maps [B,H,W] in [0, 1] at image size; all but the highest ``keep`` of the pixels are muted (`maps.top_fraction`, the
    survivors keep their soft values); the image in [0, 1] is multiplied by the map, what is lost is ``fill``: "black" or "mean" colour, by
    default the protocol's.
    Rows [B,3]: Y and O, the probability of the probe's target without and with the mask, and the mean of the map that was multiplied; [B,4]
    where ``labels`` [B] are handed over (`CorrectUnderMask`): how many classes stand above the label under the mask.

    ``protocol`` "score_cam" with ``keep`` 0.5 is the form of Score-CAM's tables (half of the pixels go).
    """

    needs = "probe"

    def __init__(self, keep: float = 1.0, fill: str | None = None, protocol: str = "l_cam") -> None:
        super().__init__()
        self.keep, self.fill, self.protocol = keep, fill or PROTOCOLS[protocol].fill or "black", protocol
        named = [f"{100 * keep:g}%", *([] if self.fill == "black" else [f"{self.fill} fill"]), *([] if protocol == "l_cam" else [protocol])]
        self.setting = " ".join(named)

    @property
    def shares(self) -> Hashable:
        """One masked pass serves all metrics with the same ``keep`` and ``fill`` under one protocol."""
        return "masked", self.keep, self.fill, self.protocol

    def _measure(self, maps: Tensor, probe: Probe, labels: Tensor | Sequence[int] | None = None) -> Tensor:
        check_mask(self.name, maps, probe.images)
        shown = map_ops.top_fraction(maps, self.keep)
        masked = probe.score_masked(shown[:, None].to(probe.images.dtype), self.fill)[:, 0].double().softmax(1)
        column = probe.targets[:, None]
        before, after = probe.probabilities.double().gather(1, column)[:, 0], masked.gather(1, column)[:, 0]
        rows = [before, after, shown.double().mean((-2, -1)).to(before.device)]
        if labels is not None:
            label = torch.as_tensor(labels, device=masked.device)[:, None]
            if bool((label < 0).any()):
                raise ValueError(f"{self.name}: an image of several classes has no one label (-1): leave this metric out for such data")
            rows.append((masked > masked.gather(1, label)).sum(1).double())
        return torch.stack(rows, 1)


class AverageDrop(Masked):
    """Mean of max(0, Y - O) / Y in percent (Grad-CAM++; lower is better). Hiding little wins: read `MapMean` beside it."""

    name = "average_drop"
    higher_is_better = False

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(max(0, Y - O) / Y)."""
        before, after = rows[:, 0], rows[:, 1]
        return 100 * mean(ratio((before - after).clip(0), before), weights)


class IncreaseInConfidence(Rate, Masked):
    """Share of images with O > Y, strictly, in percent (higher is better). Its interval is Wilson's."""

    name = "increase_in_confidence"
    higher_is_better = True

    def hits(self, rows: Array) -> Array:
        """O > Y."""
        return (rows[:, 1] > rows[:, 0]).astype(float)


class AverageGain(Masked):
    """Mean of max(0, O - Y) / (1 - Y) in percent (Opti-CAM; higher is better); images with Y = 1 cannot gain and are left out."""

    name = "average_gain"
    higher_is_better = True

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(max(0, O - Y) / (1 - Y))."""
        before, after = rows[:, 0], rows[:, 1]
        gain = ratio((after - before).clip(0), 1 - before)
        return 100 * ratio(total(gain, weights), total(before < 1, weights))


class MapMean(Masked):
    """Mean of the map that was multiplied, in percent: how much of the image it lets through. AD, IC and AG must be read beside it."""

    name = "map_mean"
    higher_is_better = None

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean of the map."""
        return 100 * mean(rows[:, 2], weights)


class CorrectUnderMask(Rate, Masked):
    """Share of images whose label is among the first ``k`` classes under the mask, in percent (higher is better).

    L-CAM's script prints it for 1 and 5. The label is the ground truth, whatever class the map explains; Y and O are of the prediction.
    ``update(maps, probe, labels)``; ValueError where a label is -1.
    """

    needs = "label"
    higher_is_better = True
    column = 3

    def __init__(self, keep: float = 1.0, k: int = 1, **options: Any) -> None:
        super().__init__(keep, **options)
        self.k, self.name = k, f"top_{k}_masked"

    def hits(self, rows: Array) -> Array:
        """Fewer than ``k`` classes above the label."""
        return (rows[:, self.column] < self.k).astype(float)


class Wins(NamedTuple):
    """In percent of ``n`` images: how often the first drop is the smaller one, with Wilson's interval, and how often both are equal."""

    value: float
    low: float
    high: float
    ties: float
    n: int


def wins(first: Masked, second: Masked, level: float = 0.95) -> Wins:
    """Win % (Grad-CAM++): how often ``first`` loses strictly less confidence than ``second``, on the images of both.

    Ties (mostly images that lose nothing under either) count for neither and are reported. Wins of both and ties add up to 100.
    """
    if first.shares != second.shares:
        raise ValueError(f"win: one method was measured at {first.setting} and the other at {second.setting}; compare equal settings")
    _, a, b = common(first.per_image(), second.per_image())
    smaller, larger = (ratio((rows[:, 0] - rows[:, 1]).clip(0), rows[:, 0]) for rows in (a, b))
    won, n = int((smaller < larger).sum()), len(a)
    low, high = wilson(won, n, level)
    return Wins(100 * won / n, low, high, 100 * float((smaller == larger).mean()), n)
