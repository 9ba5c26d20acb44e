"""Which metrics can be trusted? The values of maps that are known to be right or wrong under every metric.

    python -m studies.trust [--images 40]

On drawn data the pixels that decide the class, the cue, are known. Two networks are known to use them: one trained on the drawn creatures,
on the images where redrawing shows that it follows the cue and nothing else (`follows`), and one built by hand that only sees the cue
(`wired`). The cue's mask is then the right answer; its inverse, noise and a map of ones are wrong. Cue localization, which compares the
maps of two classes and needs no network, is measured on the drawn birds. Writes results/studies/trust.csv, one row per network, map and
metric; ``against_cue`` says whether the map is "better" or "worse" than the cue's mask (paired 95 % interval).
"""

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from tqdm import tqdm

from cam_core import METHODS, Probe, maps, metrics
from cam_core.classifier import Classifier
from cam_core.data import CUB200, Dataset, Example
from cam_core.evaluate import evaluate
from cam_core.learned import lfi_backbone
from cam_core.learned.plain import pooled_head
from cam_core.methods import Method, method
from cam_core.methods.control import fake_cam, random_map
from cam_core.metrics.statistics import bootstrap, mean, paired_difference, ratio, wilson
from cam_core.protocol import PROTOCOLS, finish
from cam_core.table import Table
from data_scripts.draw import cue_mask, redraw
from reproduce import jobs, sources
from reproduce.files import write_table

OUT = sources.HOME / "results/studies/trust.csv"
CREATURES, BIRDS = "drawn_imagenet", "drawn_cub"
VIEWS = ("squash", "crop")
EPOCHS = 24  # enough for the network to be right on every image tried, and to follow the cue on most
CUE, INVERSE, COARSE = "cue_mask", "cue_mask_inverse", "cue_mask_coarse"
STEP, SUBSETS = 448, 50  # 28 steps an image of 112 x 112, as many as in RISE's evaluation of batches; sets of cells for a share
CONTROLS = ("random_map", "center_gaussian", "fake_cam")

# ---------------------------------------------------------------- pictures whose cue is known


class Picture(NamedTuple):
    """An image under one view, and the pixels [H,W] that decide its class."""

    example: Example
    cue: Tensor


Asked = tuple[Picture, Tensor, Tensor]  # a picture, its redrawn versions [V,3,H,W], and the right answers [V] by the cue


_redrawn = lru_cache(64)(redraw)  # both views look at the same pictures


def seen(dataset: Dataset, drawn_again: Image.Image | tv_tensors.Mask) -> Tensor:
    """A picture or a mask under the data set's view."""
    return dataset.transform(drawn_again).as_subclass(Tensor)


def drawn(dataset: Dataset, index: int) -> Asked:
    """A drawn creature, redrawn as every other class, and once with everything else redrawn."""
    example = dataset[index]
    name, others = example.image_id, [c for c in range(len(dataset.classes)) if c != example.label]
    cue = seen(dataset, tv_tensors.Mask(cue_mask(CREATURES, name)))
    pictures = [*(_redrawn(CREATURES, name, "cue", c) for c in others), _redrawn(CREATURES, name, "rest")]
    variants = torch.stack([seen(dataset, picture) for picture in pictures])
    return Picture(example, cue), variants, torch.tensor([*others, example.label])


def tinted(dataset: Dataset, index: int) -> Asked:
    """The same creature in one of four tints on grey ground; the tint is the class, whatever the creature. Redrawn as `drawn` does."""
    example = dataset[index]
    name, label = example.image_id, index // len(dataset.classes) % len(TINTS)
    cue = seen(dataset, tv_tensors.Mask(cue_mask(CREATURES, name)))
    others = [c for c in range(len(TINTS)) if c != label]
    rest = seen(dataset, _redrawn(CREATURES, name, "rest"))
    variants = torch.stack([*(tint(example.image, cue, c) for c in others), tint(rest, cue, label)])
    example = replace(example, image=tint(example.image, cue, label), label=label)
    return Picture(example, cue), variants, torch.tensor([*others, label])


