"""Do maps know what the network would lose without a part? And which metric would have told? Drawn birds, parts drawn away.

    python -m studies.parts [--images 32] [--judged 16] [--networks 4]

The truth is causal (`cam_core.metrics.parts`): every combination of a bird's seven parts, and every thing behind it, is drawn away, and the
very network that is explained is asked again. Networks: `NETWORKS`, trained on the drawn birds; L-CAM and TAME on the first of them; and
those that learn their own map, CALM's two, LFI-CAM and ABN. Only images that a network gets right count for it.

results/studies/parts.csv: FunnyBirds' scores, a row for each network, map and score. results/studies/judged-parts.csv: every metric, by how
well its order of the maps agrees with that of single deletion and of completeness; judged-values.csv: what it says of every map.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from cam_core import METHODS, metrics
from cam_core.classifier import Classifier
from cam_core.data import CUB200, Example
from cam_core.evaluate import evaluate
from cam_core.methods import Method, method
from cam_core.metrics.parts import Removal
from cam_core.table import Table
from data_scripts import birds
from data_scripts.draw import redraw
from data_scripts.redrawn import removals
from reproduce import jobs, sources
from reproduce.files import write_table
from studies.judging import agreement, asking_the_network, bearing, maps_to_judge, numbers, on_the_object
from training.batches import in_memory

NAME = "drawn_cub"
OUT = sources.HOME / "results/studies/parts.csv"
NETWORKS = (("resnet8", 0), ("resnet8", 1), ("resnet8", 2), ("resnet14", 0))
THE_SAME = ("hires_cam", "xgrad_cam")  # under a pooled linear head: as CAM, and as Grad-CAM
TRUTHS = (("single_deletion", ""), ("completeness", ""))
SLOW = ("score_cam", "increment_cam", "group_cam", "rise", "fd_cam", "ablation_cam")
BESIDE_OWN = ("mean_activation", "random_map", "center_gaussian", "all_ones", "fake_cam")


def same_looks() -> torch.Tensor:
    """Bool [C,C,P]: whether two species look alike in a part."""
    looks = [birds.looks(label) for label in range(len(birds.CLASSES))]
    return torch.tensor([[[a[region] == b[region] for region in birds.REGIONS] for b in looks] for a in looks])


def of_parts(known: dict[str, Removal]) -> list[metrics.Metric]:
    """FunnyBirds' scores, and that of pairs."""
    kinds = (
        metrics.SingleDeletion, metrics.PairDeletion, metrics.ControlledCheck, metrics.PreservationCheck, metrics.DeletionCheck,
        metrics.Distractibility, metrics.Completeness, metrics.BackgroundIndependence,
    )  # fmt: skip
    return [kind(known) for kind in kinds]


class Redrawn(TorchDataset[Example]):
    """Images of a data set as they are drawn, before JPEG: those that the truth is about."""

    def __init__(self, dataset: CUB200, indices: Sequence[int]) -> None:
        self.ids = [dataset.ids[i] for i in indices]
        self.annotations = [dataset.annotations[i] for i in indices]
        self.examples = []
        for i in indices:
            picture = dataset.transform(redraw(NAME, dataset.ids[i]), None, None, None)[0]
            self.examples.append(replace(dataset[i], image=picture))

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def scored(classifier: Classifier, dataset: CUB200, known: Sequence[Removal], methods: Sequence[Method]) -> Table:
    """FunnyBirds' scores of all maps on the images that the network gets right; target sensitivity of those that cost one pass a class."""
    shown, here = right(dataset, known)
    table = evaluate(classifier, lambda _: shown, methods, of_parts(here), progress=False)
    cheap = [one for one in methods if one.name not in SLOW]
    contrast = evaluate(classifier, lambda _: shown, cheap, [metrics.TargetSensitivity(here, same_looks())], progress=False)
    table.metrics |= contrast.metrics
    return table


def right(dataset: CUB200, known: Sequence[Removal], limit: int | None = None) -> tuple[Any, dict[str, Removal]]:
    """The images that a network gets right, at most ``limit``, and their removals."""
    places = [i for i, one in enumerate(known) if one.prediction == dataset.annotations[i].label][:limit]
    return Redrawn(dataset, places), {dataset.ids[i]: known[i] for i in places}


def score_rows(network: str, seed: int, table: Table) -> list[dict[str, Any]]:
    """The scores of every map, with intervals."""
    rows = []
    for (name, metric, setting), kept in table.metrics.items():
        low, high = kept.interval()
        rows.append({"network": network, "seed": seed, "method": name, "metric": metric, "setting": setting, "value": kept.compute(),
                     "ci_low": low, "ci_high": high, "n": len(kept.per_image()[0])})  # fmt: skip
    return rows


