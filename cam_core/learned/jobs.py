"""What is trained on which data: the names that profiles and notebooks use -> data, networks, learned models.

Every training is kept by digest under ``store``, so a notebook that asks for a model which a job has trained only loads it. Each reduced
recipe stands here in one line; what it changes in the paper's is listed in the summary under ``deviations``.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from cam_core.classifier import Classifier, load_classifier
from cam_core.data import CUB200, VOC2007, Dataset, ImageNet
from cam_core.learned.batches import features, in_memory
from cam_core.learned.calm import Calm, calm_trunk
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import LfiCam, lfi_backbone
from cam_core.learned.plain import Plain, mean_average_precision, multi_label_head, with_pooled_head
from cam_core.learned.recipes import CALM, L_CAM, LFI_CAM, PLAIN, Recipe
from cam_core.learned.training import predict, trained

HOME = Path(__file__).resolve().parents[2]  # the repository, wherever a notebook was started
STORE, DRAWN = HOME / "runs/models", HOME / "data/drawn"
Summary = dict[str, Any]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Source:
    """A data set by name: its reader, the splits trained on and reported on, the side of the network's input.

    ``held_out``: the last so many images of the test list choose recipes and are never reported on.
    """

    reader: Callable[..., Dataset]
    train: str
    test: str
    side: int
    held_out: int = 0


SOURCES = {
    "drawn_imagenet": Source(ImageNet, "train", "val", 112),
    "drawn_voc": Source(VOC2007, "trainval", "test", 112),
    "drawn_cub": Source(CUB200, "train", "test", 112),
    "imagenet": Source(ImageNet, "train256", "val", 224, held_out=100),
    "voc07": Source(VOC2007, "trainval", "test", 224),
    "cub": Source(CUB200, "train", "test", 224),
}


def source(dataset: str) -> Source:
    """The source of that name; ValueError names those that exist."""
    if dataset not in SOURCES:
        raise ValueError(f"unknown dataset {dataset!r}: expected one of {', '.join(SOURCES)}")
    return SOURCES[dataset]


def images(dataset: str, root: Path | str, split: str = "test", limit: int | None = None) -> Callable[[str], Dataset]:
    """View -> images of a data set under that view, the first ``limit`` of the list: the "train", "test" or "held_out" ones."""
    of = source(dataset)
    if split not in ("train", "test", "held_out") or (split == "held_out" and not of.held_out):
        raise ValueError(f"{dataset} has no images called {split!r}: take train or test" + (" or held_out" if of.held_out else ""))

    name = of.train if split == "train" else of.test
    if split == "train" or not of.held_out:
        return lambda view: of.reader(root, name, view, of.side, limit)
    wanted = slice(-of.held_out, None) if split == "held_out" else slice(-of.held_out)
    return lambda view: of.reader(root, name, view, of.side).part(wanted).part(slice(limit))


DRAWN_EPOCHS = {"drawn_imagenet": 8, "drawn_voc": 10, "drawn_cub": 14}


def drawn_recipe(recipe: Recipe, epochs: int, **changes: Any) -> Recipe:
    """A paper's recipe cut to what drawn data needs: a minute on two cores, one cycle of the learning rate."""
    few = {"batch": 32, "schedule": "cycle", "nesterov": True, "weight_decay": 5e-4, "pad": 8, "flip": True, "crop": None}
    return recipe.shortened(epochs, **{**few, **changes})


# --- networks that are explained -------------------------------------------------------------------------------------------------------


def network(
    dataset: str, name: str, root: Path | str, *, seed: int = 0, epochs: int | None = None, store: Path | str = STORE, device: str = "cpu"
) -> tuple[Classifier, Summary]:
    """The plain network of a data set and what is known of it (accuracy or mean average precision in percent, deviations, seconds).

    imagenet: pretrained. voc07: a multi-label head on the frozen pretrained trunk. cub: fine-tuned at 14x14 maps under a new pooled head.
    drawn_*: trained from scratch.
    """
    if dataset == "imagenet":
        return load_classifier(name, device=device), {"deviations": []}
    if dataset == "voc07":
        return _voc_head(name, root, seed, device)
    if dataset == "cub":
        recipe = cub_recipe(epochs)
        return _trained(
            lambda: Plain(with_pooled_head(calm_trunk(name), _classes(dataset, root))), recipe, dataset, root, seed, store, device
        )
    several = dataset == "drawn_voc"
    recipe = drawn_recipe(PLAIN, epochs or DRAWN_EPOCHS[dataset])
    build = partial(_plain, name, _classes(dataset, root), multi_label=several)
    classifier, summary = _trained(build, recipe, dataset, root, seed, store, device)
    if several:
        held_out = in_memory(images(dataset, root)("squash"), progress=False)
        summary["mean_average_precision"] = mean_average_precision(predict(classifier, held_out["images"]), held_out["targets"])
    return classifier, summary


def _plain(name: str, classes: int, multi_label: bool = False) -> Plain:
    return Plain(lfi_backbone(name, classes), multi_label=multi_label)


def _voc_head(name: str, root: Path | str, seed: int, device: str) -> tuple[Classifier, Summary]:
    trunk = load_classifier(name, device=device)
    train, test = (in_memory(images("voc07", root, split)("squash")) for split in ("train", "test"))
    classifier, fitted = multi_label_head(trunk, features(trunk, train["images"], pool=True)[0], train["targets"], seed=seed)
    scores = predict(classifier.frozen(), test["images"], batch=8)
    deviation = "20-way logistic head on the frozen ImageNet trunk; the papers fine-tune"
    return classifier, {"mean_average_precision": mean_average_precision(scores, test["targets"]), "deviations": [deviation], **fitted}


