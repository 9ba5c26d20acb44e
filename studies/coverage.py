"""How often our 95 % intervals cover the true value, in simulations of the cases that occur, with n images each.

    python -m studies.coverage [--repetitions 1000] [--resamples 1000] [--only R_k]

Each case draws images from a population whose true value is known, computes the interval as a metric does, and counts. Below 93 or above 97
% the page of the metric warns. Writes results/studies/coverage.csv; ``--only`` runs the cases whose name contains a word and keeps the
other rows.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cam_core.metrics import MaxBoxAcc, PxAP, RemoveAndClassify
from cam_core.metrics.pixels import BINS
from cam_core.metrics.statistics import Value, bootstrap, mean, wilson
from reproduce.files import write_table

OUT = Path(__file__).resolve().parents[1] / "results/studies/coverage.csv"
IMAGES = (30, 128, 300, 620)
POPULATION = 100_000  # images from which the true value is simulated if there is no formula
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


class Case(NamedTuple):
    """``draw(generator, n)`` -> rows [n,...]; ``value`` None: a rate of 0/1 rows, with Wilson's interval; ``truth`` None: simulated."""

    name: str
    draw: Draw
    value: Value | None
    truth: float | None = None
    population: int = POPULATION


def drops(zeros: float) -> Draw:
    """Average Drop in percent: 0 for a share of ``zeros``, else spread over 0..100, mostly low."""
    return lambda rng, n: 100 * np.where(rng.random(n) < zeros, 0, rng.beta(0.6, 1.2, n))


def rate(p: float) -> Draw:
    """Increase in Confidence: 1 with probability ``p``."""
    return lambda rng, n: (rng.random(n) < p).astype(np.float64)


def overlaps(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Best IoU [n,255] over the levels: one peak per image, with random height and position."""
    height, centre, width = rng.beta(5, 3, n), rng.normal(90, 40, n), rng.uniform(30, 90, n)
    return height[:, None] * np.exp(-(((np.arange(255) - centre[:, None]) / width[:, None]) ** 2))


def histograms(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """PxAP's rows [n, 2·1001]: objects of very different size, found well in some images and badly in others."""
    pixels, area, skill = 784, rng.beta(1.5, 3, n).clip(0.005), rng.normal(1, 0.7, n)
    rows = np.zeros((n, 2, BINS))
    for i in range(n):
        positive = rng.random(pixels) < area[i]
        scores = 1 / (1 + np.exp(-rng.normal(skill[i] * positive, 1)))
        np.add.at(rows[i], (positive.astype(int), (scores * 1000).astype(int)), 1)
    return rows.reshape(n, -1)


def removed(after: float, random: float) -> Draw:
    """Remove-and-classify [n,2]: still correct after erasing by the map and after random erasing; the two are correlated."""

    def draw(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        luck = rng.random((n, 3))
        luck[:, :2] = np.where(luck[:, 2:] < 0.5, luck[:, :1], luck[:, :2])  # half of the images decide both by one draw
        return (luck[:, :2] < [after, random]).astype(np.float64)

    return draw


CASES = (
    Case("mean, normal", lambda rng, n: rng.normal(50, 10, n), mean, 50.0),
    Case("mean, 40 % zeros", drops(0.4), mean, 100 * 0.6 / 3),
    Case("mean, 75 % zeros", drops(0.75), mean, 100 * 0.25 / 3),
    Case("mean, 95 % zeros", drops(0.95), mean, 100 * 0.05 / 3),
    Case("rate 2 % (Wilson)", rate(0.02), None, 2.0),
    Case("rate 10 % (Wilson)", rate(0.1), None, 10.0),
    Case("rate 50 % (Wilson)", rate(0.5), None, 50.0),
    Case("oracle threshold (MaxBoxAcc)", overlaps, MaxBoxAcc().value),
    Case("PxAP", histograms, PxAP().value, population=20_000),
    Case("R_k, .5 over .6", removed(0.5, 0.6), RemoveAndClassify().value, 0.5 / 0.6),
    Case("R_k, .05 over .3", removed(0.05, 0.3), RemoveAndClassify().value, 0.05 / 0.3),
    Case("R_k, .02 over .02", removed(0.02, 0.02), RemoveAndClassify().value, 1.0),
)


def truth(case: Case, seed: int = 12345) -> float:
    """The true value of the population; if it is simulated, in parts that fit into memory."""
    if case.truth is not None:
        return case.truth
    assert case.value is not None
    rng, total = np.random.default_rng(seed), np.zeros(1)
    if isinstance(getattr(case.value, "__self__", None), PxAP):  # sums of histograms
        for _ in range(case.population // 1000):
            total = total + case.draw(rng, 1000).sum(0, keepdims=True)
        return float(case.value(total, None))
    return float(case.value(case.draw(rng, case.population), None))


def coverage(case: Case, n: int, repetitions: int, resamples: int, seed: int = 0) -> dict[str, object]:
    """One row: how often the interval of n images covers the true value, on which side it misses, and its width."""
    goal, ends = truth(case), np.empty((repetitions, 2))
    for i in range(repetitions):
        rows = case.draw(np.random.default_rng([seed, n, i]), n)
        ends[i] = wilson(int(rows.sum()), n) if case.value is None else bootstrap(rows, case.value, resamples=resamples, seed=i)
    slack = 1e-9 * max(1.0, abs(goal))
    above, below = ends[:, 0] > goal + slack, ends[:, 1] < goal - slack
    held = int(repetitions - above.sum() - below.sum())
    low, high = wilson(held, repetitions)
    return {
        "case": case.name, "n": n, "truth": goal, "coverage": 100 * held / repetitions, "coverage_low": low, "coverage_high": high,
        "interval_above": 100 * above.mean(), "interval_below": 100 * below.mean(), "width": float(np.diff(ends).mean()),
        "repetitions": repetitions, "resamples": resamples,
    }  # fmt: skip


def study(cases: Sequence[Case] = CASES, images: Sequence[int] = IMAGES, repetitions: int = 1000, resamples: int = 1000) -> pd.DataFrame:
    """Every case at every number of images."""
    bar = tqdm([(case, n) for case in cases for n in images], desc="coverage", unit="case")
    return pd.DataFrame([coverage(case, n, repetitions, resamples) for case, n in bar])


def with_kept(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows of ``frame`` and those of the table at ``path`` for other cases, in the order of `CASES`."""
    if path.exists():
        kept = pd.read_csv(path, float_precision="round_trip")
        frame = pd.concat([kept[~kept.case.isin(frame.case)], frame])
    order = [case.name for case in CASES]
    return frame.sort_values("case", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def main() -> None:
    """Simulate all cases, or those asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000, help="samples of n images; 1000 settle the coverage to 1.4 points")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--only", default="", metavar="WORD", help="simulate the cases whose name holds this word, keep the other rows")
    asked = parser.parse_args()
    cases = [case for case in CASES if asked.only in case.name]
    if not cases:
        parser.error(f"no case's name holds {asked.only!r}; cases: {', '.join(case.name for case in CASES)}")
    frame = study(cases, repetitions=asked.repetitions, resamples=asked.resamples)
    write_table(OUT, with_kept(frame, OUT))
    print(frame[["case", "n", "coverage", "width"]].to_string(index=False, float_format="%.1f"))


if __name__ == "__main__":
    main()
