"""Tables of what the library has: every method, every metric, every protocol."""

import inspect

from cells import list_table

import cam_core.metrics
from cam_core.methods import METHODS
from cam_core.metrics import Metric
from cam_core.protocol import PROTOCOLS


def methods():
    """The registry as a table: what each method is, whose, what it costs, whether it depends on the class."""
    lines = []
    for key, one in METHODS.items():
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
    "removal": "the network's answers to the image without each part",
}  # fmt: skip
MEASURES = ("wins", "map_stability", "cascading_randomization")  # that give numbers without being a Metric


def metrics():
    """Every metric as a table: what it measures, which direction is better, its protocol and what it needs beside the maps."""
    lines = []
    for key in cam_core.metrics.__all__:
        one = getattr(cam_core.metrics, key)
        if key in MEASURES:
            conditions = "–"
        elif isinstance(one, type) and issubclass(one, Metric) and one is not Metric:
            option = inspect.signature(one).parameters.get("protocol")
            protocol = one.protocol or ("" if option is None else option.default)
            better = {True: "higher", False: "lower", None: "neither"}[one.higher_is_better]
            conditions = f"{better}{f'; `{protocol}`' if protocol else ''}; {NEEDS.get(one.needs, one.needs)}"
        else:
            continue
        lines.append([f"`{key}`", inspect.getdoc(one).split("\n")[0].replace("``", "`"), conditions])
    return list_table(["metric", "what it measures", "better; protocol; needs"], lines, "", kind="prose", widths="22 50 28")


VIEWS = {"crop": "short side to 256, centre crop 224", "squash": "squash to 224 × 224"}
TARGETS = {"prediction": "prediction", "label": "label", "present": "every class that is present"}
FINISHINGS = {
    "min_max_bilinear": "min-max, then bilinear", "bilinear_min_max": "bilinear, then min-max", "bicubic_min_max": "bicubic, then min-max",
    "none_bilinear": "bilinear, not rescaled", "cells": "none; finer maps are averaged to the grid",
}  # fmt: skip
FILLS = {None: "–", "black": "black", "mean": "mean colour", "imputed": "imputed"}


def protocols():
    """Every protocol as a row: its view, the class explained, the finishing of the map, what replaces a hidden pixel."""
    head = ["protocol", "view", "explained class", "finishing of the map", "fill of what is hidden"]
    lines = [
        [f"`{one.name}`", VIEWS[one.view], TARGETS[one.target], FINISHINGS[one.finishing], FILLS[one.fill]] for one in PROTOCOLS.values()
    ]
    return list_table(head, lines, "", kind="prose")