def follows(classifier: Classifier, picture: Picture, redrawn: Tensor, answers: Tensor) -> bool:
    """Whether the answer is right, changes to the class of every other cue that is drawn in, and stays if all but the cue is redrawn."""
    with torch.no_grad():
        found = classifier(torch.cat([picture.example.image[None], redrawn])).argmax(1)
    return found.tolist() == [picture.example.label, *answers.tolist()]


# ---------------------------------------------------------------- a network wired by hand

CHROMA, GAIN, CELL = 0.25, 100.0, 8
TINTS = torch.cos(torch.arange(4)[:, None] * math.pi / 2 - torch.arange(3) * 2 * math.pi / 3)  # [4,3]: hues a quarter turn apart


def tint(image: Tensor, cue: Tensor, label: int) -> Tensor:
    """The image [3,H,W] in grey and, inside ``cue`` [H,W], in the tint of a class: half of the grey's contrast, one saturation."""
    grey = image.mean(0, keepdim=True).expand(3, -1, -1)
    return torch.where(cue, 0.25 + 0.5 * grey + CHROMA * TINTS[label][:, None, None], grey)


def wired() -> Classifier:
    """Four fixed 1x1 convolutions, one for each tint, means over cells of 8x8 pixels, global average pooling, one weight a class.

    A detector's weights sum to zero and are orthogonal to the other hues, so that grey and the other tints give exactly 0; its small
    threshold removes rounding errors.
    """
    detectors = nn.Conv2d(3, len(TINTS), 1)
    head = pooled_head(len(TINTS), len(TINTS))
    with torch.no_grad():
        detectors.weight.copy_(2 / 3 * TINTS[:, :, None, None])
        detectors.get_parameter("bias").fill_(-0.001)
        head[2].weight.copy_(GAIN * torch.eye(len(TINTS)))
        head[2].bias.zero_()
    trunk = nn.Sequential(detectors, nn.ReLU(), nn.AvgPool2d(CELL))
    return Classifier(trunk, head, mean=(0.5,) * 3, std=(1.0,) * 3, name="wired", layer="cells", weights="by hand").eval()


# ---------------------------------------------------------------- the maps


