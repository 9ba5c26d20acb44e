"""Intervals and paired tests against SciPy, hand computation and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cam_core.metrics.statistics import (
    bootstrap,
    common,
    holm,
    mcnemar,
    mean,
    one_by_one,
    outcomes,
    paired_difference,
    paired_p,
    randomization,
    ratio,
    same_rows,
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


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(6), 2)])
@pytest.mark.parametrize("remembered", [0, 2**27])
def test_what_is_drawn_is_remembered_and_is_what_was_always_drawn(monkeypatch, groups, remembered):
    """Images drawn one by one from one generator; twice, with and without room to remember the draws."""
    monkeypatch.setattr("cam_core.metrics.statistics.REMEMBERED", remembered)
    rows, seen, count = np.random.default_rng(0).random(12), [], 12 if groups is None else 6
    for _ in range(2):
        bootstrap(rows, lambda r, w: seen.append(np.array(w)) or mean(r, w), groups=groups, resamples=5, seed=3)
    generator = np.random.default_rng(3)
    expected = np.zeros((5, count))
    for resample in range(5):
        np.add.at(expected[resample], generator.integers(count, size=count), 1)
    expected = expected if groups is None else expected[:, groups]
    weights = [w for w in seen if w is not None and w.shape]
    assert weights[0].tolist() == weights[2].tolist() == expected.tolist()
    assert weights[1].tolist() == weights[3].tolist()  # one image left out
    seen.clear()
    randomization(rows, rows[::-1], lambda r, w: seen.append(np.array(w)) or mean(r, w), groups=groups, resamples=3, seed=4)
    generator = np.random.default_rng(4)
    swapped = generator.integers(2, size=(3, count)).astype(float)
    swapped = swapped if groups is None else swapped[:, groups]
    ways = [w for w in seen if w is not None and w.shape]
    assert ways[0].tolist() == np.hstack([1 - swapped, swapped]).tolist()
    assert ways[1].tolist() == np.hstack([swapped, 1 - swapped]).tolist()


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


@pytest.mark.parametrize("value", ["highest", "quotient"])
def test_both_methods_of_a_seed_are_resampled_on_the_same_images(value):
    """What each seed of a trained model is told with, by plain loops: draw images, take their rows of both methods, subtract."""
    rng, ids, value = np.random.default_rng(7), np.arange(30), {"highest": highest, "quotient": quotient}[value]
    hardness = rng.random(30)[:, None] * [1, 0] + [2, 1]
    first, second = hardness + 0.1 * rng.random((30, 2)), hardness + 0.1 * rng.random((30, 2))
    found = paired_difference((ids, first), (ids, second), value, resamples=4000)
    drawn = [rng.integers(30, size=30) for _ in range(4000)]
    differences = [float(value(first[images])) - float(value(second[images])) for images in drawn]
    assert found.value == float(value(first)) - float(value(second))
    low, high = np.quantile(differences, [0.025, 0.975])  # ours are moved a little: BCa, and tails for few images
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))
    apart = [float(value(first[images])) - float(value(second[rng.integers(30, size=30)])) for images in drawn]
    assert found.high - found.low < 0.5 * np.ptp(np.quantile(apart, [0.025, 0.975]))


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
    assert mcnemar(first, second) == pytest.approx(2 * (math.comb(10, 9) + 1) / 2**10)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar([1, 0], [1, 0]) == 1.0


def highest(rows, weights=None):
    """A value that is no mean: the best column of the mean rows, as a maximum over thresholds."""
    return mean(rows, weights).max(-1)


def quotient(rows, weights=None):
    """Another: the sum of the first column over that of the second."""
    return np.divide(*np.moveaxis(total(rows, weights), -1, 0))


@pytest.mark.parametrize("value", [mean, highest, quotient])
@pytest.mark.parametrize("group", [1, 2])
def test_randomization_by_all_swaps(value, group):
    """All 2^8 ways to swap the two methods' rows image by image, in plain loops, against the drawn ones."""
    rng = np.random.default_rng(3)
    first, second = rng.random((8 * group, 2)) + 0.15, rng.random((8 * group, 2))
    if value is mean:
        first, second = first[:, 0], second[:, 0]
    found, as_far = abs(value(first) - value(second)), 0
    for swaps in itertools.product([False, True], repeat=8):
        swap = np.repeat(swaps, group).reshape(-1, *[1] * (first.ndim - 1))
        a, b = np.where(swap, second, first), np.where(swap, first, second)
        as_far += abs(value(a) - value(b)) >= found - 1e-12
    p = randomization(first, second, value, groups=np.repeat(np.arange(8), group), resamples=20000)
    assert 0.01 < as_far / 2**8 < 0.99
    assert p == pytest.approx(as_far / 2**8, abs=0.015)
    assert randomization(first, first, value) == 1


