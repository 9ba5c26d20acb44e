"""Do maps stay where the class can be? Grids of images, whose truth is by construction; and which metric would have told?

    CAM_DATA=... python -m studies.grids [--grids 24] [--networks 3] [--real 12] [--judged 8]

Four images side by side (`cam_core.metrics.grids`). GridPG: four classes, and the map of one of them. DiFull and DiPart: the first and
the last image share a class, and the network answers for one of the two. Drawn birds with resnet8 from several seeds, and photographs of
ImageNet with EfficientNet-Lite0; only images that the network is right about, the surest first. Methods that score channels, and RISE,
get a third of the grids of the small networks, and none of the large one, which would pass 1281 times over 448 x 448 pixels.

results/studies/grids.csv: localization, a row for each network, setting and map. results/studies/judged-grids.csv: metrics by how well
their order of the maps agrees with localization under DiFull, on ``--judged`` grids of each small network. All metrics that ask the
network are judged; those of place would be given the cell itself, which is the truth.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cam_core import load_classifier
from cam_core.classifier import Classifier
from cam_core.data import Dataset, Example
from cam_core.evaluate import evaluate
from cam_core.methods import Method
from cam_core.metrics.grids import SETTINGS, GridLocalization, grid, on_grid
from cam_core.pretrained import LITE
from cam_core.protocol import Explained
from cam_core.table import Table
from reproduce import jobs, sources
from reproduce.files import write_table
from studies.judging import SCORED, STEP, agreement, asking_the_network, bearing, maps_to_judge
from training.batches import in_memory

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


class Shown(Dataset):
    """Grids as a data set, in memory."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__(Path(), "test")
        self.cells, self.ids = cells, [str(number) for number in range(len(cells))]

    def __getitem__(self, i: int) -> Example:
        return Example(self.ids[i], self.cells[i].image, self.cells[i].label)


class InCell(GridLocalization):
    """`GridLocalization` of grids that are all asked about one cell."""

    def __init__(self, cell: int) -> None:
        super().__init__(SIDE)
        self.cell = cell

    def measured(self, maps: Tensor, explained: Explained) -> tuple[Sequence[int], Tensor]:
        """`measure` with the cell."""
        return explained.ids, self.measure(maps, [self.cell] * len(maps))


def localized(
    classifier: Classifier, setting: str, shown: Sequence[Cell], methods: Sequence[Method], few: int, surrogate: Classifier | None = None
) -> Table:
    """`GridLocalization` of every map; `SLOW` methods on the first ``few`` grids.

    ``surrogate``: F-Fidelity's second network; where it is given, every metric that asks the network is measured too.
    """
    table = Table(image_ids=[str(number) for number in range(len(shown))])
    for cell in sorted({one.cell for one in shown}):  # each has a network of its own
        places = [number for number, one in enumerate(shown) if one.cell == cell]
        asked = asking_the_network(on_grid(surrogate, setting, SIDE, cell), SIDE * SIDE * STEP) if surrogate else []
        found = evaluate(
            on_grid(classifier, setting, SIDE, cell), lambda _, own=places: Shown([shown[i] for i in own]), methods, [InCell(cell), *asked],
            limits=dict.fromkeys(SLOW, sum(place < few for place in places)), batch_size=4,
        )  # fmt: skip
        for key, kept in found.metrics.items():
            if kept.ids:  # a slow method may have no grid of this cell
                ids, rows = kept.per_image()
                kept.reset()
                table.metrics.setdefault(key, kept).record(torch.from_numpy(rows.copy()), [places[i] for i in ids])
    return table


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
    few, train = max(2, count // 3), in_memory(sources.images(BIRDS, root, "train")("squash"), progress=False)
    for seed in range(networks):
        network = jobs.network(BIRDS, "resnet8", root, seed=seed, progress=False)[0]
        classifier = network.frozen()
        images = surest(classifier, sources.images(BIRDS, root)("squash"))
        for setting in SETTINGS:
            methods = maps_to_judge(leave_out=() if setting == "GridPG" else ("cam",))  # CAM needs a head that pools everything
            shown = list(grids(images, setting, count, seed))
            rows += rows_of(f"resnet8 seed {seed}", setting, localized(classifier, setting, shown, methods, few))
            if setting == "DiFull" and asked_about:
                table = localized(classifier, setting, shown[:asked_about], methods, asked_about, bearing(network, train))
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
    return pd.DataFrame(rows), agreed(judged)


def agreed(tables: dict[str, Table]) -> pd.DataFrame:
    """How well each metric orders the maps as localization does; empty without ``tables``."""
    first, truth = next(iter(tables.values()), Table()), ("grid_localization", f"{SIDE} x {SIDE}")
    keys = dict.fromkeys((name, setting) for (_, name, setting), kept in first.metrics.items() if kept.higher_is_better is not None)
    return agreement(tables, first.methods, truth, [key for key in keys if key != truth]) if tables else pd.DataFrame()


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