class Known:
    """The cue's mask [B,H,W] of a probe's images, found by their content; changed images keep the mask of the original."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self.masks = {picture.example.image.numpy().tobytes(): picture.cue.float() for picture in pictures}
        self.latest: Tensor | None = None

    def __call__(self, probe: Probe) -> Tensor:
        """Float [B,H,W], 1 on the cue. ValueError for unknown images."""
        found = [self.masks.get(image.numpy().tobytes()) for image in probe.images.contiguous()]
        if all(mask is not None for mask in found):
            self.latest = torch.stack([mask for mask in found if mask is not None])
        if self.latest is None or len(self.latest) != len(found):
            raise ValueError("the cue of these images is not known: hand the pictures over first")
        return self.latest


def candidates(known: Callable[[Probe], Tensor]) -> list[Method]:
    """The cue's mask, the same at the map's resolution and to the powers 2 and 1/2, and Grad-CAM; the inverse and the usual controls."""

    def coarse(probe: Probe) -> Tensor:
        return F.adaptive_avg_pool2d(known(probe), list(probe.activations.shape[-2:]))

    right = Method(CUE, known, "control", 0, "0", target_dependent=False, finished=True, control=True)
    blurred = replace(right, name=COARSE, function=coarse, finished=False)
    inverse = replace(right, name=INVERSE, function=lambda probe: 1 - known(probe))
    return [right, blurred, blurred.power(2), blurred.power(0.5), METHODS["grad_cam"], *map(method, CONTROLS), inverse]


# ---------------------------------------------------------------- the metrics


MASKED = (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.AverageGain, metrics.MapMean)
SCORE_CAM = {"keep": 0.5, "fill": "mean", "protocol": "score_cam"}  # the form of its tables
EQUAL = "equal mean"


def faithfulness() -> list[metrics.Metric]:
    """Every metric that needs the network; `equal_mean` measures them at equal mean."""
    erased = (metrics.RemoveAndClassify, metrics.CorrectAfterRemoval, metrics.CorrectAfterRandomRemoval)
    imputed = (metrics.RoadMorf, metrics.RoadLerf, metrics.RoadCombined)
    return [
        *(m(keep) for keep, m in product((1.0, 0.5, 0.15), MASKED)),
        *(m(**form) for form, m in product(({"fill": "mean"}, SCORE_CAM), MASKED)),
        *(metrics.Insertion(STEP), metrics.Deletion(STEP), metrics.TiedPixels()),
        *(m(share) for share, m in product((0.1, 0.3, 0.5, 0.7, 0.9), erased)),
        *(m(share) for share, m in product((0.2, 0.5), imputed)),
        *(metrics.ADCC(), metrics.ADCC("means"), metrics.Coherency(), metrics.Complexity()),
        *(metrics.SensitivityN(share, SUBSETS) for share in (0.2, 0.5, 0.8)),
        *(metrics.Infidelity(sides=2), metrics.Infidelity(scaled=False, sides=2), metrics.MaxSensitivity()),
    ]


def localization() -> list[metrics.Metric]:
    """Every metric that needs the boxes."""
    return [
        *(metrics.EnergyPointingGame(), metrics.MaximumInBox(), metrics.PixelPrecision()),
        *(metrics.FalseActivation(threshold, of) for threshold, of in product((0.2, 0.5), ("image", "active"))),
        *(metrics.MaxBoxAcc(), metrics.MaxBoxAccV2(), metrics.BoxIoU()),
        *(metrics.LocalizationError(), metrics.LocalizationError(0.15), metrics.LocalizationError(top1=True)),
    ]


class Shown(TorchDataset[Example]):
    """The pictures' examples as a data set."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures
        self.ids = [picture.example.image_id for picture in pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Example:
        return self.pictures[index].example


def pixels_and_points(table: Table, classifier: Classifier, pictures: Sequence[Picture], methods: Sequence[Method], batch: int = 8) -> None:
    """Record in ``table`` the metrics that `evaluate` cannot measure here: PxAP against the cue's mask, and the pointing game."""
    frozen, pixels, points = classifier.frozen(), metrics.PxAP(), metrics.PointingGame()
    finishing = PROTOCOLS[pixels.protocol].finishing
    for one, metric in product(methods, (pixels, points)):
        table.metrics[one.name, metric.name, metric.setting] = deepcopy(metric)
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch]
        examples, ids = [picture.example for picture in part], range(start, start + len(part))
        probe = Probe(frozen, torch.stack([e.image for e in examples]), torch.tensor([e.label for e in examples]))
        masks = [picture.cue.to(torch.int8) for picture in part]
        present = [metrics.Present(e.label, e.official_boxes) for e in examples if e.official_boxes is not None]
        for one in methods:
            raw = one(probe)
            heat = raw if one.finished else finish(raw, probe.images.shape[-2:], finishing)
            table.metrics[one.name, pixels.name, pixels.setting].update(heat, masks, ids=ids)
            original = [maps.upsample(m, e.size) for m, e in zip(raw, examples, strict=True)]
            table.metrics[one.name, points.name, points.setting].update(original, present, ids=ids)


def equal_mean(classifier: Classifier, data: Callable[[str], Any], methods: Sequence[Method], mean: float, progress: bool = True) -> Table:
    """Average Drop and the metrics with it, of the whole map, each map raised to the power that gives it this ``mean``.

    The study takes the mean share of the cue, which is the mask's own mean: no power changes a map of zeros and ones.
    """
    brought = {one.at_mean(mean): one.name for one in methods}
    found = evaluate(classifier, data, list(brought), [metric() for metric in MASKED], progress=progress)
    names, table = {one.name: name for one, name in brought.items()}, Table(image_ids=found.image_ids)
    for (name, metric, _), measured in found.metrics.items():
        measured.setting = EQUAL
        table.metrics[names[name], metric, EQUAL] = measured
    return table


def measure(classifier: Classifier, views: dict[str, list[Picture]], wanted: Sequence[metrics.Metric], progress: bool = True) -> Table:
    """All candidates under all ``wanted`` metrics, PxAP and the pointing game on one network's pictures."""
    table = evaluate(classifier, shown(views), every_candidate(views), wanted, progress=progress)
    pixels_and_points(table, classifier, views["squash"], every_candidate(views))
    return table


