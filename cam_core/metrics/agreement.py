"""Do a map's values agree with the effect of its cells on the score, and is the map stable under small changes of the image?

All at the resolution of the map's cells [B,h,w] (protocol "cells": raw values, finer maps averaged). A cell is removed by setting its
pixels to the mean colour; its effect is the drop of the target's logit.
"""

from collections.abc import Callable, Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core.maps import correlation
from cam_core.methods.control import image_seeds
from cam_core.metrics.metric import Explaining, Metric
from cam_core.metrics.statistics import Array, ratio, total
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS

Explain = Callable[[Probe], Tensor]  # a probe -> its maps, finished as the protocol says


def losses(probe: Probe, removed: Tensor) -> Tensor:
    """The drop of the target's logit when a set of cells is set to the mean colour: sets bool [M,h,w] -> float64 [B,M]."""
    size = probe.images.shape[-2:]

    def pixels(kept: Tensor) -> Tensor:
        return F.interpolate(kept[:, None], tuple(size), mode="nearest-exact")[:, 0]

    kept = (~removed).to(probe.images).expand(len(probe.images), *removed.shape)
    after = probe.score(probe.score_masked(kept, probe.colour(PROTOCOLS["cells"].fill), pixels).double())
    return probe.score(probe.logits.double())[:, None] - after


def _worth(maps: Tensor, removed: Tensor) -> Tensor:
    """Sum of each map's values over each set of cells, float64 [B,M]."""
    return maps.double().flatten(1) @ removed.to(maps.device).double().flatten(1).T


def _check_cells(name: str, maps: Tensor, probe: Probe) -> None:
    if maps.ndim != 3 or len(maps) != len(probe.images) or maps.shape[1] > probe.images.shape[2] or maps.shape[2] > probe.images.shape[3]:
        raise ValueError(
            f"{name}: maps must be [{len(probe.images)},h,w], one of cells no finer than pixels for each image, got {tuple(maps.shape)}"
        )


class SensitivityN(Metric):
    """Correlation, over random sets of n cells, of the map's sum with the logit's loss (Ancona et al., ICLR 2018).

    -1 to 1, higher is better; mean over images. n is ``share`` of the cells (the paper goes up to 0.8). ``subsets`` sets are drawn
    from ``seed``, the same for all images and methods. A map, or a score, that is the same for every set correlates 0. Rows [B].
    """

    name = "sensitivity_n"
    protocol = "cells"
    unit = 1
    higher_is_better = True

    def __init__(self, share: float = 0.2, subsets: int = 100, seed: int = 0) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"{self.name}: share must lie between 0 and 1, got {share}: 0.2 removes a fifth of the cells")
        self.share, self.subsets, self.seed = share, subsets, seed
        named = [f"{100 * share:g}%", *([] if subsets == 100 else [f"{subsets} sets"]), *([f"seed {seed}"] if seed else [])]
        self.setting = " ".join(named)

    def sets(self, height: int, width: int) -> Tensor:
        """The sets that are removed, bool [subsets,h,w]: max(1, round(share·h·w)) cells each."""
        count = max(1, round(self.share * height * width))
        drawn = torch.rand(self.subsets, height * width, generator=torch.Generator().manual_seed(self.seed))
        return (drawn.argsort(1) < count).reshape(-1, height, width)

    def _measure(self, maps: Tensor, probe: Probe) -> Tensor:
        _check_cells(self.name, maps, probe)
        removed = self.sets(*maps.shape[1:]).to(maps.device)
        lost = probe.once((self.shares, self.subsets, self.seed, *maps.shape[1:]), lambda: losses(probe, removed))
        return correlation(_worth(maps, removed), lost).nan_to_num()


