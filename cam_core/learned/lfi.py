"""LFI-CAM (Lee et al., ICCV 2021): a network that weighs its own channels; their weighted sum is its attention and its explanation.

F [B,C,h,w] is the last stage's output, X [B,3,H,W] the normalised image. The numbers are the steps of the forward pass.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cam_core.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier
from cam_core.cutting import cut
from cam_core.learned.plain import Loss, shapes, share_correct
from cam_core.networks import CIFAR
from cam_core.pretrained import default_layer, load_network
from cam_core.probe import Probe

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of CIFAR-10 and, as released, of CIFAR-100 and STL-10 too

# Where the Feature Importance Network rectifies: the released CIFAR files after convolutions 2 and 4, the ImageNet file after each.
RECTIFIED = {"cifar": (False, True, False, True), "imagenet": (True, True, True, True)}


class FeatureImportance(nn.Module):
    """FIN: four convolutions with BatchNorm, C -> C, averaged over positions, softmax over channels (step 5).

    3x3 as released has 4 (9 C² + 2 C) parameters, a ``kernel`` of 1 has 4 (C² + 2 C). ``drawn``: initialise the convolutions as the
    networks' own; else PyTorch's default, as the release does for ResNeXt.
    """

    def __init__(self, channels: int, kernel: int = 3, rectified: Sequence[bool] = RECTIFIED["cifar"], *, drawn: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for rectify in rectified:
            convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
            if drawn:
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(channels), *([nn.ReLU()] if rectify else [])]
        self.layers = nn.Sequential(*layers)

    def forward(self, masked: Tensor) -> Tensor:
        """Guided features [B,C,h,w] -> weights [B,C], positive, summing to 1."""
        weights: Tensor = self.layers(masked).mean((2, 3)).softmax(1)
        return weights


class AttendedTrunk(nn.Module):
    """X -> Z = (1 + A) F: the trunk of an LFI-CAM network; `attend` also returns the attention A."""

    def __init__(self, features: nn.Module, importance: nn.Module) -> None:
        super().__init__()
        self.features, self.importance = features, importance

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B,3,H,W] -> Z [B,C,h,w]."""
        return self.attend(x)[0]

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images [B,3,H,W] -> Z [B,C,h,w] and A [B,h,w] in [0, 1]."""
        features = self.features(x)  # 1
        grey = x.mean(1, keepdim=True)  # 2: of the normalised image, unweighted
        guide = F.interpolate(grey, features.shape[-2:], mode="bilinear", align_corners=False)
        weights = self.importance(scaled_channels(features) * guide)  # 4, 5
        attention = scaled_map(torch.einsum("bc,bchw->bhw", weights, features).relu())  # 6
        return (1 + attention[:, None]) * features, attention  # 7


def scaled_channels(features: Tensor) -> Tensor:
    """Step 3: every channel [B,C,h,w] min-max scaled; a constant channel becomes 1, and values of exactly 0 stay 0 (a dead channel)."""
    low, high = features.amin((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
    varies = high > low
    scaled = torch.where(varies, (features - low) / torch.where(varies, high - low, 1.0), 1.0)
    return torch.where(features == 0, 0.0, scaled)


def scaled_map(maps: Tensor) -> Tensor:
    """Step 6: maps [B,h,w] min-max scaled; a constant map stays what it is."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    varies = high > low
    return torch.where(varies, (maps - low) / torch.where(varies, high - low, 1.0), maps)


def lfi_backbone(
    name: str,
    num_classes: int,
    stem_stride: int | None = None,
    *,
    width: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Classifier:
    """An untrained network for LFI-CAM, for ABN, and for the plain baseline beside them, which must have the same stem.

    ``stem_stride`` defaults to LFI-CAM's 1 for torchvision's ResNets (14x14 maps at 224, four times a stock network's cost) and to
    2 for the CIFAR families (14x14 at 112; the papers' CIFAR images take 1). ``width`` of a CIFAR ResNet's first stage.
    ValueError where a network has no such stem or width.
    """
    resnet = name.startswith("resnet")
    if stem_stride is not None and name not in CIFAR and not resnet:
        raise ValueError(f"{name} keeps its stem: stem_stride is for torchvision's ResNets and for {', '.join(CIFAR)}; leave it out")
    if name in CIFAR:
        network: nn.Module = CIFAR[name](num_classes=num_classes, stem_stride=stem_stride or 2, **({"width": width} if width else {}))
    elif width is not None:
        raise ValueError(f"{name} cannot be widened: take one of {', '.join(key for key in CIFAR if key.startswith('resnet'))}")
    else:
        network, _ = load_network(name, None, num_classes)
        if resnet:
            network.get_submodule("conv1").stride = (stem_stride or 1,) * 2  # type: ignore[assignment]
    layer = default_layer(name, network)
    trunk, head = cut(network, layer)
    return Classifier(trunk, head, mean=mean, std=std, name=name, layer=layer, weights="random", network=network)


class LfiCam(nn.Module):
    """A backbone (modules shared) with FIN between its trunk and its head, trained from scratch by cross-entropy alone.

    The explained layer of ``classifier`` is Z. DenseNet is cut before its last BatchNorm and ReLU, which then belong to the head.
    ``family``: where FIN rectifies, as released for "cifar" or "imagenet". ``num_classes`` and ``stem_stride`` are for a backbone given by
    name; a classifier keeps its own. Subclasses that weigh the channels otherwise: `studies.ablations`.
    """

    name = "lfi_cam"

    def __init__(
        self,
        backbone: Classifier | str,
        num_classes: int = 10,
        *,
        family: str | None = None,
        stem_stride: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            backbone = lfi_backbone(backbone, num_classes, stem_stride)
        if backbone.name.startswith("densenet"):
            backbone = backbone.at("dense3" if backbone.name in CIFAR else "features.denseblock4")
        self.family = family or ("cifar" if backbone.name in CIFAR else "imagenet")
        importance = self.importance(shapes(backbone)[0], drawn=not backbone.name.startswith("resnext"))
        trunk = AttendedTrunk(backbone.trunk, importance.to(backbone.mean))
        self.classifier = backbone.with_parts(trunk, backbone.head)

    @property
    def trunk(self) -> AttendedTrunk:
        """Features, importance network and attention."""
        trunk = self.classifier.trunk
        assert isinstance(trunk, AttendedTrunk)
        return trunk

    def importance(self, channels: int, *, drawn: bool) -> nn.Module:
        """What weighs the channels in step 5."""
        return FeatureImportance(channels, rectified=RECTIFIED[self.family], drawn=drawn)

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Cross-entropy over the batch of ``images`` [B,3,H,W] in [0, 1] and ``labels`` [B]; and what to log."""
        logits = self.classifier(batch["images"])
        return F.cross_entropy(logits, batch["labels"]), {"accuracy": share_correct(logits, batch["labels"])}

    @torch.no_grad()
    def explain(self, probe: Probe) -> Tensor:
        """The attention A [B,h,w] in [0, 1], from one forward pass; the same for every class."""
        return self.trunk.attend(self.classifier.normalize(probe.images))[1]

    @torch.no_grad()
    def mean_features(self, probe: Probe) -> Tensor:
        """A control: the mean [B,h,w] of F over its channels, which is the attention for equal weights before step 6.

        `mean_activation` of this network is another map: of Z = (1 + A) F, with the learned attention in it.
        """
        features: Tensor = self.trunk.features(self.classifier.normalize(probe.images))
        return features.mean(1)
