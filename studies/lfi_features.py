"""Does training LFI-CAM improve the features of the backbone? Its trunk without the attention, compared with the plain network's trunk.

    python -m studies.lfi_features [--seeds 3] [--dataset drawn_imagenet] [--backbone resnet8]

Both are trained from scratch on the same images by the same recipe. For each trunk: accuracy of a linear probe (a logistic regression on
averaged features of the training images, fitted for each trunk) and, under that probe and under the network's own head, CAM and Grad-CAM on
the test images: energy inside the object's box and average precision of its pixels. A third trunk is LFI-CAM's with equal weights instead
of FIN: the effect of an attention that does not choose channels. Results: results/studies/lfi_features.csv, one row per number; ``head``
"attended" is the complete LFI-CAM network, with its attention.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch.nn.functional as F

from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.evaluate import Data, evaluate
from cam_core.learned import LfiCam
from cam_core.methods import method
from cam_core.metrics import EnergyPointingGame, PixelPrecision
from cam_core.metrics.statistics import paired_difference
from cam_core.table import Table
from reproduce import jobs, sources
from reproduce.accuracy import network_table
from reproduce.files import write_table
from studies.ablations import LEARNS
from training.batches import in_memory
from training.cached import features
from training.heads import multi_label_head

OUT = sources.HOME / "results/studies/lfi_features.csv"
METHODS = ("cam", "grad_cam", "mean_activation", "random_map", "center_gaussian")
TRUNKS = ("plain", "lfi_cam", "lfi_cam[uniform]")
Row = dict[str, object]


def bare(model: LfiCam) -> Classifier:
    """An LFI-CAM network without its attention: the features F and the same head, modules shared."""
    trunk, whole = model.classifier.trunk, model.classifier
    return whole.with_parts(trunk.features, whole.head).train(whole.training)


def probed(trunk: Classifier, train: Dataset) -> Classifier:
    """The trunk with a linear probe fitted to the training images; its weight decay is chosen on a fifth of them."""
    images = in_memory(train, progress=False)
    pooled, _ = features(trunk, images["images"], pool=True, progress=False)
    return multi_label_head(trunk, pooled, F.one_hot(images["labels"], len(train.classes)).float())[0]


def networks(key: str, dataset: str, name: str, root: Path, **options: Any) -> dict[str, Classifier]:
    """Head -> classifier of one trunk: "own", "probe" and, for LFI-CAM, "attended"."""
    train = sources.images(dataset, root, "train")(sources.source(dataset).view)
    if key == "plain":
        own, _ = jobs.network(dataset, name, root, **options)
        return {"own": own, "probe": probed(own, train)}
    model, _ = LEARNS[key](dataset, name, root, **options)
    own = bare(model)
    return {"own": own, "probe": probed(own, train), "attended": model.classifier}


def measured(found: dict[str, Classifier], images: Data, test: Dataset) -> tuple[list[Row], dict[str, Table]]:
    """Rows of one trunk with each of its heads, and their tables; the method of the accuracy is called "network"."""
    rows, tables = list[Row](), dict[str, Table]()
    for head, classifier in found.items():
        tables[head] = evaluate(classifier, images, [method(m) for m in METHODS], [EnergyPointingGame(), PixelPrecision()], progress=False)
        tables[head].metrics |= network_table(classifier, test, "network").metrics
        records = tables[head].records()
        rows += [{"head": head, **row} for row in records[records.metric != "empty_maps"].to_dict("records")]
    return rows, tables


def study(
    dataset: str,
    name: str,
    root: Path,
    seeds: Sequence[int],
    trunks: Sequence[str] = TRUNKS,
    limit: int | None = None,
    **options: Any,
) -> pd.DataFrame:
    """All rows; "difference": a trunk minus the plain one of the same seed, on the same images."""
    images, rows = sources.images(dataset, root, limit=limit), list[Row]()
    test = images(sources.source(dataset).view)
    for seed in seeds:
        kept: dict[str, dict[str, Table]] = {}
        for key in trunks:
            found, kept[key] = measured(networks(key, dataset, name, root, seed=seed, **options), images, test)
            rows += [{"seed": seed, "trunk": key, "than": "", **row} for row in found]
            for head in kept[key] if key != "plain" else ():
                rows += [{"seed": seed, "trunk": key, "than": "plain", "head": head, **row} for row in against(kept, key, head)]
    return pd.DataFrame(rows).assign(dataset=dataset, backbone=name)


def against(kept: dict[str, dict[str, Table]], key: str, head: str) -> list[Row]:
    """Differences to the plain trunk with the same kind of head, image by image; for "attended", to its own head."""
    rows, plain = list[Row](), kept["plain"]["own" if head == "attended" else head]
    for (which, metric, setting), first in kept[key][head].metrics.items():
        d = paired_difference(first.per_image(), plain.metrics[which, metric, setting].per_image(), first.value)
        rows.append({"method": which, "metric": metric, "setting": setting, "value": d.value, "ci_low": d.low, "ci_high": d.high, "n": d.n})
    return rows


def main() -> None:
    """Train or load, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="drawn_imagenet")
    parser.add_argument("--backbone", default="resnet8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of every training; the data set's default if left out")
    parser.add_argument("--trunks", nargs="+", default=TRUNKS, choices=TRUNKS)
    given = parser.parse_args()
    root = sources.find_root(given.dataset)
    frame = study(given.dataset, given.backbone, root, range(given.seeds), given.trunks, epochs=given.epochs)
    write_table(OUT, frame)
    shown = frame[frame.method.isin(["network", "cam", "grad_cam"]) & (frame.than == "")]
    print(shown.pivot_table(index=["metric", "method", "head"], columns="trunk", values="value").round(1).to_string())


if __name__ == "__main__":
    main()