def _classes(dataset: str, root: Path | str) -> int:
    return len(images(dataset, root, limit=1)("squash").classes)


def _trained(
    build: Callable[[], Plain], recipe: Recipe, dataset: str, root: Path | str, seed: int, store: Path | str, device: str
) -> tuple[Classifier, Summary]:
    model, summary = _fit(build, recipe, dataset, root, seed, store, device)
    return model.classifier, summary


def _fit(
    build: Callable[[], Model],
    recipe: Recipe,
    dataset: str,
    root: Path | str,
    seed: int,
    store: Path | str,
    device: str,
    view: str = "squash",
) -> tuple[Model, Summary]:
    train, test = images(dataset, root, "train")(view), images(dataset, root)(view)
    several = dataset in ("drawn_voc", "voc07")
    return trained(build, recipe, train, seed=seed, store=store, test=None if several else test, device=device)


# --- learned models --------------------------------------------------------------------------------------------------------------------


def cub_recipe(epochs: int | None = None, lr: float = 0.002) -> Recipe:
    """CALM's recipe for a few hundred images of ten classes and pretrained weights whose BatchNorm statistics are best left alone."""
    return CALM.shortened(epochs or 5, lr=lr, batch=16, crop=None, pad=16, frozen_batchnorm=True)


CALM_CUB_RATE = 0.0005  # at the plain network's .002 both objectives diverge to chance on the training images themselves


def calm(
    dataset: str, name: str, root: Path | str, *, seed: int = 0, epochs: int | None = None, store: Path | str = STORE, device: str = "cpu"
) -> dict[str, tuple[Calm, Summary]]:
    """CALM trained by EM and by ML from the same start; an image without any attention is looked at everywhere alike (``uniform``)."""
    classes = _classes(dataset, root)
    if dataset.startswith("drawn_"):
        recipe = drawn_recipe(CALM, epochs or DRAWN_EPOCHS[dataset], lr=0.1, groups=())
        trunk = partial(lfi_backbone, name, classes)
    else:
        recipe, trunk = cub_recipe(epochs, CALM_CUB_RATE), partial(calm_trunk, name)

    def build(objective: str) -> Calm:
        return Calm(trunk(), classes, objective, uniform=True)

    return {f"calm_{o}": _fit(partial(build, o), recipe, dataset, root, seed, store, device) for o in ("em", "ml")}


def lfi_cam(
    dataset: str, name: str, root: Path | str, *, seed: int = 0, epochs: int | None = None, store: Path | str = STORE, device: str = "cpu"
) -> tuple[LfiCam, Summary]:
    """LFI-CAM from scratch, on the schedule of the plain network beside it."""
    if dataset not in DRAWN_EPOCHS:
        raise ValueError(f"LFI-CAM learns from scratch and has no recipe for {dataset} yet: take one of {', '.join(DRAWN_EPOCHS)}")
    build = partial(LfiCam, name, _classes(dataset, root))
    return _fit(build, drawn_recipe(LFI_CAM, epochs or DRAWN_EPOCHS[dataset]), dataset, root, seed, store, device)


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
    epochs: tuple[int, int] = L_CAM_EPOCHS,
    store: Path | str = STORE,
    device: str = "cpu",
) -> dict[str, tuple[LCam, Summary]]:
    """L-CAM-Fm and L-CAM-Img on a frozen classifier, from cached centre views, for ``epochs`` (Fm, Img); one of Img passes the network."""
    return {
        f"l_cam_{variant}": _fit(
            partial(LCam, classifier, variant, masks=L_CAM_MASKS),
            L_CAM.shortened(count, **L_CAM_FEW),
            dataset,
            root,
            seed,
            store,
            device,
            "crop",
        )
        for variant, count in zip(("fm", "img"), epochs, strict=True)
    }


# --- the batch's training jobs ---------------------------------------------------------------------------------------------------------


def train(paper: str, dataset: str, backbone: str, recipe: str | None, seed: int, data_root: Path | str | None, profile: str) -> Path:
    """Train (or find) all that a run of ``paper`` needs; the folder of the last model. What the notebook does, without its pictures."""
    root = find_root(dataset, data_root)
    options: Any = {"seed": seed, "store": STORE}
    learned: dict[str, tuple[Any, Summary]] = {}
    if paper == "l_cam":
        fm, img = (*epochs(recipe), None, None)[:2]
        classifier, plain = network(dataset, backbone, root, **options)
        learned = l_cam(dataset, classifier, root, epochs=(fm or L_CAM_EPOCHS[0], img or L_CAM_EPOCHS[1]), **options)
    else:
        count = next(iter(epochs(recipe)), None)
        _, plain = network(dataset, backbone, root, epochs=count, **options)
        if paper == "calm":
            learned = calm(dataset, backbone, root, epochs=count, **options)
        elif paper == "lfi_cam":
            learned = {"lfi_cam": lfi_cam(dataset, backbone, root, epochs=count, **options)}
    last = list(learned.values())[-1][1] if learned else plain
    if "digest" not in last:
        raise ValueError(f"{paper} on {dataset} trains nothing: leave `train` out of its entry in the profile {profile!r}")
    return STORE / str(last["digest"])[:20]


def epochs(recipe: str | None) -> tuple[int, ...]:
    """The numbers of epochs that a recipe's name states: "e12" -> (12,), "e50-2" -> (50, 2), none -> ()."""
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
