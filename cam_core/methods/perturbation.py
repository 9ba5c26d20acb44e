"""Maps from the scores of masked images or masked channels. H_k is channel k of A [B,K,h,w] brought to image size and min-maxed."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from cam_core import maps
from cam_core.methods.activation import weighted_sum
from cam_core.methods.gradient import stages
from cam_core.options import one_of
from cam_core.probe import Finish, Probe

# --- one pass per channel: the channel masks the normalised image (mean-colour fill) ------------------------------------------------------


def score_cam(probe: Probe) -> Tensor:
    """Score-CAM (Wang et al., CVPRW 2020) in the form of the authors' code: ``ReLU(sum_k p_c(x · H_k) A_k)``, K passes.

    p_c is the probability, without the baseline of Definition 4 and without the softmax over channels of Algorithm 1, which
    contradict each other. Constant channels are skipped. The sum is taken before upsampling, which gives the same map, since both are
    linear.
    """
    useful, logits = _under_every_channel(probe)
    weights = torch.where(useful, probe.probability(logits), 0.0)
    return weighted_sum(weights, probe.activations).relu()


def channel_scores(probe: Probe, useful: Tensor) -> Tensor:
    """p_c(x · H_k) [B,K] of the channels that are ``useful`` [B,K], 0 for the others."""
    return torch.where(useful, probe.probability(_masked(probe, useful)), 0.0)


def score_cam_softmax(probe: Probe) -> Tensor:
    """Score-CAM as the libraries have it: the weights are a softmax over channels of the target's *logits* (any baseline cancels)."""
    useful, logits = _under_every_channel(probe)
    return weighted_sum(_channel_softmax(probe.score(logits), useful), probe.activations).relu()


def score_cam_l_cam(probe: Probe) -> Tensor:
    """Score-CAM as in L-CAM's tables: masks ReLU(A_k) at image size over their range, the minimum *not* taken off; these are summed too."""
    a = probe.activations.relu()
    span = _span(a, probe.images.shape[-2:])
    useful = span > 0
    scaled = a / torch.where(useful, span, 1.0)[..., None, None]
    weights = probe.probability(probe.score_masked(scaled, "mean", select=useful))
    return weighted_sum(torch.where(useful, weights, 0.0), scaled).relu()


def _under_every_channel(probe: Probe) -> tuple[Tensor, Tensor]:
    """Which channels are not constant [B,K], and the logits [B,K,C] of the images under them, which several methods share."""
    useful = ~maps.is_empty(probe.activations)
    return useful, probe.once("under every channel", lambda: _masked(probe, useful))


def ss_cam(probe: Probe, samples: int = 35, sigma: float = 2.0, seed: int = 0) -> Tensor:
    """SS-CAM (Naidu & Michael 2020): softmax over channels of the mean logit over noisy masks ``H_k + N(0, sigma²)``; samples · K passes.

    The noise is drawn at image size from ``seed``, the same for every channel and image (ours). sigma = 2 is TorchCAM's, for masks in [0,
    1]; we could not check it against the paper.
    """
    generator = torch.Generator().manual_seed(seed)
    size = probe.images.shape[-2:]
    drawn = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(samples))
    noise = ((sigma * one).to(probe.images, non_blocking=True) for one in drawn)
    return _mean_over_masks(probe, (partial(torch.add, n) for n in noise), samples)


def is_cam(probe: Probe, samples: int = 10, *, cumulative: bool = False) -> Tensor:
    """IS-CAM (Naidu et al. 2020): softmax over channels of the mean logit along ``i/N · H_k``, i = 1..N; N · K passes.

    ``cumulative``: TorchCAM's multipliers, the running sums of i/N, up to (N + 1) / 2 times the image.
    """
    factors = torch.arange(1, samples + 1, dtype=torch.float64, device=probe.images.device) / samples
    factors = factors.cumsum(0) if cumulative else factors
    return _mean_over_masks(probe, (partial(torch.mul, f) for f in factors), samples)


