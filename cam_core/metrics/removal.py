"""What the network still recognises when pixels are removed in the map's order: insertion and deletion, remove-and-classify.

Only the order of the pixels counts, not their values. If a map has ties (large zero regions after a ReLU) the order is a convention: each
metric states its own, and `TiedPixels` measures how many pixels are tied.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from cam_core.methods.control import image_seeds
from cam_core.metrics.metric import Metric, Rate
from cam_core.metrics.statistics import Array, total
from cam_core.options import one_of
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS


def ranks(maps: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
    """The place of every pixel of maps [B,H,W] from the most (0) to the least salient, int64 [B,H,W].

    Equal pixels keep their scan order or, with one seed per image, are shuffled.
    """
    values = maps.flatten(1)
    places = torch.arange(values.shape[1])
    before = places.expand(values.shape)
    if seeds is not None:
        before = torch.stack([torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    before = before.to(maps.device)
    order = before.gather(1, values.gather(1, before).argsort(dim=1, descending=True, stable=True))
    return torch.empty_like(order).scatter_(1, order, places.to(maps.device).expand_as(order)).reshape(maps.shape)


# ---------------------------------------------------------------- insertion and deletion


class _Curve(Metric):
    """Area under the target's probability while ``step`` pixels at a time change, in RISE's settings (224 pixels a step).

    Maps [B,H,W]; rows [B], the area in [0, 1]. Equal pixels keep their scan order (RISE's sort leaves it open).
    """

    protocol = "rise"

    def __init__(self, step: int = 224) -> None:
        super().__init__()
        if step < 1:
            raise ValueError(f"{self.name}: step is a number of pixels >= 1, got {step}")
        self.step, self.setting = step, f"step {step}"

    def _measure(self, maps: Tensor, probe: Probe) -> Tensor:
        curve = self.curve(maps, probe)
        return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1))

    def curve(self, maps: Tensor, probe: Probe) -> Tensor:
        """Probability of the target before the first and after every step, float64 [B, 1 + ceil(H·W / step)]."""
        self._refuse_size(maps, probe)
        rank = ranks(maps)
        steps = -(-rank[0].numel() // self.step)
        start, end, unmasked = self._ends(probe)

        def changed(image: Tensor, number: Tensor) -> Tensor:
            return torch.where((rank[image] < number[:, None, None] * self.step)[:, None], end[image], start[image])

        chosen = torch.ones(len(maps), steps + 1, dtype=torch.bool)
        chosen[:, unmasked] = False  # the probe already knows the score of the whole image
        curve = probe.probability(probe.score_made(changed, chosen).double())
        curve[:, unmasked] = probe.of_target(probe.probabilities)
        return curve

    def _ends(self, probe: Probe) -> tuple[Tensor, Tensor, int]:
        """The images [B,3,H,W] before the first and after the last step, and which of the two (0 or -1) is the image itself."""
        raise NotImplementedError


class Deletion(_Curve):
    """Area under the curve while the most salient pixels turn into the mean colour, in percent (RISE; lower is better)."""

    name = "deletion"
    higher_is_better = False

    def _ends(self, probe: Probe) -> tuple[Tensor, Tensor, int]:
        return probe.images, probe.colour(PROTOCOLS[self.protocol].fill).expand_as(probe.images), 0


class Insertion(_Curve):
    """Area under the curve while the most salient pixels return to a blurred image, in percent (RISE; higher is better).

    The blur is `rise_blur`.
    """

    name = "insertion"
    higher_is_better = True

    def _ends(self, probe: Probe) -> tuple[Tensor, Tensor, int]:
        return probe.once("rise_blur", lambda: rise_blur(probe)), probe.images, -1


def rise_blur(probe: Probe, size: int = 11, sigma: float = 5.0) -> Tensor:
    """The images [B,3,H,W] blurred as in RISE's evaluation.

    The kernel is what a Gaussian filter makes of one bright pixel in a ``size`` x ``size`` image with mirrored borders (so it sums to 1);
    outside the image lies the mean colour, the zero of the normalised image.
    """
    pixel = np.zeros((size, size))
    pixel[size // 2, size // 2] = 1
    colour = probe.classifier.mean.to(probe.images)
    kernel = torch.from_numpy(ndimage.gaussian_filter(pixel, sigma)).to(colour).expand(len(colour), 1, -1, -1)
    return F.conv2d(probe.images - colour, kernel, padding=size // 2, groups=len(colour)) + colour


class TiedPixels(Metric):
    """Share of the pixels whose value another pixel of the map has too, in percent: how much of a ranking is convention. Rows [B]."""

    name = "tied_pixels"
    protocol = "rise"
    higher_is_better = None

    def _measure(self, maps: Tensor, _probe: Probe) -> Tensor:
        values = maps.flatten(1).sort(1).values
        equal = values[:, 1:] == values[:, :-1]
        return (F.pad(equal, (1, 0)) | F.pad(equal, (0, 1))).double().mean(1)


# ---------------------------------------------------------------- remove and classify


FILLS = ("mean", "black", "image mean", "noise", "blur")


def filling(probe: Probe, fill: str, seed: int = 0) -> str | Tensor:
    """What erased pixels show, for `Probe.score_masked`: a name it knows, or images [B,3,H,W]. All but "black" are in CALM's release.

    "mean": the mean colour of all images. "image mean": that of each image, and "noise": the same with Gaussian noise of a fifth of the
    classifier's ``std``, drawn from ``seed`` and the image. "blur": the image under a Gaussian of 31 pixels, sigma 15, mirrored borders.
    """
    if fill == "blur":
        blurred: Tensor = gaussian_blur(probe.images, [31, 31], [15.0, 15.0])
        return blurred
    own = probe.images.mean((2, 3), keepdim=True).expand_as(probe.images)
    if fill == "noise":
        generators = [torch.Generator().manual_seed(one) for one in image_seeds(probe, seed)]
        drawn = torch.stack([torch.randn(own.shape[1:], generator=generator, dtype=torch.float64) for generator in generators])
        return own + 0.2 * probe.classifier.std.to(own) * drawn.to(own)
    return own if fill == "image mean" else fill


class _Erased(Metric):
    """The measure of remove-and-classify (CALM): the ``share`` of most salient pixels gets the protocol's fill, or another of `FILLS`.

    Maps [B,H,W] of the ground truth, whose values need no range; int(share·H·W) pixels go, ties in scan order. Rows [B,2]: whether the
    target is still the prediction, and whether it is after as many random pixels went. The random pixels come from ``seed`` and the image,
    so that all methods are divided by the same number.
    """

    protocol = "calm"

    def __init__(self, share: float = 0.5, seed: int = 0, *, fill: str | None = None) -> None:
        super().__init__()
        usual = PROTOCOLS[self.protocol].fill or "mean"
        fill = fill or usual
        one_of("fill", fill, FILLS)
        if not 0 < share < 1:
            raise ValueError(f"{self.name}: share must lie between 0 and 1, got {share}: 0.1 erases a tenth of the pixels")
        self.share, self.seed, self.fill = share, seed, fill
        self.setting = f"{100 * share:g}%" + ("" if fill == usual else f" {fill}") + (f" seed {seed}" if seed else "")

    @property
    def shares(self) -> Hashable:
        """The ratio, its numerator and its denominator share one pass."""
        return "erased", self.share, self.seed, self.fill

    def _measure(self, maps: Tensor, probe: Probe) -> Tensor:
        self._refuse_size(maps, probe)
        fill = probe.once(("fill", self.fill, self.seed), lambda: filling(probe, self.fill, self.seed))

        def correct(rank: Tensor) -> Tensor:
            kept = (rank >= int(self.share * rank[0].numel())).to(probe.images.dtype)
            return probe.score_masked(kept[:, None], fill)[:, 0].argmax(1) == probe.targets

        def at_random() -> Tensor:
            return correct(ranks(torch.zeros_like(maps), image_seeds(probe, self.seed)))

        return torch.stack([correct(ranks(maps)), probe.once(self.shares, at_random)], 1).double()


class RemoveAndClassify(_Erased):
    """R_k: images still classified correctly without the most salient pixels, as a ratio to those without random pixels (lower is better).

    The ratio of two counts over all images, 1 if the map is as good as chance; it can be larger. If no image survives the random erasing, 1
    is added to both counts (0/0 is 1). Its interval resamples the whole ratio, and is the point 0 if no image survives the map's erasing:
    with 5 % of 30 images surviving it covers the true value in 77 % of simulations (`studies/coverage.py`). Read both counts.
    """

    name = "remove_and_classify"
    higher_is_better = False

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Sum of the first column over sum of the second."""
        top, chance = total(rows[:, 0], weights), total(rows[:, 1], weights)
        return np.asarray(np.where(chance > 0, top, top + 1) / np.where(chance > 0, chance, 1))


class CorrectAfterRemoval(Rate, _Erased):
    """R_k's numerator: images classified correctly without their most salient pixels, in percent."""

    name = "correct_after_removal"
    higher_is_better = False


class CorrectAfterRandomRemoval(Rate, _Erased):
    """R_k's denominator: images classified correctly without as many random pixels, in percent; equal for all methods."""

    name = "correct_after_random_removal"
    higher_is_better = None
    column = 1
