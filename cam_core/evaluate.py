"""Data x methods x metrics -> one table of per-image rows. One pass through the trunk per batch and view; every method shares it."""

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.data import VOC2007, Dataset, Example, collate, inclusive_boxes, wsol_boxes
from cam_core.learned.batches import in_memory
from cam_core.learned.plain import mean_average_precision
from cam_core.learned.training import predict
from cam_core.methods import Method
from cam_core.metrics import Metric, Present
from cam_core.metrics.cues import Cue, cue
from cam_core.metrics.faithfulness import AverageDrop, AverageGain, IncreaseInConfidence, Masked, Wins, wins
from cam_core.metrics.localization import inside
from cam_core.metrics.statistics import Array, Difference, holm, mean, one_by_one, paired_difference, paired_p, same_rows, wilson
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS, Protocol, finish

Data = Callable[[str], Dataset]  # view -> the same images under that view


@dataclass
class Table:
    """What `evaluate` measured: for each (method, metric name, setting) the metric with its per-image rows."""

    metrics: dict[tuple[str, str, str], Metric] = field(default_factory=dict)
    empty: dict[tuple[str, str], NDArray[np.int8]] = field(default_factory=dict)  # (protocol, method) -> image -> -1 not asked, 1 empty
    seconds: dict[str, float] = field(default_factory=dict)  # per map of the last batch, by method
    image_ids: list[str] = field(default_factory=list)

    def records(self, first: int | None = None) -> pd.DataFrame:
        """One row a number: protocol, method, metric, setting, value, ci_low, ci_high, n (images or trials).

        ``first``: on the first images of the list only, which every method has; said in ``setting``. Maps without content are counted in
        rows ``empty_maps``.
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
        """A frame for each metric of each method in turn: all of them may be more than memory should hold (`results.save` takes them so).

        Columns: id, image, row (an array of numbers), protocol, method, metric, setting. Histograms of pixels are left out.
        """
        for (method, name, setting), metric in self.metrics.items():
            if metric.needs in ("cue", "masks"):
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
        """Every method minus ``reference``, then the pairs of ``more`` (first minus second), in every metric and setting that both have.

        Columns: protocol, method, than, metric, setting, value, ci_low, ci_high, n (as in `difference`), p (`paired_p`), p_holm, same_as.
        A family of comparisons, over which Holm corrects, is all rows of one metric. A map that another method already gave
        (`twins`) is named in ``same_as``; its comparison stands in the table, but has no p and no place in the family.
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
    def methods(self) -> list[str]:
        """The methods, in the order in which they were measured."""
        return list(dict.fromkeys(method for method, _, _ in self.metrics))

    def twins(self, reference: str) -> dict[str, str]:
        """Of each method the first one (``reference`` before all) that gives the same rows in every metric of the maps, or itself.

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
        """How often method ``first`` has the smaller drop, by the two's `AverageDrop` at ``setting``."""
        a, b = (self.metrics[method, "average_drop", setting] for method in (first, second))
        assert isinstance(a, Masked)
        assert isinstance(b, Masked)
        return wins(a, b)


def at_equal_mean(classifier: Classifier, data: Data, methods: Sequence[Method], mean: float = 0.3, **options: Any) -> pd.DataFrame:
    """Records of Average Drop, Increase in Confidence and Average Gain with every map brought to one ``mean`` (`Method.at_mean`).

    The methods keep their names, the setting says the mean; a constant map cannot be brought there and keeps its own. ``options`` as in
    `evaluate`.
    """
    brought = [method.at_mean(mean) for method in methods]
    records = evaluate(classifier, data, brought, [AverageDrop(), IncreaseInConfidence(), AverageGain()], **options).records()
    names = {one.name: method.name for one, method in zip(brought, methods, strict=True)}
    records = records[records.metric != "empty_maps"]
    return records.assign(method=records.method.map(names), setting=f"mean {100 * mean:g}%")


class Accuracy(Metric):
    """Share of the images that a network gets right, in percent. Rows [n,1]: 1 if right. Its interval is Wilson's."""

    name = "accuracy"
    protocol = "network"
    higher_is_better = True

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · share of the ones."""
        return 100 * mean(rows[:, 0], weights)

    def interval(self, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Wilson's interval of the rate; ``resamples`` and ``seed`` have nothing to do."""
        _, rows = self.per_image()
        return wilson(int(rows.sum()), len(rows), level)


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
        """Bootstrap over the images; fewer resamples, because each ranks anew."""
        return super().interval(level, resamples, seed)


BLOCK = 256  # images decoded at a time: a whole validation set does not fit in memory


def network_table(classifier: Classifier, dataset: Dataset, method: str = "plain") -> Table:
    """What a network is worth without any map: accuracy or, with several classes an image, mean average precision, under ``method``."""
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
    """A row of `Table.records` for the papers' habit: the highest accuracy on the test images after any epoch of a training.

    ``summary``: of a training with ``best_on_test``. No interval: those images have chosen the value.
    """
    best, metric = summary["best_on_test"], Accuracy()
    row = {"protocol": metric.protocol, "method": method, "metric": metric.name, "setting": "best on test", "value": best["accuracy"]}
    return pd.DataFrame([{**row, "ci_low": float("nan"), "ci_high": float("nan"), "n": best["n"]}])


