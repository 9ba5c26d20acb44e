"""How few passes does Score-CAM need if the weights of the other channels are predicted?

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.score_cam_budget resnet18 --images 40

Every channel passes once; each way to use m passes is then computed from these scores. The correlation of its map with the exact map is
compared with two baselines: all weights equal (no pass), and m channels without prediction. Average Drop, Increase in Confidence and energy
are given as paired differences from the exact map's. Results: results/studies/score_cam_budget-<backbone>.csv, a row for each way, m and
metric.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cam_core import Probe, load_classifier, maps, metrics
from cam_core.data import inclusive_boxes
from cam_core.methods import budget
from cam_core.methods.perturbation import channel_scores
from cam_core.metrics.statistics import bootstrap, paired_difference
from cam_core.protocol import finish
from reproduce import sources
from reproduce.files import write_table

BUDGETS = (16, 32, 64, 128, 256, 512)
WANTED = 0.99  # correlation with the exact map
EXACT, EQUAL, OURS, UNTIL = "exact", "equal weights", "predicted, variance", f"predicted, variance, until {WANTED} is promised"
Way = tuple[str, int]  # how channels are chosen and used, and how many of them are passed
Asked = list[metrics.Metric]


def by_size(activations: Tensor) -> dict[str, Tensor]:
    """Two simpler orders [B,K] of the channels: by the norm of A_k, constant ones last, and by its variance over space."""
    flat = activations.flatten(2)
    norms = torch.where(maps.is_empty(activations), 0.0, flat.double().norm(dim=2))
    return {"norm": norms.argsort(1, descending=True), "spread": flat.var(2).argsort(1, descending=True)}


def ways(probe: Probe, scores: Tensor) -> Iterator[tuple[Way, Tensor, float | None]]:
    """Way, weights [1,K] and, where the process promises one, the correlation, of one image, from the scores [1,K] of all channels."""
    a, useful = probe.activations, ~maps.is_empty(probe.activations)
    masks, count = maps.min_max(a).flatten(2).double(), a.shape[1]
    budgets = [m for m in BUDGETS if m < count]
    orders = {**by_size(a), "variance": budget.order(a, masks, max(budgets))}
    orders["chance"] = torch.randperm(count, generator=torch.Generator().manual_seed(0))[None]
    orders["gradient (gScoreCAM)"] = probe.gradients().mean((2, 3)).argsort(1, descending=True)
    yield (EXACT, count), scores, None
    yield (EQUAL, 0), torch.ones_like(scores), None
    promised_enough = False
    for m in budgets:
        for name, ranked in orders.items():
            chosen = ranked[:, :m]
            passed = scores.gather(1, chosen)
            if name != "gradient (gScoreCAM)":
                weights = budget.predicted(masks, chosen, passed, useful)
                promise = float(budget.promised(a, masks, chosen, passed)) if name == "variance" else None
                yield (f"predicted, {name}", m), weights, promise
                if promise is not None and m >= 32 and not promised_enough and (promise >= WANTED or m == budgets[-1]):
                    promised_enough = True
                    yield (UNTIL, m), weights, promise
            if name not in ("spread", "variance"):
                yield (f"alone, {name}", m), torch.zeros_like(scores).scatter(1, chosen, passed), None


class Tally:
    """The results of one way and number of passes, image by image."""

    def __init__(self, asked: Asked) -> None:
        self.found: dict[str, list[float]] = defaultdict(list)
        self.metrics = deepcopy(asked)

    def add(self, image: int, numbers: dict[str, float | None], heat: Tensor, probe: Probe, boxes: Tensor) -> None:
        """One image's numbers and, for the metrics, its map [1,h,w]."""
        for key, number in numbers.items():
            if number is not None:
                self.found[key].append(number)
        finished = finish(heat, probe.images.shape[-2:], "min_max_bilinear")
        for metric in self.metrics:
            if metric.needs == "probe":
                metric.update(finished, probe, ids=[image])
            elif len(boxes):  # a crop may have lost its box
                metric.update(finished, [boxes], ids=[image])


def image_rows(probe: Probe, number: int, boxes: Tensor, tallies: dict[Way, Tally], asked: Asked) -> None:
    """All rows of one image."""
    a, useful = probe.activations, ~maps.is_empty(probe.activations)[0]
    scores = channel_scores(probe, useful[None]).double()
    exact = torch.einsum("bk,bkhw->bhw", scores, a.double()).relu()
    for (way, m), weights, promise in ways(probe, scores):
        heat = torch.einsum("bk,bkhw->bhw", weights.double(), a.double()).relu()
        both = torch.stack([weights[0, useful].double(), scores[0, useful]])
        correlation = float(maps.correlation(heat, exact))
        numbers = {"correlation": correlation, "weight_correlation": float(torch.corrcoef(both)[0, 1]) if way != EQUAL else None,
                   "promised": promise, "promise_off": None if promise is None else abs(promise - correlation), "passes": float(m),
                   "reaches": float(correlation >= WANTED)}  # fmt: skip
        kept = (way, -1 if way == UNTIL else m)
        tallies.setdefault(kept, Tally(asked)).add(number, numbers, heat, probe, boxes)


def summary(tallies: dict[Way, Tally]) -> pd.DataFrame:
    """A row for each way, m and metric: mean with bootstrap interval, and worst; of metrics the interval is that of the ``difference``
    from the exact map, paired by image.
    """
    exact = next(tally for (way, _), tally in tallies.items() if way == EXACT)
    rows: list[dict[str, Any]] = []
    for (way, m), tally in tallies.items():
        named = {"way": way, "m": "" if m < 0 else m}
        for metric, numbers in tally.found.items():
            low, high = bootstrap(np.array(numbers))
            mean = float(np.mean(numbers))
            rows.append(
                {**named, "metric": metric, "value": mean, "ci_low": low, "ci_high": high, "worst": min(numbers), "n": len(numbers)}
            )
        for one, other in zip(tally.metrics, exact.metrics, strict=True):
            d = paired_difference(one.per_image(), other.per_image(), one.value)
            rows.append({**named, "metric": one.name, "setting": one.setting, "value": one.compute(), "difference": d.value,
                         "ci_low": d.low, "ci_high": d.high, "n": d.n})  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Run the study for one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=40)
    given = parser.parse_args()
    classifier = load_classifier(given.backbone)
    frozen, data = classifier.frozen(), sources.images("imagenet", sources.find_root("imagenet"), limit=given.images)("crop")
    faithful = (metrics.MapMean, metrics.AverageDrop, metrics.IncreaseInConfidence)
    asked: Asked = [kind(keep) for keep in (1.0, 0.5) for kind in faithful] + [metrics.EnergyPointingGame()]
    tallies: dict[Way, Tally] = {}
    for number in tqdm(range(len(data)), given.backbone, unit="image"):
        example = data[number]
        boxes = inclusive_boxes(example.boxes) if example.boxes is not None else torch.empty(0, 4)
        image_rows(Probe(frozen, example.image[None]), number, boxes, tallies, asked)
    frame = summary(tallies).assign(backbone=given.backbone, weights=classifier.weights)
    write_table(sources.HOME / f"results/studies/score_cam_budget-{given.backbone}.csv", frame)
    print(frame[frame.metric == "correlation"].drop(columns=["weights", "backbone"]).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
