"""How the class probability changes when the image is masked by the map."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics.metric import Metric, Rate
from cam_core.metrics.statistics import Array, common, ratio, total, wilson
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS, Explained


class Masked(Metric):
    """The measure that Average Drop, Increase in Confidence, Average Gain and the map's mean share: one masked pass.

    L-CAM's form: maps [B,H,W] in [0, 1] at image size; all but the highest ``keep`` of the pixels are set to 0 (`maps.top_fraction`; the
    others keep their values); the image in [0, 1] is multiplied by the map and the rest filled with ``fill``: "black" or "mean" colour, by
    default the protocol's. Rows [B,3]: Y and O, the probability of the probe's target without and with the mask, and the mean of the map
    that was multiplied; [B,4] if ``labels`` [B] are given and none is -1: how many classes score above the label under the mask
    (`CorrectUnderMask`).

    ``protocol`` "score_cam" with ``keep`` 0.5 is the form of Score-CAM's tables (half of the pixels go).
    """

    def __init__(self, keep: float = 1.0, fill: str | None = None, protocol: str = "l_cam") -> None:
        super().__init__()
        self.keep, self.fill, self.protocol = keep, fill or PROTOCOLS[protocol].fill, protocol
        if self.fill is None:
            raise ValueError(f'{self.name}: the protocol {protocol!r} has no fill for masked pixels; pass fill="black" or "mean"')
        named = [f"{100 * keep:g}%", *([] if self.fill == "black" else [f"{self.fill} fill"]), *([] if protocol == "l_cam" else [protocol])]
        self.setting = " ".join(named)

    @property
    def shares(self) -> Hashable:
        """Metrics with the same ``keep``, ``fill`` and protocol share one masked pass."""
        return "masked", self.keep, self.fill, self.protocol

    def measured(self, maps: Tensor, explained: Explained) -> tuple[Sequence[int], Tensor]:
        """`measure` with the labels of the examples."""
        return explained.ids, self.measure(maps, explained.probe, [example.label for example in explained.examples])

    def _measure(self, maps: Tensor, probe: Probe, labels: Tensor | Sequence[int] | None = None) -> Tensor:
        self._refuse_size(maps, probe)
        self._refuse_range(maps)
        shown = map_ops.top_fraction(maps, self.keep)
        logits = probe.score_masked(shown[:, None].to(probe.images.dtype), probe.colour(self.fill))[:, 0]
        masked = probe.classifier.probabilities(logits.double())
        before, after = probe.of_target(probe.probabilities), probe.of_target(masked)
        rows = [before, after, shown.double().mean((-2, -1)).to(before.device)]
        if labels is not None and bool((label := torch.as_tensor(labels)[:, None].to(masked.device)).min() >= 0):
            rows.append((masked > masked.gather(1, label)).sum(1).double())
        return torch.stack(rows, 1)


class AverageDrop(Masked):
    """Mean of max(0, Y - O) / Y in percent (Grad-CAM++; lower is better). A map that hides little wins: read `MapMean` beside it."""

    name = "average_drop"
    higher_is_better = False

    def each(self, rows: Array) -> Array:
        """max(0, Y - O) / Y."""
        return ratio((rows[:, 0] - rows[:, 1]).clip(0), rows[:, 0])


class IncreaseInConfidence(Rate, Masked):
    """Share of images with O > Y, strictly, in percent (higher is better). Its interval is Wilson's."""

    name = "increase_in_confidence"
    higher_is_better = True

    def each(self, rows: Array) -> Array:
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
    """Mean of the map that was multiplied, in percent: how much of the image it shows. Read AD, IC and AG together with it."""

    name = "map_mean"
    higher_is_better = None
    column = 2


class CorrectUnderMask(Rate, Masked):
    """Share of images whose label is among the first ``k`` classes under the mask, in percent (higher is better).

    L-CAM's script prints it for 1 and 5. The label is the ground truth, whatever class the map explains; Y and O are of the prediction.
    ``update(maps, probe, labels)``; ValueError where none are given, or one is -1.
    """

    needs = "label"
    higher_is_better = True
    column = 3

    def __init__(self, keep: float = 1.0, k: int = 1, **options: Any) -> None:
        super().__init__(keep, **options)
        self.k, self.name = k, f"top_{k}_masked"

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        if rows.shape[1] <= self.column:
            raise ValueError(f"{self.name}: an image of several classes has no one label (-1): leave this metric out for such data")
        super()._keep(keys, rows)

    def each(self, rows: Array) -> Array:
        """Fewer than ``k`` classes above the label."""
        return (rows[:, self.column] < self.k).astype(float)


class Wins(NamedTuple):
    """In percent of ``n`` images: how often the first drop is smaller, with Wilson's interval, and how often both are equal."""

    value: float
    low: float
    high: float
    ties: float
    n: int


def wins(first: Metric, second: Metric, level: float = 0.95) -> Wins:
    """Win % (Grad-CAM++): how often ``first`` loses strictly less confidence than ``second``, on the images of both.

    Of two `Masked` metrics. Ties (mostly images without any drop) count for neither; the wins of both and the ties add up to 100.
    """
    if first.shares != second.shares:
        raise ValueError(f"win: one method was measured at {first.setting} and the other at {second.setting}; compare equal settings")
    _, a, b = common(first.per_image(), second.per_image())
    smaller, larger = (AverageDrop().each(rows) for rows in (a, b))
    won, n = int((smaller < larger).sum()), len(a)
    low, high = wilson(won, n, level)
    return Wins(100 * won / n, low, high, 100 * float((smaller == larger).mean()), n)