class Infidelity(Metric):
    """Mean squared difference of the map's sum over a square of cells and the logit's loss without it (Yeh et al., NeurIPS 2019).

    All squares of 1 to ``sides`` cells count alike (the authors' square removal). 0 and up, lower is better, in squared logits; mean over
    images. With ``scaled`` each map is first multiplied by the factor that minimises the difference, as in the authors' code, since most
    maps have no unit. Rows [B,2]: as it is, and scaled.
    """

    name = "infidelity"
    protocol = "cells"
    unit = 1
    higher_is_better = False

    def __init__(self, scaled: bool = True, sides: int = 3) -> None:
        super().__init__()
        if sides < 1:
            raise ValueError(f"{self.name}: sides must be at least one cell, got {sides}")
        self.scaled, self.sides = scaled, sides
        self.setting = ("scaled" if scaled else "as it is") + ("" if sides == 3 else f" sides {sides}")

    @property
    def shares(self) -> Hashable:
        """The form with the scale and the one without use the same squares."""
        return "infidelity", self.sides

    def squares(self, height: int, width: int) -> Tensor:
        """All squares of 1 to ``sides`` cells (as far as they fit), bool [M,h,w]."""
        y, x = torch.arange(height)[:, None], torch.arange(width)
        return torch.stack([
            (top <= y) & (y < top + side) & (left <= x) & (x < left + side)
            for side in range(1, min(self.sides, height, width) + 1)
            for top in range(height - side + 1)
            for left in range(width - side + 1)
        ])  # fmt: skip

    def _measure(self, maps: Tensor, probe: Probe) -> Tensor:
        _check_cells(self.name, maps, probe)
        removed = self.squares(*maps.shape[1:]).to(maps.device)
        lost = probe.once((self.shares, *maps.shape[1:]), lambda: losses(probe, removed))
        worth = _worth(maps, removed)
        power = worth.square().sum(1, keepdim=True)
        scale = (worth * lost).sum(1, keepdim=True) / torch.where(power > 0, power, 1.0)
        return torch.stack([(worth - lost).square().mean(1), (scale * worth - lost).square().mean(1)], 1)

    def each(self, rows: Array) -> Array:
        """The column as it is, or the scaled one."""
        return rows[:, int(self.scaled)]


class MaxSensitivity(Explaining):
    """Largest change of the map when the image changes a little: |a(x') - a(x)| / |a(x)|, Frobenius norms (Yeh et al., NeurIPS 2019).

    0 and up, lower is better; mean over images. Of each image ``samples`` x' are drawn, each value within ``radius`` of the image's, in
    units of [0, 1] (not clipped), from ``seed`` and the image, equal for all methods; the class stays. Images whose map is zero everywhere
    have no relative change and are left out. Rows [B,2]: the change, and whether it is defined.
    """

    name = "max_sensitivity"
    protocol = "cells"
    higher_is_better = False

    def __init__(self, radius: float = 0.02, samples: int = 10, seed: int = 0) -> None:
        super().__init__()
        if radius <= 0 or samples < 1:
            raise ValueError(f"{self.name}: radius must be > 0 and samples at least 1, got {radius} and {samples}")
        self.radius, self.samples, self.seed = radius, samples, seed
        self.setting = f"radius {radius:g}" + ("" if samples == 10 else f" {samples} samples") + (f" seed {seed}" if seed else "")

    def neighbours(self, probe: Probe) -> list[Probe]:
        """The probes of the moved images, one for each sample."""
        generators = [torch.Generator().manual_seed(seed) for seed in image_seeds(probe, self.seed)]
        images, moved = probe.images, []
        for _ in range(self.samples):
            drawn = torch.stack([torch.rand(images.shape[1:], generator=generator, dtype=images.dtype) for generator in generators])
            moved.append(probe.like(images + self.radius * (2 * drawn.to(images.device) - 1)))
        return moved

    def _measure(self, maps: Tensor, probe: Probe, explain: Explain) -> Tensor:
        moved = probe.once((self.name, self.radius, self.samples, self.seed), lambda: self.neighbours(probe))
        start = maps.double().flatten(1)
        norm = start.norm(dim=1)
        furthest = torch.zeros_like(norm)
        for other in moved:
            heat = explain(other)
            self.refuse(heat)
            furthest = torch.maximum(furthest, (heat.double().flatten(1) - start).norm(dim=1))
        return torch.stack([furthest / torch.where(norm > 0, norm, 1.0) * (norm > 0), (norm > 0).double()], 1)

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Mean over the images whose map has content."""
        return ratio(total(rows[:, 0], weights), total(rows[:, 1], weights))
