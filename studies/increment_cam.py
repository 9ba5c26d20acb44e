"""Increment-CAM: does any reading of its abstract localize better than Grad-CAM?

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.increment_cam imagenet resnet18 --images 240

The list is cut in two. On its first half (which includes the images that suggested the choices of the specification) every reading is
tried, and the one with the highest `PixelPrecision` becomes ``increment_cam_tuned`` (a criterion fixed beforehand, because sharpening at
image size does not change it); Grad-CAM gets as many tries over its layer, its exponent, its gradients (gated by sign or not) and channels.
Only the second half is reported. Every channel passes once per layer, resolution, path and kind of mask; selections, weights and merges are
computed from these scores. Results: results/studies/increment_cam-<dataset>-<backbone>.csv.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cam_core import METHODS, Probe, maps, metrics
from cam_core.evaluate import evaluate
from cam_core.methods import Method, increment, method
from cam_core.methods.control import image_seeds
from cam_core.metrics.randomization import spearman
from cam_core.metrics.statistics import bootstrap
from cam_core.table import Table
from reproduce import jobs, sources
from reproduce.files import write_table

RESOLUTIONS = (0, 32, 64, 112, 224)  # sides of what enters the network; 0: as small as the map
MASKS = ("channel", "gated")
SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {  # of the channels, by Grad-CAM's weights [B,K]
    "positive": lambda alpha: alpha > 0,
    "strongest": lambda alpha: (alpha > 0) & (alpha >= alpha.quantile(0.9, dim=1, keepdim=True)),  # and in the highest tenth
    "all": lambda alpha: torch.ones_like(alpha, dtype=torch.bool),
}
WEIGHTS, MERGES = ("increment", "probability", "softmax"), ("sum", "product", "max", "channels")
EXPONENTS = (1, 0.5, 2, 4)  # of Grad-CAM, before it is enlarged
CHOICE = metrics.PixelPrecision
Image = tuple[float, tuple[int, ...]]  # identifies an image and class


@dataclass(frozen=True)
class Scores(increment.Scores):
    """Scores of all channels, from which those of any selection follow without another pass."""

    alpha: Tensor  # [B,K], Grad-CAM's weights

    def narrowed(self, select: str) -> "Scores":
        """The scores that `increment.score` would give for the channels of a selection alone."""
        return replace(self, selected=self.selected & SELECTIONS[select](self.alpha))


class Passes:
    """Increment-CAM's passes and the probes of other layers, computed once per image and class and shared."""

    def __init__(self) -> None:
        self.scores: dict[tuple[str, int | str, str, str], dict[Image, Scores]] = {}
        self.latest: dict[str, tuple[Image, Probe]] = {}

    def at(self, layer: str, probe: Probe) -> Probe:
        """The same images and classes at another layer; "" is the probe's own."""
        if not layer:
            return probe
        found = self.latest.get(layer)
        if found is None or found[0] != _image(probe):
            found = self.latest[layer] = _image(probe), Probe(probe.classifier.at(layer), probe.images, probe.targets)
        return found[1]

    def score(self, layer: str, resolution: int | str, path: str, masks: str, probe: Probe) -> Scores:
        """`increment.score` of all channels at the layer, cached for images seen before."""
        kept = self.scores.setdefault((layer, resolution, path, masks), {})
        if _image(probe) not in kept:
            at = self.at(layer, probe)
            found = increment.score(at, resolution=resolution, path=path, masks=masks, select="all")
            kept[_image(probe)] = Scores(**vars(found), alpha=at.gradients().mean((2, 3)))
        return kept[_image(probe)]


def _image(probe: Probe) -> Image:
    return probe.images.sum(dtype=torch.float64).item(), tuple(probe.targets.tolist())


def weights(probe: Probe, scores: increment.Scores, weight: str) -> str | Tensor:
    """``weight`` as `increment.phases` takes it: its name or, of the controls, the weights [B,K] themselves.

    "equal": all ones. "permuted increment", "permuted softmax", ...: those weights, permuted over the scored channels by the image's seed.
    """
    if weight == "equal":
        return torch.ones_like(scores.probability[:, 2:])
    if not weight.startswith("permuted "):
        return weight
    dealt = increment.WEIGHTS[weight.removeprefix("permuted ")](scores).clone()
    for row, chosen, seed in zip(dealt, scores.selected, image_seeds(probe, 0), strict=True):
        order = torch.randperm(int(chosen.sum()), generator=torch.Generator().manual_seed(seed)).to(row.device)
        row[chosen] = row[chosen][order]
    return dealt


