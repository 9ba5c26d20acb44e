"""The plain network, trained by cross-entropy: the baseline beside every learned model; and the parts that these models share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cam_core.classifier import Classifier

Loss = tuple[Tensor, dict[str, Tensor]]


class Plain(nn.Module):
    """A classifier trained by cross-entropy on ``labels`` [B] or, for several classes per image, binary cross-entropy on ``targets``.

    With ``multi_label`` the classifier's probabilities become sigmoids.
    """

    name = "plain"

    def __init__(self, classifier: Classifier, *, multi_label: bool = False) -> None:
        super().__init__()
        self.classifier, self.multi_label = classifier, multi_label
        classifier.activation = "sigmoid" if multi_label else "softmax"

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Mean loss over the batch of ``images`` [B,3,H,W] in [0, 1]; and what to log."""
        logits = self.classifier(batch["images"])
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, batch["targets"]), {}
        return F.cross_entropy(logits, batch["labels"]), {"accuracy": share_correct(logits, batch["labels"])}

    def extra_repr(self) -> str:
        """The options; they are part of the digest of a trained model."""
        return f"multi_label={self.multi_label}"


def share_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose largest logit is the label's, in percent."""
    return (logits.detach().argmax(1) == labels).float().mean() * 100


@torch.no_grad()
def shapes(classifier: Classifier, side: int = 96) -> tuple[int, int]:
    """(K, C): channels of the activations and number of classes, found by passing one black image."""
    training, blank = classifier.training, classifier.mean.new_zeros(1, len(classifier.mean), side, side)
    activations = classifier.eval().activations(blank)
    channels, classes = activations.shape[1], classifier.classify(activations).shape[1]
    classifier.train(training)
    return channels, classes


def pooled_head(channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling and one linear layer: the head that CAM (Zhou et al., CVPR 2016) needs."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, num_classes))


def start_as_released(layer: nn.Conv2d | nn.Linear, name: str) -> None:
    """Initialise a layer of the network ``name`` as CALM's release does: normal over the outputs (He) for VGG, else uniform (Glorot)."""
    if name.startswith("vgg"):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))


def with_pooled_head(backbone: Classifier, num_classes: int) -> Classifier:
    """The backbone's trunk (shared, not copied) under a new pooled head: the network of the CAM rows in CALM's tables."""
    head = pooled_head(shapes(backbone)[0], num_classes).to(backbone.mean)
    return backbone.with_parts(backbone.trunk, head, output=None, activation="softmax").train(backbone.training)
