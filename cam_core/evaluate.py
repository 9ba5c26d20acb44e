"""Data x methods x metrics -> one table of per-image rows. One pass through the trunk per batch and view; every method shares it."""

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.data import VOC2007, Dataset, Example, collate, inclusive_boxes, wsol_boxes
from cam_core.methods import Method
from cam_core.metrics import Metric, Present
from cam_core.metrics.cues import Cue, bird_in_view, cue
from cam_core.metrics.faithfulness import AverageDrop, AverageGain, IncreaseInConfidence
from cam_core.metrics.localization import inside
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS, Protocol, finish
from cam_core.table import Table

Data = Callable[[str], Dataset]  # view -> the same images under that view


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


def _answerable(metric: Metric, dataset: Dataset) -> bool:
    """Whether the data set is annotated with what a metric needs; a warning says which metric is left out, and for want of what."""
    if metric.needs == "masks" and all(item.segmentation is None for item in dataset.annotations):
        wanting = "segmentation masks; take a data set that has (CUB200 with them)"
    elif (
        PROTOCOLS[metric.protocol].target == "present"
        and isinstance(dataset, VOC2007)
        and not any(map(dataset.present, range(len(dataset))))
    ):
        wanting = "object that is not flagged difficult; take other images"
    else:
        return True
    warnings.warn(f"{metric.name} is left out: {type(dataset).__name__} {dataset.split} has no {wanting}", stacklevel=3)
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
            asked = max(same, key=lambda metric: metric.needs == "label")  # whose rows have a column more
            keep, rows = _measured(asked, dataset, method, finished, probe, examples, ids)
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
    if metric.needs == "label":
        return ids, metric.measure(finished, probe, [example.label for example in examples])
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
    size, mask = example.image.shape[-2:], example.official_mask
    bird = inside(_boxes(example), size) if mask is None else bird_in_view(mask, size)
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
    index, targets = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)  # none where every object is difficult
    return index, targets