def reading(
    passes: Passes,
    layer: str,
    resolution: int | str,
    path: str,
    weight: str,
    merge: str,
    masks: str = "channel",
    select: str = "positive",
) -> Method:
    """One reading as a method that shares its passes with the others."""

    def function(probe: Probe) -> Tensor:
        at, scores = passes.at(layer, probe), passes.score(layer, resolution, path, masks, probe).narrowed(select)
        return increment.phases(at, scores, weight=weights(at, scores, weight), merge=merge).merged

    name = f"increment_cam[{layer or 'last'}, {resolution or 'map'}, {path}, {masks}, {select}, {weight}, {merge}]"
    return replace(METHODS["increment_cam"], name=name, function=function)


def readings(
    passes: Passes, layers: Sequence[str], resolutions: Sequence[int], masks: Sequence[str] = MASKS
) -> Iterator[tuple[Method, dict[str, Any]]]:
    """Every combination; at map resolution there is one path."""
    dimensions = {"layer": layers, "resolution": resolutions, "path": ("map", "direct"), "masks": masks, "select": SELECTIONS,
                  "weight": WEIGHTS, "merge": MERGES}  # fmt: skip
    for values in itertools.product(*dimensions.values()):
        options: dict[str, Any] = dict(zip(dimensions, values, strict=True))
        if options["resolution"] or options["path"] == "map":
            yield reading(passes, **options), options


def knowledge(passes: Passes) -> pd.DataFrame:
    """How informative the weights of the second phase are: a row (role "weights") for each layer, resolution, path and kind of mask.

    Mean over images, over the channels with a positive Grad-CAM weight: Spearman's correlation of the increments with those at the largest
    resolution (Score-CAM's own masks and image) and the effective number of channels as a share of those scored; and the target's rank on
    the unmasked reduced image. Equal increments correlate by 0; increments that are all 0 have no effective number and, where that is so on
    every image, no row.
    """
    rows = []
    for (layer, resolution, path, masks), scores in passes.scores.items():
        finest = max((r, p) for at, r, p, _ in passes.scores if at == layer and p == "direct")
        found: dict[str, list[float]] = {"spearman": [], "effective_share": [], "rank": []}
        for image, kept in scores.items():
            full = passes.scores[layer, *finest, "channel"][image]
            for i, selected in enumerate(kept.selected & full.selected & (kept.alpha > 0)):
                one, other = ((s.probability[i, 2:] - s.probability[i, 0])[selected].cpu().numpy() for s in (kept, full))
                if len(one) > 2:
                    found["spearman"].append(float(spearman(one[None], other[None])[0]))
                    found["effective_share"].append(float(np.abs(one).sum() ** 2 / (one**2).sum() / len(one)) if one.any() else math.nan)
                    found["rank"].append(float(kept.rank_low[i]))
        for metric, values in found.items():
            known = np.array(values)[np.isfinite(values)]
            if not len(known):
                continue
            low, high = bootstrap(known)
            where = f"{layer or 'last'}, {resolution or 'map'}, {path}" + (f", {masks}" if masks != "channel" else "")
            rows.append({"role": "weights", "method": where, "metric": metric,
                         "setting": f"of {finest[0]}", "value": known.mean(), "ci_low": low, "ci_high": high, "n": len(known)})  # fmt: skip
    return pd.DataFrame(rows)


# --- Grad-CAM with as many tries: exponents x layers x how gradients become weights x which channels count --------------------------------


