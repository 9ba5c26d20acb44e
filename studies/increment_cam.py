"""Increment-CAM: does any reading of its abstract localize better than Grad-CAM?

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.increment_cam imagenet resnet18 --images 240

The list is cut in two. On its first half (which holds the images that suggested the choices of the specification) every reading is tried
and the one of highest `PixelPrecision`, named beforehand because no sharpening moves it, becomes ``increment_cam_tuned``; Grad-CAM gets
as many tries over its layer, its gradients (gated by sign or not) and channels. Only the second half is reported. Every channel is passed
once per resolution and path; readings are combined from those scores. Results: results/studies/increment_cam-<dataset>-<backbone>.csv.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cam_core import METHODS, Probe, metrics
from cam_core.data import Dataset
from cam_core.evaluate import Table, evaluate
from cam_core.learned import jobs
from cam_core.methods import Method, increment, method
from cam_core.results import write_table

RESOLUTIONS, PATHS = (0, 32, 64, 112), ("map", "direct")
WEIGHTS, MERGES = ("increment", "probability", "softmax"), ("sum", "product", "max", "channels")
CHOICE = metrics.PixelPrecision


class Scored:
    """Increment-CAM's passes, made once per image, class, resolution and path, whoever asks."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, ...], increment.Scores] = {}
        self.seconds: dict[tuple[int, str], float] = {}

    def __call__(self, probe: Probe, resolution: int, path: str) -> increment.Scores:
        """The scores of a probe, from memory where it was seen before."""
        key = (resolution, path, probe.images.sum(dtype=torch.float64).item(), tuple(probe.targets.tolist()))
        if key not in self.kept:
            began = time.perf_counter()
            self.kept[key] = increment.score(probe, resolution=resolution, path=path)
            self.seconds[resolution, path] = self.seconds.get((resolution, path), 0.0) + time.perf_counter() - began
        return self.kept[key]


def reading(scored: Scored, resolution: int, path: str, weight: str, merge: str) -> Method:
    """One reading as a method that shares its passes with the others."""

    def function(probe: Probe) -> Tensor:
        return increment.combine(probe, scored(probe, resolution, path), weight=weight, merge=merge).merged

    name = f"increment_cam[{resolution or 'map'}, {path}, {weight}, {merge}]"
    return replace(METHODS["increment_cam"], name=name, function=function)


def readings(scored: Scored) -> Iterator[tuple[Method, dict[str, Any]]]:
    """Every combination; at map resolution there is one path."""
    for resolution, path, weight, merge in itertools.product(RESOLUTIONS, PATHS, WEIGHTS, MERGES):
        if resolution or path == "map":
            options = {"resolution": resolution, "path": path, "weight": weight, "merge": merge}
            yield reading(scored, **options), options


# --- Grad-CAM with as many tries: layers x how gradients become weights x which channels count --------------------------------------------


def tuned_grad_cam(probe: Probe, layer: str, gradients: str, share: float) -> Tensor:
    """Grad-CAM of a layer: mean, positive or element-wise gradients; only the ``share`` of channels of largest |weight| counts."""
    inner = Probe(probe.classifier.at(layer), probe.images, probe.targets) if layer else probe
    g, a = inner.gradients(), inner.activations
    if gradients == "element-wise":
        return (g * a).sum(1).relu()
    weights = (g.relu() if gradients == "positive" else g).mean((2, 3))
    weakest = weights.abs().quantile(1 - share, dim=1, keepdim=True)
    return torch.einsum("bk,bkhw->bhw", torch.where(weights.abs() >= weakest, weights, 0.0), a).relu()


def grad_cams(layers: tuple[str, ...], count: int) -> Iterator[tuple[Method, dict[str, Any]]]:
    """``count`` variants."""
    shares = [1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05, 0.035, 0.025, 0.015, 0.01, 0.005]
    everything = itertools.product(layers, ("mean", "positive", "element-wise"), shares)
    kept = [(layer, kind, share) for layer, kind, share in everything if kind != "element-wise" or share == 1.0]
    for layer, kind, share in kept[:count]:
        options = {"layer": layer, "gradients": kind, "share": share}
        name = f"grad_cam[{layer or 'last'}, {kind}, {share:g}]"
        yield replace(METHODS["grad_cam"], name=name, function=partial(tuned_grad_cam, **options)), options


LAYERS = {"resnet": ("", "layer3"), "mobilenet_v2": ("", "features.13"), "squeezenet": ("", "features.9")}


# --- the two halves ----------------------------------------------------------------------------------------------------------------------


def localization(protocol: str) -> list[metrics.Metric]:
    """What the abstract's claims can mean, under one protocol: squashed view, predicted or present class, min-max then bilinear."""
    out: list[metrics.Metric] = [CHOICE(protocol), metrics.EnergyPointingGame(protocol), metrics.BoxIoU(0.2, protocol=protocol)]
    for threshold in (0.2, 0.5):
        out += [metrics.FalseActivation(threshold, protocol=protocol), metrics.FalseActivation(threshold, "active", protocol)]
    return out


