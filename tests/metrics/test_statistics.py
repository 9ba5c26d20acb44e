"""Intervals and paired tests against SciPy, hand computation and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cam_core.metrics.statistics import (
    bootstrap,
    holm,
    mean,
    non_inferiority,
    one_by_one,
    over_seeds,
    paired_difference,
    quotient,
    ratio,
    sign_or_mcnemar,
    total,
    wilson,
)


def widened(level, n):
    return 1 - 2 * stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf((1 - level) / 2, n - 1))


@pytest.mark.parametrize("n", [12, 60, 400])
def test_interval_of_a_mean_equals_scipys_bca(n):
    rng = np.random.default_rng(n)
    drops = np.where(rng.random(n) < 0.4, 0, rng.beta(0.6, 1.2, n))
    reference = stats.bootstrap((drops,), np.mean, n_resamples=20000, confidence_level=widened(0.95, n), method="BCa", rng=1)
    assert bootstrap(drops, resamples=20000, seed=2) == pytest.approx(tuple(reference.confidence_interval), abs=0.03 * drops.std())


def test_weights_are_resamples():
    """A value under weights equals the plain value of the repeated rows, for a mean, a maximum of means and any function."""
    rng = np.random.default_rng(0)
    rows, weights = rng.random((9, 4)), rng.multinomial(9, np.full(9, 1 / 9), size=5).astype(float)
    repeated = [np.repeat(rows, w.astype(int), axis=0) for w in weights]
    assert np.allclose(mean(rows, weights), [r.mean(0) for r in repeated])
    assert np.allclose(total(rows, weights), [r.sum(0) for r in repeated])
    assert np.allclose(one_by_one(np.median)(rows, weights), [np.median(r) for r in repeated])
    assert ratio([1, 2], [0, 4]).tolist() == [0, 0.5]


def test_a_plain_function_and_its_weighted_form_give_one_interval():
    rows = np.random.default_rng(0).random((40, 6))
    fast = bootstrap(rows, lambda r, w: mean(r, w).max(-1), resamples=300)
    assert fast == pytest.approx(bootstrap(rows, one_by_one(lambda r: float(r.mean(0).max())), resamples=300), rel=1e-12)


def test_the_same_seed_gives_the_same_interval_and_one_image_none():
    rows = np.random.default_rng(0).random(50)
    assert bootstrap(rows, seed=3) == bootstrap(rows, seed=3) != bootstrap(rows, seed=4)
    assert bootstrap([0.25]) == (0.25, 0.25)
    assert bootstrap(np.full(20, 3.0)) == (3.0, 3.0)
    with pytest.raises(ValueError, match="an interval needs rows"):
        bootstrap(np.zeros((0, 3)))


def test_rows_of_one_image_are_drawn_together():
    """Every image four times over: by image the interval is that of the images, row by row it is half as wide."""
    values = np.random.default_rng(0).normal(size=60)
    rows, groups = np.repeat(values, 4), np.repeat(np.arange(60), 4)
    by_image = bootstrap(rows, groups=groups, resamples=4000)
    assert by_image == pytest.approx(bootstrap(values, resamples=4000), abs=1e-12)
    low, high = bootstrap(rows, resamples=4000)
    assert (high - low) / (by_image[1] - by_image[0]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "draw", "truth"), [(30, "normal", 0.0), (128, "drops", 0.2), (300, "drops", 0.2)])
def test_coverage_of_95_percent_intervals(n, draw, truth):
    """Normal values, and drops of which 40 % are zero (mean .6 · 1/3): 300 experiments, so the count is sure to 2.5 points."""
    rng, hits = np.random.default_rng(5), 0
    for seed in range(300):
        drops = np.where(rng.random(n) < 0.4, 0, rng.beta(0.6, 1.2, n))
        low, high = bootstrap(rng.normal(size=n) if draw == "normal" else drops, resamples=400, seed=seed)
        hits += low <= truth <= high
    assert 0.92 <= hits / 300 <= 0.98


def test_paired_difference_uses_the_common_images_only():
    rng = np.random.default_rng(0)
    hardness = rng.normal(scale=10, size=80)
    first, second = hardness + 1 + rng.normal(size=80) * 0.1, hardness
    found = paired_difference((np.arange(80), first), (np.arange(30, 110), np.concatenate([second[30:], np.zeros(30)])))
    assert found.n == 50
    assert found.value == pytest.approx((first - second)[30:].mean())
    assert 0.9 < found.low < found.value < found.high < 1.1  # what makes an image hard cancels
    assert (found.low, found.high) == pytest.approx(bootstrap((first - second)[30:]), rel=1e-9)
    with pytest.raises(ValueError, match="share no image"):
        paired_difference(([0, 1], [0.0, 1.0]), ([2, 3], [0.0, 1.0]))


@pytest.mark.parametrize(("successes", "n"), [(0, 30), (1, 128), (77, 300), (30, 30)])
def test_wilson_by_its_formula(successes, n):
    z, p = stats.norm.ppf(0.975), successes / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [100 * (centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_by_counting_coins():
    """10 discordant pairs, 9 of them for the first: twice the chance of 9 or more heads in 10."""
    first = np.array([1] * 9 + [0] + [1] * 20 + [0] * 5)
    second = np.array([0] * 9 + [1] + [1] * 20 + [0] * 5)
    assert sign_or_mcnemar(first, second) == pytest.approx(2 * (math.comb(10, 9) + 1) / 2**10)
    assert sign_or_mcnemar(second, first) == sign_or_mcnemar(first, second)
    assert sign_or_mcnemar([1, 0], [1, 0]) == 1.0
    assert sign_or_mcnemar([0.3, 0.2, 0.9], [0.1, 0.1, 0.1]) == pytest.approx(2 / 8)


# ---------------------------------------------------------------- many comparisons, margins, seeds


def test_holm_by_its_definition():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # .005·4, .01·3, .03·2, and .04·1 not below the one before
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_steps_reject(p, level):
    """Step down: the smallest against level/m, the next against level/(m-1), ... until one fails."""
    rejected = set()
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - step) > level:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p) <= level).tolist()) == rejected


def test_non_inferiority_needs_a_margin_and_looks_at_the_worse_end():
    rng = np.random.default_rng(0)
    ids, base = np.arange(200), rng.normal(50, 10, 200)
    slightly_worse = base - 1 + rng.normal(0, 2, 200)
    found = non_inferiority((ids, slightly_worse), (ids, base), margin=2)
    assert found.holds
    assert -2 < found.difference.low < found.difference.high < 0  # inferior, by less than the margin
    assert not non_inferiority((ids, slightly_worse), (ids, base), margin=0.9).holds
    assert non_inferiority((ids, slightly_worse), (ids, base), margin=0.1, higher_is_better=False).holds
    assert not non_inferiority((ids, base), (ids, slightly_worse), margin=0.9, higher_is_better=False).holds
    with pytest.raises(ValueError, match="margin must be a positive number"):
        non_inferiority((ids, base), (ids, base), margin=0)
    with pytest.raises(TypeError):
        non_inferiority((ids, base), (ids, base))


def runs_of(seeds, images, between, within, generator):
    common, shift = generator.normal(size=images), generator.normal(scale=between, size=seeds)
    return {s: (np.arange(images), common + shift[s] + generator.normal(scale=within, size=images)) for s in range(seeds)}


def test_three_seeds_give_values_and_no_interval_ten_do():
    runs = runs_of(12, 40, 1.0, 0.3, np.random.default_rng(1))
    few, enough = over_seeds({s: runs[s] for s in range(3)}, resamples=200), over_seeds(runs, resamples=4000)
    assert few.interval is None
    assert few.values == {s: pytest.approx(runs[s][1].mean()) for s in range(3)}
    assert few.intervals[1] == bootstrap(runs[1][1], resamples=200)
    assert few.mean == pytest.approx(np.mean(list(few.values.values())))
    low, high = enough.interval
    values, images = list(enough.values.values()), np.mean([r for _, r in runs.values()], axis=0)
    spread = math.sqrt(np.var(values, ddof=1) / 12 + images.var() / 40)
    assert low < enough.mean < high
    assert (high - low) / (2 * stats.t.ppf(0.975, 11) * spread) == pytest.approx(1, abs=0.15)
    assert over_seeds(runs, resamples=100) == over_seeds(runs, resamples=100)
    with pytest.raises(ValueError, match="seed 7 was measured on other images than seed 0"):
        over_seeds({0: runs[0], 7: (np.arange(1, 41), runs[7][1])})
    with pytest.raises(ValueError, match="no run"):
        over_seeds({})


def test_the_rows_of_an_image_stay_together_across_seeds():
    runs = runs_of(10, 30, 0.5, 0.2, np.random.default_rng(2))
    fourfold = {s: (np.arange(120), np.repeat(rows, 4)) for s, (_, rows) in runs.items()}
    grouped = over_seeds(fourfold, groups=lambda ids: ids // 4, resamples=3000)
    single = over_seeds(runs, resamples=3000)
    assert grouped.interval == pytest.approx(single.interval, rel=0.1)
    assert grouped.intervals[3] == pytest.approx(bootstrap(runs[3][1], resamples=3000), rel=1e-9)


def test_the_quotient_of_sums():
    rows, weights = np.array([[1.0, 1], [0, 1], [1, 0], [1, 1]]), np.array([[1.0, 1, 1, 1], [0, 0, 4, 0], [2, 2, 0, 0]])
    assert float(quotient(rows)) == 1.0
    assert quotient(rows, weights).tolist() == [1, 0, 0.5]
    low, high = bootstrap(np.repeat(rows, 20, axis=0), quotient, resamples=200)
    assert low < 1 < high
