"""Do maps stay where the class can be? Grids of images, whose truth is by construction; and which metric would have told?

    CAM_DATA=... python -m studies.grids [--grids 24] [--networks 3] [--real 12] [--judged 8]

Four images side by side (`cam_core.metrics.grids`). GridPG: four classes, and the map of one of them. DiFull and DiPart: the first and
the last image share a class, and the network answers for one of the two. Drawn birds with resnet8 from several seeds, and photographs of
ImageNet with EfficientNet-Lite0; only images that the network is right about, the surest first. Methods that score channels, and RISE,
get a third of the grids of the small networks, and none of the large one, which would pass 1281 times over 448 x 448 pixels.

results/studies/grids.csv: localization, a row for each network, setting and map. results/studies/judged-grids.csv: metrics by how well
their order of the maps agrees with localization under DiFull, on ``--judged`` grids of each small network.
"""

import argparse
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cam_core import Probe, load_classifier, metrics
from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.methods import Method
from cam_core.metrics.grids import SETTINGS, GridLocalization, grid, on_grid
from cam_core.pretrained import LITE
from cam_core.protocol import PROTOCOLS, finish
from cam_core.table import Table
from reproduce import jobs, sources
from reproduce.files import write_table
from studies.judging import SCORED, agreement, maps_to_judge

OUT = sources.HOME / "results/studies/grids.csv"
BIRDS = "drawn_cub"
SLOW = (*SCORED, "rise", "fd_cam")
SIDE = 2


class Cell(NamedTuple):
    """A grid [3,2H,2W], the cell that is asked about, and its class."""

    image: Tensor
    cell: int
    label: int


@torch.no_grad()
def surest(classifier: Classifier, dataset: Dataset, batch: int = 32) -> dict[int, list[Tensor]]:
    """Class -> its images that the network gets right, the surest first."""
    found: dict[int, list[tuple[float, Tensor]]] = {}
    for start in range(0, len(dataset), batch):
        examples = [dataset[i] for i in range(start, min(start + batch, len(dataset)))]
        sure, answers = classifier(torch.stack([one.image for one in examples])).softmax(1).max(1)
        for one, answer, p in zip(examples, answers.tolist(), sure.tolist(), strict=True):
            if answer == one.label:
                found.setdefault(answer, []).append((p, one.image))
    return {label: [image for _, image in sorted(own, key=lambda pair: -pair[0])] for label, own in found.items()}


def grids(images: dict[int, list[Tensor]], setting: str, count: int, seed: int = 0) -> Iterator[Cell]:
    """``count`` grids of a setting; the classes are drawn from ``seed``."""
    random, cells = np.random.default_rng(seed), SIDE * SIDE
    twice = [label for label, own in images.items() if len(own) > 1]
    for number in range(count):
        if setting == "GridPG":
            labels, cell = random.choice(list(images), cells, replace=False).tolist(), int(random.integers(cells))
        else:  # the first and the last share a class
            first = int(random.choice(twice))
            others = random.choice([label for label in images if label != first], cells - 2, replace=False).tolist()
            labels, cell = [first, *others, first], (0, cells - 1)[number % 2]
        used: dict[int, int] = {}
        chosen = []
        for label in labels:
            place = used.get(label, number % max(1, len(images[label]) - 1))
            chosen.append(images[label][place])
            used[label] = place + 1
        yield Cell(grid(torch.stack(chosen)), cell, labels[cell])


def localized(
    classifier: Classifier, setting: str, shown: Sequence[Cell], methods: Sequence[Method], few: int, asked: Sequence[metrics.Metric] = ()
) -> Table:
    """`GridLocalization` of every map, and the metrics ``asked`` beside it; `SLOW` methods on the first ``few`` grids."""
    table = Table(image_ids=[str(number) for number in range(len(shown))])
    for one in methods:
        for metric in (GridLocalization(SIDE), *map(deepcopy, asked)):
            table.metrics[one.name, metric.name, metric.setting] = metric
    networks = {cell: on_grid(classifier, setting, SIDE, cell) for cell in {one.cell for one in shown}}
    for number, one in enumerate(tqdm(shown, f"{classifier.name} {setting}", unit="grid")):
        probe = Probe(networks[one.cell], one.image[None], [one.label])
        for method in methods:
            if method.name in SLOW and number >= few:
                continue
            raw = method(probe)
            table.metrics[method.name, "grid_localization", f"{SIDE} x {SIDE}"].update(
                finish(raw, probe.images.shape[-2:], PROTOCOLS["grid"].finishing), [one.cell], ids=[number]
            )
            for key in dict.fromkeys(metric.shares for metric in asked):
                _record(table, method, [metric for metric in asked if metric.shares == key], probe, raw, number)
    return table


