"""Speed of training and explaining with the learned models: `python -m benchmarks.training`, on an idle machine.

What was promised is measured side by side in one run: L-CAM-Fm from cached activations beside the pass through the trunk, LFI-CAM's
forward beside what its multiply-adds predict, CALM's step beside CAM's, images the loader decodes and augments, and one explanation beside
a bare forward of the same network. Images are noise, which costs what photographs cost; the loader reads real ones with CAM_DATA, else
drawn ones. The stock networks have the weights of CAM_WEIGHTS where it is set, else random ones.
"""

import argparse
import os
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.race import race, write
from cam_core import METHODS, Probe, load_classifier
from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.learned import LCam, LfiCam, Plain
from cam_core.learned.abn import Abn
from cam_core.learned.calm import Calm
from cam_core.learned.lfi import lfi_backbone
from cam_core.learned.plain import with_pooled_head
from reproduce import sources
from studies.ablations import OneByOne
from training.batches import as_float, batches
from training.cached import l_cam_data
from training.loop import fit
from training.recipes import L_CAM, LFI_CAM_IMAGENET
from training.trunks import calm_trunk

Call = Callable[[], Any]
HERE = "benchmarks.training:"
SIDE, CLASSES = 224, 200
BASELINES = ("cam", "grad_cam", "grad_cam_pp", "score_cam[budget=32]")  # the last passes 33 images for one
MANY_PASSES = ("score_cam", "rise")  # 513 (on ResNet-18) and 4000 images for one, so fewer rounds, and no batch of eight


@cache
def pixels(count: int) -> torch.Tensor:
    """Images uint8 [count,3,224,224]: noise, for what does not depend on what is seen."""
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@cache
def network(name: str) -> Classifier:
    """A stock network, for machines that are only timed."""
    torch.manual_seed(0)
    return load_classifier(name, "imagenet" if os.environ.get("CAM_WEIGHTS") else None)


# --- L-CAM-Fm: one epoch ---------------------------------------------------------------------------------------------------------------


def epoch(name: str, count: str, way: str) -> Call:
    """One epoch of L-CAM-Fm on a frozen network, batch 64, from the ``way`` "cached" (one view an image, float16) or "trunk"."""
    model = LCam(network(name).frozen(), "fm", masks="own", cached=way == "cached")
    recipe = L_CAM.shortened(1, flip=False, crop=None, lr=0.1)
    data = l_cam_data(model, {"images": pixels(int(count))}, recipe, progress=False)
    return lambda: fit(model, recipe, data, progress=False, device="cpu")


def filling(name: str, count: str) -> Call:
    """What the cache costs once, before the first epoch: every image through the trunk, its activations kept in float16."""
    model, data = LCam(network(name).frozen(), "fm", masks="own"), {"images": pixels(int(count))}
    recipe = L_CAM.shortened(1, flip=False, crop=None)
    return lambda: l_cam_data(model, data, recipe, progress=False)


# --- LFI-CAM: the forward pass and its multiply-adds -------------------------------------------------------------------------------------


def scratch(kind: str, name: str = "resnet18", stem: int = 1) -> nn.Module:
    """A network with LFI-CAM's stem (``stem`` 2: the stock one, ABN's) and 14x14 (7x7) maps: "plain", "lfi_cam" or "abn", untrained."""
    torch.manual_seed(0)
    backbone = lfi_backbone(name, CLASSES, stem)
    models: dict[str, Callable[[Classifier], nn.Module]] = {
        "plain": Plain, "lfi_cam": LfiCam, "lfi_cam_1x1": OneByOne, "abn": Abn
    }  # fmt: skip
    return models[kind](backbone).eval().to(memory_format=torch.channels_last)


def forward(kind: str, batch: str, name: str = "resnet18") -> Call:
    """One forward pass of `scratch`'s networks."""
    classifier, images = scratch(kind, name).classifier, _input(int(batch))

    def call() -> Any:
        with torch.inference_mode():
            return classifier(images)

    return call


