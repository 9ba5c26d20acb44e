"""How a model is trained: one frozen record per paper, and what a shorter training changes in it.

    recipe = LFI_CAM.shortened(12, batch=64)
    recipe.differs_from(LFI_CAM)             # ['epochs: 12 instead of 300', 'batch: 64 instead of 128', ...]

The papers' values are the constants below; a reduced training is made of one of them and says how it differs.
"""

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum. ``schedule`` "steps": the learning rate is multiplied by ``decay`` at the start of every epoch (0-based) in
    ``milestones``; "cycle", for short trainings: it rises from 0 to ``lr`` over the first fifth of the updates and falls back to 0.

    ``groups``: (pattern, multiplier) pairs; the first pattern found in a parameter's name scales its learning rate. Weight decay acts on
    every parameter. Augmentation of an image [3,H,W]: ``pad`` black pixels around it, then a random window of side ``crop`` (None: its
    own size), then a mirror image half the time if ``flip``. With ``resized`` = (least, greatest) share of the image's area, the window has
    a random area and an aspect of 3/4 to 4/3 and is resized to ``crop`` (torchvision's RandomResizedCrop).
    ``frozen_batchnorm`` keeps BatchNorm in eval mode. ``held_out``: this share of the training images is not trained on; after each epoch
    it is measured on, and the weights with the best ``criterion`` there ("accuracy": highest, "loss": lowest) are kept beside the last.
    """

    name: str
    epochs: int
    batch: int
    lr: float
    weight_decay: float
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    schedule: str = "steps"
    momentum: float = 0.9
    nesterov: bool = False
    groups: tuple[tuple[str, float], ...] = ()
    flip: bool = False
    pad: int = 0
    crop: int | None = None
    resized: tuple[float, float] | None = None
    frozen_batchnorm: bool = False
    held_out: float = 0.0
    criterion: str = "accuracy"
    precision: str = "32-true"  # Lightning Fabric's names: "bf16-mixed", ...

    def __post_init__(self) -> None:
        if self.criterion not in ("accuracy", "loss"):
            raise ValueError(f'the best weights are those of highest "accuracy" or lowest "loss", got the criterion {self.criterion!r}')

    @property
    def augments(self) -> bool:
        """Whether an image is shown in another view each time (then its activations cannot be cached)."""
        return self.flip or self.pad > 0 or self.crop is not None or self.resized is not None

    def rate(self, position: float) -> float:
        """What the learning rates are multiplied by at a position in epochs: 2.5 is in the middle of the third."""
        if self.schedule == "steps":
            return self.decay ** sum(milestone <= position for milestone in self.milestones)
        if self.schedule == "cycle":
            part = position / self.epochs
            return part / 0.2 if part < 0.2 else (1 - part) / 0.8
        raise ValueError(f'schedule is "steps" or "cycle", got {self.schedule!r}')

    def multiplier(self, parameter: str) -> float:
        """The learning-rate multiplier of a parameter, by its name."""
        return next((factor for pattern, factor in self.groups if re.search(pattern, parameter)), 1.0)

    def shortened(self, epochs: int, **changes: Any) -> "Recipe":
        """The recipe over another number of epochs, its milestones moved in proportion, and other fields changed by name.

        No milestone comes before the second epoch: the first one learns at the full rate.
        """
        scaled = tuple(max(1, round(milestone * epochs / self.epochs)) for milestone in self.milestones)
        return replace(self, **{"epochs": epochs, "milestones": scaled, **changes})

    def differs_from(self, paper: "Recipe") -> list[str]:
        """The deviations from another recipe, one sentence each, for a run's provenance."""
        pairs = [(field.name, getattr(self, field.name), getattr(paper, field.name)) for field in fields(self)]
        return [f"{name}: {_text(mine)} instead of {_text(theirs)}" for name, mine, theirs in pairs if mine != theirs]

    def record(self) -> dict[str, Any]:
        """All fields, as JSON keeps them."""
        return {name: _text(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_text(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


# CIFAR-10/100, ResNet-110 (released commands).
LFI_CAM = Recipe("lfi_cam", 300, 128, lr=0.1, weight_decay=1e-4, milestones=(150, 225), flip=True, pad=4)

# ImageNet, STL-10 and Cat & Dog (released commands and defaults).
LFI_CAM_IMAGENET = Recipe(
    "lfi_cam_imagenet", 300, 256, lr=0.1, weight_decay=1e-4, milestones=(150, 225), flip=True, crop=224, resized=(0.08, 1.0)
)

# ABN: CIFAR with ResNet-110, DenseNet-BC and ResNeXt, ImageNet (released commands).
ABN = replace(LFI_CAM, name="abn")
ABN_DENSENET = replace(ABN, name="abn_densenet", batch=64)
ABN_RESNEXT = replace(ABN, name="abn_resnext", weight_decay=5e-4)
ABN_IMAGENET = replace(LFI_CAM_IMAGENET, name="abn_imagenet", epochs=90, milestones=(31, 61))

# ImageNet, ResNet-50. Window of 224 in the image with short side 256; the bias learns twice as fast; x0.95 at epochs 1 to 12.
L_CAM = Recipe(
    "l_cam", 26, 64, lr=1e-4, weight_decay=5e-4, milestones=tuple(range(1, 13)), decay=0.95,
    nesterov=True, groups=((r"bias$", 2.0),), flip=True, crop=224, criterion="loss",
)  # fmt: skip

# VGG-16: a name test in the released code that is always true gives a hundred times the rate; it produced the published numbers.
L_CAM_VGG = replace(L_CAM, name="l_cam_vgg", epochs=8, lr=1e-2, milestones=tuple(range(1, 8)), decay=0.75)

# CALM's learning-rate groups: what is named learns at the base rate, everything else ten times as fast. As released, by substring: of a
# ResNet the stem convolution and layers 1 to 3 are meant, but layer4's conv1 are caught too, and the stem's BatchNorm is not.
CALM_GROUPS = {
    "resnet": ((r"^(?!.*(conv1|layer1|layer2|layer3))", 10.0),),
    "vgg": ((r"^(?!.*features)", 10.0),),
    "inception": ((r"^(?!.*(Mixed|Conv2d_[1-4]))", 10.0),),
}
# The WSOL benchmark's: layer4 and the head of a ResNet; the same for the others.
WSOL_GROUPS = {**CALM_GROUPS, "resnet": ((r"layer4|head\.", 10.0),)}

# CUB and others, released defaults. The rate falls during the 30th epoch already.
CALM = Recipe(
    "calm", 40, 64, lr=0.01, weight_decay=1e-4, milestones=(29,), nesterov=True, groups=CALM_GROUPS["resnet"], flip=True, crop=224
)
CALM_VGG = replace(CALM, name="calm_vgg", groups=CALM_GROUPS["vgg"])
CALM_INCEPTION = replace(CALM, name="calm_inception", groups=CALM_GROUPS["inception"])

# The WSOL benchmark's protocol at 28x28 (VGG: 14x14), on CUB and on ImageNet. Its rates were drawn thirty times and chosen on boxes; these
# are the CAM rates that third parties quote, CALM's own are not known.
CALM_WSOL = replace(CALM, name="calm_wsol", epochs=50, batch=32, lr=2.3222617e-4, milestones=(14, 29, 44), groups=WSOL_GROUPS["resnet"])
CALM_WSOL_VGG = replace(CALM_WSOL, name="calm_wsol_vgg", lr=1.268269e-5, weight_decay=5e-4, groups=WSOL_GROUPS["vgg"])
CALM_WSOL_INCEPTION = replace(CALM_WSOL, name="calm_wsol_inception", lr=2.24844746e-3, weight_decay=5e-4, groups=WSOL_GROUPS["inception"])
_SHORTER: dict[str, Any] = {"epochs": 10, "milestones": (2, 5, 8)}
CALM_WSOL_IMAGENET = replace(CALM_WSOL, name="calm_wsol_imagenet", lr=3.108411e-5, **_SHORTER)
CALM_WSOL_IMAGENET_VGG = replace(CALM_WSOL_VGG, name="calm_wsol_imagenet_vgg", lr=1.654502e-5, **_SHORTER)
CALM_WSOL_IMAGENET_INCEPTION = replace(CALM_WSOL_INCEPTION, name="calm_wsol_imagenet_inception", lr=3.606503e-4, **_SHORTER)

# Plain network from scratch: the baseline beside LFI-CAM and ABN, on LFI-CAM's schedule (He et al., 2016, section 4.2, with other epochs).
PLAIN = replace(LFI_CAM, name="plain")
PLAIN_IMAGENET = replace(LFI_CAM_IMAGENET, name="plain_imagenet")

PAPERS = {
    recipe.name: recipe
    for recipe in (
        LFI_CAM, LFI_CAM_IMAGENET, ABN, ABN_DENSENET, ABN_RESNEXT, ABN_IMAGENET, L_CAM, L_CAM_VGG, CALM, CALM_VGG, CALM_INCEPTION,
        CALM_WSOL, CALM_WSOL_VGG, CALM_WSOL_INCEPTION, CALM_WSOL_IMAGENET, CALM_WSOL_IMAGENET_VGG, CALM_WSOL_IMAGENET_INCEPTION,
        PLAIN, PLAIN_IMAGENET,
    )
}  # fmt: skip