def shown(views: dict[str, list[Picture]]) -> Callable[[str], Any]:
    """View -> its pictures' examples as a data set."""
    return {view: Shown(pictures) for view, pictures in views.items()}.__getitem__


def every_candidate(views: dict[str, list[Picture]]) -> list[Method]:
    """The candidates, which know the cue of every picture under each view."""
    return candidates(Known(picture for pictures in views.values() for picture in pictures))


# ---------------------------------------------------------------- cue localization


def cue_localization(dataset: CUB200, progress: bool = True) -> Table:
    """The candidates as maps of every class of birds: the regions painted differently on it (`cue_mask`), zeros for the label's own.

    The difference between the maps of two classes is then the region that distinguishes them, as the candidate changes it. Fake-CAM is the
    same for every class, so its difference is zero.
    """
    classes = range(len(dataset.classes))
    untrained = lfi_backbone("resnet8", len(classes)).eval()  # only the size of its map is used
    regions = {
        example.image.numpy().tobytes(): torch.stack(
            [seen(dataset, tv_tensors.Mask(cue_mask(BIRDS, example.image_id, against=c))) for c in classes]
        ).float()
        for example in (dataset[i] for i in range(len(dataset)))
    }

    def right(probe: Probe) -> Tensor:
        return torch.stack([regions[image.numpy().tobytes()] for image in probe.images])

    def coarse(probe: Probe) -> Tensor:
        return F.adaptive_avg_pool2d(right(probe), list(probe.activations.shape[-2:]))

    def inverse(probe: Probe) -> Tensor:
        others = torch.ones(len(probe.images), len(classes)).scatter(1, probe.targets[:, None], 0.0)
        return (1 - right(probe)) * others[:, :, None, None]

    def noise(probe: Probe) -> Tensor:
        return torch.stack([random_map(probe, seed=c) for c in classes], 1)

    def fake(probe: Probe) -> Tensor:
        return fake_cam(probe)[:, None].expand(-1, len(classes), -1, -1)

    forms = {CUE: right, COARSE: coarse, **{f"{COARSE}[power={p:g}]": partial(_power, coarse, p) for p in (2, 0.5)}}
    forms |= {"random_map": noise, "fake_cam": fake, INVERSE: inverse}
    methods = [replace(METHODS["all_ones"], name=name, all_classes=form) for name, form in forms.items()]
    pairs = metrics.class_pairs(dataset.class_attributes, dataset.attribute_names)
    return evaluate(untrained, lambda _: dataset, methods, [metrics.CueLocalization(pairs)], progress=progress)


def _power(maps: Callable[[Probe], Tensor], exponent: float, probe: Probe) -> Tensor:
    return maps(probe) ** exponent


# ---------------------------------------------------------------- the rows


def records(table: Table) -> pd.DataFrame:
    """The numbers of the table with the better direction and each map's comparison with the cue's mask."""
    frame = table.records()
    frame = frame[frame.metric != "empty_maps"]
    found = [table.metrics[key] for key in zip(frame.method, frame.metric, frame.setting, strict=True)]
    verdicts = [_against(table, name, metric) for name, metric in zip(frame.method, found, strict=True)]
    better = [{True: "higher", False: "lower", None: ""}[metric.higher_is_better] for metric in found]
    return frame.assign(better=better, against_cue=verdicts)


def _against(table: Table, name: str, metric: metrics.Metric) -> str:
    if name == CUE or metric.higher_is_better is None:
        return ""
    difference = table.difference(name, CUE, metric.name, metric.setting)
    return verdict(difference.low, difference.high, higher=metric.higher_is_better)


def verdict(low: float, high: float, *, higher: bool) -> str:
    """The verdict on the first map from the interval of the difference: "better", "worse", or "" if it contains 0."""
    low, high = (low, high) if higher else (-high, -low)
    return "better" if low > 0 else "worse" if high < 0 else ""


