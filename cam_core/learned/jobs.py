"""What is trained on which data: the names that profiles and notebooks use -> data, networks, learned models.

Every training is kept by digest under ``store``, so a notebook that asks for a model which a job has trained only loads it. Each reduced
recipe stands here in one line; what it changes in the paper's is listed in the summary under ``deviations``. With ``paper`` = "paper" a
model is trained by the paper's own recipe on all training images ("wsol": CALM by the WSOL benchmark's), which takes large machines.

The functions below take, beside what they name, ``how``: where and by what means `trained` works (store, device, devices, nodes,
best_on_test), and ``held_out``, a share of the training images on which the best weights are then chosen.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from cam_core.classifier import Classifier, load_classifier
from cam_core.data import CUB200, VOC2007, Dataset, ImageFolder, ImageNet, transforms
from cam_core.data.example import View
from cam_core.data.folder import middle_square
from cam_core.learned.abn import Abn, parameter_counts
from cam_core.learned.batches import features, in_memory
from cam_core.learned.calm import Calm, calm_trunk
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import CIFAR_MEAN, CIFAR_STD, LfiCam, lfi_backbone
from cam_core.learned.plain import Plain, mean_average_precision, multi_label_head, with_pooled_head
from cam_core.learned.recipes import (
    ABN,
    ABN_IMAGENET,
    CALM,
    CALM_INCEPTION,
    CALM_VGG,
    CALM_WSOL,
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
from cam_core.learned.training import predict, trained
from cam_core.networks import equal_width

HOME = Path(__file__).resolve().parents[2]  # the repository, wherever a notebook was started
STORE, DRAWN = HOME / "runs/models", HOME / "data/drawn"
Summary = dict[str, Any]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Source:
    """A data set by name: its reader, the splits trained on and reported on, the side of the network's input.

    ``held_out``: the last so many images of the test list choose recipes and are never reported on. ``full``: the split of all training
    images, where ``train`` is a part of them. ``view``: how images are looked at when networks from scratch are trained (``train_view``,
    if another) and tested.
    """

    reader: Callable[..., Dataset]
    train: str
    test: str
    side: int
    held_out: int = 0
    full: str | None = None
    view: View = "squash"
    train_view: View | None = None
    deviations: tuple[str, ...] = ()


SOURCES = {
    "drawn_imagenet": Source(ImageNet, "train", "val", 112),
    "drawn_voc": Source(VOC2007, "trainval", "test", 112),
    "drawn_cub": Source(CUB200, "train", "test", 112),
    "imagenet": Source(ImageNet, "train256", "val", 224, held_out=100, full="train"),
    "voc07": Source(VOC2007, "trainval", "test", 224),
    "cub": Source(CUB200, "train", "test", 224),
    "cifar10": Source(
        partial(ImageFolder, name="CIFAR-10-subset"), "train", "test", 32,
        deviations=("images: 20,000 and 5,000 as JPEG files instead of 50,000 and 10,000",),
    ),
    "cat_dog": Source(
        partial(ImageFolder, name="Cat-Dog-128"), "train", "val", 96, view="crop", train_view=middle_square(128),
        deviations=("images: 2000 and 2000 with short side 128, trained on their middle squares; the split is ours",),
    ),
}  # fmt: skip


def source(dataset: str) -> Source:
    """The source of that name; ValueError names those that exist."""
    if dataset not in SOURCES:
        raise ValueError(f"unknown dataset {dataset!r}: expected one of {', '.join(SOURCES)}")
    return SOURCES[dataset]


def images(dataset: str, root: Path | str, split: str = "test", limit: int | None = None) -> Callable[[View], Dataset]:
    """View -> images of a data set under that view, the first ``limit`` of the list: "test", "train", "full" (all for it) or "held_out"."""
    of = source(dataset)
    if split not in ("train", "full", "test", "held_out") or (split == "held_out" and not of.held_out):
        raise ValueError(f"{dataset} has no images called {split!r}: take train or test" + (" or held_out" if of.held_out else ""))

    name = {"train": of.train, "full": of.full or of.train}.get(split, of.test)
    if split in ("train", "full") or not of.held_out:
        return lambda view: of.reader(root, name, view, of.side, limit)
    wanted = slice(-of.held_out, None) if split == "held_out" else slice(-of.held_out)
    return lambda view: of.reader(root, name, view, of.side).part(wanted).part(slice(limit))


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
SCRATCH_EPOCHS = {**DRAWN_EPOCHS, "cifar10": 12, "cat_dog": 30}
PAPER_RECIPES = {  # on images of 32 pixels, and cut at random out of larger ones
    "plain": (PLAIN, PLAIN_IMAGENET), "lfi_cam": (LFI_CAM, LFI_CAM_IMAGENET), "abn": (ABN, ABN_IMAGENET),
}  # fmt: skip


def scratch_recipe(model: str, dataset: str, count: int | None = None, setting: int = 0, paper: str = "") -> Recipe:
    """How "plain", "lfi_cam" or "abn" learns a data set from scratch, over ``count`` epochs; the same for all three but for the name.

    With ``paper``, each as in its own.
    """
    small, large = PAPER_RECIPES[model]
    if paper:
        return _over(small if dataset == "cifar10" else replace(large, crop=source(dataset).side), count)
    if dataset not in SCRATCH_EPOCHS:
        raise ValueError(f"{model} learns from scratch and has no recipe for {dataset} yet: take one of {', '.join(SCRATCH_EPOCHS)}")
    count = count or SCRATCH_EPOCHS[dataset]
    settings = len(SETTINGS.get(dataset, (None,)))  # drawn data has one
    if not 0 <= setting < settings:
        raise ValueError(f"{dataset} has settings 0 to {settings - 1}, got {setting}")
    if dataset in DRAWN_EPOCHS:
        return drawn_recipe(small, count)
    of = asdict(SETTINGS[dataset][setting])
    if dataset == "cifar10":  # bfloat16: 1.5 x faster on a CPU that has it, for all contenders alike
        return small.shortened(count, precision="bf16-mixed", **of)
    # ABN's schedule on ImageNet is another one; side by side all fall at half and three quarters, as LFI-CAM does
    return replace(LFI_CAM_IMAGENET.shortened(count, crop=source(dataset).side, **of), name=large.name)


def _over(recipe: Recipe, count: int | None) -> Recipe:
    return recipe.shortened(count) if count else recipe


# The papers' recipes by the family of the network; CALM's own, and the WSOL benchmark's.
L_CAM_PAPER = {"resnet": L_CAM, "vgg": L_CAM_VGG}
CALM_PAPER = {
    "paper": {"resnet": CALM, "vgg": CALM_VGG, "inception": CALM_INCEPTION},
    "wsol": {"resnet": CALM_WSOL, "vgg": CALM_WSOL_VGG, "inception": CALM_WSOL_INCEPTION},
}


def of_family(recipes: Mapping[str, Recipe], name: str) -> Recipe:
    """The recipe for a network's family; ValueError names the families that have one."""
    found = [recipe for family, recipe in recipes.items() if name.startswith(family)]
    if not found:
        raise ValueError(f"the paper has no recipe for {name}: it trains {', '.join(recipes)}; take one of these, or a reduced recipe")
    return found[0]


