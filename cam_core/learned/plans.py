"""Which recipe trains which model on which data set: the papers' own, and what each is reduced to where their machines are not at hand.

Each reduced recipe stands here in one line, made of the paper's; what it changes is listed in the summary under ``deviations``. With
``paper`` = "paper" a model is trained by the paper's own recipe on all training images ("wsol": CALM by the WSOL benchmark's).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cam_core.data import transforms
from cam_core.learned.recipes import (
    ABN,
    ABN_DENSENET,
    ABN_IMAGENET,
    ABN_RESNEXT,
    CALM,
    CALM_INCEPTION,
    CALM_VGG,
    CALM_WSOL,
    CALM_WSOL_IMAGENET,
    CALM_WSOL_IMAGENET_INCEPTION,
    CALM_WSOL_IMAGENET_VGG,
    CALM_WSOL_INCEPTION,
    CALM_WSOL_VGG,
    L_CAM,
    L_CAM_VGG,
    LFI_CAM,
    LFI_CAM_IMAGENET,
    PLAIN,
    PLAIN_IMAGENET,
    Recipe,
)


@dataclass(frozen=True)
class Plan:
    """How a model is trained: its recipe, the training images it sees, and what differs from the paper beside the recipe.

    ``seen``: ``split``, ``view`` (of training images), ``tested`` (view of test images) and ``stream``, where they are not the data set's
    usual ones.
    """

    recipe: Recipe
    seen: Mapping[str, Any] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()


def of_family(recipes: Mapping[str, Recipe], name: str) -> Recipe:
    """The recipe for a network's family; ValueError names the families that have one."""
    found = [recipe for family, recipe in recipes.items() if name.startswith(family)]
    if not found:
        raise ValueError(f"the paper has no recipe for {name}: it trains {', '.join(recipes)}; take one of these, or a reduced recipe")
    return found[0]


def _over(recipe: Recipe, count: int | None) -> Recipe:
    return recipe.shortened(count) if count else recipe


def _another(name: str, published: Sequence[str]) -> tuple[str, ...]:
    """The deviation of a network ``name`` that a paper has no result for, beside the one of its family that it has."""
    kin = [network for network in published if _family(network) == _family(name)]
    return () if name in published else (f"network: {name} instead of {(kin or published)[0]}",)


def _family(name: str) -> str:
    return re.split("[^a-z]", name)[0]


# --- from scratch: the plain network, LFI-CAM, ABN -------------------------------------------------------------------------------------

DRAWN_EPOCHS = {"drawn_imagenet": 8, "drawn_voc": 10, "drawn_cub": 22}


def drawn_recipe(recipe: Recipe, epochs: int, **changes: Any) -> Recipe:
    """A paper's recipe cut to what drawn data needs: a minute on two cores, one cycle of the learning rate."""
    few = {"batch": 32, "schedule": "cycle", "nesterov": True, "weight_decay": 5e-4, "pad": 8, "flip": True, "crop": None}
    return recipe.shortened(epochs, **{**few, **changes})


@dataclass(frozen=True)
class Setting:
    """One of the hyper-parameter settings between which LFI-CAM's stability is measured: learning rate, batch, weight decay."""

    lr: float
    batch: int
    weight_decay: float


