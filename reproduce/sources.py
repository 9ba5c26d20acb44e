"""Data sets by the names that profiles, notebooks and studies use: reader, splits, side of the network's input, location.

root = find_root("cub")
images = images("cub", root, limit=100)   # view -> Dataset
images("squash")[0].image                 # [3,224,224] in [0, 1]
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import v2

from cam_core.data.cub import CUB200
from cam_core.data.example import Dataset, View
from cam_core.data.imagenet import ImageNet
from cam_core.data.openimages import OpenImages30k
from cam_core.data.voc import VOC2007
from data_scripts import subsets
from data_scripts.get.sets import MANIFEST
from reproduce.archives import archived
from reproduce.packed import CIFAR10, Packed

HOME = Path(__file__).resolve().parents[1]  # the repository, wherever a notebook was started
DRAWN = HOME / "data/drawn"


@dataclass(frozen=True)
class Source:
    """A data set by name: its reader, the splits trained on and reported on, the side of the network's input.

    ``held_out``: the last so many images of the test list are for choosing recipes and are never reported on. ``full``: the split of all
    training images, where ``train`` is a part of them. ``view``: the view of images when networks are trained from scratch (``train_view``
    if it differs) and tested. ``published``, ``classes``: how many training images and classes the papers have; fewer are a deviation.
    ``official``: how many images the split reported on officially has.
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
    published: int | None = None
    classes: int | None = None
    official: int | None = None


def middle_square(side: int) -> v2.Transform:
    """A view: short side scaled to ``side``, the middle square cut out; a float image [3,side,side] in [0, 1]."""
    return v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(side), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def cifar10(root: Path | str, split: str = "train", view: View = "crop", size: int = 224, limit: int | None = None) -> Dataset:
    """CIFAR-10 as officially packed, for Python or binary, where one of them lies below ``root``; else the JPEG files of a subset."""
    if any((Path(root) / place).is_dir() for place in CIFAR10):
        return Packed(root, split, view, size, limit, name="CIFAR-10")
    data = archived(root, split, view, size, limit, name="CIFAR-10-subset")
    data.deviations = ("images: as JPEG files, 5000 test images instead of 10,000",)
    return data


SOURCES = {
    "drawn_imagenet": Source(ImageNet, "train", "val", 112),
    "drawn_voc": Source(VOC2007, "trainval", "test", 112),
    "drawn_cub": Source(CUB200, "train", "test", 112),
    "imagenet": Source(ImageNet, "train256", "val", 224, held_out=100, full="train", published=1_281_167, official=50_000),
    "voc07": Source(VOC2007, "trainval", "test", 224, official=4952),
    "cub": Source(CUB200, "train", "test", 224, published=5994, classes=200, official=5794),
    "openimages": Source(OpenImages30k, "train", "test", 224, published=29_819, classes=100, official=5000),
    "cifar10": Source(cifar10, "train", "test", 32, published=50_000, classes=10, official=10_000),
    "cifar100": Source(partial(Packed, name="CIFAR-100"), "train", "test", 32, published=50_000, classes=100, official=10_000),
    "stl10": Source(
        partial(Packed, name="STL-10"), "train", "test", 96, view="crop", train_view="original", published=5000, classes=10, official=8000,
    ),
    "cat_dog": Source(
        partial(archived, name="Cat-Dog-128"), "train", "val", 64, view="crop", train_view=middle_square(128),
        deviations=("images: 2000 and 2000 with short side 128, trained on their middle squares; the split is ours",),
    ),
}  # fmt: skip


def source(dataset: str) -> Source:
    """The source of that name; ValueError names those that exist."""
    if dataset not in SOURCES:
        raise ValueError(f"unknown dataset {dataset!r}: expected one of {', '.join(SOURCES)}")
    return SOURCES[dataset]


def images(
    dataset: str,
    root: Path | str,
    split: str = "test",
    limit: int | None = None,
    *,
    subset: str | Path | None = None,
    allow_partial: bool = False,
) -> Callable[[View], Dataset]:
    """View -> images of a data set under that view, the first ``limit`` of the list: "test", "train", "full" (all for it) or "held_out".

    ``subset``: only the test images of a list (`data_scripts.subsets`), all of them, also those that are held out otherwise; `DataError`
    where only a part of them is there, unless ``allow_partial``.
    """
    of = source(dataset)
    if split not in ("train", "full", "test", "held_out") or (split == "held_out" and not of.held_out):
        raise ValueError(f"{dataset} has no images called {split!r}: take train, full, test" + (" or held_out" if of.held_out else ""))
    if subset:
        if split != "test":
            raise ValueError(f"subset {subset} is a list of test images; leave it out for {split}")
        return lambda view: subsets.cut(of.reader(root, of.test, view, of.side), subset, allow_partial=allow_partial).part(slice(limit))
    name = {"train": of.train, "full": of.full or of.train}.get(split, of.test)
    if split in ("train", "full") or not of.held_out:
        return lambda view: of.reader(root, name, view, of.side, limit)
    wanted = slice(-of.held_out, None) if split == "held_out" else slice(-of.held_out)
    return lambda view: of.reader(root, name, view, of.side).part(wanted).part(slice(limit))


def coverage(dataset: str, data: Dataset, subset: str | Path | None = None) -> dict[str, Any]:
    """Which images a number is over, for its provenance: ``used`` ones of the ``present`` ones of a ``list`` that has ``of``.

    The list is ``subset``; without it the one by which `data_scripts.get` cut the data, as its manifest says; else the official split.
    """
    official = source(dataset).official
    manifest = data.root / MANIFEST
    cut = json.loads(manifest.read_text()).get("subset", {}) if manifest.is_file() else {}
    if subset:
        name, of = Path(subset).stem, len(subsets.read(subset))
    elif cut.get("name"):
        name, of = Path(cut["name"]).stem, cut["of"]
    else:
        name, of = data.split, official or data.available
    return {"used": len(data), "present": data.available, "list": name, "of": of}


def find_root(dataset: str, data_root: Path | str | None = None) -> Path:
    """The folder of a data set: ``data_root`` if given, ``data/drawn`` for drawn data, else the folder that CAM_DATA names."""
    source(dataset)
    if data_root is not None:
        return Path(data_root)
    if dataset.startswith("drawn_"):
        return DRAWN
    if "CAM_DATA" not in os.environ:
        raise FileNotFoundError(f"{dataset} needs its images: set CAM_DATA to the folder that holds them, or pass data_root")
    return Path(os.environ["CAM_DATA"])