def scratch_backbone(dataset: str, name: str, classes: int, *, widened: bool = False) -> Classifier:
    """The untrained network of plain, LFI-CAM and ABN alike: the stem and the normalisation that LFI-CAM's paper has for the data.

    ``widened``: with as many parameters as LFI-CAM's network has.
    """
    width = equal_width(name, sum(parameter_counts(name, classes)[part] for part in ("plain", "fin_3x3")), classes) if widened else None
    if dataset == "cifar10":
        return lfi_backbone(name, classes, stem_stride=1, mean=CIFAR_MEAN, std=CIFAR_STD, width=width)
    return lfi_backbone(name, classes, width=width)


# --- networks that are explained -------------------------------------------------------------------------------------------------------


def network(
    dataset: str,
    name: str,
    root: Path | str,
    *,
    seed: int = 0,
    epochs: int | None = None,
    setting: int = 0,
    paper: str = "",
    device: str = "cpu",
    **how: Any,
) -> tuple[Classifier, Summary]:
    """The plain network of a data set and what is known of it (accuracy or mean average precision in percent, deviations, seconds).

    imagenet: pretrained. voc07: a multi-label head on the frozen pretrained trunk. cub: fine-tuned under a new pooled head, as CALM is.
    drawn_*, cifar10, cat_dog: trained from scratch, the last two under one of their `SETTINGS`.
    """
    if dataset == "imagenet":
        return load_classifier(name, device=device), {"deviations": []}
    if dataset == "voc07":
        return _voc_head(name, root, seed, device)
    if dataset == "cub":
        training = cub_training(name, epochs, paper)
        model, summary = _fit(
            lambda: Plain(with_pooled_head(training.trunk(), _classes(dataset, root))),
            training.recipe,
            dataset,
            root,
            seed=seed,
            device=device,
            **training.seen,
            **how,
        )
        return model.classifier, _also(summary, training.deviations)
    return plain(dataset, name, root, seed=seed, epochs=epochs, setting=setting, paper=paper, device=device, **how)


