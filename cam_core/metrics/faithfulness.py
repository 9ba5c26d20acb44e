"""How the class probability answers when the image is shown through the map."""

from collections.abc import Hashable

import torch
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.metrics.metric import Metric
from cam_core.metrics.statistics import Array, mean, ratio, total, wilson
from cam_core.probe import Probe


class Masked(Metric):
    """The measure that Average Drop, Increase in Confidence, Average Gain and the map's mean share: one masked pass.

    L-CAM's form: maps [B,H,W] in [0, 1] at image size; all but the highest ``keep`` of the pixels are muted (`maps.top_fraction`, the
    survivors keep their soft values); the image in [0, 1] is multiplied by the map, what is lost is ``fill`` ("black" or "mean" colour).
    Rows [B,3]: Y and O, the probability of the probe's target without and with the mask, and the mean of the map that was multiplied.
    """

    protocol = "l_cam"
    needs = "probe"

    def __init__(self, keep: float = 1.0, fill: str = "black") -> None:
        super().__init__()
        self.keep, self.fill = keep, fill
        self.setting = f"{100 * keep:g}%" + ("" if fill == "black" else f" {fill} fill")

    @property
    def shares(self) -> Hashable:
        """One masked pass serves all metrics with the same ``keep`` and ``fill``."""
        return "masked", self.keep, self.fill

    def _measure(self, maps: Tensor, probe: Probe) -> Tensor:
        if maps.shape != (len(probe.images), *probe.images.shape[-2:]):
            raise ValueError(
                f"{self.name}: maps must have the images' size {tuple(probe.images.shape[-2:])}, got {tuple(maps.shape)}; finish them first"
            )
        if maps.numel() and not 0.0 <= float(maps.amin()) <= float(maps.amax()) <= 1.0:
            raise ValueError(
                f"{self.name}: maps must lie in [0, 1], got {float(maps.amin()):.4g} to {float(maps.amax()):.4g}; use maps.min_max"
            )
        shown = map_ops.top_fraction(maps, self.keep)
        masked = probe.score_masked(shown[:, None].to(probe.images.dtype), self.fill)[:, 0].double().softmax(1)
        column = probe.targets[:, None]
        before, after = probe.probabilities.double().gather(1, column)[:, 0], masked.gather(1, column)[:, 0]
        return torch.stack([before, after, shown.double().mean((-2, -1)).to(before.device)], 1)


class AverageDrop(Masked):
    """Mean of max(0, Y - O) / Y in percent (Grad-CAM++; lower is better). Hiding little wins: read `MapMean` beside it."""

    name = "average_drop"
    higher_is_better = False

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean(max(0, Y - O) / Y)."""
        before, after = rows[:, 0], rows[:, 1]
        return 100 * mean(ratio((before - after).clip(0), before), weights)


class IncreaseInConfidence(Masked):
    """Share of images with O > Y, strictly, in percent (higher is better). Its interval is Wilson's."""

    name = "increase_in_confidence"
    higher_is_better = True

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · share(O > Y)."""
        return 100 * mean(rows[:, 1] > rows[:, 0], weights)

    def interval(self, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Wilson's interval of the rate; ``resamples`` and ``seed`` have nothing to do."""
        _, rows = self.per_image()
        return wilson(int((rows[:, 1] > rows[:, 0]).sum()), len(rows), level)


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