def test_p_of_a_rate_is_mcnemars_and_of_anything_else_the_whole_summarys():
    rng = np.random.default_rng(0)
    ids, hits, others = np.arange(60), rng.random(60) < 0.6, rng.random(60) < 0.4
    rate = lambda rows, weights=None: 100 * mean(rows, weights)  # noqa: E731
    assert outcomes(hits.astype(float), rate).tolist() == hits.tolist()
    assert paired_p((ids, hits), (ids, others), rate) == mcnemar(hits, others)
    assert paired_p((ids, hits), (ids, others), rate) == pytest.approx(
        randomization(hits * 1.0, others * 1.0, rate, resamples=20000), abs=0.01
    )
    several = paired_p((ids, hits), (ids, others), rate, groups=lambda keys: keys // 3)  # three rows an image: no independent coins
    assert several == randomization(hits * 1.0, others * 1.0, rate, groups=ids // 3)
    drops = np.where(hits, rng.random(60), 0)
    assert outcomes(drops, rate) is None

    def of_all_but_one(rows, weights=None):
        if len(rows) == 1:
            raise ValueError("no value of a single row")
        return rate(rows, weights)

    assert outcomes(hits.astype(float), of_all_but_one) is None
    assert (
        outcomes(np.eye(4), lambda rows, weights=None: 100 * highest(rows, weights)) is None
    )  # each alone is right, together a quarter is


def test_p_is_of_the_common_images():
    ids, rows = np.arange(40), np.random.default_rng(1).random(40)
    assert paired_p((ids, rows), (ids[:30], rows[:30])) == 1
    assert paired_p((ids[5:], rows[5:] + 1), (ids[:30], rows[:30])) == pytest.approx(1 / 5001)


def test_rows_are_the_same_up_to_rounding():
    rng = np.random.default_rng(1)
    ids, rows = np.arange(50), rng.random((50, 255))
    moved = rows + 1e-6
    moved[7, :100] = 0  # one image whose box moved with a quantized level
    assert same_rows((ids, rows), (ids, moved))
    assert same_rows((ids, rows), (ids[:20], rows[:20]))
    assert not same_rows((ids, rows), (ids, rows**1.01))
    long = rng.random((60, 2**17)).astype(np.float32)  # looked at in parts
    moved, keys = long.copy(), np.arange(60)
    for changed, same in ((0, True), (1, False)):  # an entry in a hundred, and one more
        moved.ravel()[: long.size // 100 + changed] = 2
        assert same_rows((keys, long), (keys, moved)) is same


def test_rows_that_follow_one_another_are_not_copied():
    """Long rows lie in a file; the first images of the list, or all of them, are read where they are."""
    ids, rows = np.arange(40), np.random.default_rng(1).random((40, 3))
    for kept in (ids, ids[:15], ids[7:30], ids[[3]]):
        found, own, other = common((ids, rows), (kept, 2 * rows[kept]))
        assert found.tolist() == kept.tolist()
        assert np.array_equal(2 * own, other)
        assert np.shares_memory(own, rows)
    _, own, _ = common((ids, rows), (ids[[2, 5, 6]], rows[[2, 5, 6]]))
    assert np.array_equal(own, rows[[2, 5, 6]])
    _, own, _ = common((ids[::-1], rows), (ids, rows))  # rows in another order than their ids
    assert np.array_equal(own, rows[::-1])


# ---------------------------------------------------------------- many comparisons


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
