"""F-Fidelity (Zheng et al., ICLR 2025): cells are removed at random within the explanation, and a network asked that learned to bear it.

The definition is from memory; the authors' project page confirms its two numbers: a copy of the network learns with up to ``most`` of the
input removed at random, and no more than that is ever removed when it is asked. What is ours: the elements are the cells of the map.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core.classifier import Classifier
from cam_core.methods.control import image_seeds
from cam_core.metrics.metric import Metric
from cam_core.metrics.removal import ranks
from cam_core.metrics.statistics import Array
from cam_core.probe import Probe

MOST = 0.3  # of the cells


class _FFidelity(Metric):
    """The measure of both: ``surrogate`` is the network fine-tuned on images with up to ``most`` of their cells removed (the mean colour).

    Of d cells the highest k = size · d are the explanation, for each of the ``sizes``. ``share`` of them, but at most ``most`` · d cells,
    are drawn at random and removed, ``samples`` times; and as often cells of the rest. Rows [B, 1 + 2 S]: the surrogate's probability of
    the target for the whole image, then its mean without cells of the explanation, and without cells of the rest, for each size.
    """

    protocol = "cells"

    def __init__(
        self,
        surrogate: Classifier,
        sizes: Sequence[float] = (0.1, 0.3, 0.5),
        share: float = 0.5,
        most: float = MOST,
        samples: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.surrogate, self.sizes, self.share, self.most, self.samples, self.seed = surrogate, tuple(sizes), share, most, samples, seed

    @property
    def shares(self) -> Hashable:
        """Both use the same passes."""
        return "f_fidelity", id(self.surrogate), self.sizes, self.share, self.most, self.samples, self.seed

    def counts(self, cells: int) -> list[tuple[int, int, int]]:
        """For each size: how many cells are the explanation, and how many of these, and of the rest, are removed."""
        limit = int(self.most * cells)
        tops = [max(1, round(size * cells)) for size in self.sizes]
        return [(top, min(round(self.share * top), limit), min(round(self.share * (cells - top)), limit)) for top in tops]

    def _measure(self, maps: Tensor, probe: Probe) -> Tensor:
        asked = probe.once(("surrogate", id(self.surrogate)), lambda: Probe(self.surrogate, probe.images, probe.targets))
        rank = ranks(maps).flatten(1)
        masks = [self._kept(order, seed) for order, seed in zip(rank, image_seeds(probe, self.seed), strict=True)]
        kept = torch.stack(masks).reshape(len(maps), -1, *maps.shape[-2:]).to(probe.images)
        size = probe.images.shape[-2:]
        logits = asked.score_masked(kept, "mean", lambda mask: F.interpolate(mask[:, None], tuple(size))[:, 0])
        seen = asked.probability(logits.double()).unflatten(1, (2 * len(self.sizes), self.samples)).mean(2)
        return torch.cat([asked.of_target(asked.probabilities)[:, None], seen], 1)

    def _kept(self, rank: Tensor, seed: int) -> Tensor:
        """Masks [2 S · samples, cells] of one image: without some of the explanation for each size, then without some of the rest."""
        generator, masks = torch.Generator().manual_seed(seed), []
        for inside in (True, False):
            for top, of_top, of_rest in self.counts(len(rank)):
                candidates = (rank < top if inside else rank >= top).nonzero()[:, 0].cpu()
                for _ in range(self.samples):
                    drawn = candidates[torch.randperm(len(candidates), generator=generator)[: of_top if inside else of_rest]]
                    masks.append(torch.ones(len(rank)).index_fill(0, drawn, 0.0))
        return torch.stack(masks)


class FFidelityPlus(_FFidelity):
    """Mean loss of probability without cells of the explanation, over its sizes, in percent (higher is better)."""

    name = "f_fidelity_plus"
    higher_is_better = True

    def each(self, rows: Array) -> Array:
        """Probability of the whole image minus the mean without cells of the explanation."""
        return np.asarray(rows[:, 0] - rows[:, 1 : 1 + len(self.sizes)].mean(1))


class FFidelityMinus(_FFidelity):
    """Mean loss of probability without cells of the rest, over the explanation's sizes, in percent (lower is better)."""

    name = "f_fidelity_minus"
    higher_is_better = False

    def each(self, rows: Array) -> Array:
        """Probability of the whole image minus the mean without cells of the rest."""
        return np.asarray(rows[:, 0] - rows[:, 1 + len(self.sizes) :].mean(1))