def _limited(metric: Metric, first: int) -> Metric:
    ids, rows = metric.per_image()
    keep = metric.groups(ids) < first
    other = copy.copy(metric)
    other.ids, other.rows = [torch.from_numpy(ids[keep])], [torch.from_numpy(rows[keep]).to(metric.row_type)]
    return other


def evaluate(
    classifier: Classifier,
    data: Data,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    *,
    limits: Mapping[str, int] | None = None,
    batch_size: int = 8,
    chunk: int | None = None,
    progress: bool = True,
) -> Table:
    """Measure every metric, under its protocol, for every method, on a frozen copy of the classifier.

    ``data(view)`` opens the images under a view. ``limits``: method name -> only the first so many images of the list. ``metrics`` are
    copied for each method; those that share a measure are measured once; one that needs masks is left out with a warning where the data
    set has none. ``batch_size`` images make a probe, ``chunk`` masked ones a pass.
    """
    frozen, limits, table = classifier.frozen(), limits or {}, Table()
    opened = {view: data(view) for view in {PROTOCOLS[metric.protocol].view for metric in metrics}}
    metrics = [metric for metric in metrics if _answerable(metric, opened[PROTOCOLS[metric.protocol].view])]
    for method in methods:
        table.metrics |= {(method.name, metric.name, metric.setting): copy.deepcopy(metric) for metric in metrics}
    for view in sorted({PROTOCOLS[metric.protocol].view for metric in metrics}):
        dataset = opened[view]
        table.image_ids = dataset.ids
        wanted = [metric for metric in metrics if PROTOCOLS[metric.protocol].view == view]
        loader: Iterable[dict[str, object]] = DataLoader(dataset, batch_size, collate_fn=collate)
        bar = tqdm(loader, desc=f"{frozen.name} {view}", unit="batch", disable=not progress)
        for number, batch in enumerate(bar):
            _measure(table, frozen, dataset, batch, number * batch_size, methods, wanted, limits, chunk)
    return table


def _answerable(metric: Metric, dataset: Dataset) -> bool:
    """Whether the data set is annotated with what a metric needs; a warning says which metric is left out for want of masks."""
    if metric.needs != "masks" or any(item.segmentation is not None for item in dataset.annotations):
        return True
    what = f"{type(dataset).__name__} {dataset.split}"
    warnings.warn(f"{metric.name} is left out: {what} has no segmentation masks; take a data set that has (CUB200 with them)", stacklevel=3)
    return False


def _measure(
    table: Table,
    classifier: Classifier,
    dataset: Dataset,
    batch: dict[str, object],
    start: int,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    limits: Mapping[str, int],
    chunk: int | None,
) -> None:
    examples: list[Example] = batch["examples"]  # type: ignore[assignment]
    images: Tensor = batch["images"]  # type: ignore[assignment]
    base = Probe(classifier, images.to(classifier.mean.device), chunk=chunk)
    for rule, group in groupby(sorted(metrics, key=lambda m: PROTOCOLS[m.protocol].target), lambda m: PROTOCOLS[m.protocol].target):
        asked = list(group)
        index, targets = _targets(rule, base, dataset, examples, start)
        shared: dict[tuple[bool, ...], Probe] = {}  # what does not depend on the map (random erasing, say) is asked once for all methods
        for method in methods:
            within = index + start < limits.get(method.name, len(dataset))
            if not within.any():
                continue
            probe = base.pairs(index[within], targets[within])
            began = time.perf_counter()
            raw = method(probe)
            table.seconds[method.name] = (time.perf_counter() - began) / len(raw)
            asked_of, probe = [examples[i] for i in index[within]], shared.setdefault(tuple(within.tolist()), probe)
            _record(table, dataset, method, raw, probe, asked_of, (index[within] + start).tolist(), asked)


def _record(
    table: Table,
    dataset: Dataset,
    method: Method,
    raw: Tensor,
    probe: Probe,
    examples: list[Example],
    ids: list[int],
    metrics: Sequence[Metric],
) -> None:
    for protocol in {metric.protocol: PROTOCOLS[metric.protocol] for metric in metrics}.values():
        empties = table.empty.setdefault((protocol.name, method.name), np.full(len(dataset), -1, np.int8))
        np.maximum.at(empties, ids, (maps.is_empty(raw) & (not method.finished)).cpu().numpy())  # all ones is no failure
        finished = method.class_maps(probe) if protocol.name == "cue" else _finished(method, raw, probe, examples, protocol)
        shared = sorted((m for m in metrics if m.protocol == protocol.name), key=lambda m: repr(m.shares))
        for _, group in groupby(shared, lambda m: repr(m.shares)):
            same = list(group)
            keep, rows = _measured(same[0], dataset, method, finished, probe, examples, ids)
            for metric in same:
                table.metrics[method.name, metric.name, metric.setting].record(rows, keep)


