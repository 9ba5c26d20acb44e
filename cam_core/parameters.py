"""What notebooks, training jobs and batches are asked for: read in one place, and refused there before anything is loaded.

    wanted = read("calm", {"dataset": "drawn_cub", "backbone": "resnet8", "recipe": "e12-best", "limit": 96})
    jobs.calm("drawn_cub", "resnet8", root, **wanted.training)     # seed, device, epochs, held_out

A recipe's name is made of parts between hyphens: "e12" for epochs, a number behind it (in L-CAM's the epochs of L-CAM-Img, in LFI-CAM's
the setting of `recipes.SETTINGS`), and the words of `WORDS`, as in "e12-2-best", "paper-test" or "e50-5-ce".
"""

import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torchvision

from cam_core.data.sources import find_root
from cam_core.learned.recipes import SCRATCH_EPOCHS, calm_plan, l_cam_plan, scratch_plan
from cam_core.networks import CIFAR
from cam_core.pretrained import DEFAULT_LAYER, LITE

DRAWN = ("drawn_imagenet", "drawn_voc", "drawn_cub")
DATASETS = {  # what each notebook can be run on: the data has what its metrics need, and a recipe
    "increment_cam": (*DRAWN, "imagenet", "voc07", "cub"),
    "l_cam": ("drawn_imagenet", "drawn_cub", "imagenet", "cub"),
    "calm": ("drawn_cub", "cub"),
    "lfi_cam": ("drawn_imagenet", "drawn_cub", "cifar10", "cifar100", "stl10", "cat_dog", "imagenet"),
}
WORDS: dict[str, dict[str, Any]] = {
    "paper": {"paper": "paper"},  # the paper's own recipe
    "wsol": {"paper": "wsol"},  # CALM's, by the WSOL benchmark
    "best": {"held_out": 0.1},  # the weights that are best on a tenth of the training images, which is not trained on
    "test": {"best_on_test": True},  # the papers' habit, beside the accuracy of the last weights
    "ce": {"ablated": True},  # L-CAM also by cross-entropy alone
    "raw": {"raw": True},  # Img's form of that once more, as ResNet-50's was released
}
SPOKEN = {  # the words that a paper's recipes know; Increment-CAM's networks are trained as CALM's plain ones
    "increment_cam": ("paper", "wsol", "best", "test"),
    "l_cam": ("paper", "best", "test", "ce", "raw"),
    "calm": ("paper", "wsol", "best", "test"),
    "lfi_cam": ("paper", "best", "test"),
}
LEAST = {"seed": 0, "limit": 1, "first": 0, "first_rise": 0, "shown": 1, "epochs": 1}
OPEN = {"limit": "for all images", "epochs": "for the recipe's"}  # None is a value of these


@dataclass(frozen=True)
class Parameters:
    """The parameters of one run or training; what each means is said in the first cell of the notebooks."""

    paper: str
    dataset: str
    backbone: str
    profile: str = ""
    recipe: str = ""
    seed: int = 0
    data_root: Path | str | None = None
    out_dir: Path | str | None = None
    limit: int | None = None
    first: int = field(default=0, metadata={"papers": ("increment_cam", "l_cam", "lfi_cam")})
    first_rise: int = field(default=0, metadata={"papers": ("l_cam",)})
    shown: int = 1
    epochs: int | None = None
    device: str = "cpu"

    @property
    def training(self) -> dict[str, Any]:
        """What the functions of `cam_core.learned.jobs` are asked for; ``epochs`` of L-CAM are those of (Fm, Img)."""
        counts, said = _parts(self)
        options: dict[str, Any] = {"seed": self.seed, "device": self.device}
        if self.paper == "l_cam":
            return options | {"epochs": (self.epochs or counts[0], self.epochs or counts[1])} | said
        return options | {"epochs": self.epochs or counts[0]} | ({} if counts[1] is None else {"setting": counts[1]}) | said

    @property
    def trains(self) -> bool:
        """Whether anything is trained: Increment-CAM takes pretrained networks of imagenet and voc07 as they are."""
        pretrained = self.dataset == "voc07" or (self.dataset == "imagenet" and "paper" not in self.training)
        return self.paper != "increment_cam" or not pretrained

    def ran(self, images: int) -> str:
        """For the run card, how many ``images`` were really used: "96", or "200 of 200" where the data set holds no more."""
        return str(images) if images == self.limit else f"{images} of {images}"


def names(paper: str) -> tuple[str, ...]:
    """The parameters of a paper's notebook."""
    one_of("paper", paper, DATASETS)
    return tuple(f.name for f in fields(Parameters)[1:] if paper in f.metadata.get("papers", DATASETS))


def one_of(what: str, got: object, known: Iterable[str]) -> None:
    """ValueError, with the nearest of the ``known``, if ``got`` is none of them."""
    known = list(known)
    if got not in known:
        more = f" (and {len(known) - 16} more)" if len(known) > 16 else ""
        near = "".join(f"; did you mean {name}?" for name in difflib.get_close_matches(str(got), known, 1))
        raise ValueError(f"{what} is {got!r}, expected one of {', '.join(known[:16])}{more}{near}")


