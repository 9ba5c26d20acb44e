"""What was measured: per-image rows of every metric and method, the numbers with their intervals, and paired differences."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cam_core.metrics import Metric, Wins, wins
from cam_core.metrics.statistics import Difference, holm, paired_difference, paired_p, same_rows


@dataclass
class Table:
    """What `evaluate` measured: for each (method, metric name, setting) the metric with its per-image rows."""

    metrics: dict[tuple[str, str, str], Metric] = field(default_factory=dict)
    empty: dict[tuple[str, str], NDArray[np.int8]] = field(default_factory=dict)  # (protocol, method) -> image -> -1 not asked, 1 empty
    spent: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # method -> seconds and maps, of all batches
    image_ids: list[str] = field(default_factory=list)

    def records(self, first: int | None = None) -> pd.DataFrame:
        """One row a number: protocol, method, metric, setting, value, ci_low, ci_high, n (images or trials).

        ``first``: only on the first images of the list, which every method has; ``setting`` says so. Rows ``empty_maps`` count the maps
        without content.
        """
        rows: list[tuple[str, str, str, str, float, float | None, float | None, int]] = []
        for (method, name, setting), metric in self.metrics.items():
            metric = metric if first is None else _limited(metric, first)
            low, high = metric.interval()
            label = setting if first is None else f"{setting} first {first}".strip()
            rows.append((metric.protocol, method, name, label, metric.compute(), low, high, len(metric.per_image()[0])))
        if first is None:
            rows += [(p, m, "empty_maps", "", float((e > 0).sum()), None, None, int((e >= 0).sum())) for (p, m), e in self.empty.items()]
        return pd.DataFrame(rows, columns=["protocol", "method", "metric", "setting", "value", "ci_low", "ci_high", "n"])

    def per_image(self) -> Iterator[pd.DataFrame]:
        """One frame after the other, for each metric of each method: together they may not fit in memory.

        Columns: id, image, row (an array of numbers), protocol, method, metric, setting. Histograms of pixels are left out.
        """
        for (method, name, setting), metric in self.metrics.items():
            if metric.histograms:
                continue
            ids, rows = metric.per_image()
            images = [self.image_ids[i] for i in metric.groups(ids)]
            frame = pd.DataFrame({"id": ids, "image": images, "row": list(rows.reshape(len(rows), -1).astype("float32", copy=False))})
            yield frame.assign(protocol=metric.protocol, method=method, metric=name, setting=setting)

    def difference(self, first: str, second: str, name: str, setting: str = "") -> Difference:
        """Method ``first`` minus ``second`` in a metric, on the images that both have, with its paired interval."""
        a, b = self.metrics[first, name, setting], self.metrics[second, name, setting]
        return paired_difference(a.per_image(), b.per_image(), a.value, groups=a.groups)

    def differences(self, reference: str, *more: tuple[str, str]) -> pd.DataFrame:
        """Every method minus ``reference``, then each pair of ``more`` (first minus second), in all metrics and settings that both have.

        Columns: protocol, method, than, metric, setting, value, ci_low, ci_high, n (as in `difference`), p (`paired_p`), p_holm, same_as.
        Holm's correction is over all rows of one metric. If another method gives the same map (`twins`), ``same_as`` names it; such a
        comparison has no p and is excluded from Holm's correction.
        """
        twins = self.twins(reference)
        pairs = dict.fromkeys([*((method, reference) for method in self.methods if method != reference), *more])
        rows, counted = [], set()
        for method, than in pairs:
            one = twins[method], twins[than]
            copies = [first for own, first in zip((method, than), one, strict=True) if own != first]
            counts = one[0] != one[1] and one not in counted
            counted.add(one)
            for name, setting in (key[1:] for key in self.metrics if key[0] == method and (than, *key[1:]) in self.metrics):
                a, b = self.metrics[method, name, setting], self.metrics[than, name, setting]
                p = paired_p(a.per_image(), b.per_image(), a.value, groups=a.groups) if counts else float("nan")
                found = self.difference(method, than, name, setting)
                rows.append((a.protocol, method, than, name, setting, *found, p, "" if counts else copies[0]))
        columns = ["protocol", "method", "than", "metric", "setting", "value", "ci_low", "ci_high", "n", "p", "same_as"]
        frame = pd.DataFrame(rows, columns=columns)
        tested = frame[frame.p.notna()]
        return frame.assign(p_holm=tested.groupby("metric").p.transform(holm))

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds per map of each method, mean over all batches; gradients that several methods share count for the first."""
        return {method: float(seconds / maps) for method, (seconds, maps) in self.spent.items()}

    @property
    def methods(self) -> list[str]:
        """The methods, in the order in which they were measured."""
        return list(dict.fromkeys(method for method, _, _ in self.metrics))

    def twins(self, reference: str) -> dict[str, str]:
        """For each method the first method (``reference`` comes first) with the same rows in every metric of the maps, or itself.

        Some methods are one method on some networks: with average pooling and a linear head Grad-CAM is XGrad-CAM, CAM is HiResCAM.
        """
        asked = {method: {key[1:]: one for key, one in self.metrics.items() if key[0] == method} for method in [reference, *self.methods]}
        asked = {method: {key: one for key, one in own.items() if one.protocol != "network"} for method, own in asked.items()}
        found: dict[str, str] = {}
        for method, own in asked.items():
            earlier = [other for other, first in found.items() if other == first and own and asked[other].keys() == own.keys()]
            same = (o for o in earlier if all(same_rows(one.per_image(), asked[o][key].per_image()) for key, one in own.items()))
            found[method] = next(same, method)
        return found

    def wins(self, first: str, second: str, setting: str = "100%") -> Wins:
        """How often method ``first`` has the smaller drop, by `AverageDrop` at ``setting``."""
        return wins(self.metrics[first, "average_drop", setting], self.metrics[second, "average_drop", setting])


def _limited(metric: Metric, first: int) -> Metric:
    ids, rows = metric.per_image()
    keep = metric.groups(ids) < first
    other = copy.copy(metric)
    other.ids, other.rows = [torch.from_numpy(ids[keep])], [torch.from_numpy(rows[keep]).to(metric.row_type)]
    return other