def learned_maps(root: Path) -> list[Method]:
    """L-CAM and TAME of the first network, opened once more because they freeze it."""
    classifier, _ = jobs.network(NAME, *NETWORKS[0][:1], root, progress=False)
    models = {key: model for key, (model, _) in jobs.l_cam(NAME, classifier, root, epochs=(50, 5), progress=False).items()}
    models["tame[diagonal]"] = jobs.tame(NAME, classifier, root, epochs=1, masking="diagonal", progress=False)[0]
    return [Method(key, model.explain, "learned", 2022, "1") for key, model in models.items()]


def with_their_own(root: Path) -> dict[str, Any]:
    """The models whose map is part of their network."""
    models = {key: model for key, (model, _) in jobs.calm(NAME, "resnet8", root, progress=False).items()}
    models["lfi_cam"] = jobs.lfi_cam(NAME, "resnet8", root, progress=False)[0]
    models["abn"] = jobs.abn(NAME, "resnet8", root, progress=False)[0]
    return models


def study(root: Path, count: int, networks: int) -> tuple[pd.DataFrame, dict[str, tuple[Classifier, list[Removal], Table]]]:
    """The scores; and, of the plain networks, what is needed to judge metrics by them."""
    dataset = birds_of(root, count)
    plain = {which: jobs.network(NAME, which[0], root, seed=which[1], progress=False)[0] for which in NETWORKS[:networks]}
    own_map = with_their_own(root)
    classifiers = [*plain.values(), *(model.classifier for model in own_map.values())]
    known = [removals(classifiers, dataset, i) for i in tqdm(range(count), "drawing parts away", unit="image")]
    own = [[each[number] for each in known] for number in range(len(classifiers))]
    rows, kept = list[dict[str, Any]](), dict[str, tuple[Classifier, list[Removal], Table]]()
    for (which, classifier), truth in zip(plain.items(), own, strict=False):
        learned = learned_maps(root) if which == NETWORKS[0] else []
        table = scored(classifier, dataset, truth, maps_to_judge(*learned, leave_out=THE_SAME))
        kept[f"{which[0]} seed {which[1]}"] = classifier, truth, table
        rows += score_rows(which[0], which[1], table)
    for (key, model), truth in zip(own_map.items(), own[len(plain) :], strict=True):
        methods = [Method(key, model.explain, "learned", 2021, "1"), METHODS["grad_cam"], *map(method, BESIDE_OWN)]
        rows += score_rows(key, 0, scored(model.classifier, dataset, truth, methods))
    return pd.DataFrame(rows), kept


def birds_of(root: Path, count: int) -> Any:
    """The first test images."""
    return sources.images(NAME, root, limit=count)("squash")


def judge(root: Path, kept: dict[str, tuple[Classifier, list[Removal], Table]], limit: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well every metric, on the first ``limit`` images, orders the maps as the truth does on the same images; and its numbers."""
    train = in_memory(sources.images(NAME, root, "train")("squash"), progress=False)
    methods, tables = maps_to_judge(leave_out=THE_SAME), dict[str, Table]()
    for network, (classifier, known, truth) in kept.items():
        shown, _ = right(birds_of(root, len(known)), known, limit)
        asked = [*asking_the_network(bearing(classifier, train)), *on_the_object()]
        tables[network] = evaluate(classifier, lambda _, shown=shown: shown, methods, asked)  # type: ignore[misc]
        tables[network].metrics |= truth.metrics
    keys = [(metric.name, metric.setting) for metric in asked if metric.higher_is_better is not None]
    names = [one.name for one in methods]
    judged = pd.concat([agreement(tables, names, truth, keys) for truth in TRUTHS], ignore_index=True)
    return judged, numbers(tables, names, keys)


def main() -> None:
    """Run the study and write its two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32, help="drawn birds; a network is scored on those it gets right")
    parser.add_argument("--judged", type=int, default=16, help="of these, how many the metrics are asked about")
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="how many of the plain networks")
    given, root = parser.parse_args(), sources.find_root(NAME)
    scores, kept = study(root, given.images, given.networks)
    write_table(OUT, scores)
    print(
        scores[scores.network.str.startswith("resnet")].pivot_table(index="method", columns="metric", values="value").round(0).to_string()
    )
    judged, values = judge(root, kept, given.judged)
    write_table(OUT.with_stem("judged-parts"), judged)
    write_table(OUT.with_stem("judged-values"), values)
    every = judged[judged.network == "all"].pivot_table(index=["metric", "setting"], columns="truth", values="kendall")
    print(every.sort_values("single_deletion").round(2).to_string())


if __name__ == "__main__":
    main()