def plain(
    dataset: str,
    name: str,
    root: Path | str,
    *,
    seed: int = 0,
    epochs: int | None = None,
    setting: int = 0,
    paper: str = "",
    widened: bool = False,
    **how: Any,
) -> tuple[Classifier, Summary]:
    """The plain network from scratch: the baseline beside LFI-CAM and ABN, on their schedule and with their stem.

    ``widened``: a CIFAR ResNet of as many parameters as LFI-CAM has on the network of that name.
    """
    several = dataset == "drawn_voc"
    recipe, classes = scratch_recipe("plain", dataset, epochs, setting, paper), _classes(dataset, root)

    def build() -> Plain:
        return Plain(scratch_backbone(dataset, name, classes, widened=widened), multi_label=several)

    model, summary = _fit(build, recipe, dataset, root, seed=seed, **_originals(dataset, paper), **how)
    classifier = model.classifier
    if several:
        held_out = in_memory(images(dataset, root)("squash"), progress=False)
        summary["mean_average_precision"] = mean_average_precision(predict(classifier, held_out["images"]), held_out["targets"])
    return classifier, summary


def _voc_head(name: str, root: Path | str, seed: int, device: str) -> tuple[Classifier, Summary]:
    trunk = load_classifier(name, device=device)
    train, test = (in_memory(images("voc07", root, split)("squash")) for split in ("train", "test"))
    classifier, fitted = multi_label_head(trunk, features(trunk, train["images"], pool=True)[0], train["targets"], seed=seed)
    scores = predict(classifier.frozen(), test["images"], batch=8)
    deviation = "20-way logistic head on the frozen ImageNet trunk; the papers fine-tune"
    return classifier, {"mean_average_precision": mean_average_precision(scores, test["targets"]), "deviations": [deviation], **fitted}


def _classes(dataset: str, root: Path | str) -> int:
    return len(images(dataset, root, limit=1)("squash").classes)


def _fit(
    build: Callable[[], Model],
    recipe: Recipe,
    dataset: str,
    root: Path | str,
    *,
    split: str = "train",
    view: View | None = None,
    tested: View | None = None,
    held_out: float = 0.0,
    **how: Any,
) -> tuple[Model, Summary]:
    of = source(dataset)
    train = images(dataset, root, split)(view or of.train_view or of.view)
    test = None if dataset in ("drawn_voc", "voc07") else images(dataset, root)(tested or of.view)
    if held_out:
        recipe = replace(recipe, held_out=held_out)
    how = {"store": STORE, "device": "cpu", "best": held_out > 0, **how}
    model, summary = trained(build, recipe, train, test=test, **how)
    return model, _also(summary, of.deviations)


def _also(summary: Summary, deviations: Sequence[str]) -> Summary:
    return {**summary, "deviations": [*summary["deviations"], *deviations]}


def _originals(dataset: str, paper: str) -> dict[str, Any]:
    """How the papers' random windows are cut: out of whole images. CIFAR's and drawn images are whole already."""
    whole: dict[str, Any] = {"split": "full", "view": "original", "tested": "crop", "stream": True}
    return whole if paper and dataset in ("imagenet", "cat_dog") else {}


# --- learned models --------------------------------------------------------------------------------------------------------------------


def cub_recipe(epochs: int | None = None) -> Recipe:
    """CALM's recipe for a few hundred images of ten classes and pretrained weights whose BatchNorm statistics are best left alone."""
    return CALM.shortened(epochs or 5, lr=0.002, batch=16, crop=None, pad=16, frozen_batchnorm=True)


@dataclass(frozen=True)
class Training:
    """CALM's and its plain baseline's: trunk, recipe, how training images are seen, what differs from the paper beside the recipe."""

    trunk: Callable[[], Classifier]
    recipe: Recipe
    seen: Mapping[str, Any]
    deviations: tuple[str, ...] = ()


def cub_training(name: str, epochs: int | None = None, paper: str = "") -> Training:
    """On CUB: reduced, at 14x14 maps, or, with ``paper`` "paper" or "wsol", at 28x28 (the WSOL benchmark's VGG: 14x14)."""
    if not paper:
        return Training(partial(calm_trunk, name), cub_recipe(epochs), {}, ("maps: 14x14 instead of 28x28",))
    stride = 16 if paper == "wsol" and name.startswith("vgg") else 8
    squashed = {"split": "full", "view": transforms.view("squash", 256)}  # the recipe cuts windows of 224 out of it
    return Training(partial(calm_trunk, name, stride=stride), _over(of_family(CALM_PAPER[paper], name), epochs), squashed)


