"""Score-CAM within a budget of passes (ours): some channels are passed, the weights of the others are predicted from them.

The score of a masked image is a smooth function of its mask of h x w numbers, so a Gaussian process over the min-maxed masks, with the
passed channels as its observations, gives the others. Authors' form of Score-CAM throughout (`score_cam`, to which it tends as the budget
grows). In results it never goes by the exact method's name.
"""

import torch
from torch import Tensor

from cam_core import maps
from cam_core.methods.perturbation import channel_scores
from cam_core.probe import Probe

NOISE = 1e-4  # of the prior variance: the score is exact, this only keeps the equations well posed


def score_cam_budget(probe: Probe, passes: int = 64, choose: str = "variance") -> Tensor:
    """Map [B,h,w] like Score-CAM's for ``passes`` passes an image; ``choose`` says which channels pass (`order`)."""
    a = probe.activations
    masks = maps.min_max(a).flatten(2).double()
    chosen = order(a, masks, choose, passes)[:, :passes]
    return _map(a, predicted(masks, chosen, _passed(probe, chosen), ~maps.is_empty(a)))


def score_cam_until(probe: Probe, accuracy: float = 0.99) -> Tensor:
    """Map [B,h,w] like Score-CAM's: the budget doubles until the process's own error promises a correlation of ``accuracy`` with it."""
    return until_promised(probe, accuracy)[0]


def until_promised(probe: Probe, accuracy: float, start: int = 32) -> tuple[Tensor, Tensor]:
    """`score_cam_until`'s maps [B,h,w], from ``start`` passes on, and the passes that each image took [B]."""
    a = probe.activations
    masks, useful = maps.min_max(a).flatten(2).double(), ~maps.is_empty(a)
    ranked = order(a, masks, "variance")
    heat, spent = torch.zeros_like(a[:, 0]), torch.zeros(len(a), dtype=torch.int64)
    known = torch.zeros(len(a), 0, dtype=torch.float64, device=a.device)
    waiting, passes = torch.arange(len(a), device=a.device), min(start, a.shape[1])
    while len(waiting):
        part = probe.pairs(waiting, probe.targets[waiting])
        fresh = _passed(part, ranked[waiting, known.shape[1] : passes])
        known = torch.cat([known, fresh], 1)
        weights = predicted(masks[waiting], ranked[waiting, :passes], known, useful[waiting])
        heat[waiting] = _map(a[waiting], weights)
        spent[waiting.cpu()] = passes
        sure = promised(a[waiting], masks[waiting], ranked[waiting, :passes], known) >= accuracy
        sure |= passes >= a.shape[1]
        waiting, known, passes = waiting[~sure], known[~sure], min(2 * passes, a.shape[1])
    return heat, spent


def order(activations: Tensor, masks: Tensor, choose: str = "variance", count: int = 1024) -> Tensor:
    """Which channel passes first, second, ...: [B,K] from activations [B,K,h,w] and masks [B,K,hw].

    "norm": by the norm of A_k. "spread": by the variance of A_k over space. "variance": greedily the channel whose weight is least certain,
    times the norm of A_k, which asks no score beforehand (pivoted Cholesky of the weighted kernel); exact for the first ``count``.
    Constant channels come last.
    """
    norms = torch.where(maps.is_empty(activations), 0.0, activations.flatten(2).double().norm(dim=2))
    if choose == "norm":
        return norms.argsort(1, descending=True)
    if choose == "spread":
        return activations.flatten(2).var(2).argsort(1, descending=True)
    if choose != "variance":
        raise ValueError(f'channels are chosen by "norm", "spread" or "variance", got {choose!r}')
    return torch.stack([_pivots(kernel(m) * n * n[:, None], count) for m, n in zip(masks, norms, strict=True)])


def _pivots(covariance: Tensor, count: int) -> Tensor:
    """The first ``count`` pivots of the Cholesky factor, largest remaining variance first; then all others by what is left of theirs."""
    left = covariance.diagonal().clone()
    factor = torch.zeros_like(covariance[:, :count])
    pivots: list[int] = []
    while len(pivots) < min(count, len(left)):
        pivot = int(left.argmax())
        if left[pivot] <= 1e-12 * covariance.diagonal().max():
            break
        done = len(pivots)
        factor[:, done] = (covariance[:, pivot] - factor[:, :done] @ factor[pivot, :done]) / left[pivot].sqrt()
        left = (left - factor[:, done] ** 2).clamp_min(0)
        pivots.append(pivot)
        left[pivots] = 0
    left[pivots] = -torch.arange(len(left), dtype=left.dtype, device=left.device)[: len(pivots)] - 1
    rest = left.argsort(descending=True)[: len(left) - len(pivots)]
    return torch.cat([torch.tensor(pivots, dtype=torch.int64, device=left.device), rest])


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
        seen = covariance[index][:, index] + NOISE * torch.eye(len(index), dtype=m.dtype, device=m.device)
        weights = y.mean() + covariance[:, index] @ torch.linalg.solve(seen, y - y.mean())
        weights[index] = y
        rows.append(torch.where(keep, weights, 0.0))
    return torch.stack(rows)


def promised(activations: Tensor, masks: Tensor, chosen: Tensor, scores: Tensor) -> Tensor:
    """Correlation [B] with the exact map that the process expects of its own: from the posterior covariance of the unpassed weights."""
    out = []
    for a, m, index, y in zip(activations, masks, chosen, scores, strict=True):
        covariance, flat = kernel(m), a.flatten(1).double()
        seen = covariance[index][:, index] + NOISE * torch.eye(len(index), dtype=m.dtype, device=m.device)
        inverse = torch.linalg.inv(seen)
        centred = y - y.mean()
        scale = (centred @ inverse @ centred / len(index)).clamp_min(0)
        posterior = scale * (covariance - covariance[:, index] @ inverse @ covariance[index])
        spatial = flat - flat.mean(1, keepdim=True)
        weights = y.mean() + covariance[:, index] @ inverse @ centred
        signal = ((weights @ spatial) ** 2).sum()
        error = torch.einsum("kp,kl,lp->", spatial, posterior, spatial).clamp_min(0)
        out.append((signal / (signal + error)).sqrt() if signal > 0 else signal)
    return torch.stack(out)


def _passed(probe: Probe, chosen: Tensor) -> Tensor:
    """Probabilities [B,m] of the target under the ``chosen`` channels' masks; 0 for a constant channel, as in `score_cam`."""
    select = torch.zeros(probe.activations.shape[:2], dtype=torch.bool, device=chosen.device).scatter(1, chosen, value=True)
    scores = channel_scores(probe, select & ~maps.is_empty(probe.activations))
    return scores.gather(1, chosen).double()


def _map(activations: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bk,bkhw->bhw", weights.to(activations.dtype), activations).relu()
