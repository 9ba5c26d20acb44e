"""Maps from activations A [B,K,h,w] and gradients g = d(logit of the target)/dA. Each costs one pass and one gradient of the head."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.methods.activation import first_component, weighted_sum
from cam_core.methods.control import image_seeds
from cam_core.probe import Probe

# The stages whose maps LayerCAM and RefineCAM join, from shallow to deep, after their ReLU; stages after the explained layer are left out.
_RESNET = ("layer1", "layer2", "layer3", "layer4")
STAGES = {
    "resnet": _RESNET, "resnext": _RESNET, "wide_resnet": _RESNET,
    "vgg16": ("features.8", "features.15", "features.22", "features.29"),
    "vgg19": ("features.8", "features.17", "features.26", "features.35"),
    "vgg16_bn": ("features.12", "features.22", "features.32", "features.42"),
    "vgg19_bn": ("features.12", "features.25", "features.38", "features.51"),
    "efficientnet_lite0": ("blocks.2.0.bn1", "blocks.3.0.bn1", "blocks.5.0.bn1", "bn2"),
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


def grad_cam_elementwise(probe: Probe) -> Tensor:
    """``sum_k ReLU(g_k · A_k)``, as pytorch-grad-cam's GradCAMElementWise: HiResCAM rectified in every channel."""
    return (probe.gradients() * probe.activations).relu().sum(1)


def eigen_grad_cam(probe: Probe) -> Tensor:
    """The first principal component of ``g_k · A_k`` (pytorch-grad-cam's EigenGradCAM), centred, the larger extreme made positive."""
    return first_component(probe.gradients() * probe.activations, centred=True)


def seg_eigen_cam(probe: Probe) -> Tensor:
    """Seg-Eigen-CAM (Chung & Ying 2025), read in pytorch-grad-cam: `eigen_grad_cam` of ``|g_k| · A_k``; made for segmentation."""
    return first_component(probe.gradients().abs() * probe.activations, centred=True)


def finer_cam(probe: Probe, strength: float = 0.6, references: int = 3) -> Tensor:
    """Finer-CAM (Zhang et al., CVPR 2025): Grad-CAM of ``y_c - strength · mean_d y_d``, d the classes with the nearest logits.

    From the abstract, summaries and TorchCAM, whose defaults these are.
    """
    nearest = _nearest_classes(probe, references)
    return _finer_cam(probe, nearest, torch.full_like(nearest, strength / nearest.shape[1], dtype=probe.logits.dtype))


def finer_cam_softmax(probe: Probe, references: int = 3) -> Tensor:
    """Finer-CAM as in its release and pytorch-grad-cam: ``y_c - sum_d v_d y_d``, v the softmax of the y_d, which is differentiated too."""
    nearest = _nearest_classes(probe, references)
    y = probe.logits.gather(1, nearest)
    v = y.softmax(1)
    return _finer_cam(probe, nearest, v * (1 + y - (v * y).sum(1, keepdim=True)))


def _nearest_classes(probe: Probe, count: int) -> Tensor:
    """The classes [B,d] whose logits are nearest to the target's, the target left out; d = ``count``, or all others if fewer."""
    apart = (probe.logits - probe.of_target(probe.logits)[:, None]).abs().scatter(1, probe.targets[:, None], torch.inf)
    return apart.topk(min(count, apart.shape[1] - 1), largest=False).indices


def _finer_cam(probe: Probe, classes: Tensor, weights: Tensor) -> Tensor:
    """Grad-CAM of the target's logit minus those of other ``classes`` [B,d] times ``weights`` [B,d]."""
    batch = torch.arange(len(classes), device=classes.device).repeat_interleave(classes.shape[1])
    others = probe.pairs(batch, classes.flatten()).gradients().unflatten(0, classes.shape)
    gradients = probe.gradients() - torch.einsum("bd,bdkhw->bkhw", weights, others)
    return weighted_sum(gradients.mean((2, 3)), probe.activations).relu()


def shapley_cam(probe: Probe) -> Tensor:
    """ShapleyCAM (Cai 2025): ``ReLU(sum_k mean(g_k - (H A)_k / 2) A_k)``, g and H gradient and Hessian of ReST = ``y_c + log p_c``.

    The second-order Taylor expansion of the Shapley values; read in pytorch-grad-cam, which has the author's code.
    """

    def rest(logits: Tensor) -> Tensor:
        return probe.of_target(logits) + probe.of_target(probe.classifier.log_probabilities(logits))

    gradients, curved = probe.second_order(rest)
    return weighted_sum((gradients - curved / 2).mean((2, 3)), probe.activations).relu()


