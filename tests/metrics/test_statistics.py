"""Intervals and paired tests against SciPy, hand computation and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from cam_core.metrics.statistics import bootstrap, mean, one_by_one, paired_difference, ratio, sign_or_mcnemar, total, wilson


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
