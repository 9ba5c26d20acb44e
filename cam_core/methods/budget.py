"""Score-CAM with a budget of passes (ours): some channels are scored, and the weights of the others are predicted from these scores.

The score of a masked image is a smooth function of its mask of h x w numbers, so a Gaussian process over the min-maxed masks, with the
scored channels as its observations, predicts the others. It approximates the authors' form, `score_cam`, and approaches it as the budget
grows. In results it has a name of its own.
"""

import torch
from torch import Tensor

from cam_core import maps
from cam_core.methods.activation import weighted_sum
from cam_core.methods.perturbation import channel_scores
from cam_core.probe import Probe

NOISE = 1e-4  # of the prior variance: scores are exact, this only keeps the equations well conditioned


def score_cam_budget(probe: Probe, passes: int = 64) -> Tensor:
    """Approximate Score-CAM [B,h,w] with ``passes`` passes per image."""
    a = probe.activations
    masks = maps.min_max(a).flatten(2).double()
    chosen = order(a, masks, passes)[:, :passes]
    weights = predicted(masks, chosen, _passed(probe, chosen), ~maps.is_empty(a))
    return weighted_sum(weights.to(a.dtype), a).relu()


def score_cam_until(probe: Probe, accuracy: float = 0.99, start: int = 32) -> Tensor:
    """Approximate Score-CAM [B,h,w]: ``start`` passes, doubled until the predicted correlation with the exact map reaches ``accuracy``."""
    a = probe.activations
    masks, useful = maps.min_max(a).flatten(2).double(), ~maps.is_empty(a)
    ranked, heat = order(a, masks), torch.zeros_like(a[:, 0])
    known, waiting = masks.new_zeros(len(a), 0), torch.arange(len(a), device=a.device)
    passes = min(start, a.shape[1])
    while len(waiting):
        fresh = _passed(probe.pairs(waiting), ranked[waiting, known.shape[1] : passes])
        known, chosen = torch.cat([known, fresh], 1), ranked[waiting, :passes]
        weights = predicted(masks[waiting], chosen, known, useful[waiting])
        heat[waiting] = weighted_sum(weights.to(a.dtype), a[waiting]).relu()
        if passes == a.shape[1]:
            break
        unsure = ~(promised(a[waiting], masks[waiting], chosen, known) >= accuracy)
        waiting, known, passes = waiting[unsure], known[unsure], min(2 * passes, a.shape[1])
    return heat


def order(activations: Tensor, masks: Tensor, count: int = 1024) -> Tensor:
    """Which channel passes first, second, ...: [B,K] from activations [B,K,h,w] and masks [B,K,hw].

    Greedy: next comes the channel whose weight is least certain, times the norm of A_k; no scores are needed (pivoted Cholesky of the
    weighted kernel). Exact for the first ``count``. Constant channels come last.
    """
    norms = torch.where(maps.is_empty(activations), 0.0, activations.flatten(2).double().norm(dim=2))
    return torch.stack([_pivots(kernel(m) * n * n[:, None], count) for m, n in zip(masks, norms, strict=True)])


def _pivots(covariance: Tensor, count: int) -> Tensor:
    """The first ``count`` pivots of the Cholesky factor, largest remaining variance first; then all others by what is left of theirs."""
    left = covariance.diagonal().clone()
    factor = torch.zeros_like(covariance[:, :count])
    pivots: list[int] = []
    for done in range(min(count, len(left))):
        pivot = int(left.argmax())
        if left[pivot] <= 1e-12 * covariance.diagonal().max():
            break
        factor[:, done] = (covariance[:, pivot] - factor[:, :done] @ factor[pivot, :done]) / left[pivot].sqrt()
        left = (left - factor[:, done] ** 2).clamp_min(0)
        left[pivot] = 0
        pivots.append(pivot)
    left[pivots] = left.max() + torch.arange(len(pivots), 0, -1, dtype=left.dtype, device=left.device)
    return left.argsort(descending=True)


def kernel(masks: Tensor) -> Tensor:
    """RBF kernel [K,K] of masks [K,hw], its length the median distance of two different masks."""
    distances = torch.cdist(masks, masks, compute_mode="donot_use_mm_for_euclid_dist")
    apart = distances[distances > 0]
    length = apart.median() if len(apart) else masks.new_tensor(1.0)
    covariance: Tensor = torch.exp(-((distances / length) ** 2) / 2)
    return covariance


def predicted(masks: Tensor, chosen: Tensor, scores: Tensor, useful: Tensor) -> Tensor:
    """Weights [B,K]: ``scores`` [B,m] of the ``chosen`` channels [B,m], the process's mean for the others, 0 where not ``useful``."""
    rows = []
    for m, index, y, keep in zip(masks, chosen, scores, useful, strict=True):
        covariance = kernel(m)
        weights = y.mean() + covariance[:, index] @ torch.linalg.solve(_seen(covariance, index), y - y.mean())
        weights[index] = y
        rows.append(torch.where(keep, weights, 0.0))
    return torch.stack(rows)


def promised(activations: Tensor, masks: Tensor, chosen: Tensor, scores: Tensor) -> Tensor:
    """Expected correlation [B] with the exact map, from the posterior covariance of the weights that were not scored."""
    out = []
    for a, m, index, y in zip(activations, masks, chosen, scores, strict=True):
        covariance, flat = kernel(m), a.flatten(1).double()
        inverse = torch.linalg.inv(_seen(covariance, index))
        centred = y - y.mean()
        scale = (centred @ inverse @ centred / len(index)).clamp_min(0)
        posterior = scale * (covariance - covariance[:, index] @ inverse @ covariance[index])
        spatial = flat - flat.mean(1, keepdim=True)
        weights = y.mean() + covariance[:, index] @ inverse @ centred
        signal = ((weights @ spatial) ** 2).sum()
        error = torch.einsum("kp,kl,lp->", spatial, posterior, spatial).clamp_min(0)
        out.append((signal / (signal + error)).sqrt() if signal > 0 else signal)
    return torch.stack(out)


def _seen(covariance: Tensor, index: Tensor) -> Tensor:
    return covariance[index][:, index] + NOISE * torch.eye(len(index), dtype=covariance.dtype, device=covariance.device)


def _passed(probe: Probe, chosen: Tensor) -> Tensor:
    """Probabilities [B,m] of the target under the ``chosen`` channels' masks; 0 for a constant channel, as in `score_cam`."""
    select = torch.zeros(probe.activations.shape[:2], dtype=torch.bool, device=chosen.device).scatter(1, chosen, value=True)
    scores = channel_scores(probe, select & ~maps.is_empty(probe.activations))
    return scores.gather(1, chosen).double()
