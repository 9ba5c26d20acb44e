"""The plain network: cross-entropy on a `Classifier`. Backbone on drawn data, baseline beside every learned model, multi-label head."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multilabel_average_precision

from cam_core.classifier import Classifier

Loss = tuple[Tensor, dict[str, Tensor]]


class Plain(nn.Module):
    """A classifier trained by cross-entropy on ``labels`` [B], or, with several classes an image, on ``targets`` [B,C] each by itself."""

    name = "plain"

    def __init__(self, classifier: Classifier, *, multi_label: bool = False) -> None:
        super().__init__()
        self.classifier, self.multi_label = classifier, multi_label

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Mean loss over the batch of ``images`` [B,3,H,W] in [0, 1]; and what to log."""
        logits = self.classifier(batch["images"])
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, batch["targets"]), {}
        return F.cross_entropy(logits, batch["labels"]), {"accuracy": share_correct(logits, batch["labels"])}

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        return f"multi_label={self.multi_label}"


def share_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose largest logit is the label's, in percent."""
    return (logits.detach().argmax(1) == labels).float().mean() * 100


@torch.no_grad()
def shapes(classifier: Classifier, side: int = 96) -> tuple[int, int]:
    """(K, C): channels of the activations and number of classes, found by passing one black image."""
    training, blank = classifier.training, classifier.mean.new_zeros(1, 3, side, side)
    activations = classifier.eval().activations(blank)
    channels, classes = activations.shape[1], classifier.head(activations).shape[1]
    classifier.train(training)
    return channels, classes


def pooled_head(channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling and one linear layer: the head that CAM (Zhou et al., CVPR 2016) needs."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, num_classes))


def start_as_released(layer: nn.Conv2d | nn.Linear, name: str) -> None:
    """Draw a new layer of the network ``name`` as CALM's release does: VGG's normal over the outputs (He), others' uniform (Glorot)."""
    if name.startswith("vgg"):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))


def with_pooled_head(backbone: Classifier, num_classes: int) -> Classifier:
    """The backbone's trunk (shared, not copied) under a new pooled head: the network of the CAM rows in CALM's tables."""
    head = pooled_head(shapes(backbone)[0], num_classes).to(backbone.mean)
    return with_parts(backbone, backbone.trunk, head).train(backbone.training)


def with_parts(backbone: Classifier, trunk: nn.Module, head: nn.Module) -> Classifier:
    """A classifier of ``trunk`` and ``head`` that keeps the backbone's name, layer, weights' name and normalisation."""
    other = Classifier(trunk, head, name=backbone.name, layer=backbone.layer, weights=backbone.weights)
    other.mean, other.std = backbone.mean, backbone.std
    return other


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
    fitted = with_parts(classifier, classifier.trunk, head.to(classifier.mean)).train(classifier.training)
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