def calm(
    dataset: str, name: str, root: Path | str, *, seed: int = 0, epochs: int | None = None, paper: str = "", **how: Any
) -> dict[str, tuple[Calm, Summary]]:
    """CALM trained by EM and by ML from the same start.

    In reduced trainings an image without any attention is looked at everywhere alike (``uniform``) and S is not detached: with the
    released stop-gradient the attention only ever grows, and trainings as short as these stayed near chance even on their own training
    images.
    """
    classes = _classes(dataset, root)
    if dataset.startswith("drawn_") and not paper:
        recipe = drawn_recipe(CALM, epochs or DRAWN_EPOCHS[dataset], lr=0.1, groups=())
        training = Training(partial(lfi_backbone, name, classes), recipe, {})
    else:
        training = cub_training(name, epochs, paper)

    def build(objective: str) -> Calm:
        return Calm(training.trunk(), classes, objective, uniform=not paper, detach_scale=bool(paper))

    made = {f"calm_{o}": _fit(partial(build, o), training.recipe, dataset, root, seed=seed, **training.seen, **how) for o in ("em", "ml")}
    return {key: (model, _also(summary, training.deviations)) for key, (model, summary) in made.items()}


def lfi_cam(
    dataset: str,
    name: str,
    root: Path | str,
    *,
    seed: int = 0,
    epochs: int | None = None,
    setting: int = 0,
    paper: str = "",
    importance: str = "fin",
    kernel: int = 3,
    **how: Any,
) -> tuple[LfiCam, Summary]:
    """LFI-CAM from scratch, on the schedule of the plain network beside it; ``importance`` and ``kernel`` as in `LfiCam`."""
    recipe, classes = scratch_recipe("lfi_cam", dataset, epochs, setting, paper), _classes(dataset, root)

    def build() -> LfiCam:
        return LfiCam(scratch_backbone(dataset, name, classes), importance=importance, kernel=kernel)

    return _fit(build, recipe, dataset, root, seed=seed, **_originals(dataset, paper), **how)


def abn(
    dataset: str,
    name: str,
    root: Path | str,
    *,
    seed: int = 0,
    epochs: int | None = None,
    setting: int = 0,
    paper: str = "",
    **how: Any,
) -> tuple[Abn, Summary]:
    """ABN from scratch, on the schedule (with ``paper``, its own) and with the stem of the plain network beside it."""
    recipe, classes = scratch_recipe("abn", dataset, epochs, setting, paper), _classes(dataset, root)
    model, summary = _fit(
        lambda: Abn(scratch_backbone(dataset, name, classes)), recipe, dataset, root, seed=seed, **_originals(dataset, paper), **how
    )
    stem = ["stem: stride 1, as LFI-CAM's, instead of 2"] if dataset == "imagenet" else []
    return model, _also(summary, stem)


# A thousand images are 16 batches an epoch, the paper's 1.28 million 20,000. Masks and rate are chosen by studies/l_cam_recipe.py on
# held-out images: with so few updates the released batch masks turn the maps over, those of the image's own class do not.
L_CAM_FEW = {"lr": 0.1, "flip": False, "crop": None}
L_CAM_MASKS = "own"
L_CAM_EPOCHS = (50, 5)


def l_cam(
    dataset: str,
    classifier: Classifier,
    root: Path | str,
    *,
    seed: int = 0,
    epochs: tuple[int | None, int | None] = (None, None),
    paper: str = "",
    **how: Any,
) -> dict[str, tuple[LCam, Summary]]:
    """L-CAM-Fm and L-CAM-Img on a frozen classifier, for ``epochs`` (Fm, Img; None: the usual number); one of Img passes the network.

    Reduced: from cached centre views, own-class masks. With ``paper``: random windows of all training images through the trunk, and
    batch masks.
    """
    if paper:
        of = of_family(L_CAM_PAPER, classifier.name)
        recipes = [_over(of, count) for count in epochs]
        options: dict[str, Any] = {"cached": False}
        seen: dict[str, Any] = {"split": "full", "view": transforms.short_side(256), "tested": "crop", "stream": True}
    else:
        recipes = [L_CAM.shortened(count or usual, **L_CAM_FEW) for count, usual in zip(epochs, L_CAM_EPOCHS, strict=True)]
        options, seen = {"masks": L_CAM_MASKS}, {"view": "crop", "tested": "crop"}
    return {
        f"l_cam_{variant}": _fit(partial(LCam, classifier, variant, **options), recipe, dataset, root, seed=seed, **seen, **how)
        for variant, recipe in zip(("fm", "img"), recipes, strict=True)
    }