def tuned_grad_cam(probe: Probe, passes: Passes, layer: str, gradients: str, share: float, exponent: float) -> Tensor:
    """Grad-CAM of a layer: mean, positive or element-wise gradients; only the ``share`` of channels of largest |weight| counts.

    Min-maxed and raised to the ``exponent``, at the layer's resolution.
    """
    inner = passes.at(layer, probe)
    g, a = inner.gradients(), inner.activations
    if gradients == "element-wise":
        heat = (g * a).sum(1).relu()
    else:
        weights = (g.relu() if gradients == "positive" else g).mean((2, 3))
        weakest = weights.abs().quantile(1 - share, dim=1, keepdim=True)
        heat = torch.einsum("bk,bkhw->bhw", torch.where(weights.abs() >= weakest, weights, 0.0), a).relu()
    return maps.min_max(heat) ** exponent


def grad_cams(passes: Passes, layers: Sequence[str], count: int) -> Iterator[tuple[Method, dict[str, Any]]]:
    """``count`` variants; as many shares of channels, from all down to one in two hundred, as that needs."""
    shares = np.geomspace(1, 0.005, math.ceil((count / len(layers) / len(EXPONENTS) - 1) / 2)).round(4).tolist()
    kinds = [("element-wise", 1.0), *itertools.product(("mean", "positive"), shares)]
    for (kind, share), layer, exponent in itertools.islice(itertools.product(kinds, layers, EXPONENTS), count):
        options = {"layer": layer, "gradients": kind, "share": share, "exponent": exponent}
        name = f"grad_cam[{layer or 'last'}, {kind}, {share:g}, {exponent:g}]"
        yield replace(METHODS["grad_cam"], name=name, function=partial(tuned_grad_cam, passes=passes, **options)), options


LAYERS = {"resnet8": ("", "layer2"), "resnet": ("", "layer3"), "mobilenet_v2": ("", "features.13"), "squeezenet": ("", "features.9"),
          "efficientnet_lite0": ("", "blocks.4")}  # fmt: skip


# --- the two halves ----------------------------------------------------------------------------------------------------------------------


def localization(protocol: str) -> list[metrics.Metric]:
    """Metrics for the abstract's claims, under one protocol: squashed view, predicted or present class, min-max then bilinear."""
    out: list[metrics.Metric] = [CHOICE(protocol), metrics.EnergyPointingGame(protocol), metrics.MaximumInBox(protocol)]
    for threshold in (0.2, 0.5):
        out += [metrics.FalseActivation(threshold, protocol=protocol), metrics.FalseActivation(threshold, "active", protocol)]
    return out


REPORTED = ("grad_cam", "grad_cam[power=2]", "grad_cam[power=0.5]", "layer_cam", "grad_cam_pp", "mean_activation", "center_gaussian",
            "random_map")  # fmt: skip