def read(paper: str, given: Mapping[str, Any], *, here: bool = True) -> Parameters:
    """The parameters of ``paper``'s notebook or training job in ``given``, which may hold more, as a notebook's ``globals()`` do.

    ``here``: also whether this machine has the device and the data, and can write ``out_dir``. ValueError or FileNotFoundError, in one
    sentence, for what cannot be run.
    """
    wanted = _typed(Parameters(paper, **{"dataset": None, "backbone": None} | {n: given[n] for n in names(paper) if n in given}))
    one_of(f"dataset of {paper}", wanted.dataset, DATASETS[paper])
    _check_recipe(wanted)
    _check_backbone(wanted)
    if here:
        _check_machine(wanted)
    return wanted


def _typed(wanted: Parameters) -> Parameters:
    values = vars(wanted) | {"recipe": "" if wanted.recipe is None else wanted.recipe}
    for name, value in values.items():
        if name in LEAST and not (value is None and name in OPEN):
            if not isinstance(value, int) or isinstance(value, bool) or value < LEAST[name]:
                none = f", or None {OPEN[name]}" if name in OPEN else ""
                raise ValueError(f"{name} is {value!r}, expected a whole number of at least {LEAST[name]}{none}")
        elif name in ("data_root", "out_dir"):
            if not isinstance(value, str | os.PathLike | None):
                raise ValueError(f"{name} is {value!r}, expected the path of a folder, or None")
        elif name not in LEAST and not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}, expected a name")
    try:
        torch.device(values["device"])
    except RuntimeError:
        raise ValueError(f"device is {values['device']!r}, expected cpu or cuda") from None
    return Parameters(**values)


def _parts(wanted: Parameters) -> tuple[tuple[int | None, int | None], dict[str, Any]]:
    """The two numbers of a recipe's name, and what its words ask for; ValueError names the part that is not known."""
    numbers = re.match(r"(?:e(\d+)(?:-(\d+))?(?:-|$))?", wanted.recipe)
    assert numbers is not None
    said: dict[str, Any] = {}
    for word in filter(None, wanted.recipe[numbers.end() :].split("-")):
        one_of(f"a part of {wanted.paper}'s recipe {wanted.recipe!r}", word, ["e<epochs>", *SPOKEN[wanted.paper]])
        said |= WORDS[word]
    first, second = (None if number is None else int(number) for number in numbers.groups())
    return (first, second), said


def _check_recipe(wanted: Parameters) -> None:
    (first, second), said = _parts(wanted)
    paper, dataset, got = wanted.paper, wanted.dataset, f"recipe {wanted.recipe!r}"
    if first == 0 or (second == 0 and paper == "l_cam"):
        raise ValueError(f"{got} has an epoch count of 0, expected at least 1")
    if second is not None and paper != "l_cam" and (paper != "lfi_cam" or "paper" in said):
        raise ValueError(f"{got} has a second number, which only l_cam and lfi_cam's reduced recipes take; leave out -{second}")
    if "paper" in said and dataset in DRAWN:
        raise ValueError(f"{got} is a paper's own, and no paper trains on {dataset}; leave out {said['paper']!r}")
    if not wanted.trains and (wanted.recipe or wanted.epochs):
        raise ValueError(f"{got} and epochs {wanted.epochs}: {paper} on {dataset} trains nothing; leave both out")
    if paper == "lfi_cam" and "paper" not in said and dataset not in SCRATCH_EPOCHS:
        raise ValueError(f'{got}: {paper} has no reduced recipe for {dataset}; take the recipe "paper"')


def _check_backbone(wanted: Parameters) -> None:
    """Networks that can be had for the data, then those that have a recipe (`recipes` says which)."""
    paper, dataset, name = wanted.paper, wanted.dataset, wanted.backbone
    stock = [n for n in torchvision.models.list_models(module=torchvision.models) if n.startswith(tuple(DEFAULT_LAYER))]
    stock.sort(key=lambda n: n not in ("mobilenet_v2", "resnet18", "resnet50", "vgg16"))  # these are named first
    stock = [LITE, *stock, *([name] if name.startswith("timm/") else [])]  # which of timm's there are, timm says when it is loaded
    if paper == "lfi_cam":
        fitting = [*CIFAR, *(n for n in stock if n.startswith("resnet"))]  # ABN stands beside it
    else:
        fitting = [*(CIFAR if dataset in DRAWN else ()), *stock]
    one_of(f"backbone on {dataset}", name, fitting)
    recipe = wanted.training.get("paper", "")
    if paper == "lfi_cam":
        for model in ("plain", "lfi_cam", "abn"):
            scratch_plan(model, dataset, name, None, wanted.training.get("setting", 0), recipe)
    if paper == "l_cam":
        l_cam_plan("fm", name, None, recipe)
    if paper == "calm" or dataset == "cub" or (paper == "increment_cam" and recipe):
        calm_plan(dataset, name, None, "" if paper == "l_cam" else recipe)


def _check_machine(wanted: Parameters) -> None:
    device = torch.device(wanted.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {wanted.device}, and PyTorch finds {torch.cuda.device_count()} CUDA devices here; take cpu")
    root = find_root(wanted.dataset, wanted.data_root)
    if not root.is_dir() and wanted.dataset not in DRAWN:  # which the notebook draws
        raise FileNotFoundError(f"{root} is no folder: point data_root, or CAM_DATA, at the folder that holds {wanted.dataset}")
    if wanted.out_dir is not None:
        try:
            Path(wanted.out_dir).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=wanted.out_dir).close()
        except OSError as error:
            raise ValueError(f"out_dir {wanted.out_dir} cannot be written ({error.strerror}); name another folder, or None") from error