def _mean_over_masks(probe: Probe, changes: Iterable[Finish], samples: int) -> Tensor:
    useful = ~maps.is_empty(probe.activations)
    total = torch.zeros_like(probe.activations[:, :, 0, 0])
    for change in changes:
        total += probe.score(_masked(probe, useful, change)) / samples
    return weighted_sum(_channel_softmax(total, useful), probe.activations).relu()


def _masked(probe: Probe, useful: Tensor, change: Finish = lambda mask: mask) -> Tensor:
    """Logits [B,K,C] of the images under H_k, or under ``change(H_k)``; NaN for channels that are not ``useful``."""
    size = probe.images.shape[-2:]
    return probe.score_masked(probe.activations, "mean", lambda a: change(maps.min_max(maps.upsample(a, size))), select=useful)


def _span(a: Tensor, size: torch.Size) -> Tensor:
    """Maximum minus minimum [B,K] of each channel at image size, computed 64 channels at a time to save memory."""
    each = [maps.upsample(part, size) for part in a.flatten(0, 1).split(64)]
    return torch.cat([part.amax((1, 2)) - part.amin((1, 2)) for part in each]).reshape(a.shape[:2])


def poly_cam(probe: Probe, layers: Sequence[str] = (), gain: str = "both") -> Tensor:
    """Poly-CAM (Englebert et al., MVA 2024; arXiv 2022), read in its abstract and repository: the maps of several layers multiplied.

    ``M_l = ReLU(sum_k w_k A_k)``; from the deepest layer up, ``P_l = M_l / max(D_l, 1e-12) · P_(l+1)``, where P_(l+1) is enlarged and D_l
    is M_l at the size of P_(l+1), enlarged again, so that M_l only says where P_(l+1) has its detail. H_k is A_k minus its 0.1th
    percentile, over its 99.9th, within [0, 1] (as released; the mean colour is the fill). ``gain``: "plus", ``w_k = p_c(x · H_k)``;
    "minus", ``ReLU(p_c(x) - p_c(x · (1 - H_k)))``; "both", the sum before the ReLU. ``layers`` as in `layer_cam_fused`.
    """
    one_of("gain", gain, ("plus", "minus", "both"))
    probes = [probe.at(layer) for layer in layers or stages(probe.classifier)]
    *finer, product = (weighted_sum(_poly_weights(at, gain), at.activations).relu() for at in probes)
    for heat in reversed(finer):
        coarse = maps.upsample(maps.upsample(heat, product.shape[-2:]), heat.shape[-2:])
        product = heat / coarse.clamp(min=1e-12) * maps.upsample(product, heat.shape[-2:])
    return product


def _poly_weights(probe: Probe, gain: str) -> Tensor:
    """[B,K] of one layer."""
    a = probe.activations
    low, high = (  # image by image, because quantile takes 16 million values
        torch.stack([one.flatten(1).quantile(share, dim=1) for one in a])[..., None, None] for share in (0.001, 0.999)
    )
    masks = ((a - low) / high.clamp(min=1e-12)).clamp(0, 1)

    def under(shown: Tensor) -> Tensor:
        return probe.probability(probe.score_masked(shown, "mean"))

    if gain == "plus":
        return under(masks)
    lost = probe.probability(probe.logits)[:, None] - under(1 - masks)
    return (lost if gain == "minus" else lost + under(masks)).relu()


# --- the head alone, on activations without some channels -------------------------------------------------------------------------------


def ablation_cam(probe: Probe) -> Tensor:
    """Ablation-CAM (Desai & Ramaswamy, WACV 2020): ``ReLU(sum_k (y - y_k) / |y| A_k)``, y_k the logit with channel k set to zero.

    The head runs K times, the trunk once. The paper divides by y, which flips the sign of the map where y < 0; we divide by |y|. Finishing
    removes the scale.
    """
    channels = probe.activations.shape[1]
    keep = 1 - torch.eye(channels, device=probe.activations.device, dtype=probe.activations.dtype)
    without = probe.score(probe.score_channels(keep.expand(len(probe.images), -1, -1)))
    y = probe.score(probe.logits[:, None])
    return weighted_sum((y - without) / torch.where(y == 0, 1.0, y.abs()), probe.activations).relu()