# Fixed before any training and the same for every contender; the first is the paper's (cat_dog: what 2000 images need). The paper's own
# five are not known.
SETTINGS = {
    "cifar10": (
        Setting(0.1, 128, 1e-4), Setting(0.05, 128, 5e-4), Setting(0.1, 64, 1e-4), Setting(0.05, 64, 1e-4), Setting(0.1, 128, 5e-4),
    ),
    "cat_dog": (Setting(0.05, 64, 1e-4), Setting(0.02, 64, 5e-4), Setting(0.05, 32, 1e-4)),
}  # fmt: skip
SETTINGS |= {"cifar100": SETTINGS["cifar10"], "stl10": SETTINGS["cat_dog"]}
SCRATCH_EPOCHS = {**DRAWN_EPOCHS, "cifar10": 12, "cifar100": 12, "cat_dog": 30, "stl10": 30}
SMALL = ("cifar10", "cifar100")  # images of 32 pixels, for networks of CIFAR's families
SIDE = {"imagenet": 224, "cat_dog": 64, "stl10": 96}  # of the random windows that the papers cut out of large images
LARGE = tuple(SIDE)
PAPER_RECIPES = {  # of the small, and of the large
    "plain": (PLAIN, PLAIN_IMAGENET), "lfi_cam": (LFI_CAM, LFI_CAM_IMAGENET), "abn": (ABN, ABN_IMAGENET),
}  # fmt: skip
LFI_CAM_NETWORKS = {
    **dict.fromkeys(SMALL, ("resnet110_bottleneck", "densenet100_12", "resnext29_8x64d")),
    "cat_dog": ("resnet18",), "stl10": ("resnet18",), "imagenet": ("resnet50",),
}  # fmt: skip
ABN_NETWORKS = {**LFI_CAM_NETWORKS, "imagenet": ("resnet50", "resnet101", "resnet152")}
ABN_CIFAR = {"resnet": ABN, "densenet": ABN_DENSENET, "resnext": ABN_RESNEXT}  # by the family of the network


def scratch_recipe(model: str, dataset: str, count: int | None = None, setting: int = 0, paper: str = "", name: str = "resnet") -> Recipe:
    """How "plain", "lfi_cam" or "abn" learns a data set from scratch, over ``count`` epochs; the same for all three but for the name.

    With ``paper``, each as in its own, which for ABN depends on the network ``name``.
    """
    small, large = PAPER_RECIPES[model]
    if paper and model == "abn" and dataset in SMALL:
        small = of_family(ABN_CIFAR, name)
    if paper:
        return _over(small if dataset in SMALL else replace(large, crop=SIDE[dataset]), count)
    if dataset not in SCRATCH_EPOCHS:
        raise ValueError(f"{model} learns from scratch and has no recipe for {dataset} yet: take one of {', '.join(SCRATCH_EPOCHS)}")
    count = count or SCRATCH_EPOCHS[dataset]
    settings = len(SETTINGS.get(dataset, (None,)))  # drawn data has one
    if not 0 <= setting < settings:
        raise ValueError(f"{dataset} has settings 0 to {settings - 1}, got {setting}")
    if dataset in DRAWN_EPOCHS:
        return drawn_recipe(small, count)
    # bfloat16: a third faster or more on a CPU that has it, for all contenders alike
    of = {"precision": "bf16-mixed", **asdict(SETTINGS[dataset][setting])}
    if dataset in SMALL:
        return small.shortened(count, **of)
    # ABN's schedule on ImageNet is another one; side by side all fall at half and three quarters, as LFI-CAM does
    return replace(LFI_CAM_IMAGENET.shortened(count, crop=SIDE[dataset], **of), name=large.name)


def scratch_plan(model: str, dataset: str, name: str, count: int | None = None, setting: int = 0, paper: str = "") -> Plan:
    """`scratch_recipe` and its images: the papers cut random windows out of whole ones (CIFAR's and drawn images are whole already)."""
    recipe = scratch_recipe(model, dataset, count, setting, paper, name)
    deviations = _another(name, (ABN_NETWORKS if model == "abn" else LFI_CAM_NETWORKS).get(dataset, (name,)))
    if name in ("resnet44", "resnet56", "resnet110"):
        deviations = ("blocks: of two convolutions instead of three, which the release takes from depth 44 on", *deviations)
    if paper and dataset in LARGE:
        return Plan(recipe, {"split": "full", "view": "original", "tested": "crop", "stream": True}, deviations)
    return Plan(recipe, deviations=deviations)


# --- CALM ------------------------------------------------------------------------------------------------------------------------------

