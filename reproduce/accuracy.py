"""The quality of a network without any map: accuracy, or mean average precision if images have several classes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from cam_core.classifier import Classifier
from cam_core.data import Dataset
from cam_core.metrics import Metric
from cam_core.metrics.metric import Rate
from cam_core.metrics.statistics import Array, one_by_one
from cam_core.table import Table
from training.batches import in_memory
from training.heads import mean_average_precision
from training.loop import predict


class Accuracy(Rate):
    """Share of the images that a network gets right, in percent. Rows [n,1]: 1 if right. Its interval is Wilson's."""

    name = "accuracy"
    protocol = "network"
    higher_is_better = True


class MeanAveragePrecision(Metric):
    """Mean over the classes of the average precision of a network's scores, in percent. Rows [n,2,C]: logits, and which class is there."""

    name = "mean_average_precision"
    protocol = "network"
    higher_is_better = True

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """`mean_average_precision`; one call a resample."""
        of = one_by_one(lambda some: mean_average_precision(torch.from_numpy(some[:, 0].copy()), torch.from_numpy(some[:, 1].copy())))
        return of(rows, weights)

    def interval(self, level: float = 0.95, resamples: int = 300, seed: int = 0) -> tuple[float, float]:
        """Bootstrap over the images; with fewer resamples, because each needs a new ranking."""
        return super().interval(level, resamples, seed)


BLOCK = 256  # images decoded at a time: a whole validation set does not fit in memory


def network_table(classifier: Classifier, dataset: Dataset, method: str = "plain") -> Table:
    """The quality of a network without any map: accuracy or, with several classes per image, mean average precision, named ``method``."""
    frozen = classifier.frozen()
    metric: Metric = MeanAveragePrecision() if dataset[0].label < 0 else Accuracy()
    for first in range(0, len(dataset), BLOCK):
        data = in_memory(dataset.part(slice(first, first + BLOCK)), progress=False)
        logits = predict(frozen, data["images"], batch=8)
        right = (logits.argmax(1) == data["labels"])[:, None].double()
        rows = torch.stack([logits.double(), data["targets"].double()], 1) if "targets" in data else right
        metric.record(rows, range(first, first + len(rows)))
    return Table({(method, metric.name, metric.setting): metric}, image_ids=dataset.ids)


def best_on_test(method: str, summary: Mapping[str, Any]) -> pd.DataFrame:
    """A row of `Table.records` with the number that papers often give: the highest accuracy on the test images after any epoch.

    ``summary``: of a training with ``best_on_test``. No interval, because the value was chosen on these images.
    """
    best, metric = summary["best_on_test"], Accuracy()
    row = {"protocol": metric.protocol, "method": method, "metric": metric.name, "setting": "best on test", "value": best["accuracy"]}
    return pd.DataFrame([{**row, "ci_low": float("nan"), "ci_high": float("nan"), "n": best["n"]}])
