"""TAME (Ntrougkas et al., ISM 2022) and T-TAME (2024): L-CAM's heirs, which learn the maps from several layers of a frozen classifier.

F_l [N,K_l,h_l,w_l] are the activations of layer l. Branch l: ``ReLU(BatchNorm(conv1x1(F_l)) + F_l)``, enlarged to the size of the first
layer, at most 56; all are concatenated, a 1x1 convolution makes the map of every class, and m is its sigmoid. Read in T-TAME's repository,
whose two mechanisms for CNNs are one; for transformers it reads tokens, which a `Classifier` already gives as maps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.learned.lcam import RELEASED, area, total_variation
from cam_core.learned.plain import Loss, share_correct
from cam_core.methods.gradient import stages
from cam_core.options import one_of
from cam_core.probe import Probe

LARGEST = 56


class Attention(nn.Module):
    """Activations of several layers -> a map for every class, before the sigmoid: [N,C,h,w]."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(k, k, 1), nn.BatchNorm2d(k)) for k in channels)
        self.fuse = nn.Conv2d(sum(channels), classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """From activations [N,K_l,h_l,w_l] of each layer, the shallowest first."""
        size = [min(LARGEST, side) for side in features[0].shape[-2:]]
        read = [(branch(f) + f).relu() for branch, f in zip(self.branches, features, strict=True)]
        fused: Tensor = self.fuse(torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in read], 1))
        return fused


class Tame(nn.Module):
    """Maps from ``layers``, shallow to deep, ending at the explained one; by default the last three stages of a network that is known.

    ``masking``, T-TAME's modes: the maps of which area and variation are computed. "random", its default and TAME's: for every image those
    of all N classes in the batch; "diagonal": its own class's; "max": those of the N classes with the highest logits under its mask.
    ``fill``: what a masked pixel shows in training, "black" (TAME, and T-TAME's published ResNet-50) or "mean" colour. The labels are the
    classes that the classifier predicts. Only ``attention`` is trained; the ``classifier`` is put into eval mode and frozen.
    """

    name = "tame"

    def __init__(self, classifier: Classifier, layers: Sequence[str] = (), *, masking: str = "random", fill: str = "black") -> None:
        super().__init__()
        one_of("masking", masking, ("random", "diagonal", "max"))
        one_of("fill", fill, ("black", "mean"))
        self.layers, self.masking, self.fill = tuple(layers or stages(classifier)[-3:]), masking, fill
        self.classifier = classifier.eval().requires_grad_(requires_grad=False)
        with torch.no_grad():
            blank = classifier.mean.new_zeros(1, len(classifier.mean), 96, 96)
            self.attention = Attention([f.shape[1] for f in self.features(blank)], classifier(blank).shape[1]).to(classifier.mean)

    def train(self, mode: bool = True) -> "Tame":
        """Training mode for the attention; the classifier stays in eval mode."""
        super().train(mode)
        self.classifier.eval()
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """The activations of every layer, of images [N,3,H,W] in [0, 1]."""
        return [self.classifier.at(layer).activations(images) for layer in self.layers]

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """L-CAM's loss, 1.5 cross-entropy + 2 area + 0.01 variation, of ``images`` [N,3,H,W] in [0, 1]; and its terms."""
        images = batch["images"]
        with torch.no_grad():
            features = self.features(images)
            labels = self.classifier(images).argmax(1)
        every = self.attention(features).sigmoid()  # [N,C,h,w]
        own = every[torch.arange(len(labels), device=labels.device), labels][:, None]
        shown = maps.upsample(own, images.shape[-2:])
        hidden = self.classifier.mean if self.fill == "mean" else torch.zeros_like(self.classifier.mean)
        logits = self.classifier(torch.lerp(hidden.expand_as(images), images, shown))
        chosen = {"random": lambda: every[:, labels], "diagonal": lambda: own, "max": lambda: _highest(every, logits)}[self.masking]()
        entropy = F.nll_loss(self.classifier.log_probabilities(logits), labels)
        size, variation = area(chosen, RELEASED["power"]), total_variation(chosen)
        loss = RELEASED["entropy"] * entropy + RELEASED["area"] * size + RELEASED["variation"] * variation
        terms = {"entropy": entropy.detach(), "area": size.detach(), "variation": variation.detach()}
        return loss, {"accuracy": share_correct(logits, labels), **terms}

    @torch.no_grad()
    def explain(self, probe: Probe) -> Tensor:
        """The map of the target before the sigmoid, [B,h,w], signed (released read-out)."""
        features = [probe.at(layer).activations.to(self.attention.fuse.weight.dtype) for layer in self.layers]
        index = probe.targets[:, None, None, None]
        every: Tensor = self.attention(features)
        return every.gather(1, index.expand(-1, 1, *every.shape[-2:]))[:, 0]

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        return f"layers={self.layers}, masking={self.masking}, fill={self.fill}"


def _highest(every: Tensor, logits: Tensor) -> Tensor:
    """The maps [N,min(N,C),h,w] of the N classes with the highest ``logits`` [N,C], of the maps ``every`` [N,C,h,w]."""
    count = min(len(logits), logits.shape[1])
    classes = logits.detach().topk(count, dim=1).indices
    return every[torch.arange(len(logits), device=logits.device)[:, None], classes]
