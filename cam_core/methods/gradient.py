"""Maps from activations A [B,K,h,w] and gradients g = d(logit of the target)/dA. Each costs one pass and one gradient of the head."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.methods.activation import weighted_sum
from cam_core.probe import Probe

# The stages whose maps LayerCAM fuses, from shallow to deep, after their ReLU; stages after the explained layer are left out.
_RESNET = ("layer1", "layer2", "layer3", "layer4")
STAGES = {
    "resnet": _RESNET, "resnext": _RESNET, "wide_resnet": _RESNET,
    "vgg16": ("features.8", "features.15", "features.22", "features.29"),
    "vgg19": ("features.8", "features.17", "features.26", "features.35"),
    "vgg16_bn": ("features.12", "features.22", "features.32", "features.42"),
    "vgg19_bn": ("features.12", "features.25", "features.38", "features.51"),
}  # fmt: skip


def grad_cam(probe: Probe) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1-2): ``ReLU(sum_k mean(g_k) A_k)``."""
    return weighted_sum(probe.gradients().mean((2, 3)), probe.activations).relu()


def xgrad_cam(probe: Probe) -> Tensor:
    """XGrad-CAM (Fu et al., BMVC 2020, eq. 8): ``ReLU(sum_k w_k A_k)`` with ``w_k = sum(g_k A_k) / sum(A_k)``; a dead channel has 0."""
    g, a = probe.gradients(), probe.activations
    total = a.sum((2, 3))
    return weighted_sum((g * a).sum((2, 3)) / torch.where(total == 0, 1.0, total), a).relu()


def grad_cam_pp(probe: Probe) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 5, 11-12, 19), on Y = exp(logit).

    ``alpha = g² / (2 g² + g³ sum A)`` (denominator 0 counts as 1), ``w_k = sum alpha ReLU(g)``, ``ReLU(sum_k w_k A_k)``; in float64, g²
    being about 4e-7 on a ResNet. The factor exp(logit) scales the whole map and is left out. The map depends on the scale of g.
    """
    g, a = probe.gradients().double(), probe.activations.double()
    alpha = _over(g**2, 2 * g**2 + g**3 * a.sum((2, 3), keepdim=True))
    return weighted_sum((alpha * g.relu()).sum((2, 3)), a).relu().to(probe.activations.dtype)


def grad_cam_pp_authors(probe: Probe) -> Tensor:
    """Grad-CAM++ as its authors' code computes it: each channel's alpha is first divided by its sum where g > 0 (a sum of 0: by 1)."""
    g, a = probe.gradients().double(), probe.activations.double()
    alpha = _over(g**2, 2 * g**2 + g**3 * a.sum((2, 3), keepdim=True))
    alpha = _over(alpha, torch.where(g > 0, alpha, 0.0).sum((2, 3), keepdim=True))
    return weighted_sum((alpha * g.relu()).sum((2, 3)), a).relu().to(probe.activations.dtype)


def grad_cam_pp_l_cam(probe: Probe) -> Tensor:
    """Grad-CAM++ as in L-CAM's tables: of the *probability*, ``g³`` summed together with A in the denominator, ``+ 1e-7`` there."""
    g, a = probe.gradients("probability").double(), probe.activations.double()
    below = 2 * g**2 + (g**3 * a).sum((2, 3), keepdim=True)
    alpha = g**2 / (torch.where(below == 0, 1.0, below) + 1e-7)
    return weighted_sum((alpha * g.relu()).sum((2, 3)), a).relu().to(probe.activations.dtype)


def hires_cam(probe: Probe) -> Tensor:
    """HiResCAM (Draelos & Carin 2020, eq. 4): ``sum_k g_k · A_k`` position by position, signed."""
    return (probe.gradients() * probe.activations).sum(1)


def layer_cam(probe: Probe) -> Tensor:
    """LayerCAM (Jiang et al., TIP 2021, eq. 5-7): ``ReLU(sum_k ReLU(g_k) · A_k)``."""
    return (probe.gradients().relu() * probe.activations).sum(1).relu()


def layer_cam_fused(probe: Probe, layers: Sequence[str] = (), gamma: float = 2.0) -> Tensor:
    """LayerCAM of several layers, the maximum over them at the largest map's size: ``max_l tanh(gamma M_l / max M_l)``, deepest unscaled.

    ``layers`` from shallow to deep; by default the stages of a ResNet or VGG, the deepest being the explained layer. Every map is divided
    by its maximum, without which layers do not compare (ours; the scaling by tanh is the paper's, for all but the deepest).
    """
    layers = layers or _stages(probe.classifier)
    found = [layer_cam(probe.at(layer)) for layer in layers]
    scaled = [_over(m, m.amax((1, 2), keepdim=True)) for m in found]
    scaled = [*((gamma * m).tanh() for m in scaled[:-1]), scaled[-1]]
    size = max((m.shape[-2:] for m in scaled), key=lambda s: s[0] * s[1])
    return torch.stack([maps.upsample(m, size) for m in scaled]).amax(0)


def _stages(classifier: Classifier) -> Sequence[str]:
    name, layer = classifier.name, classifier.layer
    stages = STAGES.get(max((key for key in STAGES if name.startswith(key)), key=len, default=""), ())
    if layer not in stages:
        raise ValueError(
            f"which layers of {name or 'this network'} up to {layer!r} LayerCAM fuses is not known: pass layers=[...] from shallow to deep"
        )
    return stages[: stages.index(layer) + 1]


def _over(above: Tensor, below: Tensor) -> Tensor:
    """The quotient; a denominator of 0 counts as 1."""
    return above / torch.where(below == 0, 1.0, below)
