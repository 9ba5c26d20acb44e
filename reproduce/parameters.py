"""The parameters of notebooks, training jobs and batches: read and checked in one place, before anything is loaded.

    wanted = read("calm", {"dataset": "drawn_cub", "backbone": "resnet8", "epochs": 12, "best": True, "limit": 96})
    jobs.models(wanted)                  # what the notebook explains, and what its training job trains
    wanted.recipe_name                   # "e12-best": in the run's folder and in its results

This module and `names` load no torch; `read` does.
"""

import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

DRAWN = ("drawn_imagenet", "drawn_voc", "drawn_cub")
DATASETS = {  # the data sets of each notebook: they have what its metrics need, and a recipe
    "increment_cam": (*DRAWN, "imagenet", "voc07", "cub"),
    "l_cam": ("drawn_imagenet", "drawn_cub", "imagenet", "cub"),
    "calm": ("drawn_cub", "cub"),
    "lfi_cam": ("drawn_imagenet", "drawn_cub", "cub", "cifar10", "cifar100", "stl10", "cat_dog", "imagenet"),
}
RECIPES = {  # published recipes; Increment-CAM's networks are trained as CALM's plain ones
    "increment_cam": ("paper", "wsol"), "l_cam": ("paper",), "calm": ("paper", "wsol"), "lfi_cam": ("paper",),
}  # fmt: skip
TERMS = ("all", "ce", "raw", "ce-raw")
RECIPE = (
    "epochs",
    "epochs_img",
    "setting",
    "recipe",
    "best",
    "best_on_test",
    "terms",
)  # besides data, network and seed
LEAST = {"seed": 0, "limit": 1, "first": 0, "first_rise": 0, "shown": 1, "epochs": 1, "epochs_img": 1, "setting": 0}
PATHS = {"data_root": "the path of a folder", "out_dir": "the path of a folder", "subset": "the name or the path of a list of images",
         "rows_dir": "the path of a folder"}  # fmt: skip
OPEN = {"limit": "for all images", "epochs": "for the usual number", "epochs_img": "for the usual number"}  # these may be None


def _of(default: Any, *papers: str) -> Any:
    return field(default=default, metadata={"papers": papers})


@dataclass(frozen=True)
class Parameters:
    """The parameters of one run or training; what each means is said in the first cell of the notebooks.

    ``recipe``: a published one of `RECIPES`, None for the reduced one. ``setting``: of `recipes.SETTINGS`. ``best``: the weights that are
    best on a tenth of the training images, which is not trained on. ``best_on_test``: also report the highest test accuracy of any epoch,
    as the papers often do. ``terms`` of L-CAM's loss: "all"; with "ce" L-CAM is also trained by cross-entropy alone, with "raw" Img is
    trained so once more, as ResNet-50's was released. ``seed`` is that of the trainings; masks, random maps and the bootstrap always take
    0. ``subset``: a list of test images (`sources.images`). ``engine`` scores masked images (`cam_core.engine`).
    """

    paper: str
    dataset: str
    backbone: str
    profile: str = ""
    seed: int = 0
    epochs: int | None = None  # of L-CAM: those of Fm
    epochs_img: int | None = _of(None, "l_cam")
    setting: int = _of(0, "lfi_cam")
    recipe: str | None = None
    best: bool = False
    best_on_test: bool = _of(False, "increment_cam", "calm", "lfi_cam")
    terms: str = _of("all", "l_cam")
    data_root: Path | str | None = None
    out_dir: Path | str | None = None
    subset: Path | str | None = None
    allow_partial: bool = False
    rows_dir: Any = None  # of a shard a `Kept`
    limit: int | None = None
    first: int = _of(0, "increment_cam", "l_cam", "lfi_cam")
    first_rise: int = _of(0, "l_cam")
    shown: int = 1
    device: str = "cpu"
    engine: str | None = None

    @property
    def recipe_name(self) -> str:
        """`recipe_name` of this training."""
        return recipe_name(**{name: getattr(self, name) for name in RECIPE})

    @property
    def training(self) -> dict[str, Any]:
        """The recipe as the functions of `reproduce.jobs` take it; ``epochs`` of L-CAM are those of (Fm, Img)."""
        options: dict[str, Any] = {"epochs": self.epochs, "paper": self.recipe or "", "held_out": 0.1 if self.best else 0.0}
        if self.paper == "l_cam":
            terms = self.terms.split("-")
            return options | {"epochs": (self.epochs, self.epochs_img), "ablated": "ce" in terms, "raw": "raw" in terms}
        return options | {"best_on_test": self.best_on_test} | ({"setting": self.setting} if self.paper == "lfi_cam" else {})

    @property
    def trains(self) -> bool:
        """Whether anything is trained: Increment-CAM takes pretrained networks of imagenet and voc07 as they are."""
        pretrained = self.dataset == "voc07" or (self.dataset == "imagenet" and not self.recipe)
        return self.paper != "increment_cam" or not pretrained


