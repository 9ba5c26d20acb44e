"""Maps from activations A [B,K,h,w] and gradients g = d(logit of the target)/dA. Each costs one pass and one gradient of the head."""

import torch
from torch import Tensor

from cam_core.probe import Probe


def grad_cam(probe: Probe) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1-2): ``ReLU(sum_k mean(g_k) A_k)``."""
    weights = probe.gradients().mean((2, 3))
    return torch.einsum("bk,bkhw->bhw", weights, probe.activations).relu()


def grad_cam_pp(probe: Probe) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 5, 11-12, 19), on Y = exp(logit).

    ``alpha = g² / (2 g² + g³ sum A)`` (denominator 0 counts as 1), ``w_k = sum alpha ReLU(g)``, ``ReLU(sum_k w_k A_k)``; in float64,
    g² being about 4e-7 on a ResNet. The factor exp(logit) scales the whole map and is left out. Not free of the scale of g.
    """
    g, a = probe.gradients().double(), probe.activations.double()
    denominator = 2 * g**2 + g**3 * a.sum((2, 3), keepdim=True)
    alpha = g**2 / torch.where(denominator == 0, 1.0, denominator)
    weights = (alpha * g.relu()).sum((2, 3))
    return torch.einsum("bk,bkhw->bhw", weights, a).relu().to(probe.activations.dtype)


def hires_cam(probe: Probe) -> Tensor:
    """HiResCAM (Draelos & Carin 2020, eq. 4): ``sum_k g_k · A_k`` position by position, signed."""
    return (probe.gradients() * probe.activations).sum(1)


def layer_cam(probe: Probe) -> Tensor:
    """LayerCAM (Jiang et al., TIP 2021, eq. 5-7): ``ReLU(sum_k ReLU(g_k) · A_k)``."""
    return (probe.gradients().relu() * probe.activations).sum(1).relu()