def _measured(
    metric: Metric, dataset: Dataset, method: Method, finished: Any, probe: Probe, examples: list[Example], ids: list[int]
) -> tuple[list[int], Tensor]:
    """Under which ids, and what, a metric's measure gives of the maps when it is handed what it needs."""
    if metric.needs == "points":
        present = [_present(dataset, i, int(target)) for i, target in zip(ids, probe.targets, strict=True)]
        return ids, metric.measure(finished, present)
    if metric.needs.startswith("boxes"):
        return _against_boxes(metric, finished, probe, examples, ids)
    if metric.needs == "masks":
        held = [i for i, example in enumerate(examples) if example.segmentation is not None]
        return [ids[i] for i in held], metric.measure(finished[held], [examples[i].segmentation for i in held])
    if metric.needs == "cue":
        return ids, metric.measure(finished, [_cue(example) for example in examples])
    if metric.needs == "method":
        return ids, metric.measure(finished, probe, partial(_explained, method, examples, PROTOCOLS[metric.protocol]))
    return ids, metric.measure(finished, probe)


def _against_boxes(metric: Metric, finished: Tensor, probe: Probe, examples: list[Example], ids: list[int]) -> tuple[list[int], Tensor]:
    """The same for metrics that compare with boxes, on the images that have one; a crop may have lost it."""
    protocol = PROTOCOLS[metric.protocol]
    classes: list[Any] = probe.targets.tolist() if protocol.target == "present" else [None] * len(ids)
    boxes = [wsol_boxes(e, e.image.shape[-1]) if protocol.name == "wsol" else _boxes(e, c) for e, c in zip(examples, classes, strict=True)]
    held = [i for i, box in enumerate(boxes) if len(box)]
    keep = [ids[i] if classes[i] is None else ids[i] * metric.stride + classes[i] for i in held]
    known: list[Any] = []
    if metric.needs.endswith("correct") and protocol.target != "present":
        known = [[int(probe.logits[i].argmax()) == examples[i].label for i in held]]
    return keep, metric.measure(finished[held], [boxes[i] for i in held], *known)


def _finished(method: Method, raw: Tensor, probe: Probe, examples: list[Example], protocol: Protocol) -> Any:
    """Maps as the protocol wants them; for pointing a list of maps at each original image's size."""
    if protocol.name == "pointing":
        return [maps.upsample(one, example.size) for one, example in zip(raw, examples, strict=True)]
    if protocol.finishing == "cells":
        return finish(raw, probe.activations.shape[-2:], "cells")
    return raw if method.finished else finish(raw, probe.images.shape[-2:], protocol.finishing)


def _explained(method: Method, examples: list[Example], protocol: Protocol, probe: Probe) -> Tensor:
    """Finished maps of other images in the place of the examples': what a metric calls that must explain again."""
    finished: Tensor = _finished(method, method(probe), probe, examples, protocol)
    return finished


def _boxes(example: Example, label: int | None = None) -> Tensor:
    """Inclusive boxes [n,4] in pixels of the view, of all objects or of one class."""
    if example.boxes is None:
        return torch.empty(0, 4, dtype=torch.int64)
    boxes = inclusive_boxes(example.boxes)
    return boxes if label is None or example.box_labels is None else boxes[example.box_labels == label]


def _cue(example: Example) -> Cue:
    """The parts' cells of a bird, cut at its segmentation or, where there is none, at its box."""
    assert example.parts is not None
    bird = inside(_boxes(example), example.image.shape[-2:]) if example.segmentation is None else example.segmentation
    return cue(example.label, example.parts, bird)


def _present(dataset: Dataset, index: int, label: int) -> Present:
    """A trial of the pointing game: all boxes of the class in pixels of the original image, difficult objects included."""
    assert isinstance(dataset, VOC2007)
    item = dataset.annotations[index]
    assert item.boxes is not None
    assert item.box_labels is not None
    return Present(label, inclusive_boxes(item.boxes[item.box_labels == label]), label in dataset.hard(index))


def _targets(rule: str, base: Probe, dataset: Dataset, examples: list[Example], start: int) -> tuple[Tensor, Tensor]:
    """Which image of the batch each explanation is of, and its class."""
    everyone = torch.arange(len(examples))
    if rule == "prediction":
        return everyone, base.targets.cpu()
    if rule == "label":
        return everyone, torch.tensor([example.label for example in examples])
    if not isinstance(dataset, VOC2007):
        raise ValueError(f"every present class is asked for, which a {type(dataset).__name__} data set does not state: take VOC2007")
    pairs = [(i, c) for i in range(len(examples)) for c in dataset.present(start + i)]
    index, targets = zip(*pairs, strict=True)
    return torch.tensor(index), torch.tensor(targets)
