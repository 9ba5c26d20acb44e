"""Increment-CAM (IEEE Access 2024), in our reading R1: only the abstract could be read, every choice below that is ours is a keyword.

Phase 1 is Grad-CAM: ``L1 = ReLU(sum_k alpha_k A_k)``. Phase 2 scores the channels that Grad-CAM weighs positively, on an image x_d reduced
to the size of the map: ``w_k = p_c(s(A_k) · x_d) - p_c(0)``, ``L2 = ReLU(sum_k w_k A_k)``. Phase 3 merges the two:
``M = s(ReLU(s(L1) / 2 + s(L2) / 2))``. s is min-max. Expects rectified activations (A >= 0), so that s(alpha A) = s(A) for alpha > 0.
The explained layer is the classifier's choice, the class the probe's, and what follows at image size the protocol's.
"""

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from cam_core import maps
from cam_core.methods.control import image_seeds
from cam_core.methods.gradient import grad_cam
from cam_core.probe import Probe

# The smallest square input that a network answers (measured); ResNets and MobileNets take the reduced image as it is.
SMALLEST_INPUT = {"vgg": 32, "densenet": 32, "googlenet": 16, "alexnet": 64, "resnet": 0, "mobilenet_v2": 0}


@dataclass(frozen=True)
class Scores:
    """What the network says of masked, reduced images: of nothing [:, 0], of the whole one [:, 1], and under each channel [:, 2:].

    ``probability`` and ``logit`` [B,2+K] of the target, NaN for channels that are not ``selected`` [B,K]; ``alpha`` [B,K] are Grad-CAM's
    weights.
    """

    selected: Tensor
    probability: Tensor
    logit: Tensor
    rank_low: Tensor  # [B], how many classes the unmasked reduced image scores above the target
    alpha: Tensor

    def narrowed(self, select: str) -> "Scores":
        """What `score` would have found with this ``select``; no pass. The channels that are wanted must have been scored."""
        selected = self.selected & _wanted(self.alpha, select)
        known = F.pad(selected, (2, 0), value=True)
        p, logit = (torch.where(known, values, torch.nan) for values in (self.probability, self.logit))
        return replace(self, selected=selected, probability=p, logit=logit)


@dataclass(frozen=True)
class Phases:
    """What each phase found, for looking at. Maps [B,h,w]; ``increments`` [B,K] is NaN for channels that were not scored."""

    grad_cam: Tensor
    low_resolution_score_cam: Tensor
    merged: Tensor
    increments: Tensor
    probability_low: Tensor  # [B], p_c of the unmasked reduced image
    rank_low: Tensor

    def effective_channels(self) -> Tensor:
        """[B], (sum |w|)² / sum w² over the scored channels: 1 = a single channel decides, the number scored = all alike."""
        w = self.increments.nan_to_num(0.0).abs().double()
        return w.sum(1) ** 2 / (w**2).sum(1).clamp_min(torch.finfo(torch.float64).tiny)

    def correlation(self) -> Tensor:
        """[B], Pearson's correlation of the two maps that are merged; NaN where one is constant."""
        return maps.correlation(self.grad_cam, self.low_resolution_score_cam)

    def diagnostics(self) -> dict[str, Tensor]:
        """What the second phase had to go by and what came of it, [B] each; without these its contribution cannot be judged.

        ``empty_...``: whether that map is constant. What the weights have in common with those at full size is `studies.increment_cam`'s.
        """
        found = {"grad_cam": self.grad_cam, "low_resolution_score_cam": self.low_resolution_score_cam, "merged": self.merged}
        return {
            "probability_low": self.probability_low,
            "rank_low": self.rank_low,
            "scored_channels": (~self.increments.isnan()).sum(1),
            "effective_channels": self.effective_channels(),
            "correlation": self.correlation(),
            **{f"empty_{name}": maps.is_empty(heat) for name, heat in found.items()},
        }


# Names, options and cost of the readings in the table of methods. LIT, the headline, keeps the plain name whatever a study finds.
READINGS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("increment_cam", {}, "at map resolution"),
    ("increment_cam[mid]", {"resolution": 112}, "at 112 x 112"),
    ("increment_cam[full]", {"resolution": "image"}, "at image resolution"),
    ("increment_cam[gated]", {"masks": "gated"}, "at map resolution"),  # R2'
    ("increment_cam[channels]", {"merge": "channels"}, "at map resolution"),  # R3
    # what studies/increment_cam.py chose on ImageNet, with ResNet-18 and with MobileNetV2; its weights might as well be equal
    ("increment_cam_tuned", {"weight": "softmax", "merge": "channels"}, "at map resolution"),
)


def increment_cam(probe: Probe, **options: Any) -> Tensor:
    """Grad-CAM merged with a Score-CAM of the reduced image, [B,h,w] in [0, 1]; preset LIT, or the options of `score` and `combine`."""
    return phases(probe, **options).merged


