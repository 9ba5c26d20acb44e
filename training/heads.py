"""A multi-label head on a frozen trunk, fitted in one go, and mean average precision, by which it is judged."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multilabel_average_precision

from cam_core.classifier import Classifier
from cam_core.learned.plain import pooled_head


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean over the classes that occur of their average precision, in percent. ``scores`` and ``targets`` [N,C]."""
    seen = targets.sum(0) > 0
    each = multilabel_average_precision(scores[:, seen], targets[:, seen].long(), int(seen.sum()), average="none")
    return float(each.double().mean()) * 100


def multi_label_head(
    classifier: Classifier,
    pooled: Tensor,
    targets: Tensor,
    *,
    decays: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    seed: int = 0,
) -> tuple[Classifier, dict[str, Any]]:
    """A logistic regression per class on averaged activations [N,K] of a frozen trunk, as a classifier with that head.

    ``targets`` float [N,C]. The weight decay is the one with the highest mean average precision on a fifth of the images, drawn by
    ``seed``; the head is then fitted to all. The trunk is shared with ``classifier``.
    """
    order = torch.randperm(len(pooled), generator=torch.Generator().manual_seed(seed))
    chosen, rest = order[: len(order) // 5], order[len(order) // 5 :]
    tried = {}
    for decay in decays:
        weight, bias = _logistic(pooled[rest], targets[rest], decay)
        tried[decay] = mean_average_precision(pooled[chosen] @ weight.T + bias, targets[chosen])
    best = max(tried, key=tried.__getitem__)
    head = pooled_head(pooled.shape[1], targets.shape[1])
    weight, bias = _logistic(pooled, targets, best)
    head[2].load_state_dict({"weight": weight, "bias": bias})
    fitted = classifier.with_parts(classifier.trunk, head.to(classifier.mean), output=None, activation="sigmoid").train(classifier.training)
    return fitted, {"weight_decay": best, "held_out_map": tried[best], "tried": {f"{k:g}": v for k, v in tried.items()}, "n": len(pooled)}


def _logistic(inputs: Tensor, targets: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Weights [C,K] and biases [C] of least mean cross-entropy + decay/2 · |weights|² on standardised inputs, given back for raw ones."""
    inputs = inputs.double()
    shift, scale = inputs.mean(0), inputs.std(0).clamp_min(1e-6)
    standard, wanted = (inputs - shift) / scale, targets.double()
    weight = standard.new_zeros(targets.shape[1], inputs.shape[1]).requires_grad_()
    bias = standard.new_zeros(targets.shape[1]).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        # summed over classes, so that each is the same problem by itself
        entropy = F.binary_cross_entropy_with_logits(standard @ weight.T + bias, wanted) * wanted.shape[1]
        total = entropy + decay / 2 * weight.square().sum()
        torch.autograd.backward(total)
        return total

    with torch.enable_grad():
        optimizer.step(closure)
    raw = weight.detach() / scale
    return raw.float(), (bias.detach() - raw @ shift).float()
