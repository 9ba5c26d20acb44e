"""Increment-CAM (IEEE Access 2024), in our reading R1: only the abstract could be read, every choice below that is ours is a keyword.

Phase 1 is Grad-CAM. Phase 2 scores the channels that Grad-CAM weights positively, on an image reduced to the size of the map.
Phase 3 merges the two. Expects rectified activations (A >= 0), so that min-max removes the weight: s(alpha A) = s(A) for alpha > 0.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core import maps
from cam_core.methods.gradient import grad_cam
from cam_core.probe import Probe

# The smallest square input that a network answers (measured); ResNets and MobileNets take the reduced image as it is.
SMALLEST_INPUT = {"vgg": 32, "densenet": 32, "googlenet": 16, "alexnet": 64, "resnet": 0, "mobilenet_v2": 0}


@dataclass(frozen=True)
class Phases:
    """What each phase found, for looking at. Maps [B,h,w]; ``increments`` [B,K] is NaN for channels that were not scored."""

    grad_cam: Tensor
    low_resolution_score_cam: Tensor
    merged: Tensor
    increments: Tensor
    probability_low: Tensor  # [B], p_c of the unmasked reduced image
    rank_low: Tensor  # [B], how many classes it scores above the target

    def effective_channels(self) -> Tensor:
        """[B], (sum |w|)² / sum w² over the scored channels: 1 = a single channel decides, the number scored = all alike."""
        w = self.increments.nan_to_num(0.0).abs().double()
        return w.sum(1) ** 2 / (w**2).sum(1).clamp_min(torch.finfo(torch.float64).tiny)


def increment_cam(probe: Probe) -> Tensor:
    """Preset LIT, the headline: the reduced image enters the network at h x w, or the smallest size it answers. [B,h,w] in [0, 1]."""
    return phases(probe).merged


def phases(probe: Probe, *, resolution: int | None = None, weight_grad_cam: float = 0.5, weight_score: float = 0.5) -> Phases:
    """All three phases. ``resolution``: side of the square that the reduced image is brought to (bilinear); None is preset LIT, 0 none.

    Masks multiply the normalised image (mean-colour fill). Channels with a positive Grad-CAM weight that are not constant are scored by
    the signed increment of the post-softmax probability over the all-masked image.
    """
    a = probe.activations
    size = a.shape[-2:]
    resolution = _literal(probe) if resolution is None else resolution

    # Phase 1
    alpha = probe.gradients().mean((2, 3))
    first = grad_cam(probe)

    # Phase 2: w_k = p_c(E_r(s(A_k) · x_d)) - p_c(E_r(0))
    low = F.interpolate(probe.images, size, mode="area")
    enter = (lambda x: F.interpolate(x, _sides(size, resolution), mode="bilinear", align_corners=False)) if resolution else None
    selected = (alpha > 0) & (a.amax((2, 3)) - a.amin((2, 3)) > 1e-12)
    nothing, everything = torch.zeros_like(a[:, :1]), torch.ones_like(a[:, :1])
    masks = torch.cat([nothing, everything, maps.min_max(a)], 1)
    needed = F.pad(selected, (2, 0), value=True)
    logits = probe.score_masked(masks, "mean", select=needed, images=low, adapt=enter)
    p = logits.double().softmax(-1).gather(-1, probe.targets[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
    increments = p[:, 2:] - p[:, :1]
    second = torch.einsum("bk,bkhw->bhw", torch.where(selected, increments, 0.0).to(a.dtype), a).relu()

    # Phase 3
    merged = maps.min_max((weight_grad_cam * maps.min_max(first) + weight_score * maps.min_max(second)).relu())
    whole = logits[:, 1]
    rank = (whole > whole.gather(1, probe.targets[:, None])).sum(1)
    return Phases(first, second, merged, increments, p[:, 1], rank)


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
        except RuntimeError:
            continue
        return side
    raise ValueError(f"{probe.classifier.name or 'the network'} answers no input of 96 x 96 or less: pass resolution= to increment.phases")


def _sides(size: torch.Size, resolution: int) -> tuple[int, int]:
    longest = max(size)
    return round(size[0] * resolution / longest), round(size[1] * resolution / longest)
