"""How few passes Score-CAM needs when the other channels' weights are predicted.

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.score_cam_budget resnet18 --images 40

Every channel is passed once; each way to spend m passes is then computed from those scores. Its map's correlation with the exact map
stands beside two floors: all weights equal (no pass), and m channels without prediction. Results:
results/studies/score_cam_budget-<backbone>.csv, one row a way and m.
"""

import argparse

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cam_core import Probe, load_classifier, maps
from cam_core.learned import jobs
from cam_core.methods import budget
from cam_core.methods.perturbation import channel_scores
from cam_core.metrics.statistics import bootstrap
from cam_core.results import write_table

BUDGETS = (16, 32, 64, 128, 256, 512)


def ways(probe: Probe, scores: Tensor, m: int) -> dict[str, Tensor]:
    """Way -> weights [1,K] for ``m`` passes of one image, from the scores [1,K] of all channels."""
    a, useful = probe.activations, ~maps.is_empty(probe.activations)
    masks = maps.min_max(a).flatten(2).double()
    generator = torch.Generator().manual_seed(0)
    chance = torch.randperm(a.shape[1], generator=generator)[None]
    gradients = probe.gradients().mean((2, 3)).argsort(1, descending=True)
    orders = {choose: budget.order(a, masks, choose, m) for choose in ("norm", "spread", "variance")}
    found = {}
    for name, ranked in {**orders, "chance": chance}.items():
        chosen = ranked[:, :m]
        found[f"predicted, {name}"] = budget.predicted(masks, chosen, scores.gather(1, chosen), useful)
    for name, ranked in {"norm": orders["norm"], "chance": chance, "gradient (gScoreCAM)": gradients}.items():
        chosen = ranked[:, :m]
        found[f"alone, {name}"] = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
    return found


def measured(probe: Probe, image: str) -> list[dict[str, object]]:
    """All rows of one image."""
    scores = channel_scores(probe, ~maps.is_empty(probe.activations)).double()
    a = probe.activations
    full = torch.einsum("bk,bkhw->bhw", scores, a.double()).relu()
    rows: list[dict[str, object]] = []

    def add(way: str, m: int, weights: Tensor, promise: float | None = None) -> None:
        heat = torch.einsum("bk,bkhw->bhw", weights.double(), a.double()).relu()
        used = ~maps.is_empty(a)[0]
        both = torch.stack([weights[0, used].double(), scores[0, used]])
        rows.append(
            {
                "image": image,
                "way": way,
                "m": m,
                "correlation": float(maps.correlation(heat, full)),
                "weight_correlation": float(torch.corrcoef(both)[0, 1]),
                "promised": promise,
            }
        )

    masks = maps.min_max(a).flatten(2).double()
    add("equal weights", 0, torch.ones_like(scores))
    for m in (m for m in BUDGETS if m < a.shape[1]):
        for way, weights in ways(probe, scores, m).items():
            promise = None
            if way == "predicted, variance":
                chosen = budget.order(a, masks, "variance", m)[:, :m]
                promise = float(budget.promised(a, masks, chosen, scores.gather(1, chosen)))
            add(way, m, weights, promise)
    return rows


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a way and m: mean and worst correlation of the maps with a bootstrap interval, that of the weights, what was promised."""
    rows = []
    for (way, m), part in frame.groupby(["way", "m"], sort=False):
        low, high = bootstrap(part.correlation.to_numpy())
        off = (part.promised - part.correlation).abs().mean() if part.promised.notna().any() else None
        rows.append(
            {
                "way": way,
                "m": m,
                "mean": part.correlation.mean(),
                "ci_low": low,
                "ci_high": high,
                "worst": part.correlation.min(),
                "weight_correlation": part.weight_correlation.mean(),
                "promised": part.promised.mean(),
                "promise_off": off,
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Run the study for one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=40)
    given = parser.parse_args()
    classifier = load_classifier(given.backbone)
    frozen, data = classifier.frozen(), jobs.images("imagenet", jobs.find_root("imagenet"), limit=given.images)("crop")
    rows = []
    for example in tqdm((data[i] for i in range(len(data))), given.backbone, len(data), unit="image"):
        rows += measured(Probe(frozen, example.image[None]), example.image_id)
    frame = summary(pd.DataFrame(rows)).assign(backbone=given.backbone, weights=classifier.weights)
    write_table(jobs.HOME / f"results/studies/score_cam_budget-{given.backbone}.csv", frame)
    print(frame.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