# By the family of the network: the paper's, whatever the data, and the WSOL benchmark's.
CALM_PAPER = {"resnet": CALM, "vgg": CALM_VGG, "inception": CALM_INCEPTION}
CALM_BY_WSOL = {
    "cub": {"resnet": CALM_WSOL, "vgg": CALM_WSOL_VGG, "inception": CALM_WSOL_INCEPTION},
    "imagenet": {"resnet": CALM_WSOL_IMAGENET, "vgg": CALM_WSOL_IMAGENET_VGG, "inception": CALM_WSOL_IMAGENET_INCEPTION},
}
# The released commands take VGG with BatchNorm, the benchmark's has none.
CALM_NETWORKS = {"paper": ("resnet50", "vgg16_bn", "inception_v3"), "wsol": ("resnet50", "vgg16", "inception_v3")}


def cub_recipe(name: str, epochs: int | None = None) -> Recipe:
    """CALM's recipe for a few hundred images of ten classes and pretrained weights whose BatchNorm statistics are best left alone."""
    return of_family(CALM_PAPER, name).shortened(epochs or 5, lr=0.002, batch=16, crop=None, pad=16, frozen_batchnorm=True)


def calm_plan(dataset: str, name: str, epochs: int | None = None, paper: str = "") -> Plan:
    """CALM's and its plain baseline's: drawn data from scratch, CUB from pretrained weights, reduced or as ``paper`` says."""
    if paper == "wsol" and dataset not in CALM_BY_WSOL:
        raise ValueError(f"the WSOL benchmark has no recipe for {dataset}: take one of {', '.join(CALM_BY_WSOL)}, or the paper's own")
    read = ("Mixed_6e: read, as by the WSOL benchmark, instead of left out",) if name.startswith("inception") and paper != "wsol" else ()
    if paper:
        squashed = {"split": "full", "view": transforms.view("squash", 256)}  # the recipe cuts windows of 224 out of it
        recipe = _over(of_family(CALM_BY_WSOL[dataset] if paper == "wsol" else CALM_PAPER, name), epochs)
        return Plan(recipe, squashed, (*read, *_another(name, CALM_NETWORKS[paper])))
    if dataset in DRAWN_EPOCHS:
        return Plan(drawn_recipe(CALM, epochs or DRAWN_EPOCHS[dataset], lr=0.1, groups=()))
    if dataset != "cub":
        raise ValueError(f'CALM has no reduced recipe for {dataset}: take cub, drawn data, or the recipe "paper"')
    return Plan(cub_recipe(name, epochs), deviations=("maps: 14x14 instead of 28x28", *read, *_another(name, CALM_NETWORKS["paper"])))


# --- L-CAM -----------------------------------------------------------------------------------------------------------------------------

L_CAM_PAPER = {"resnet": L_CAM, "vgg": L_CAM_VGG}
L_CAM_NETWORKS = ("resnet50", "vgg16")
# A thousand images are 16 batches an epoch, the paper's 1.28 million 20,000. Masks and rate are chosen by studies/l_cam_recipe.py on
# held-out images: with so few updates the released batch masks lose more at 50 % than those of the image's own class. The variation
# keeps its printed weight, 0.01: raised to 0.64, which restores the released balance, it came out alike.
L_CAM_FEW = {"lr": 0.1, "flip": False, "crop": None}
L_CAM_MASKS = "own"
L_CAM_EPOCHS = {"fm": 25, "img": 5}  # Fm's by the same study; one of Img's passes the network


def l_cam_plan(variant: str, name: str, epochs: int | None = None, paper: str = "") -> Plan:
    """For ``variant`` "fm" or "img" on the network ``name``: cached centre views, or random windows of all training images."""
    if paper:
        windows = {"split": "full", "view": transforms.short_side(256), "tested": "crop", "stream": True}
        return Plan(_over(of_family(L_CAM_PAPER, name), epochs), windows, _another(name, L_CAM_NETWORKS))
    recipe = L_CAM.shortened(epochs or L_CAM_EPOCHS[variant], **L_CAM_FEW)
    return Plan(recipe, {"view": "crop", "tested": "crop"}, _another(name, L_CAM_NETWORKS))