def _record(table: Table, method: Method, same: Sequence[metrics.Metric], probe: Probe, raw: Tensor, number: int) -> None:
    """The metrics of one measure, of one map, under the finishing of their protocol."""
    finishing = PROTOCOLS[same[0].protocol].finishing
    size = probe.activations.shape[-2:] if finishing == "cells" else probe.images.shape[-2:]

    def finished(heat: Tensor) -> Tensor:
        return heat if method.finished and finishing != "cells" else finish(heat, size, finishing)

    given: list[Any] = [probe] + ([lambda other: finished(method(other))] if same[0].needs == "method" else [])
    rows = same[0].measure(finished(raw), *given)
    for metric in same:
        table.metrics[method.name, metric.name, metric.setting].record(rows, [number])


def to_judge() -> list[metrics.Metric]:
    """The metrics that ask the network, fewer forms of each than on the birds: a grid has four times the pixels."""
    step = 4 * 896
    return [
        *(metrics.AverageDrop(keep) for keep in (1.0, 0.5, 0.15)),
        *(metrics.IncreaseInConfidence(), metrics.AverageGain(), metrics.Insertion(step), metrics.Deletion(step)),
        *(
            metrics.ADCC(),
            metrics.Coherency(),
            metrics.Complexity(),
            metrics.ARCC(),
            metrics.RoadCombined(0.2),
            metrics.SensitivityN(0.2, 50),
        ),
    ]


def rows_of(network: str, setting: str, table: Table) -> list[dict[str, Any]]:
    """Localization of every map with its interval."""
    rows = []
    for (name, metric, _), kept in table.metrics.items():
        if metric == "grid_localization":
            low, high = kept.interval()
            rows.append({"network": network, "setting": setting, "method": name, "metric": metric, "value": kept.compute(),
                         "ci_low": low, "ci_high": high, "n": len(kept.per_image()[0])})  # fmt: skip
    return rows


def study(count: int, networks: int, real: int, asked_about: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Localization on all networks, and the metrics judged on the small ones."""
    root, rows, judged = sources.find_root(BIRDS), list[dict[str, Any]](), dict[str, Table]()
    few, asked = max(2, count // 3), to_judge()
    for seed in range(networks):
        classifier = jobs.network(BIRDS, "resnet8", root, seed=seed, progress=False)[0].frozen()
        images = surest(classifier, sources.images(BIRDS, root)("squash"))
        for setting in SETTINGS:
            methods = maps_to_judge(leave_out=() if setting == "GridPG" else ("cam",))  # CAM needs a head that pools everything
            shown = list(grids(images, setting, count, seed))
            rows += rows_of(f"resnet8 seed {seed}", setting, localized(classifier, setting, shown, methods, few))
            if setting == "DiFull" and asked_about:
                table = localized(classifier, setting, shown[:asked_about], methods, asked_about, asked)
                table.image_ids = [f"{seed} {number}" for number in table.image_ids]  # every network has its own grids
                judged[f"resnet8 seed {seed}"] = table
    if real:
        classifier = load_classifier(LITE).frozen()
        data = sources.images("imagenet", sources.find_root("imagenet"), limit=10 * real)("squash")
        images = surest(classifier, data)
        for setting in SETTINGS:
            methods = maps_to_judge(leave_out=(*SLOW, "ablation_cam", *(() if setting == "GridPG" else ("cam",))))
            many = images if setting == "GridPG" else _with_a_pair(images)
            rows += rows_of(LITE, setting, localized(classifier, setting, list(grids(many, setting, real)), methods, 0))
    return pd.DataFrame(rows), agreed(judged, asked)


def agreed(tables: dict[str, Table], asked: Sequence[metrics.Metric]) -> pd.DataFrame:
    """How well each metric orders the maps as localization does; empty without ``tables``."""
    keys = [(metric.name, metric.setting) for metric in asked if metric.higher_is_better is not None]
    names = [name for table in list(tables.values())[:1] for name in dict.fromkeys(method for method, *_ in table.metrics)]
    return agreement(tables, names, ("grid_localization", f"{SIDE} x {SIDE}"), keys) if tables else pd.DataFrame()


def _with_a_pair(images: dict[int, list[Tensor]]) -> dict[int, list[Tensor]]:
    """Where no class has two images: each image and its mirror image."""
    return {label: [*own, own[0].flip(-1)] for label, own in images.items()}


def main() -> None:
    """Run the study and write its two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=24)
    parser.add_argument("--networks", type=int, default=3, help="seeds of the small network")
    parser.add_argument("--real", type=int, default=12, help="grids of photographs; 0 leaves them out")
    parser.add_argument("--judged", type=int, default=8, help="grids of a network that the metrics are asked about; 0: they are not judged")
    given = parser.parse_args()
    scores, judged = study(given.grids, given.networks, given.real, given.judged)
    write_table(OUT, scores)
    print(scores.pivot_table(index="method", columns=["network", "setting"], values="value").round(0).to_string())
    if len(judged):
        write_table(OUT.with_stem("judged-grids"), judged)
        print(judged[judged.network == "all"].set_index(["metric", "setting"])["kendall"].sort_values().round(2).to_string())


if __name__ == "__main__":
    main()