def fd_cam(probe: Probe, quantile: float = 0.95) -> Tensor:
    """FD-CAM (Li et al., ICPR 2022), from the authors' code: ``ReLU(sum_k (exp(s_k) a_k - 0.5) A_k)``.

    G_k are the channels whose cosine with channel k exceeds the ``quantile`` of its cosines. s_k: logit with G_k alone plus the drop of
    the logit without G_k; a_k: mean gradient; both min-maxed over the channels. The head runs 2K times, the trunk once.
    """
    a = probe.activations.flatten(2)
    unit = a / torch.where((norm := a.norm(dim=2, keepdim=True)) == 0, 1.0, norm)
    cosines = unit @ unit.mT
    group = (cosines > cosines.quantile(quantile, dim=2, keepdim=True)).to(a.dtype)  # [B,K,K]
    alone, without = (probe.score(probe.score_channels(keep)) for keep in (group, 1 - group))
    scores = alone + probe.score(probe.logits[:, None]) - without
    s, g = (maps.min_max(values[:, None])[:, 0] for values in (scores, probe.gradients().mean((2, 3))))
    return weighted_sum(s.exp() * g - 0.5, probe.activations).relu()


def recipro_cam(probe: Probe) -> Tensor:
    """Recipro-CAM (Byun & Lee, CVPRW 2024): at each position p_c(head of the activations with this position alone, the rest zero).

    The head runs h · w times, the trunk once. As released by the authors, without the Gaussian window that the code also has.
    """
    h, w = probe.activations.shape[-2:]
    alone = torch.eye(h * w, dtype=probe.activations.dtype, device=probe.activations.device).reshape(1, h * w, 1, h, w)
    scores = probe.score_scaled(alone.expand(len(probe.images), -1, -1, -1, -1))
    return probe.probability(scores).reshape(-1, h, w)


# --- other masks -----------------------------------------------------------------------------------------------------------------------


def group_cam(probe: Probe, groups: int = 32) -> Tensor:
    """Group-CAM (Zhang et al. 2021) as released with the paper: consecutive channels summed with Grad-CAM's weights, G + 1 passes.

    M_l = ReLU(sum in the group), all but its highest 30 % set to zero, H_l its min-max at image size; the rest of the image is blurred
    (51 x 51, sigma 50). ``ReLU(sum_l (p_c(x under H_l) - p_c(blurred)) H_l)`` at image size.
    """
    return _group_cam(probe, groups, denoise=0.7, rectify=False, normalised=True)


def group_cam_head(probe: Probe, groups: int = 32) -> Tensor:
    """Group-CAM as in its repository's latest version: no denoising, only increases count, M_l summed as they are."""
    return _group_cam(probe, groups, denoise=0.0, rectify=True, normalised=False)


