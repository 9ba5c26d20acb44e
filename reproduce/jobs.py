"""Networks and learned models by name, trained, or loaded if they were trained before: what the runs of a batch explain.

Every training is stored by digest under ``store``, so a notebook only loads the models that a job has trained.

The functions below take the name of a data set (`reproduce.sources`) and of a backbone, the folder of the images, and the options of
`Options`. They return a model and what is known of it: accuracy or mean average precision in percent, deviations, seconds.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, cast

import torch
from torch import Tensor, nn

from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.engine import VARIABLE
from cam_core.learned.abn import Abn
from cam_core.learned.calm import PATCH, Calm
from cam_core.learned.lcam import ENTROPY_ALONE, LCam
from cam_core.learned.lfi import CIFAR_MEAN, CIFAR_STD, LfiCam, lfi_backbone
from cam_core.learned.plain import Plain, start_as_released, with_pooled_head
from cam_core.learned.tame import Tame
from cam_core.pretrained import load_classifier
from cam_core.probe import Probe
from reproduce.parameters import Parameters, names, one_of, read
from reproduce.sources import HOME, find_root, images, source
from training.batches import as_float, in_memory
from training.cached import features
from training.heads import mean_average_precision, multi_label_head
from training.loop import predict
from training.recipes import L_CAM_MASKS, LARGE, SMALL, Plan, calm_plan, l_cam_plan, scratch_plan, tame_plan
from training.store import trained
from training.trunks import calm_trunk, fine_tuned

STORE = HOME / "runs/models"
Summary = dict[str, Any]
Model = TypeVar("Model", bound=nn.Module)
SEVERAL = ("drawn_voc", "voc07")  # an image has several classes: measured by average precision, not by accuracy


class Means(TypedDict, total=False):
    """Where and how a training runs, as `trained` takes it; ``held_out``: a share of the training images that choose the best weights."""

    seed: int
    held_out: float
    best_on_test: bool
    store: Path | str
    device: str
    devices: int | None
    nodes: int | None
    threads: int | None
    progress: bool


class Options(Means, total=False):
    """And which recipe, as `training.recipes` takes it."""

    epochs: int | None
    setting: int
    paper: str


def _carried_out(plan: Plan, build: Callable[[], Model], dataset: str, root: Path | str, means: Means) -> tuple[Model, Summary]:
    of, seen = source(dataset), plan.seen
    held_out = means.get("held_out", 0.0)
    train = images(dataset, root, seen.split)(seen.view or of.train_view or of.view)
    test = None if dataset in SEVERAL else images(dataset, root)(seen.tested or of.view)
    criterion = "loss" if dataset in SEVERAL else plan.recipe.criterion
    recipe = replace(plan.recipe, held_out=held_out, criterion=criterion) if held_out else plan.recipe
    own_means: dict[str, Any] = {"store": STORE, "device": "cpu", **means, "best": held_out > 0, "stream": seen.stream}
    own_means.pop("held_out", None)
    model, summary = trained(build, recipe, train, test=test, **own_means)
    own: Any = model.classifier
    if own.weights == "random" and not isinstance(model, LCam | Tame):  # which train an attention, not its classifier
        own.weights = "trained here"
    counts = (("images", len(train), of.published), ("classes", len(train.classes), of.classes))
    fewer = [f"{what}: {count} instead of {wanted}" for what, count, wanted in counts if wanted and count < wanted]
    return model, _also(summary, [*fewer, *train.deviations, *of.deviations, *plan.deviations])


def _apart(options: Options) -> tuple[dict[str, Any], Means]:
    """What of the options says the recipe, and what says how it is trained."""
    recipe = {name: value for name, value in options.items() if name in ("epochs", "setting", "paper")}
    return recipe, cast("Means", {name: value for name, value in options.items() if name not in recipe})


def _also(summary: Summary, deviations: Sequence[str]) -> Summary:
    return {**summary, "deviations": [*summary["deviations"], *deviations]}


def _classes(dataset: str, root: Path | str) -> int:
    return len(images(dataset, root, limit=1)("squash").classes)


# --- from scratch ----------------------------------------------------------------------------------------------------------------------


def scratch_backbone(dataset: str, name: str, classes: int, *, width: int | None = None) -> Classifier:
    """The untrained network of plain, LFI-CAM and ABN: with the stem and the normalisation of LFI-CAM's paper for this data.

    For CUB a pretrained one (`fine_tuned`). ``width`` as in `lfi_backbone`.
    """
    if dataset == "cub":
        return fine_tuned(name, classes)
    colour: dict[str, Any] = {"mean": CIFAR_MEAN, "std": CIFAR_STD} if dataset in (*SMALL, "stl10") else {}
    return lfi_backbone(name, classes, stem_stride=1 if dataset in SMALL else None, width=width, **colour)


def _from_scratch(
    kind: str, model: Callable[[Classifier], Model], dataset: str, name: str, root: Path | str, options: Options, width: int | None = None
) -> tuple[Model, Summary]:
    recipe, means = _apart(options)
    plan, classes = scratch_plan(kind, dataset, name, **recipe), _classes(dataset, root)
    return _carried_out(plan, lambda: model(scratch_backbone(dataset, name, classes, width=width)), dataset, root, means)


def plain(dataset: str, name: str, root: Path | str, *, width: int | None = None, **options: Unpack[Options]) -> tuple[Classifier, Summary]:
    """The plain network from scratch, on the schedule and with the stem of LFI-CAM and ABN. ``width`` as in `lfi_backbone`."""
    several = dataset in SEVERAL
    model, summary = _from_scratch("plain", partial(Plain, multi_label=several), dataset, name, root, options, width)
    if several:
        held_out = in_memory(images(dataset, root)("squash"), progress=False)
        summary["mean_average_precision"] = mean_average_precision(predict(model.classifier, held_out["images"]), held_out["targets"])
    return model.classifier, summary


def lfi_cam(
    dataset: str, name: str, root: Path | str, *, model: type[LfiCam] = LfiCam, **options: Unpack[Options]
) -> tuple[LfiCam, Summary]:
    """LFI-CAM, or a subclass ``model``, from scratch, on the schedule of the plain network."""
    return _from_scratch("lfi_cam", model, dataset, name, root, options)


def abn(dataset: str, name: str, root: Path | str, **options: Unpack[Options]) -> tuple[Abn, Summary]:
    """ABN from scratch, on the schedule (with ``paper``, its own) and with the stem of the plain network."""
    model, summary = _from_scratch("abn", Abn, dataset, name, root, options)
    stem = ["stem: stride 1, as LFI-CAM's, instead of 2"] if dataset in LARGE else []
    return model, _also(summary, stem)


# --- on pretrained weights -------------------------------------------------------------------------------------------------------------


def network(dataset: str, name: str, root: Path | str, **options: Unpack[Options]) -> tuple[Classifier, Summary]:
    """The network of a data set that is explained.

    imagenet: pretrained. voc07: a multi-label head on the frozen pretrained trunk. cub, and with ``paper`` imagenet too: fine-tuned with a
    new pooled head, like CALM. drawn_*, cifar10, cifar100, stl10, cat_dog: `plain`.
    """
    device = options.get("device", "cpu")
    if dataset == "voc07":
        return _voc_head(name, root, options.get("seed", 0), device)
    if dataset == "cub" or (dataset == "imagenet" and options.get("paper")):
        return _fine_tuned(dataset, name, root, options)
    if dataset == "imagenet":
        return load_classifier(name, device=device), {"deviations": []}
    return plain(dataset, name, root, **options)


def _voc_head(name: str, root: Path | str, seed: int, device: str) -> tuple[Classifier, Summary]:
    trunk = load_classifier(name, device=device)
    train, test = (in_memory(images("voc07", root, split)("squash")) for split in ("train", "test"))
    classifier, fitted = multi_label_head(trunk, features(trunk, train["images"], pool=True)[0], train["targets"], seed=seed)
    scores = predict(classifier.frozen(), test["images"], batch=8)
    deviation = "20-way logistic head on the frozen ImageNet trunk; the papers fine-tune"
    return classifier, {"mean_average_precision": mean_average_precision(scores, test["targets"]), "deviations": [deviation], **fitted}


def _fine_tuned(dataset: str, name: str, root: Path | str, options: Options) -> tuple[Classifier, Summary]:
    recipe, means = _apart(options)
    plan, classes, paper = calm_plan(dataset, name, **recipe), _classes(dataset, root), options.get("paper", "")

    def build() -> Plain:
        classifier = with_pooled_head(_calm_trunk(dataset, name, classes, paper), classes)
        if paper:
            start_as_released(next(m for m in classifier.head.modules() if isinstance(m, nn.Linear)), name)
        return Plain(classifier)

    model, summary = _carried_out(plan, build, dataset, root, means)
    return model.classifier, _also(summary, [] if paper else ["head: starts as PyTorch's linear layers do, instead of as CALM's"])


def _calm_trunk(dataset: str, name: str, classes: int, paper: str) -> Classifier:
    """14x14 maps where reduced, with ``paper`` 28x28 (the WSOL benchmark's VGG: 14x14); for drawn data an untrained small network."""
    if not paper:
        return lfi_backbone(name, classes) if dataset.startswith("drawn_") else calm_trunk(name)
    wsol = paper == "wsol"
    return calm_trunk(name, stride=16 if wsol and name.startswith("vgg") else 8, wsol=wsol)


def calm(dataset: str, name: str, root: Path | str, **options: Unpack[Options]) -> dict[str, tuple[Calm, Summary]]:
    """CALM trained by EM and by ML from the same start.

    In reduced trainings p(z|x) is uniform where the attention is zero everywhere (``uniform``), and S is not detached: with the released
    stop-gradient the attention only grows, and trainings as short as these were near chance on CUB, even on their own training images, and
    lost twenty points of accuracy on drawn objects (``studies/em_ml.py``).
    """
    recipe, means = _apart(options)
    plan, classes, paper = calm_plan(dataset, name, **recipe), _classes(dataset, root), options.get("paper", "")

    def build(objective: str) -> Calm:
        trunk = _calm_trunk(dataset, name, classes, paper)
        return Calm(trunk, classes, objective, uniform=not paper, detach_scale=bool(paper), patch=PATCH if paper else 0.0)

    return {f"calm_{o}": _carried_out(plan, partial(build, o), dataset, root, means) for o in ("em", "ml")}


def l_cam(
    dataset: str,
    classifier: Classifier,
    root: Path | str,
    *,
    epochs: tuple[int | None, int | None] = (None, None),
    paper: str = "",
    ablated: bool = False,
    raw: bool = False,
    **means: Unpack[Means],
) -> dict[str, tuple[LCam, Summary]]:
    """L-CAM-Fm and L-CAM-Img on a frozen classifier, for ``epochs`` (Fm, Img; None: the usual number).

    Reduced: from cached views, own-class masks. With ``paper``: through the trunk, and batch masks. ``ablated``: train both also by
    cross-entropy alone ("l_cam_fm[ce]", "l_cam_img[ce]"), everything else equal. ``raw``: also that form of Img as released for ResNet-50,
    "l_cam_img[ce,raw]" (`LCam`).
    """
    given: dict[str, Any] = {"cached": False} if paper else {"masks": L_CAM_MASKS}
    learned = {}
    forms: list[tuple[str, dict[str, Any]]] = [("fm", {}), ("img", {})]
    forms += [("fm", ENTROPY_ALONE), ("img", ENTROPY_ALONE)] * ablated + [("img", {**ENTROPY_ALONE, "raw": True})] * raw
    for variant, form in forms:
        count = epochs[variant == "img"]
        build, plan = partial(LCam, classifier, variant, **given, **form), l_cam_plan(variant, classifier.name, count, paper)
        model, summary = _carried_out(plan, build, dataset, root, means)
        learned[model.name] = model, summary
    return learned


def tame(
    dataset: str, classifier: Classifier, root: Path | str, *, masking: str = "random", fill: str = "black", **options: Unpack[Options]
) -> tuple[Tame, Summary]:
    """TAME on a frozen classifier, from its last three stages (`Tame`)."""
    recipe, means = _apart(options)
    plan, build = tame_plan(dataset, classifier.name, **recipe), partial(Tame, classifier, masking=masking, fill=fill)
    return _carried_out(plan, build, dataset, root, means)


# --- the maps that are published with a training -----------------------------------------------------------------------------------------


def spread(data: Dataset, count: int = 100) -> Dataset:
    """At most ``count`` images, evenly spaced over the list (which may be ordered by class): a run publishes their maps."""
    return data.part(slice(None, None, -(-len(data) // count)))


@torch.no_grad()
def explained(classifier: Classifier, explain: Callable[[Probe], Tensor], images: Tensor | Dataset, batch: int = 100) -> Tensor:
    """Raw maps [N,h,w] of the class that ``classifier`` predicts, on the CPU; ``images`` uint8 [N,3,H,W] or a data set of one size."""
    return torch.cat([explain(probe).cpu() for probe in _probes(classifier, images, batch)])


def answered(classifier: Classifier, images: Tensor | Dataset, batch: int = 100) -> tuple[Tensor, Tensor]:
    """The class [N] that ``classifier`` predicts for each image, and its probability [N], on the CPU."""
    sure, said = torch.cat([probe.probabilities.cpu() for probe in _probes(classifier, images, batch)]).max(1)
    return said, sure


def _probes(classifier: Classifier, images: Tensor | Dataset, batch: int) -> Iterator[Probe]:
    images = in_memory(images, progress=False)["images"] if isinstance(images, Dataset) else images
    return (Probe(classifier, as_float(part.to(classifier.mean.device))) for part in images.split(batch))


# --- what a run needs ------------------------------------------------------------------------------------------------------------------


def models(wanted: Parameters, **where: Unpack[Means]) -> tuple[Classifier, dict[str, Any], dict[str, Summary]]:
    """What a run explains: the network, what it learned by name, and the summaries of both ("plain" is the network's).

    The training job of a run and its notebook both call this, so that they get the same models; earlier trainings are found.
    """
    if wanted.engine:
        os.environ[VARIABLE] = wanted.engine  # of all that is frozen in this process from here on
    dataset, name, root = wanted.dataset, wanted.backbone, find_root(wanted.dataset, wanted.data_root)
    means: Means = {"seed": wanted.seed, "device": wanted.device, **where}
    learned: dict[str, tuple[Any, Summary]] = {}
    if wanted.paper == "l_cam":  # the recipe is for the attention; the network is the data set's usual one
        classifier, known = network(dataset, name, root, **means)
        learned = l_cam(dataset, classifier, root, **wanted.training, **means)
    else:
        classifier, known = (plain if wanted.paper == "lfi_cam" else network)(dataset, name, root, **wanted.training, **means)
    if wanted.paper == "calm":
        learned = calm(dataset, name, root, **wanted.training, **means)
    if wanted.paper == "lfi_cam":  # ABN is compared with LFI-CAM
        learned = {kind: make(dataset, name, root, **wanted.training, **means) for kind, make in (("lfi_cam", lfi_cam), ("abn", abn))}
    summaries = {"plain": known, **{model: summary for model, (_, summary) in learned.items()}}
    return classifier, {model: made for model, (made, _) in learned.items()}, summaries


def train(paper: str, given: Mapping[str, Any], **where: Unpack[Means]) -> Path:
    """A training job: train (or find) the `models` of a run of ``paper`` with the parameters ``given``; the folder of the last."""
    for name in given:
        one_of("parameter", name, names(paper))
    wanted = read(paper, given)
    if not wanted.trains:
        raise ValueError(f"{paper} on {wanted.dataset} trains nothing: leave `train` out of its entry in the profile {wanted.profile!r}")
    means: Means = {"threads": torch.get_num_threads(), **where}
    *_, summaries = models(wanted, **means)
    return STORE / str(list(summaries.values())[-1]["digest"])[:20]