def expected_grad_cam(probe: Probe, samples: int = 10, spread: float = 0.15, seed: int = 0) -> Tensor:
    """Expected Grad-CAM (Buono et al. 2024): ``ReLU(sum_k w_k A_k)``, ``w_k = E[sum g_k(x' + t (x - x')) · (A_k(x) - A_k(x'))]``.

    Known from its abstract alone (expected gradients, smoothed, complete); the rest is our choice: the baseline x' is one random colour,
    t the midpoints of ``samples`` equal steps in random order, and the path carries SmoothGrad's noise of ``spread`` times the image's
    range. Drawn from ``seed`` and the image's content. With little noise the weights add up to about ``y_c(x) - E y_c(x')``.
    """
    x, a = probe.images, probe.activations
    sigma = spread * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))[:, None, None, None]
    generators = [torch.Generator().manual_seed(s) for s in image_seeds(probe, seed)]
    order = torch.stack([torch.randperm(samples, generator=g) for g in generators], 1)  # [samples,B]
    total = torch.zeros_like(a[:, :, 0, 0])
    for turn in order:
        colour = torch.stack([torch.rand(x.shape[1], 1, 1, generator=g, dtype=torch.float64) for g in generators])
        noise = torch.stack([torch.randn(x.shape[1:], generator=g, dtype=torch.float64) for g in generators])
        t = ((turn.double() + 0.5) / samples)[:, None, None, None]
        baseline = colour.to(x, non_blocking=True).expand_as(x)
        between = torch.lerp(baseline, x, t.to(x, non_blocking=True)) + sigma * noise.to(x, non_blocking=True)
        total += (probe.like(between).gradients() * (a - probe.like(baseline).activations)).sum((2, 3)) / samples
    return weighted_sum(total, a).relu()


def layer_cam(probe: Probe) -> Tensor:
    """LayerCAM (Jiang et al., TIP 2021, eq. 5-7): ``ReLU(sum_k ReLU(g_k) · A_k)``."""
    return (probe.gradients().relu() * probe.activations).sum(1).relu()


def layer_cam_fused(probe: Probe, layers: Sequence[str] = (), gamma: float = 2.0) -> Tensor:
    """LayerCAM of several layers, the maximum over them at the largest map's size: ``max_l tanh(gamma M_l / max M_l)``, deepest unscaled.

    ``layers`` from shallow to deep; by default those of `STAGES`, the deepest being the explained layer. Every map is divided
    by its maximum, without which layers do not compare (ours; the scaling by tanh is the paper's, for all but the deepest).
    """
    layers = layers or stages(probe.classifier)
    found = [layer_cam(probe.at(layer)) for layer in layers]
    scaled = [_over(m, m.amax((1, 2), keepdim=True)) for m in found]
    scaled = [*((gamma * m).tanh() for m in scaled[:-1]), scaled[-1]]
    size = max((m.shape[-2:] for m in scaled), key=lambda s: s[0] * s[1])
    return torch.stack([maps.upsample(m, size) for m in scaled]).amax(0)


def refine_cam(probe: Probe, layers: Sequence[str] = (), base: Callable[[Probe], Tensor] = grad_cam_pp) -> Tensor:
    """RefineCAM (Domeniconi et al. 2026): the product over several layers of their maps of ``base``, each in [0, 1], at the largest size.

    Read in pytorch-grad-cam and TorchCAM; the abstract only says that maps of several layers are aggregated. ``layers`` as in
    `layer_cam_fused`.
    """
    found = [maps.min_max(base(probe.at(layer))) for layer in layers or stages(probe.classifier)]
    size = max((m.shape[-2:] for m in found), key=lambda s: s[0] * s[1])
    return torch.stack([maps.upsample(m, size) for m in found]).prod(0)


def stages(classifier: Classifier) -> Sequence[str]:
    """The layers of `STAGES` up to the explained one; ValueError if the network is not there or the layer is none of them."""
    name, layer = classifier.name, classifier.layer
    known = STAGES.get(max((key for key in STAGES if name.startswith(key)), key=len, default=""), ())
    if layer not in known:
        raise ValueError(
            f"which layers of {name or 'this network'} up to {layer!r} are joined is not known: pass layers=[...] from shallow to deep"
        )
    return known[: known.index(layer) + 1]


def _over(above: Tensor, below: Tensor) -> Tensor:
    """The quotient; a denominator of 0 counts as 1."""
    return above / torch.where(below == 0, 1.0, below)