def _group_cam(probe: Probe, groups: int, *, denoise: float, rectify: bool, normalised: bool) -> Tensor:
    size, a = probe.images.shape[-2:], probe.activations
    parts = (probe.gradients().mean((2, 3))[..., None, None] * a).chunk(groups, 1)
    m = torch.stack([part.sum(1).relu() for part in parts], 1)  # [B,G,h,w]
    if denoise:
        m = torch.where(m > m.flatten(2).quantile(denoise, dim=2)[..., None, None], m, 0.0)
    useful = ~maps.is_empty(m)
    kernel = min(51, 2 * ((min(size) - 1) // 2) + 1)  # the blur reflects the border, so the kernel must fit into a tiny image
    blurred = gaussian_blur(probe.images, [kernel, kernel], [50.0, 50.0])
    masks = F.pad(m, (0, 0, 0, 0, 1, 0))  # first mask: all zeros, which gives the blurred image
    select = F.pad(useful, (1, 0), value=True)
    logits = probe.score_masked(masks, blurred, lambda mask: maps.min_max(maps.upsample(mask, size)), select=select)
    p = probe.probability(logits)
    gain = torch.where(useful, p[:, 1:] - p[:, :1], 0.0)
    gain = gain.relu() if rectify else gain
    shown = maps.upsample(m, size)
    return weighted_sum(gain, maps.min_max(shown) if normalised else shown).relu()


def rise(probe: Probe, samples: int = 4000, cells: int = 7, share: float = 0.5, seed: int = 0) -> Tensor:
    """RISE (Petsiuk et al., BMVC 2018): ``1/(N p) sum_i p_c(x · M_i) M_i`` at image size [B,H,W], N passes.

    M_i: a grid of ``cells`` x ``cells`` ones with probability ``share``, enlarged bilinearly and shifted at random; drawn from ``seed``,
    shared by all images. The paper has 4000 masks for VGG-16 and 8000 for ResNet-50; the normalised image is masked (mean-colour fill).
    """
    total = torch.zeros_like(probe.images[:, 0])
    for block in rise_masks(probe.images.shape[-2:], samples, cells, share, seed):
        masks = block.to(probe.images, non_blocking=True)
        logits = probe.score_masked(masks.expand(len(total), *masks.shape), "mean")
        total += torch.einsum("bm,mhw->bhw", probe.probability(logits), masks)
    return total / (samples * share)


def rise_masks(size: torch.Size, samples: int, cells: int = 7, share: float = 0.5, seed: int = 0, block: int = 100) -> Iterator[Tensor]:
    """RISE's masks [<= ``block``,H,W] in [0, 1], one block after the other."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.tensor([math.ceil(side / cells) for side in size])
    grids = (torch.rand(samples, cells, cells, generator=generator) < share).float()
    shifts = (torch.rand(samples, 2, generator=generator) * step).long()
    for grid, shift in zip(grids.split(block), shifts.split(block), strict=True):
        large = maps.upsample(grid, tuple(((cells + 1) * step).tolist()))
        yield torch.stack([one[y : y + size[0], x : x + size[1]] for one, (y, x) in zip(large, shift.tolist(), strict=True)])


def opti_cam(probe: Probe, steps: int = 50, lr: float = 0.1) -> Tensor:
    """Opti-CAM (Zhang et al. 2023): the convex combination of the channels whose mask raises the target's logit most; black fill.

    ``S = sum_k softmax(u)_k ReLU(A_k)``, u from 0.5 by Adam on f_c(min_max(S) · x), ``steps`` passes with gradient to the image. Each image
    is optimised on its own (the authors stop a whole batch by its summed loss).
    """
    a, size = probe.activations.relu(), probe.images.shape[-2:]
    with torch.inference_mode(mode=False), torch.enable_grad():
        a, images = a.clone(), probe.images.clone()
        u = torch.full_like(a[:, :, 0, 0], 0.5, requires_grad=True)
        adam = torch.optim.Adam([u], lr=lr)
        for _ in range(steps):
            shown = maps.min_max(maps.upsample(weighted_sum(u.softmax(1), a), size))
            logits = probe.classifier(shown[:, None] * images)
            adam.zero_grad()
            u.grad = torch.autograd.grad(-probe.score(logits).sum(), u)[0]
            adam.step()
        return weighted_sum(u.detach().softmax(1), a)


# --- shared ----------------------------------------------------------------------------------------------------------------------------


def _channel_softmax(scores: Tensor, useful: Tensor) -> Tensor:
    """Softmax over the useful channels [B,K]; the others, and all where none is useful, weigh 0."""
    return torch.where(useful, scores.masked_fill(~useful, -math.inf).softmax(1), 0.0)
