"""Increment-CAM (IEEE Access 2024) in our reading R1. We could read only the abstract: every choice below that is ours is a keyword.

s is min-max, p_c the probability of the target, x_d the image reduced to the size h x w of the map.

    Phase 1  L1 = ReLU(sum_k alpha_k A_k), alpha_k the mean of d(logit)/dA_k: Grad-CAM
    Phase 2  L2 = ReLU(sum_k w_k A_k), w_k = p_c(s(A_k) · x_d) - p_c(0) where alpha_k > 0: Score-CAM at low resolution
    Phase 3  M = s(ReLU(s(L1) / 2 + s(L2) / 2))

Expects rectified activations (A >= 0), so that s(alpha A) = s(A) for alpha > 0. The classifier sets the explained layer, the probe the
class, and the protocol the finishing at image size. `studies.increment_cam` searches over other readings.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from cam_core import maps
from cam_core.methods.activation import weighted_sum
from cam_core.methods.gradient import grad_cam
from cam_core.options import one_of
from cam_core.probe import Probe


@dataclass(frozen=True)
class Scores:
    """Scores of the reduced images: fully masked [:, 0], unmasked [:, 1], under the mask of each channel [:, 2:]."""

    selected: Tensor  # [B,K], the channels that were scored; NaN stands for the others
    probability: Tensor  # [B,2+K] of the target
    logit: Tensor  # [B,2+K]
    rank_low: Tensor  # [B], how many classes the unmasked reduced image scores above the target


@dataclass(frozen=True)
class Phases:
    """The result of each phase. Maps [B,h,w]; ``increments``, the weights w [B,K], are NaN for channels that were not scored."""

    grad_cam: Tensor
    low_resolution_score_cam: Tensor
    merged: Tensor
    increments: Tensor
    scores: Scores

    def diagnostics(self) -> dict[str, Tensor]:
        """What Phase 2 is based on, [B] each; needed to judge its contribution.

        ``effective_channels``: (sum |w|)² / sum w², 1 if a single channel decides, the number scored if all weigh alike. ``correlation``
        of the two maps that are merged: NaN where one is constant.
        """
        w = self.increments.nan_to_num(0.0).abs().double()
        return {
            "probability_low": self.scores.probability[:, 1],
            "rank_low": self.scores.rank_low,
            "scored_channels": self.scores.selected.sum(1),
            "effective_channels": w.sum(1) ** 2 / (w**2).sum(1).clamp_min(torch.finfo(torch.float64).tiny),
            "correlation": maps.correlation(self.grad_cam, self.low_resolution_score_cam),
        }


def increment_cam(probe: Probe, **options: Any) -> Tensor:
    """Grad-CAM merged with a Score-CAM of the reduced image, [B,h,w] in [0, 1]; preset LIT, or the options of `phases`."""
    return phases(probe, **options).merged


def phases(
    probe: Probe,
    scores: Scores | None = None,
    *,
    weight: str | Tensor = "increment",
    summed: str = "activations",
    rectify: bool = True,
    **options: Any,
) -> Phases:
    """All three phases, under the options of `phase_two`, `phase_three` and, unless ``scores`` are given, of `score`.

    ``rectify``: the ReLU of L1 and of L2. TypeError names an unknown option. ValueError if a map is not finite: that is an error, not an
    empty map.
    """
    merging = {name: options.pop(name) for name in inspect.signature(phase_three).parameters.keys() & options.keys()}
    if scores is not None and options:
        raise TypeError(f"scores are given, so {', '.join(options)} would have no effect: leave out one or the other")
    scores = scores or score(probe, **options)
    first = _finite(phase_one(probe))
    second, w = phase_two(probe, scores, weight=weight, summed=summed)
    first, second = (first.relu(), _finite(second).relu()) if rectify else (first, _finite(second))
    return Phases(first, second, phase_three(probe, first, second, w, **merging), w, scores)


def phase_one(probe: Probe) -> Tensor:
    """``sum_k alpha_k A_k`` [B,h,w], alpha_k the mean gradient: Grad-CAM before its ReLU."""
    return weighted_sum(probe.gradients().mean((2, 3)), probe.activations)


WEIGHTS: dict[str, Callable[[Scores], Tensor]] = {
    "increment": lambda s: s.probability[:, 2:] - s.probability[:, :1],  # of the probability over the all-masked image, signed
    "rectified": lambda s: WEIGHTS["increment"](s).relu(),
    "logit": lambda s: s.logit[:, 2:] - s.logit[:, :1],
    "probability": lambda s: s.probability[:, 2:],
    "softmax": lambda s: s.logit[:, 2:].masked_fill(~s.selected, -torch.inf).softmax(1),  # over the channels
}


def phase_two(probe: Probe, scores: Scores, *, weight: str | Tensor = "increment", summed: str = "activations") -> tuple[Tensor, Tensor]:
    """``sum_k w_k A_k`` [B,h,w] over the channels that were scored, and w [B,K].

    ``weight``: the "increment" of the probability over the all-masked image, signed; "rectified", its ReLU; "logit", the logit's increment;
    "probability"; "softmax" of the logits over the channels; or w itself. ``summed``: "activations" A_k or "masks" s(A_k).
    """
    one_of("summed", summed, ("activations", "masks"))
    if isinstance(weight, str):
        one_of("weight", weight, WEIGHTS)
    w = (WEIGHTS[weight](scores) if isinstance(weight, str) else weight).masked_fill(~scores.selected, torch.nan)
    a = probe.activations if summed == "activations" else maps.min_max(probe.activations)
    return weighted_sum(torch.where(scores.selected, w, 0.0).to(a.dtype), a), w


def phase_three(
    probe: Probe,
    first: Tensor,
    second: Tensor,
    w: Tensor,
    /,
    *,
    rescale: bool = True,
    merge: str = "sum",
    weight_grad_cam: float = 0.5,
    weight_score: float = 0.5,
    sigma: float = 0.0,
    regularise: bool = True,
) -> Tensor:
    """L1 and L2 merged, [B,h,w].

    ``rescale``: min-max of both before. ``merge``: "sum" with the two weights; "product"; "max"; "channels": one sum with both weights of a
    channel, each over its largest magnitude (reading R3). ``sigma``: a Gaussian of that width, in cells, over the merged map; 0 none.
    ``regularise``: ReLU and min-max of the merged map.
    """
    one_of("merge", merge, ("sum", "product", "max", "channels"))
    one, two = (maps.min_max(first), maps.min_max(second)) if rescale else (first, second)
    if merge == "sum":
        merged = weight_grad_cam * one + weight_score * two
    elif merge == "product":
        merged = one * two
    elif merge == "max":
        merged = torch.maximum(one, two)
    else:
        alpha, w = probe.gradients().mean((2, 3)), w.nan_to_num(0.0).to(first.dtype)
        merged = weighted_sum(_over_largest(alpha) + _over_largest(w), probe.activations)
    merged = _blur(merged, sigma) if sigma else merged
    return maps.min_max(merged.relu()) if regularise else merged


def score(
    probe: Probe,
    *,
    resolution: int | str = "literal",
    path: str = "map",
    masks: str = "channel",
    select: str | Tensor = "positive",
    reduce: str = "area",
    enlarge: str = "bilinear",
    fill: str | Tensor = "mean",
    epsilon: float = 1e-12,
) -> Scores:
    """The passes of Phase 2: the reduced image x_d under every mask, unmasked, and fully masked.

    ``resolution``: side of the square that enters the network: "literal" (preset LIT: h x w, or the smallest size it answers), 0 (h x w),
    "image" (preset FULL) or pixels. ``path`` "map": image and masks are multiplied at h x w and enlarged together; "direct": both are
    resized directly to the resolution. ``masks`` "channel": s(A_k); "gated": s(L1 · A_k). ``select`` "positive": Grad-CAM's weight is
    positive; "all"; or which channels, bool [B,K]. A channel whose range is not above ``epsilon`` is never scored. ``reduce``: how the
    image is reduced, "area" or "bilinear". ``enlarge``: how the product at h x w is enlarged, "bilinear", "bicubic" or "nearest". ``fill``
    of what a mask hides: "mean" (0 in the normalised image), "black" or a colour.
    """
    one_of("path", path, ("map", "direct"))
    one_of("masks", masks, ("channel", "gated"))
    one_of("reduce", reduce, ("area", "bilinear"))
    one_of("enlarge", enlarge, ("bilinear", "bicubic", "nearest"))
    a, size = probe.activations, probe.activations.shape[-2:]
    side = _smallest_side(probe) if resolution == "literal" else max(probe.images.shape[-2:]) if resolution == "image" else int(resolution)
    enters = torch.Size(round(s * side / max(size)) for s in size) if side else size
    meets = enters if path == "direct" else size
    masked = a * grad_cam(probe)[:, None] if masks == "gated" else a
    selected = (masked.amax((2, 3)) - masked.amin((2, 3)) > epsilon) & _selected(probe, select)
    everything = torch.ones_like(a[:, :1])
    stacked = torch.cat([torch.zeros_like(everything), everything, maps.min_max(masked)], 1)

    def mask(m: Tensor) -> Tensor:  # enlarging lowers a mask's maximum, so it is rescaled again; constant masks are not
        return torch.where(maps.is_empty(m)[:, None, None], m[:, :1, :1], maps.min_max(maps.upsample(m, meets)))

    def enter(x: Tensor) -> Tensor:
        return F.interpolate(x, enters, mode=enlarge)

    logits = probe.score_masked(
        stacked,
        fill,
        mask,
        select=F.pad(selected, (2, 0), value=True),
        images=F.interpolate(probe.images, meets, mode=reduce),
        adapt=None if meets == enters else enter,
    ).double()
    logit, whole = probe.score(logits), logits[:, 1]
    return Scores(selected, probe.probability(logits), logit, (whole > logit[:, 1:2]).sum(1))


def _selected(probe: Probe, select: str | Tensor) -> Tensor:
    if isinstance(select, Tensor):
        return select
    one_of("select", select, ("positive", "all"))
    alpha = probe.gradients().mean((2, 3))
    return alpha > 0 if select == "positive" else torch.ones_like(alpha, dtype=torch.bool)


def _smallest_side(probe: Probe) -> int:
    """The first of 0 (h x w), 16, 32, 64, 96 that the network accepts: 0 for ResNets and MobileNets, 32 for VGG and DenseNet."""
    for side in (0, 16, 32, 64, 96):
        reduced = F.interpolate(probe.images[:1], side or probe.activations.shape[-2:])
        try:
            with torch.inference_mode():
                probe.classifier(reduced)
        except (RuntimeError, AssertionError):  # a transformer asserts its size
            continue
        return side
    raise ValueError(f"{probe.classifier.name or 'the network'} accepts no input of 96 x 96 or less: take increment_cam[full]")


def _finite(heat: Tensor) -> Tensor:
    finite = torch.isfinite(heat).flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"images {(~finite).nonzero()[:, 0].tolist()} of the batch have activations, gradients or scores that are not finite: "
            "look at the network's weights and at these images"
        )
    return heat


def _blur(heat: Tensor, sigma: float) -> Tensor:
    reach = min(max(1, math.ceil(3 * sigma)), min(heat.shape[-2:]) - 1)
    blurred: Tensor = gaussian_blur(heat[:, None], [2 * reach + 1] * 2, [sigma, sigma])
    return blurred[:, 0]


def _over_largest(weights: Tensor) -> Tensor:
    largest = weights.abs().amax(1, keepdim=True)
    return weights / torch.where(largest == 0, 1.0, largest)
