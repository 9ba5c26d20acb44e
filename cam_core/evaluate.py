"""Data x methods x metrics -> one table of per-image rows. All methods share one pass through the trunk per batch and view."""

import copy
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Subset

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.data import Dataset, Example, collate
from cam_core.kept import Kept, add, write
from cam_core.methods import Method
from cam_core.metrics import AverageDrop, AverageGain, IncreaseInConfidence, Metric
from cam_core.probe import Probe
from cam_core.progress import Bar
from cam_core.protocol import PROTOCOLS, Explained
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
    kept: Kept | None = None,
) -> Table:
    """Measure every metric, under its protocol, for every method, on a frozen copy of the classifier.

    ``data(view)`` opens the images under a view. ``limits``: method name -> only the first so many images of the list. ``metrics`` are
    copied for each method; those that share a measure are measured once; one that needs masks is left out with a warning where the data set
    has none. All methods share one probe per ``batch_size`` images; ``chunk`` masked images pass the network at once. ``kept``: where rows
    are kept as they are measured, and found again; one shard of several keeps its own, and its table is empty. ValueError if two metrics
    have the same name and setting.
    """
    frozen, limits = classifier.frozen(), limits or {}
    _refuse_doubles(metrics)
    opened = {view: data(view) for view in {PROTOCOLS[metric.protocol].view for metric in metrics}}
    metrics = [metric for metric in metrics if _answerable(metric, opened[PROTOCOLS[metric.protocol].view])]
    seen = {view: (opened[view], own) for view, own in sorted(_by(metrics, lambda metric: PROTOCOLS[metric.protocol].view).items())}
    ids = next((dataset.ids for dataset, _ in seen.values()), [])

    def empty() -> Table:
        return Table(
            {(method.name, metric.name, metric.setting): copy.deepcopy(metric) for method in methods for metric in metrics}, image_ids=ids
        )

    def measure(table: Table, places: range) -> None:
        frozen.restart()  # so that a block has the same bytes whatever was measured before it, here or in another shard
        for view, (dataset, own) in seen.items():
            loader = DataLoader(Subset(dataset, places), batch_size, collate_fn=collate, generator=torch.Generator())
            bar.set_description_str(f"{frozen.name} {view}", refresh=False)
            for start, batch in zip(places[::batch_size], loader, strict=True):
                base = Probe(frozen, batch["images"].to(frozen.mean.device), chunk=chunk)
                _measure_batch(table, base, dataset, batch["examples"], start, methods, own, limits)
                bar.update(len(batch["examples"]))

    whole, evaluation = empty(), ""
    if kept is not None:
        of = [(method.name, limits.get(method.name)) for method in methods], [(m.name, m.setting, m.protocol) for m in metrics]
        evaluation = repr((frozen.digest(), [(view, dataset.digest()) for view, (dataset, _) in seen.items()], of, batch_size, chunk))
    blocks = [*(kept or Kept(Path())).blocks(len(ids), batch_size)]  # the same ones where nothing is kept, for the same bytes
    found = sum(len(places) for places in blocks if kept and kept.path(evaluation, places).exists())
    total, known = (len(seen) * count for count in (sum(map(len, blocks)), found))
    with Bar(total=total, initial=known, unit="image", disable=not progress) as bar:
        for places in blocks:
            if kept is None:
                measure(whole, places)
            elif not add(path := kept.path(evaluation, places), whole):
                measure(block := empty(), places)
                write(path, block)
                add(path, whole)
    return whole if kept is None or kept.of == 1 else Table()


def _measure_batch(
    table: Table,
    base: Probe,
    dataset: Dataset,
    examples: Sequence[Example],
    start: int,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    limits: Mapping[str, int],
) -> None:
    """Record what the metrics measure of all methods on one batch, whose first image has the place ``start`` in the data set."""
    probes = dict[Hashable, Probe]()
    for _, asked in sorted(_by(metrics, lambda metric: PROTOCOLS[metric.protocol].target).items()):
        index, targets = PROTOCOLS[asked[0].protocol].targets(base, dataset, examples, start)
        for method in methods:
            within = index + start < limits.get(method.name, len(dataset))
            pairs = torch.stack([index[within], targets[within]])
            if not pairs.numel():
                continue
            key = tuple(pairs.flatten().tolist())
            probe = probes[key] = probes.get(key) or base.pairs(*pairs)
            _measure(table, Explained(method, probe, [examples[i] for i in pairs[0]], (pairs[0] + start).tolist(), dataset), asked)


def _measure(table: Table, explained: Explained, metrics: Sequence[Metric]) -> None:
    """Explain, and record under each protocol what the metrics measure of the maps."""
    method, began = explained.method, time.perf_counter()
    raw = method(explained.probe)
    table.spent[method.name] = table.spent.get(method.name, 0) + np.array([time.perf_counter() - began, len(raw)])
    empty = (maps.is_empty(raw) & (not method.finished)).cpu().numpy()  # a map of ones is intended there
    for protocol, own in _by(metrics, lambda metric: metric.protocol).items():
        np.maximum.at(table.empty.setdefault((protocol, method.name), np.full(len(explained.dataset), -1, np.int8)), explained.ids, empty)
        finished = PROTOCOLS[protocol].finish(raw, explained)
        for same in _by(own, lambda metric: metric.shares).values():
            ids, rows = same[0].measured(finished, explained)
            for metric in same:
                table.metrics[method.name, metric.name, metric.setting].record(rows, ids)


def _by(metrics: Iterable[Metric], key: Callable[[Metric], Any]) -> dict[Any, list[Metric]]:
    groups: dict[Any, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(key(metric), []).append(metric)
    return groups


def _answerable(metric: Metric, dataset: Dataset) -> bool:
    """Whether the data set has the annotation that a metric needs; if not, a warning says which metric is left out and why."""
    if wanting := metric.lacking(dataset):
        warnings.warn(f"{metric.name} is left out: {type(dataset).__name__} {dataset.split} has no {wanting}", stacklevel=3)
    return not wanting


def _refuse_doubles(metrics: Sequence[Metric]) -> None:
    for (name, setting), same in _by(metrics, lambda metric: (metric.name, metric.setting)).items():
        if len(same) > 1:
            raise ValueError(f"{len(same)} metrics are called {name} {setting!r}, their rows would be mixed: evaluate them one by one")


def at_equal_mean(classifier: Classifier, data: Data, methods: Sequence[Method], mean: float = 0.3, **options: Any) -> pd.DataFrame:
    """Records of Average Drop, Increase in Confidence and Average Gain with every map brought to one ``mean`` (`Method.at_mean`).

    The methods keep their names and the setting gives the mean; a constant map keeps its own mean. ``options`` as in `evaluate`.
    """
    brought = [method.at_mean(mean) for method in methods]
    records = evaluate(classifier, data, brought, [AverageDrop(), IncreaseInConfidence(), AverageGain()], **options).records()
    names = {one.name: method.name for one, method in zip(brought, methods, strict=True)}
    records = records[records.metric != "empty_maps"]
    return records.assign(method=records.method.map(names), setting=f"mean {100 * mean:g}%")