def recipe_name(
    epochs: int | None = None,
    epochs_img: int | None = None,
    setting: int = 0,
    recipe: str | None = None,
    best: bool = False,
    best_on_test: bool = False,
    terms: str = "all",
) -> str:
    """The name of a recipe in run folders and results: "" for the usual one, "e25-3-ce", "e12-2-best" (setting 2), "paper-test".

    >>> recipe_name(epochs=25, epochs_img=3, terms="ce"), recipe_name(recipe="paper", best_on_test=True), recipe_name(setting=2)
    ('e25-3-ce', 'paper-test', 'setting2')
    """
    counts = {"e": epochs, "img": epochs_img, "setting": setting}  # after the number of epochs, numbers have no word
    parts = [str(count) if epochs and word != "e" else f"{word}{count}" for word, count in counts.items() if count]
    parts += [str(recipe or ""), "best" if best else "", "test" if best_on_test else "", str(terms) if terms != "all" else ""]
    return "-".join(filter(None, parts))


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

    ``here``: also whether this machine has the device, the engine and the data, and can write ``out_dir``. ValueError, FileNotFoundError or
    ModuleNotFoundError, in one sentence, for what cannot be run, a parameter of another paper's notebook among it.
    """
    own = names(paper)
    for other in fields(Parameters)[1:]:
        if other.name in given and other.name not in own:
            raise ValueError(f"{paper} has no parameter {other.name}; leave it out ({', '.join(other.metadata['papers'])} has it)")
    wanted = Parameters(paper, **{"dataset": None, "backbone": None} | {n: given[n] for n in own if n in given})
    _check_types(wanted)
    one_of(f"dataset of {paper}", wanted.dataset, DATASETS[paper])
    _check_recipe(wanted)
    _check_backbone(wanted)
    if here:
        for _, fault in machine_faults(wanted):
            raise fault
    return wanted


def _check_types(wanted: Parameters) -> None:
    from cam_core.engine import ENGINES
    from cam_core.kept import Kept

    for name, value in vars(wanted).items():
        if name in LEAST and not (value is None and name in OPEN):
            if not isinstance(value, int) or isinstance(value, bool) or value < LEAST[name]:
                none = f", or None {OPEN[name]}" if name in OPEN else ""
                raise ValueError(f"{name} is {value!r}, expected a whole number of at least {LEAST[name]}{none}")
        elif name in ("best", "best_on_test", "allow_partial"):
            if not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, expected true or false")
        elif name in PATHS:
            if not isinstance(value, str | os.PathLike | Kept | None):
                raise ValueError(f"{name} is {value!r}, expected {PATHS[name]}, or None")
        elif name not in LEAST and name not in ("recipe", "engine") and not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}, expected a name")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", wanted.device):
        raise ValueError(f"device is {wanted.device!r}, expected cpu or cuda")
    if wanted.engine is not None:
        one_of("engine (None: ONNX Runtime where it is installed and worth its export)", wanted.engine, ENGINES)


def _check_recipe(wanted: Parameters) -> None:
    from training.recipes import SCRATCH_EPOCHS

    paper, dataset = wanted.paper, wanted.dataset
    if wanted.recipe is not None:
        one_of(f"recipe of {paper} (None: the reduced one)", wanted.recipe, RECIPES[paper])
    one_of("terms", wanted.terms, TERMS)
    if wanted.recipe and dataset in DRAWN:
        raise ValueError(f"recipe {wanted.recipe!r} is a published one, and no paper trains on {dataset}; leave it out")
    if wanted.recipe and wanted.setting:
        raise ValueError(f"setting is {wanted.setting}, and a published recipe ({wanted.recipe!r}) has one setting alone; leave it out")
    if not wanted.trains and wanted.recipe_name:
        raise ValueError(f"{paper} on {dataset} trains nothing, and the recipe {wanted.recipe_name!r} was asked for; leave it out")
    if wanted.best_on_test and dataset == "drawn_voc":
        raise ValueError(f"best_on_test is the highest accuracy, and images of {dataset} have several classes; leave it out")
    if paper == "lfi_cam" and not wanted.recipe and dataset not in SCRATCH_EPOCHS:
        raise ValueError(f'{paper} has no reduced recipe for {dataset}; take the recipe "paper"')


def _check_backbone(wanted: Parameters) -> None:
    """Networks that can be had for the data, then those that have a recipe (`recipes` says which)."""
    import torchvision

    from cam_core.networks import CIFAR
    from cam_core.pretrained import DEFAULT_LAYER, LITE
    from training.recipes import calm_plan, l_cam_plan, scratch_plan

    paper, dataset, name, recipe = wanted.paper, wanted.dataset, wanted.backbone, wanted.recipe or ""
    stock = [n for n in torchvision.models.list_models(module=torchvision.models) if n.startswith(tuple(DEFAULT_LAYER))]
    stock.sort(key=lambda n: n not in ("mobilenet_v2", "resnet18", "resnet50", "vgg16"))  # these are named first
    stock = [LITE, *stock, *([name] if name.startswith("timm/") else [])]  # which of timm's there are, timm says when it is loaded
    if paper == "lfi_cam":
        fitting = [*CIFAR, *(n for n in stock if n.startswith("resnet") or (n == LITE and dataset == "cub"))]  # ABN stands beside it
    else:
        fitting = [*(CIFAR if dataset in DRAWN else ()), *stock]
    one_of(f"backbone on {dataset}", name, fitting)
    if paper == "lfi_cam":
        for model in ("plain", "lfi_cam", "abn"):
            scratch_plan(model, dataset, name, None, wanted.setting, recipe)
    if paper == "l_cam":
        l_cam_plan("fm", name, None, recipe)
    if paper == "calm" or dataset == "cub" or (paper == "increment_cam" and recipe):
        calm_plan(dataset, name, None, "" if paper == "l_cam" else recipe)


def machine_faults(wanted: Parameters) -> Iterator[tuple[str, Exception]]:
    """What this machine lacks for a run, as ("device", "engine", "data" or "out_dir", error)."""
    import torch

    from cam_core.engine import Engine
    from reproduce.sources import find_root

    device = torch.device(wanted.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        yield "device", ValueError(f"device is {wanted.device}, and PyTorch finds {torch.cuda.device_count()} CUDA devices here; take cpu")
    try:
        Engine(wanted.engine)
    except ModuleNotFoundError as error:
        yield "engine", error
    try:
        root = find_root(wanted.dataset, wanted.data_root)
        if not root.is_dir() and wanted.dataset not in DRAWN:  # which the notebook draws
            raise FileNotFoundError(f"{root} is no folder: point data_root, or CAM_DATA, at the folder that holds {wanted.dataset}")
    except FileNotFoundError as error:
        yield "data", error
    if wanted.out_dir is not None:
        try:
            Path(wanted.out_dir).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=wanted.out_dir).close()
        except OSError as error:
            told = f"out_dir {wanted.out_dir} cannot be written ({error.strerror}); name another folder, or None"
            yield "out_dir", ValueError(told)