def study(
    dataset: str,
    backbone: str,
    count: int,
    score_cams: int,
    resolutions: Sequence[int] = RESOLUTIONS,
    masks: Sequence[str] = MASKS,
    **network: Any,
) -> pd.DataFrame:
    """All rows of one data set and network: the tries on the first half (role "tried"), the report on the second (role "reported")."""
    root = sources.find_root(dataset)
    classifier, _ = jobs.network(dataset, backbone, root, **network)
    several = dataset in ("voc07", "drawn_voc")
    protocol = "energy_present" if several else "energy"
    images = sources.images(dataset, root, limit=count)
    other_cuts = classifier.whole and next((names for family, names in LAYERS.items() if backbone.startswith(family)), None)
    layers = other_cuts or ("",)  # a trunk with our own head (voc07, cub) has only one cut

    def answered(half: slice, found: list[Method], wanted: list[metrics.Metric], **more: Any) -> Table:
        return evaluate(classifier, lambda view: images(view).part(half), found, wanted, batch_size=4, **more)

    passes = Passes()
    tried = dict(readings(passes, layers, resolutions, masks))
    rivals = dict(grad_cams(passes, layers, len(tried)))
    first = answered(slice(0, count // 2), [*tried, *rivals], [CHOICE(protocol)]).records()
    first = first[first.metric == CHOICE.name].assign(role="tried", images=count // 2)
    value = dict(zip(first.method, first.value, strict=True))
    best, rival = (max(found, key=lambda one: value[one.name]) for found in (tried, rivals))
    known = knowledge(passes)

    passes.scores.clear()
    settings = tried[best]
    tuned = replace(reading(passes, **settings), name="increment_cam_tuned")
    dealt = {"permuted": f"permuted {settings['weight']}", "equal": "equal"}
    controls = [replace(reading(passes, **{**settings, "weight": w}), name=f"increment_cam_tuned, weights {n}") for n, w in dealt.items()]
    literal = replace(reading(passes, "", "literal", "map", "increment", "sum"), name="increment_cam")
    alone = replace(literal, name="phase 2 alone", function=_phase_two(passes))
    mid = replace(reading(passes, "", 112, "map", "increment", "sum"), name="increment_cam[mid]")
    rivalled = replace(rival, name="grad_cam_tuned")
    squared = replace(rival.power(2), name="grad_cam_tuned[power=2]")
    report = [
        tuned,
        *controls,
        literal,
        mid,
        alone,
        rivalled,
        squared,
        *map(method, REPORTED),
        *([method("score_cam")] if score_cams else []),
    ]
    masked = [metrics.AverageDrop(keep) for keep in (1.0, 0.5)] + [metrics.MapMean(), metrics.IncreaseInConfidence()]
    wanted = [*localization(protocol), *([] if several else [metrics.MaxBoxAccV2()]), *masked]
    table = answered(slice(count // 2, count), report, wanted, limits={"score_cam": score_cams})
    against = [(a, b) for a in ("increment_cam_tuned", "increment_cam", "increment_cam[mid]") for b in ("grad_cam", "grad_cam_tuned")]
    against += [("increment_cam_tuned", control.name) for control in controls]
    against += [(a, "score_cam") for a in ("increment_cam_tuned", "increment_cam", "grad_cam") if score_cams]
    differences = []
    for (a, b), metric in itertools.product(against, [m for m in wanted if m.higher_is_better is not None]):
        d = table.difference(a, b, metric.name, metric.setting)
        differences.append({"protocol": metric.protocol, "method": a, "than": b, "metric": metric.name, "setting": metric.setting,
                            "value": d.value, "ci_low": d.low, "ci_high": d.high, "n": d.n, "role": "difference"})  # fmt: skip
    winners = (("increment_cam_tuned", best, tried), ("grad_cam_tuned", rival, rivals))
    chosen = [{"method": m, "setting": str(of[w]), "role": "chosen", "value": value[w.name], "n": len(of)} for m, w, of in winners]
    parts = [first, known, table.records().assign(role="reported"), pd.DataFrame(differences), pd.DataFrame(chosen)]
    facts = {"dataset": dataset, "backbone": backbone, "weights": classifier.weights}
    return pd.concat(parts, ignore_index=True).assign(**facts)


def _phase_two(passes: Passes) -> Callable[[Probe], Tensor]:
    def function(probe: Probe) -> Tensor:
        scores = passes.score("", "literal", "map", "channel", probe).narrowed("positive")
        return increment.phases(probe, scores).low_resolution_score_cam

    return function


def main() -> None:
    """Run the study on one data set and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=list(sources.SOURCES))
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=240, help="half of them choose, half are reported")
    parser.add_argument("--score-cam", type=int, default=0, help="on how many of the reported images Score-CAM runs")
    parser.add_argument(
        "--resolutions",
        default=",".join(map(str, RESOLUTIONS)),
        help="of the tries; 0 is the size of the map, which not every network answers",
    )
    parser.add_argument("--masks", default=",".join(MASKS), help="of the tries; gated ones are passes of their own")
    parser.add_argument(
        "--kind", default="increment_cam", help="first word of the result file; another one keeps a second list of tries beside the first"
    )
    parser.add_argument("--epochs", type=int, help="of the network's training, where it is not pretrained")
    given = parser.parse_args()
    resolutions = [int(side) for side in given.resolutions.split(",")]
    masks = given.masks.split(",")
    frame = study(given.dataset, given.backbone, given.images, given.score_cam, resolutions, masks, epochs=given.epochs)
    write_table(sources.HOME / f"results/studies/{given.kind}-{given.dataset}-{given.backbone}.csv", frame)
    print(frame[frame.role == "chosen"][["method", "setting", "value"]].to_string(index=False))


if __name__ == "__main__":
    main()
