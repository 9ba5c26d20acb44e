"""Tables of the studies and benchmarks, made from results/studies/*.csv and results/benchmarks/*.csv; nothing here computes a number."""

import csv
import inspect
from pathlib import Path

import experiments
import metric_tables
import races
import trainings
from cells import list_table
from names import name

STUDIES = experiments.KINDS | trainings.KINDS | metric_tables.KINDS
SUMMARIES = {"increment_cam": experiments.readings}  # of all results of one kind


def study(folder, what):
    """The table of one study by its name: the part before a dash names the kind, `forms-resnet18` being of the kind `forms`."""
    if what in SUMMARIES:
        return SUMMARIES[what]([_rows(path) for path in sorted(Path(folder).glob(f"{what}-*.csv"))])
    return _table(folder, what, STUDIES)


def benchmark(folder, what):
    """The tables of one benchmark by its name."""
    return _table(folder, what, races.KINDS)


def _table(folder, what, kinds):
    path = Path(folder) / f"{what}.csv"
    if not path.exists():
        return f"*Not run yet: {', '.join(name(part) for part in what.split('-'))}.*\n"
    return kinds[what.partition("-")[0]](_rows(path))


def _rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def methods(table):
    """The registry as a table: what each method is, whose, what it costs, whether it depends on the class."""
    lines = []
    for key, one in table.items():
        function, options = getattr(one.function, "func", one.function), getattr(one.function, "keywords", {})
        told = " ".join((function.__doc__ or "").strip().split("\n\n")[0].split()).replace("``", "`")
        if options:
            told += " Here with " + ", ".join(f"{option.replace('_', ' ')} = {value}" for option, value in options.items()) + "."
        if not one.target_dependent:
            told += " The same for every class."
        source = f"{one.paper}, {one.year}" if one.year else one.paper
        lines.append([f"`{key}`", told, source, one.passes])
    return list_table(["name", "what it computes", "source", "passes"], lines, "", kind="prose", widths="22 46 18 14")


NEEDS = {
    "probe": "the network", "label": "the network and the label", "method": "the network, and the method again",
    "boxes": "boxes", "masks": "masks",
    "boxes, correct": "boxes; whether the prediction is right", "points": "boxes of every class present", "cue": "the parts of two classes",
}  # fmt: skip
MEASURES = ("wins", "map_stability", "cascading_randomization")  # that give numbers without being a Metric


def metrics(module):
    """Every metric as a table: what it measures, which direction is better, its protocol and what it needs beside the maps."""
    lines = []
    for key in module.__all__:
        one = getattr(module, key)
        if key not in MEASURES and not (isinstance(one, type) and issubclass(one, module.Metric) and one is not module.Metric):
            continue
        told = inspect.getdoc(one).split("\n")[0].replace("``", "`")
        if key in MEASURES:
            lines.append([f"`{key}`", told, "–"])
            continue
        option = inspect.signature(one).parameters.get("protocol")
        protocol = one.protocol or ("" if option is None else option.default)
        better = {True: "higher", False: "lower", None: "neither"}[one.higher_is_better]
        under = f"; `{protocol}`" if protocol else ""
        lines.append([f"`{key}`", told, f"{better}{under}; {NEEDS.get(one.needs, one.needs)}"])
    return list_table(["metric", "what it measures", "better; protocol; needs"], lines, "", kind="prose", widths="22 50 28")


VIEWS = {"crop": "short side to 256, centre crop 224", "squash": "squash to 224 × 224"}
TARGETS = {"prediction": "prediction", "label": "label", "present": "every class that is present"}
FINISHINGS = {
    "min_max_bilinear": "min-max, then bilinear", "bilinear_min_max": "bilinear, then min-max", "bicubic_min_max": "bicubic, then min-max",
    "none_bilinear": "bilinear, not rescaled", "cells": "none; finer maps are averaged to the grid",
}  # fmt: skip
FILLS = {None: "–", "black": "black", "mean": "mean colour", "imputed": "imputed"}


def protocols(table):
    """Every protocol as a row: its view, the class explained, the finishing of the map, what replaces a hidden pixel."""
    lines = []
    for key, one in table.items():
        lines.append([f"`{key}`", VIEWS[one.view], TARGETS[one.target], FINISHINGS[one.finishing], FILLS[one.fill]])
    head = ["protocol", "view", "explained class", "finishing of the map", "fill of what is hidden"]
    return list_table(head, lines, "", kind="prose")