def _input(batch: int) -> torch.Tensor:
    return as_float(pixels(batch)).contiguous(memory_format=torch.channels_last)


def multiply_adds(module: nn.Module, images: torch.Tensor) -> float:
    """Multiply-adds, in 10⁹ an image, that PyTorch counts in a forward pass: convolutions and matrix products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(images)
    return counter.get_total_flops() / 2 / len(images) / 1e9


def counted() -> pd.DataFrame:
    """Multiply-adds of a forward pass at 224: networks, what LFI-CAM and ABN add, and both. Nothing runs: shapes alone."""
    rows = []
    for name, stem in product(("resnet18", "resnet50"), (1, 2)):
        kinds = ("lfi_cam", "lfi_cam_1x1", "abn") if stem == 1 else ("abn",)  # LFI-CAM's network has no other stem
        with torch.device("meta"):
            images = torch.empty(1, 3, SIDE, SIDE)
            found = {kind: multiply_adds(scratch(kind, name, stem).classifier, images) for kind in ("plain", *kinds)}
        facts = {"group": f"multiply-adds, {name}, stem of stride {stem}"}
        rows.append({**facts, "contender": "plain", "multiply_adds": found["plain"]})
        for kind in kinds:
            rows.append({**facts, "contender": kind, "multiply_adds": found[kind]})
            rows.append({**facts, "contender": f"{kind}, what it adds", "multiply_adds": found[kind] - found["plain"]})
    return pd.DataFrame(rows)


# --- CALM: one update --------------------------------------------------------------------------------------------------------------------


def update(kind: str, name: str, batch: str) -> Call:
    """One update (loss, gradients, SGD) at 14x14 maps and 200 classes: "cam" (pooled head), "calm_em" or "calm_ml"."""
    torch.manual_seed(0)
    trunk = calm_trunk(name, None)
    model = Plain(with_pooled_head(trunk, CLASSES)) if kind == "cam" else Calm(trunk, CLASSES, kind.removeprefix("calm_"), uniform=True)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, nesterov=True)
    given = {"images": _input(int(batch)), "labels": torch.arange(int(batch))}

    def call() -> None:
        optimizer.zero_grad()
        model.loss(given)[0].backward()
        optimizer.step()

    return call


# --- the loader --------------------------------------------------------------------------------------------------------------------------


def loader(workers: str, count: str) -> Call:
    """Decode ``count`` training images, cut and resize a window at random, mirror, as `fit` is given them; with so many ``workers``."""
    recipe, data = LFI_CAM_IMAGENET.shortened(1, batch=32), pictures(int(count))

    def call() -> None:
        with mock.patch("os.cpu_count", return_value=int(workers) + 1):  # what the loader goes by: a core stays with the training
            for _, batch in batches(data, recipe, 0, 0):
                assert batch["images"].shape[-1] == SIDE

    return call


def pictures(count: int) -> Dataset:
    """Photographs with CAM_DATA, else drawn images."""
    dataset = "imagenet" if os.environ.get("CAM_DATA") else "drawn_imagenet"
    of = sources.source(dataset)
    return of.reader(sources.find_root(dataset), of.train, "squash", 256, count)


# --- one explanation ---------------------------------------------------------------------------------------------------------------------


def explanation(model: str, what: str, batch: str) -> Call:
    """One call of ``what`` ("forward", "own" or a method of the registry) on the network of ``model``, from images to raw maps."""
    images, size = _input(int(batch)), int(batch)
    learned, classifier = subject(model)

    def call() -> Any:
        if what == "forward":
            with torch.inference_mode():
                return classifier(images)
        probe = Probe(classifier, images)
        maps = learned.explain(probe) if what == "own" else METHODS[what](probe)
        assert len(maps) == size
        return maps

    return call


def subject(model: str) -> tuple[Any, Classifier]:
    """A learned model, and the network whose bare forward stands beside its explanation."""
    if model.startswith("l_cam"):
        frozen = network("resnet18").frozen()
        return LCam(frozen, model.removeprefix("l_cam_")).eval(), frozen
    learned = Calm(calm_trunk("resnet18", None), CLASSES, uniform=True) if model == "calm" else scratch(model)
    return learned, learned.eval().to(memory_format=torch.channels_last).classifier


MODELS = ("l_cam_fm", "l_cam_img", "lfi_cam", "abn", "calm")


def explained(rounds: int) -> list[pd.DataFrame]:
    """Each learned model, and the baselines, beside a bare forward of the very network they explain; one image, and eight.

    The baselines explain the stock ResNet-18, as L-CAM does.
    """
    frames = []
    for batch in (1, 8):
        for model in MODELS:
            asked = {"forward": "forward", model: "own", **{name: name for name in (BASELINES if model == "l_cam_fm" else ())}}
            frames.append(race(f"one explanation, {model}, batch {batch}", _contenders(model, asked, batch), rounds))
    asked = {name: name for name in ("forward", *MANY_PASSES)}
    frames.append(race("one explanation, many passes, batch 1", _contenders("l_cam_fm", asked, 1), max(2, rounds // 2)))
    return frames


def _contenders(model: str, asked: dict[str, str], batch: int) -> dict[str, tuple[str, bool]]:
    return {name: (f"{HERE}explanation:{model},{what},{batch}", True) for name, what in asked.items()}


# --- what was promised -------------------------------------------------------------------------------------------------------------------


def ratio(frame: pd.DataFrame, first: str, second: str, column: str = "seconds") -> float:
    """``first`` over ``second`` in one column of a group."""
    values = frame.set_index("contender")[column]
    return float(values[first] / values[second])


def main() -> None:
    """Count, race, compare with what was asked, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="resnet50", help="of L-CAM's epoch")
    parser.add_argument("--images", type=int, default=256, help="of L-CAM's epoch and of the loader")
    given = parser.parse_args()
    adds = counted()
    print(adds.to_string())
    few = max(2, given.rounds // 2)
    ways = {"through the trunk": "trunk", "from cached activations": "cached"}
    epochs = {label: (f"{HERE}epoch:{given.backbone},{given.images},{way}", True) for label, way in ways.items()}
    once = {"filling the cache, once": (f"{HERE}filling:{given.backbone},{given.images}", True)}
    lcam = race(f"L-CAM-Fm, {given.backbone}, one epoch of {given.images} images, one view, cached in float16", epochs | once, few)
    lfi = race(
        "forward pass, ResNet-18 with a stem of stride 1, batch 8",
        {kind: (f"{HERE}forward:{kind},8", True) for kind in ("plain", "lfi_cam", "abn")},
        given.rounds,
    )
    calm = race(
        "one update, ResNet-18 at 14x14, 200 classes, batch 8",
        {kind: (f"{HERE}update:{kind},resnet18,8", True) for kind in ("cam", "calm_em", "calm_ml")},
        given.rounds,
    )
    loaded = race(
        f"decode and augment {given.images} images",
        {f"{workers} workers": (f"{HERE}loader:{workers},{given.images}", True) for workers in (0, 2)},
        few,
    ).assign(images=given.images)
    one = adds[adds.group == "multiply-adds, resnet18, stem of stride 1"]
    pair = ("lfi_cam", "plain")
    told = [
        ("L-CAM-Fm's epoch from cached activations is faster by", ratio(lcam, *ways), "at least 20"),
        ("LFI-CAM's forward, over what its multiply-adds predict", ratio(lfi, *pair) / ratio(one, *pair, "multiply_adds"), "at most 1.15"),
        ("CALM's update by EM beside CAM's", ratio(calm, "calm_em", "cam"), "at most 1.1"),
        ("CALM's update by ML beside CAM's", ratio(calm, "calm_ml", "cam"), "at most 1.1"),
    ]
    promised = pd.DataFrame(told, columns=["contender", "found", "asked"]).assign(group="what was promised")
    print(promised.to_string())
    write([promised, lcam, lfi, calm, loaded, *explained(given.rounds), adds], "training")


if __name__ == "__main__":
    main()