def win_rows(table: Table, keep: str) -> pd.DataFrame:
    """Win %: how often a map has a strictly smaller drop than another one, mean over all others; one row a map.

    The metric compares two maps (`metrics.wins`); its mean over all pairs orders a list of maps.
    """
    names = list(dict.fromkeys(name for name, *_ in table.metrics))
    ids, first = table.metrics[CUE, "average_drop", keep].per_image()
    drops = []
    for name in names:
        rows = table.metrics[name, "average_drop", keep].per_image()[1]
        drops.append(ratio((rows[:, 0] - rows[:, 1]).clip(0), rows[:, 0]))
    won = {
        name: 100 * np.mean([own < other for j, other in enumerate(drops) if j != i], axis=0)
        for i, (name, own) in enumerate(zip(names, drops, strict=True))
    }
    rows = []
    for name, shares in won.items():
        low, high = bootstrap(shares)
        difference = paired_difference((ids, shares), (ids, won[CUE]))
        against = "" if name == CUE else verdict(difference.low, difference.high, higher=True)
        rows.append({"protocol": "l_cam", "method": name, "metric": "win", "setting": keep, "value": float(mean(shares)), "ci_low": low,
                     "ci_high": high, "n": len(first), "better": "higher", "against_cue": against})  # fmt: skip
    return pd.DataFrame(rows)


def chosen(
    classifier: Classifier, look: Callable[[Dataset, int], Asked], data: dict[str, Dataset]
) -> tuple[dict[str, list[Picture]], pd.DataFrame]:
    """The pictures, under each view, on which the network follows the cue under all of them; and rows of how many those are."""
    frozen, kept, right = classifier.frozen(), {view: list[Picture]() for view in data}, 0
    count = min(map(len, data.values()))
    for index in tqdm(range(count), f"{classifier.name}: follows the cue", unit="image"):
        asked = [look(dataset, index) for dataset in data.values()]
        right += all(follows(frozen, picture, redrawn[:0], answers[:0]) for picture, redrawn, answers in asked)
        if all(follows(frozen, *each) and each[0].cue.any() for each in asked):
            for pictures, (picture, *_) in zip(kept.values(), asked, strict=True):
                pictures.append(picture)
    followed = min(map(len, kept.values()))
    rows = []
    for name, hits in (("accuracy", right), ("follows_cue_only", followed)):
        low, high = wilson(hits, count)
        rows.append({"protocol": "redrawn", "method": "network", "metric": name, "setting": "both views", "value": 100 * hits / count,
                     "ci_low": low, "ci_high": high, "n": count})  # fmt: skip
    return kept, pd.DataFrame(rows)


def study(root: Path, count: int) -> pd.DataFrame:
    """All rows: both networks on the creatures, cue localization on the birds."""
    data = {view: sources.images(CREATURES, root, limit=count)(view) for view in VIEWS}
    trained, _ = jobs.network(CREATURES, "resnet8", root, epochs=EPOCHS)
    frames = []
    for name, classifier, look in (("trained", trained, drawn), ("wired", wired(), tinted)):
        pictures, facts = chosen(classifier, look, data)
        table = measure(classifier, pictures, [*faithfulness(), *localization()])
        share = torch.stack([picture.cue for picture in pictures["crop"]]).float().mean().item()
        equal = equal_mean(classifier, shown(pictures), every_candidate(pictures), share)
        rows = [facts, records(table), records(equal), *(win_rows(table, keep) for keep in ("100%", "50%", "15%"))]
        frames += [frame.assign(network=name) for frame in rows]
    birds = sources.images(BIRDS, root, limit=count)("squash")
    frames.append(records(cue_localization(birds)).assign(network="birds"))
    columns = ["network", "method", "metric", "setting", "value", "ci_low", "ci_high", "n", "protocol", "better", "against_cue"]
    return pd.concat(frames, ignore_index=True)[columns]


def main() -> None:
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="drawn test images, before those are chosen that follow the cue")
    frame = study(sources.find_root(CREATURES), parser.parse_args().images)
    write_table(OUT, frame)
    told = frame[frame.against_cue == "better"].groupby(["network", "metric", "setting"], sort=False).method.apply(", ".join)
    print(told.to_string())


if __name__ == "__main__":
    main()
