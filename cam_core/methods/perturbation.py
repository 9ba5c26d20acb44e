"""Maps from the scores of masked images."""

import torch
from torch import Tensor

from cam_core import maps
from cam_core.probe import Probe


def score_cam(probe: Probe) -> Tensor:
    """Score-CAM (Wang et al., CVPRW 2020) in the form of the authors' code: ``ReLU(sum_k p_c(x · H_k) A_k)``, K passes.

    H_k is the channel brought to image size, then min-maxed; masking happens after normalisation (mean-colour fill); p_c is the softmax
    probability, without the baseline of Definition 4 and without the softmax over channels of Algorithm 1, which contradict each other.
    Constant channels are skipped. The sum is taken before upsampling, which is the same, both being linear.
    """
    a, size = probe.activations, probe.images.shape[-2:]
    useful = ~maps.is_empty(a)
    logits = probe.score_masked(a, "mean", lambda mask: maps.min_max(maps.upsample(mask, size)), select=useful)
    weights = _target_probability(logits, probe.targets)
    return torch.einsum("bk,bkhw->bhw", torch.where(useful, weights, 0.0), a).relu()


def _target_probability(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits [B,M,C] -> softmax probability of each image's target [B,M]."""
    return logits.softmax(-1).gather(-1, targets[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