def phases(probe: Probe, **options: Any) -> Phases:
    """All three phases, under the options of `score` and of `combine`; TypeError names one that neither has."""
    passing = {name: options.pop(name) for name in PASSING & options.keys()}
    return combine(probe, score(probe, **passing), **options)


def score(
    probe: Probe,
    *,
    resolution: int | str = "literal",
    path: str = "map",
    masks: str = "channel",
    select: str = "positive",
    reduce: str = "area",
    enlarge: str = "bilinear",
    fill: str | Tensor = "mean",
    epsilon: float = 1e-12,
) -> Scores:
    """Phase 2's passes: p_c of the reduced image x_d under every mask, under none, and of nothing but the fill.

    ``resolution``: side of the square that enters the network: "literal" (preset LIT: h x w, or the smallest size it answers), 0 (h x w),
    "image" (preset FULL) or pixels. ``path`` "map": image and masks meet at h x w and are enlarged together; "direct": both come to the
    resolution straight. ``masks`` "channel": s(A_k); "gated": s(L1 · A_k). ``select`` "positive": Grad-CAM's weight is positive;
    "strongest": it is and belongs to the highest tenth; "all". A channel whose range is not above ``epsilon`` is never scored.
    ``reduce``: how the image is made small, "area" or "bilinear". ``enlarge``: how what meets at h x w grows, "bilinear", "bicubic" or
    "nearest". ``fill`` of what a mask hides: "mean" (0 in the normalised image), "black" or a colour.
    """
    a, size = probe.activations, probe.activations.shape[-2:]
    side = _literal(probe) if resolution == "literal" else max(probe.images.shape[-2:]) if resolution == "image" else int(resolution)
    _known("path", path, "map", "direct")
    _known("masks", masks, "channel", "gated")
    _known("reduce", reduce, "area", "bilinear")
    _known("enlarge", enlarge, "bilinear", "bicubic", "nearest")
    entered = _sides(size, side) if side else size
    meet = entered if path == "direct" else size
    low = _resized(probe.images, meet, reduce)
    enter = None if meet == entered else lambda x: _resized(x, entered, enlarge)
    gated = a * grad_cam(probe)[:, None] if masks == "gated" else a
    alpha = probe.gradients().mean((2, 3))
    selected = (gated.amax((2, 3)) - gated.amin((2, 3)) > epsilon) & _wanted(alpha, select)
    nothing, everything = torch.zeros_like(a[:, :1]), torch.ones_like(a[:, :1])
    stacked = torch.cat([nothing, everything, maps.min_max(gated)], 1)
    # upsampling lowers a mask's maximum, so that at another size it is rescaled again; nothing and everything are constant and stay
    finish = (
        (lambda m: torch.where(maps.is_empty(m)[:, None, None], m[:, :1, :1], maps.min_max(maps.upsample(m, meet))))
        if meet != size
        else None
    )
    logits = probe.score_masked(stacked, fill, finish, select=F.pad(selected, (2, 0), value=True), images=low, adapt=enter).double()
    column = probe.targets[:, None, None].expand(-1, logits.shape[1], 1)
    whole = logits[:, 1]
    rank = (whole > whole.gather(1, probe.targets[:, None])).sum(1)
    return Scores(selected, logits.softmax(-1).gather(-1, column)[..., 0], logits.gather(-1, column)[..., 0], rank, alpha)


PASSING = inspect.signature(score).parameters.keys() - {"probe"}


def _wanted(alpha: Tensor, select: str) -> Tensor:
    """Which channels [B,K] Phase 2 scores, by Grad-CAM's weights."""
    _known("select", select, "positive", "strongest", "all")
    if select == "all":
        return torch.ones_like(alpha, dtype=torch.bool)
    return (alpha > 0) & (alpha >= alpha.quantile(0.9, dim=1, keepdim=True) if select == "strongest" else True)


