"""Two maps joined: what Increment-CAM's authors and others made of Grad-CAM, or Grad-CAM++, with Score-CAM. Maps [B,H,W] in [0, 1]."""

import torch
from torch import Tensor

from cam_core import maps
from cam_core.methods.gradient import grad_cam, grad_cam_pp
from cam_core.methods.perturbation import score_cam, score_cam_softmax
from cam_core.methods.pixel import guided_backprop
from cam_core.probe import Probe


def grad_pp_score_cam(probe: Probe) -> Tensor:
    """Grad++ScoreCAM (Soomro et al. 2024): ``(G + S) / 2``, Grad-CAM++'s and Score-CAM's map, each in [0, 1].

    Known from its abstract alone, which says that Grad-CAM++ gives a coarse map that Score-CAM refines, not how; the mean is our reading,
    after the same authors' Increment-CAM.
    """
    return (_shown(probe, grad_cam_pp(probe)) + _shown(probe, score_cam(probe))) / 2


def fusion_cam(probe: Probe, noise: float = 0.1) -> Tensor:
    """Fusion-CAM (Dekdegue et al. 2026), read in the released repository and the abstract. K + 4 passes.

    D is Grad-CAM's map, its lowest ``noise`` of the pixels set to 0; R is Score-CAM's with a softmax of logits as weights. The gain of a
    map M is ``b(M) = p_c(x · M) - p_c(0)``, the mean colour where M is 0; two gains are divided by their sum. U = b(D) D + b(R) R in [0,
    1], and of the parts P = b(U) U and Q = b(R) R, ``s max(P, Q) + (1 - s) (P + Q) / 2`` with ``s = 1 - |P - Q|`` in [0, 1].
    """
    d, r = _shown(probe, grad_cam(probe)), _shown(probe, score_cam_softmax(probe))
    d = maps.min_max(torch.where(d < d.flatten(1).quantile(noise, dim=1)[:, None, None], 0.0, d))
    none, of_d, of_r = _gains(probe, torch.stack([torch.zeros_like(d), d, r], 1))
    share_d, share_r = _shares(of_d - none, of_r - none)
    union = maps.min_max(share_d * d + share_r * r)
    (of_union,) = _gains(probe, union[:, None])
    # the region's gain is the share of the first step, as released
    share_union, share_r = _shares(of_union - none, share_r)
    p, q = share_union * union, share_r * r
    alike = (1 - (p - q).abs()).clamp(0, 1)
    return maps.min_max(alike * torch.maximum(p, q) + (1 - alike) * (p + q) / 2)


def guided_grad_cam(probe: Probe) -> Tensor:
    """Guided Grad-CAM (Selvaraju et al., ICCV 2017): guided backpropagation's map times Grad-CAM's, one value a pixel."""
    return guided_backprop(probe) * maps.upsample(grad_cam(probe), probe.images.shape[-2:])


def _shown(probe: Probe, heat: Tensor) -> Tensor:
    return maps.min_max(maps.upsample(heat, probe.images.shape[-2:]))


def _gains(probe: Probe, masks: Tensor) -> tuple[Tensor, ...]:
    """p_c [B,1,1] of the image under each of the masks [B,M,H,W]."""
    return probe.probability(probe.score_masked(masks, "mean"))[..., None, None].unbind(1)


def _shares(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    total = a + b + 1e-8
    return a / total, b / total