# --- the batch's training jobs ---------------------------------------------------------------------------------------------------------


def train(
    paper: str,
    dataset: str,
    backbone: str,
    recipe: str | None,
    seed: int,
    data_root: Path | str | None,
    profile: str,
    **how: Any,
) -> Path:
    """Train (or find) all that a run of ``paper`` needs; the folder of the last model. What the notebook does, without its pictures."""
    root = find_root(dataset, data_root)
    options: Any = {"seed": seed, "store": STORE, **how}
    learned: dict[str, tuple[Any, Summary]] = {}
    if paper == "l_cam":
        classifier, known = network(dataset, backbone, root, **options)
        learned = l_cam(dataset, classifier, root, **asked_of_l_cam(recipe), **options)
    else:
        options |= asked(recipe)
        scratch = paper in ("lfi_cam", "abn")
        _, known = (plain if scratch else network)(dataset, backbone, root, **options)
        if paper == "calm":
            learned = calm(dataset, backbone, root, **options)
        if paper == "lfi_cam":
            learned = {"lfi_cam": lfi_cam(dataset, backbone, root, **options)}
        if scratch:  # ABN is LFI-CAM's opponent
            learned["abn"] = abn(dataset, backbone, root, **options)
    last = list(learned.values())[-1][1] if learned else known
    if "digest" not in last:
        raise ValueError(f"{paper} on {dataset} trains nothing: leave `train` out of its entry in the profile {profile!r}")
    return STORE / str(last["digest"])[:20]


WORDS: dict[str, dict[str, Any]] = {  # in a recipe's name, behind its numbers
    "e": {},
    "paper": {"paper": "paper"},  # the paper's own recipe
    "wsol": {"paper": "wsol"},  # CALM's, by the WSOL benchmark
    "best": {"held_out": 0.1},  # the weights that are best on a tenth of the training images, which is not trained on
    "test": {"best_on_test": True},  # the papers' habit, beside the accuracy of the last weights
}


def asked(recipe: str | None, count: int | None = None) -> dict[str, Any]:
    """What a recipe's name asks of the functions above; ``count`` stands before its epochs.

    "e12-2" is ``epochs`` 12 in ``setting`` 2, "paper" the paper's own; behind them "best" and "test", as in "e12-2-best" (`WORDS`).
    """
    numbers, words = epochs(recipe), re.findall(r"[a-z]+", recipe or "")
    if strange := [word for word in words if word not in WORDS]:
        raise ValueError(f"recipe {recipe!r}: unknown word {strange[0]!r}; a name is made of numbers and of {', '.join(WORDS)}")
    options = {key: value for word in words for key, value in WORDS[word].items()}
    return {"epochs": count or (numbers[0] if numbers else None), **({"setting": numbers[1]} if numbers[1:] else {}), **options}


def asked_of_l_cam(recipe: str | None, count: int | None = None) -> dict[str, Any]:
    """The same for `l_cam`: "e50-2" is 50 ``epochs`` of Fm and 2 of Img; ``count`` stands for both."""
    fm, img = (*epochs(recipe), None, None)[:2]
    options = {key: value for key, value in asked(recipe).items() if key != "setting"}
    return {**options, "epochs": (count or fm, count or img)}


def epochs(recipe: str | None) -> tuple[int, ...]:
    """The numbers that a recipe's name states: "e12" -> (12,), "e50-2" -> (50, 2), none -> ().

    Epochs; behind a hyphen those of L-CAM-Img, or on cifar10 and cat_dog the number of the setting.
    """
    return tuple(int(number) for number in re.findall(r"\d+", recipe or ""))


def find_root(dataset: str, data_root: Path | str | None = None) -> Path:
    """Where a data set lies: ``data_root`` if given, ``data/drawn`` for drawn data, else the folder that CAM_DATA names."""
    source(dataset)
    if data_root is not None:
        return Path(data_root)
    if dataset.startswith("drawn_"):
        return DRAWN
    if "CAM_DATA" not in os.environ:
        raise FileNotFoundError(f"{dataset} needs its images: set CAM_DATA to the folder that holds them, or pass data_root")
    return Path(os.environ["CAM_DATA"])