def combine(
    probe: Probe,
    scores: Scores,
    *,
    weight: str = "increment",
    summed: str = "activations",
    rectify: bool = True,
    rescale: bool = True,
    merge: str = "sum",
    weight_grad_cam: float = 0.5,
    weight_score: float = 0.5,
    sigma: float = 0.0,
    regularise: bool = True,
) -> Phases:
    """Weights of the channels, ``L2 = ReLU(sum_k w_k A_k)``, and the merge with Grad-CAM; no pass.

    ``weight``: "increment" of the probability over the all-masked image, signed; "rectified", its ReLU; "logit", the logit's increment;
    "probability"; "softmax" over the channels of the logits; the controls "equal" (all ones) and "permuted", "permuted probability", ...
    (the increments, or those weights, dealt anew to the scored channels, by a seed of the image). ``summed``: "activations" A_k or "masks"
    s(A_k). ``rectify``: ReLU of L1 and L2; ``rescale``: min-max of both before they are merged.
    ``merge``: "sum" with the two weights; "product"; "max"; "channels": one sum with both weights of a channel, each over its largest
    magnitude (reading R3). ``sigma``: a Gaussian of that width, in cells, over the merged map; 0 none. ``regularise``: ReLU and min-max of
    the merged map. ValueError if anything is not finite: such an image is an error and no empty map.
    """
    _known("summed", summed, "activations", "masks")
    a, alpha = probe.activations, probe.gradients().mean((2, 3))
    w = _weights(probe, scores, weight)
    used = torch.where(scores.selected, w, 0.0).to(a.dtype)
    first, second = _sum(alpha, a), _sum(used, a if summed == "activations" else maps.min_max(a))
    _refuse_what_is_not_finite(first, second)
    first, second = (first.relu(), second.relu()) if rectify else (first, second)
    one, two = (maps.min_max(first), maps.min_max(second)) if rescale else (first, second)
    if merge == "sum":
        merged = weight_grad_cam * one + weight_score * two
    elif merge == "product":
        merged = one * two
    elif merge == "max":
        merged = torch.maximum(one, two)
    elif merge == "channels":
        merged = _sum(_over_largest(alpha) + _over_largest(used), a)
    else:
        raise ValueError(f'merge is "sum", "product", "max" or "channels", got {merge!r}')
    merged = _blur(merged, sigma) if sigma else merged
    merged = maps.min_max(merged.relu()) if regularise else merged
    return Phases(first, second, merged, w, scores.probability[:, 1], scores.rank_low)


def _refuse_what_is_not_finite(*found: Tensor) -> None:
    finite = torch.stack([torch.isfinite(heat).flatten(1).all(1) for heat in found]).all(0)
    if not finite.all():
        raise ValueError(
            f"images {(~finite).nonzero()[:, 0].tolist()} of the batch have activations, gradients or scores that are not finite: "
            "look at the network's weights and at these images"
        )


def _weights(probe: Probe, scores: Scores, weight: str) -> Tensor:
    """w [B,K] in float64, NaN for channels that were not scored."""
    increment = scores.probability[:, 2:] - scores.probability[:, :1]
    if weight == "increment":
        return increment
    if weight == "rectified":
        return increment.relu()
    if weight == "logit":
        return scores.logit[:, 2:] - scores.logit[:, :1]
    if weight == "probability":
        return scores.probability[:, 2:]
    if weight == "softmax":
        return scores.logit[:, 2:].masked_fill(~scores.selected, -torch.inf).softmax(1).masked_fill(~scores.selected, torch.nan)
    if weight == "equal":
        return torch.ones_like(increment).masked_fill(~scores.selected, torch.nan)
    if weight.startswith("permuted"):
        dealt = _weights(probe, scores, weight.removeprefix("permuted").strip() or "increment").clone()
        for row, chosen, seed in zip(dealt, scores.selected, image_seeds(probe, 0), strict=True):
            order = torch.randperm(int(chosen.sum()), generator=torch.Generator().manual_seed(seed)).to(row.device)
            row[chosen] = row[chosen][order]
        return dealt
    raise ValueError(
        f'weight is "increment", "rectified", "logit", "probability", "softmax", "equal" or one of them after "permuted ", got {weight!r}'
    )


def _sum(weights: Tensor, activations: Tensor) -> Tensor:
    return torch.einsum("bk,bkhw->bhw", weights, activations)


def _resized(images: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    return F.interpolate(images, size, mode=mode, align_corners=False if mode in ("bilinear", "bicubic") else None)


def _blur(heat: Tensor, sigma: float) -> Tensor:
    reach = min(max(1, math.ceil(3 * sigma)), min(heat.shape[-2:]) - 1)
    blurred: Tensor = gaussian_blur(heat[:, None], [2 * reach + 1] * 2, [sigma, sigma])
    return blurred[:, 0]


def _over_largest(weights: Tensor) -> Tensor:
    largest = weights.abs().amax(1, keepdim=True)
    return weights / torch.where(largest == 0, 1.0, largest)


def _known(option: str, value: str, *known: str) -> None:
    if value not in known:
        raise ValueError(f"{option} is {' or '.join(map(repr, known))}, got {value!r}")


def _literal(probe: Probe) -> int:
    name, side = probe.classifier.name, max(probe.activations.shape[-2:])
    family = max((key for key in SMALLEST_INPUT if name.startswith(key)), key=len, default=None)
    smallest = SMALLEST_INPUT[family] if family else _smallest_that_runs(probe)
    return 0 if smallest <= side else smallest


def _smallest_that_runs(probe: Probe) -> int:
    for side in (0, 16, 32, 64, 96):
        reduced = F.interpolate(probe.images[:1], side or probe.activations.shape[-2:])
        try:
            with torch.inference_mode():
                probe.classifier(reduced)
        except (RuntimeError, AssertionError):  # a transformer asserts its size
            continue
        return side
    raise ValueError(f"{probe.classifier.name or 'the network'} answers no input of 96 x 96 or less: take increment_cam[full]")


def _sides(size: torch.Size, resolution: int) -> tuple[int, int]:
    longest = max(size)
    return round(size[0] * resolution / longest), round(size[1] * resolution / longest)
