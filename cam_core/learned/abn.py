"""ABN, the attention branch network (Fukui et al., CVPR 2019): a branch that classifies and whose class maps give the attention.

G [B,D,h,w] is the output of the last stage but one, K the number of classes. Attention branch: E [B,K,h,w] is rectified class evidence, its
logits are averages of a 1x1 convolution of E, its map M [B,h,w] in (0, 1) a sigmoid of a 3x3 one. Perception branch: the network's own last
stage and head on (1 + M) G. Loss: sum of the cross-entropies of both.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cam_core.classifier import Classifier
from cam_core.learned.lfi import lfi_backbone
from cam_core.learned.plain import Loss, share_correct
from cam_core.networks import CIFAR, initialised, unstrided
from cam_core.pretrained import LITE
from cam_core.probe import Probe


class AttentionBranch(nn.Module):
    """A copy of the last stage at stride 1 (with weights of its own), BN, 1x1 to K classes, BN, ReLU; then a class head and a map head.

    The map head is 3x3, as in the released code and, according to its author, for the published numbers (the paper's figure shows 1x1).
    ``normed``: apply the first BN; the released ResNeXt defines it but does not apply it.
    """

    def __init__(self, stage: nn.Module, channels: int, num_classes: int, *, normed: bool = True) -> None:
        super().__init__()
        self.stage = copy.deepcopy(stage)
        unstrided(self.stage)
        self.norm = nn.BatchNorm2d(channels) if normed else nn.Identity()
        self.classes = nn.Conv2d(channels, num_classes, 1, bias=False)
        self.classes_norm = nn.BatchNorm2d(num_classes)
        self.class_head = nn.Conv2d(num_classes, num_classes, 1, bias=False)
        self.map_head = nn.Conv2d(num_classes, 1, 3, padding=1, bias=False)
        self.map_norm = nn.BatchNorm2d(1)
        initialised(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """G [B,D,h,w] -> M [B,h,w] in (0, 1) and the branch's logits [B,K]."""
        evidence = self.classes_norm(self.classes(self.norm(self.stage(features)))).relu()
        attention = self.map_norm(self.map_head(evidence)).sigmoid()[:, 0]
        return attention, self.class_head(evidence).mean((2, 3))


class BranchedTrunk(nn.Module):
    """Normalised images -> the last stage's output for (1 + M) G; `attend` also returns the outputs of the branch."""

    def __init__(self, features: nn.Module, branch: AttentionBranch, stage: nn.Module) -> None:
        super().__init__()
        self.features, self.branch, self.stage = features, branch, stage

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B,3,H,W] -> activations of the last stage [B,C,h',w']."""
        return self.attend(x)[0]

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images [B,3,H,W] -> activations [B,C,h',w'], M [B,h,w] in (0, 1), the branch's logits [B,K]."""
        features = self.features(x)
        attention, logits = self.branch(features)
        return self.stage((1 + attention[:, None]) * features), attention, logits


# (where the branch leaves, modules of the last stage): torchvision's ResNets, the CIFAR ResNets and ResNeXt, the CIFAR DenseNet, Lite0
SPLITS = {
    "imagenet": ("layer3", ("layer4",)),
    "cifar": ("layer2", ("layer3",)),
    "densenet": ("trans2", ("dense3", "norm", "relu")),
    LITE: ("blocks.4", ("blocks.5", "blocks.6", "conv_head", "bn2")),
}


class Abn(nn.Module):
    """A backbone (modules shared) with an attention branch. Trained from scratch; accuracy is the perception branch's.

    The explained layer of ``classifier`` is the last stage, after the attention. Given by name, torchvision's networks keep their stem of
    stride 2 as in the paper (14x14 map at 224); for a comparison with LFI-CAM take its ``stem_stride`` 1. A classifier keeps its own number
    of classes and stem.
    """

    name = "abn"

    def __init__(self, backbone: Classifier | str, num_classes: int = 10, *, stem_stride: int = 2) -> None:
        super().__init__()
        if isinstance(backbone, str):
            backbone = lfi_backbone(backbone, num_classes, stem_stride)
        network, small, lite = backbone._network[0], backbone.name in CIFAR, backbone.name == LITE
        if network is None or not (small or lite or backbone.name.startswith("resnet")):
            raise ValueError(
                f"ABN is built of torchvision's ResNets, of {LITE} or of {', '.join(CIFAR)}, got {backbone.name or 'another network'}"
            )
        split, last = SPLITS[LITE if lite else "densenet" if backbone.name.startswith("densenet") else "cifar" if small else "imagenet"]
        stage = nn.Sequential(*(network.get_submodule(name) for name in last))
        linear = network.get_submodule("classifier" if lite else "fc")
        assert isinstance(linear, nn.Linear)
        normed = not backbone.name.startswith("resnext")
        branch = AttentionBranch(stage if lite else stage[0], linear.in_features, linear.out_features, normed=normed).to(backbone.mean)
        trunk = BranchedTrunk(backbone.at(split).trunk, branch, stage)
        self.classifier = backbone.with_parts(trunk, backbone.head)

    @property
    def trunk(self) -> BranchedTrunk:
        """Features, attention branch and last stage."""
        trunk = self.classifier.trunk
        assert isinstance(trunk, BranchedTrunk)
        return trunk

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Cross-entropy of the attention branch + that of the perception branch, over ``images`` [B,3,H,W] in [0, 1], ``labels`` [B]."""
        activations, _, first = self.trunk.attend(self.classifier.normalize(batch["images"]))
        logits, labels = self.classifier.head(activations), batch["labels"]
        terms = F.cross_entropy(first, labels), F.cross_entropy(logits, labels)
        log = {"attention": terms[0].detach(), "perception": terms[1].detach()}
        return terms[0] + terms[1], {"accuracy": share_correct(logits, labels), **log}

    @torch.no_grad()
    def explain(self, probe: Probe) -> Tensor:
        """The attention M [B,h,w] in (0, 1), from one forward pass, not min-max scaled; the same for every class."""
        return self.trunk.attend(self.classifier.normalize(probe.images))[1]