def answered(classifier: Any, data: Callable[[str], Dataset], found: list[Method], wanted: list[metrics.Metric], **more: Any) -> Table:
    """`evaluate` in batches small enough that what is remembered of the scores stays small."""
    return evaluate(classifier, data, found, wanted, batch_size=4, **more)


def study(dataset: str, backbone: str, count: int, score_cams: int) -> pd.DataFrame:
    """All rows of one data set and network: the tries on the first half (role "tried"), the report on the second (role "reported")."""
    root = jobs.find_root(dataset)
    classifier, _ = jobs.network(dataset, backbone, root)
    protocol = "energy_present" if dataset.endswith("voc") or dataset == "voc07" else "energy"
    images = jobs.images(dataset, root, limit=count)

    def half(wanted: slice) -> Callable[[str], Dataset]:
        return lambda view: images(view).part(wanted)

    first, second = half(slice(0, count // 2)), half(slice(count // 2, count))
    scored = Scored()
    tried = dict(readings(scored))
    layers = next((names for family, names in LAYERS.items() if backbone.startswith(family)), ("",))
    rivals = dict(grad_cams(layers, len(tried)))
    rows = answered(classifier, first, [*tried, *rivals], [CHOICE(protocol)]).records()
    rows = rows[rows.metric == CHOICE.name].assign(role="tried", images=count // 2)
    value = dict(zip(rows.method, rows.value, strict=True))
    best, rival = (max(found, key=lambda one: value[one.name]) for found in (tried, rivals))

    scored = Scored()
    settings = tried[best]
    tuned = replace(reading(scored, **settings), name="increment_cam_tuned")
    dealt = {"permuted": f"permuted {settings['weight']}", "equal": "equal"}
    controls = [replace(reading(scored, **{**settings, "weight": w}), name=f"increment_cam_tuned, weights {n}") for n, w in dealt.items()]
    literal = replace(reading(scored, 0, "map", "increment", "sum"), name="increment_cam")
    alone = replace(literal, name="phase 2 alone", function=lambda p: increment.combine(p, scored(p, 0, "map")).low_resolution_score_cam)
    mid = replace(reading(scored, 112, "map", "increment", "sum"), name="increment_cam[mid]")
    names = [
        "grad_cam",
        "grad_cam[power=2]",
        "grad_cam[power=0.5]",
        "layer_cam",
        "grad_cam_pp",
        "mean_activation",
        "center_gaussian",
        "random_map",
    ]
    rivalled = replace(rival, name="grad_cam_tuned")
    squared = replace(rival.power(2), name="grad_cam_tuned[power=2]")
    report = [tuned, *controls, literal, mid, alone, rivalled, squared, *map(method, names), *([method("score_cam")] if score_cams else [])]
    masked = [metrics.AverageDrop(keep) for keep in (1.0, 0.5)] + [metrics.MapMean(), metrics.IncreaseInConfidence()]
    table = answered(classifier, second, report, [*localization(protocol), *masked], limits={"score_cam": score_cams})
    out = [table.records().assign(role="reported")]
    against = [(a, b) for a in ("increment_cam_tuned", "increment_cam", "increment_cam[mid]") for b in ("grad_cam", "grad_cam_tuned")]
    against += [("increment_cam_tuned", control.name) for control in controls]
    for a, b in against:
        for wanted in [*localization(protocol), *masked[:2]]:
            d = table.difference(a, b, wanted.name, wanted.setting)
            out.append(pd.DataFrame([{"protocol": wanted.protocol, "method": a, "than": b, "metric": wanted.name, "setting": wanted.setting,
                                      "value": d.value, "ci_low": d.low, "ci_high": d.high, "n": d.n, "role": "difference"}]))  # fmt: skip
    seconds = pd.DataFrame([{"method": m, "metric": "seconds", "value": s, "role": "reported", "n": 1} for m, s in table.seconds.items()])
    winners = (("increment_cam_tuned", best, tried), ("grad_cam_tuned", rival, rivals))
    chosen = pd.DataFrame([{"method": m, "setting": str(of[w]), "role": "chosen", "value": value[w.name]} for m, w, of in winners])
    facts = {"dataset": dataset, "backbone": backbone, "weights": classifier.weights}
    return pd.concat([rows, *out, seconds, chosen], ignore_index=True).assign(**facts)


def main() -> None:
    """Run the study on one data set and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=list(jobs.SOURCES))
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=240, help="half of them choose, half are reported")
    parser.add_argument("--score-cam", type=int, default=0, help="on how many of the reported images Score-CAM runs")
    given = parser.parse_args()
    frame = study(given.dataset, given.backbone, given.images, given.score_cam)
    write_table(jobs.HOME / f"results/studies/increment_cam-{given.dataset}-{given.backbone}.csv", frame)
    print(frame[frame.role == "chosen"][["method", "setting", "value"]].to_string(index=False))


if __name__ == "__main__":
    main()
