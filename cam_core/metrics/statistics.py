"""Statistics of a number: intervals over images, rates, paired comparisons.

Everything is built on a *value*: ``value(rows [n,...], weights)`` computes a number from n per-image rows. ``weights`` None counts every
row once; weights [R,n] say how often each row counts in each of R resamples and give R answers at once. A mean is then one matrix product,
and a maximum over thresholds or a class mean is resampled as a whole. A plain function of rows becomes a value by `one_by_one`.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from cam_core.metrics.store import taken

REMEMBERED = 2**27  # bytes; larger draws are drawn again for each interval
Array = NDArray[np.float64]
Value = Callable[[Array, Array | None], Array]


def total(rows: ArrayLike, weights: Array | None = None) -> Array:
    """Sum of rows [n,...] over the images, [...]; under weights [R,n]: [R,...]. In float64; long rows are converted in parts."""
    rows = np.asarray(rows)
    if weights is None:
        return np.asarray(rows.sum(0, dtype=np.float64))
    flat = rows.reshape(len(rows), -1)
    step = max(1, 2**23 // max(1, flat.shape[1]))
    sums = weights[:, :step] @ flat[:step].astype(np.float64, copy=False)
    for start in range(step, len(flat), step):
        sums += weights[:, start : start + step] @ flat[start : start + step].astype(np.float64, copy=False)
    return np.asarray(sums.reshape(len(weights), *rows.shape[1:]))


def mean(rows: ArrayLike, weights: Array | None = None) -> Array:
    """Mean of rows [n,...] over the images, [...]; under weights [R,n]: [R,...]. Itself a value."""
    rows = np.asarray(rows)
    count = np.float64(len(rows)) if weights is None else weights.sum(1).reshape(-1, *[1] * (rows.ndim - 1))
    return ratio(total(rows, weights), count)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Element-wise quotient, 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.asarray(np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0), np.float64)


def one_by_one(summary: Callable[[Array], float]) -> Value:
    """The value of any function of rows that is not a sum over images (a median, a rank): slower, one call per resample."""

    def value(rows: Array, weights: Array | None = None) -> Array:
        if weights is None:
            return np.asarray(summary(rows))
        return np.array([summary(np.repeat(rows, weight.astype(int), axis=0)) for weight in weights])

    return value


def bootstrap(
    rows: ArrayLike,
    value: Value = mean,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval (low, high) of ``value`` over n rows [n,...]; rows of one group (an image's classes or pairs) are drawn together.

    BCa (Efron 1987), its tails widened so that the mean of few normal values gets its t interval (Hesterberg, "What teachers should know
    about the bootstrap", 2015). Not plain percentiles: the resampled maximum over thresholds lies above the maximum itself,
    and for skewed drops the interval must lean. In simulation 95 % meant, by percentiles and by this: Average Drop with 3 of 4 images
    without any drop, n = 128: 92 and 94 %; MaxBoxAcc, n = 128: 84 and 92 %. Acceleration by leaving out one image at a time, above 1000
    images every thousandth. Where all resamples agree, and with one group, both ends are that value.
    """
    rows = _floating(rows)
    if not len(rows):
        raise ValueError("an interval needs rows, got none: record images first")
    found = float(value(rows, None))
    members, count = _members(groups, len(rows))
    if count == 1:
        return found, found
    step = max(1, 2**22 // len(rows))
    weights = np.empty((len(rows), step)).T  # written over and over: fresh memory takes longer than what is computed in it
    drawn = (_drawn if resamples * count <= REMEMBERED else _drawn.__wrapped__)(seed, resamples, count, step)
    values = np.concatenate([value(rows, _spread(counts, members, weights)) for counts in drawn])
    left_out = np.arange(count) % 1000
    blocks = np.array_split(np.arange(left_out.max() + 1), -(-(left_out.max() + 1) // step))
    without = np.concatenate([value(rows, _spread(left_out != block[:, None], members, weights)) for block in blocks])
    tail = np.sqrt(count / (count - 1)) * stats.t.ppf((1 - level) / 2, count - 1) * np.array([1, -1])
    low, high = np.quantile(values, _bca(values, found, without, tail))
    return float(low), float(high)


def _bca(values: Array, found: float, without: Array, z: Array) -> Array:
    """Where to cut the resampled ``values``: normal quantiles ``z``, corrected for bias and acceleration."""
    close = 1e-9 * max(1.0, abs(found))  # rounding: a resample that agrees is a tie
    below = np.mean(values < found - close) + 0.5 * np.mean(np.abs(values - found) <= close)
    bias = np.clip(stats.norm.ppf(below), -1, 1)  # larger corrections cannot be trusted and would shrink the interval to a point
    deviation = without.mean() - without
    acceleration = ratio((deviation**3).sum(), 6 * (deviation**2).sum() ** 1.5)
    return np.asarray(stats.norm.cdf(bias + (bias + z) / np.maximum(1 - acceleration * (bias + z), 1e-3)))


def _members(groups: ArrayLike | None, n: int) -> tuple[NDArray[np.int64] | None, int]:
    """The group of each of n rows, numbered from 0 (None: each row is a group, in their order), and how many groups there are."""
    members = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(members.max()) + 1
    return (None if count == n and np.array_equal(members, np.arange(n)) else members), count


def _spread(of_groups: NDArray[Any], members: NDArray[np.int64] | None, out: Array) -> Array:
    """Weights [R,n] of the rows, from those of their groups, in the first rows of ``out``."""
    out = out[: len(of_groups)]
    out[:] = of_groups if members is None else of_groups[:, members]
    return out


@lru_cache(maxsize=1)  # all methods and metrics of a table are resampled alike
def _drawn(seed: int, resamples: int, count: int, step: int) -> list[NDArray[Any]]:
    """How often each of ``count`` groups is drawn in ``count`` draws with replacement, [resamples, count], in blocks of ``step``."""
    generator, found = np.random.default_rng(seed), []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        found.append(counts.astype(np.min_scalar_type(counts.max()), order="F"))  # sums over the last axis, in the order of the rows
    return found


@lru_cache(maxsize=1)  # as above
def _swaps(seed: int, resamples: int, count: int) -> list[NDArray[np.uint8]]:
    """Which of ``count`` groups are swapped in each of ``resamples``: bits, eight to a byte."""
    generator = np.random.default_rng(seed)
    return [np.packbits(generator.integers(2, size=count).astype(bool)) for _ in range(resamples)]


class Difference(NamedTuple):
    """First minus second, on the ``n`` images that both have, with its interval."""

    value: float
    low: float
    high: float
    n: int


Rows = tuple[ArrayLike, ArrayLike]


def common(first: Rows, second: Rows) -> tuple[NDArray[np.int64], Array, Array]:
    """The ids that two (ids, rows) share, sorted, with both sets of rows; ValueError if they share none."""
    ids, at_first, at_second = np.intersect1d(np.asarray(first[0]), np.asarray(second[0]), return_indices=True)
    if not len(ids):
        raise ValueError("the two methods share no image: compare runs on the same list")
    return ids, _at(first[1], at_first), _at(second[1], at_second)


def _at(rows: ArrayLike, places: NDArray[np.int64]) -> Array:
    """Rows at ``places``; where these follow one another, the rows themselves, which may be too many to be held twice."""
    rows, start = _floating(rows), int(places[0])
    in_turn = np.array_equal(places, np.arange(start, start + len(places)))
    return rows[start : start + len(places)] if in_turn else rows[places]


def _floating(rows: ArrayLike) -> Array:
    """Rows as they are if they are floating-point (float32 sums are taken in float64), else in float64."""
    rows = np.asarray(rows)
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def paired_difference(
    first: Rows,
    second: Rows,
    value: Value = mean,
    *,
    groups: Callable[[NDArray[np.int64]], ArrayLike] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """``value(first) - value(second)`` on the common ids; first and second are (ids [n], rows [n,...]) of `Metric.per_image()`.

    Both are resampled together, image by image, so that effects of the image on both cancel. ``groups`` maps ids to what is drawn
    (`Metric.groups`).
    """
    ids, rows_first, rows_second = common(first, second)

    def difference(_: Array, weights: Array | None) -> Array:
        return value(rows_first, weights) - value(rows_second, weights)

    low, high = bootstrap(ids, difference, groups=None if groups is None else groups(ids), level=level, resamples=resamples, seed=seed)
    return Difference(float(difference(rows_first, None)), low, high, len(ids))


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a rate, in percent; sensible for rare events, where resampling zeros gives an interval of no width."""
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided p-value of McNemar's test that two paired columns [n] of 0/1 outcomes have the same rate; ties are ignored."""
    larger, smaller = np.sum(np.asarray(first) > np.asarray(second)), np.sum(np.asarray(first) < np.asarray(second))
    return float(stats.binomtest(int(larger), int(larger + smaller)).pvalue) if larger + smaller else 1.0


def randomization(
    first: Array, second: Array, value: Value = mean, *, groups: ArrayLike | None = None, resamples: int = 5000, seed: int = 0
) -> float:
    """Two-sided p-value of Fisher's randomization test: can the rows [n,...] of two methods be swapped, image by image?

    The share of random swaps, image by image, that bring the two values at least as far apart as they are; the observed value counts as one
    swap, so p is never 0 (Phipson & Smyth 2010). Rows of one group are swapped together. The whole ``value`` is recomputed, so it also
    tests a maximum over thresholds or a quotient of sums. The sign and Wilcoxon tests would test the median, and most drops are ties at
    zero. For the mean of 0/1 rows `mcnemar` is the exact form.
    """
    both = taken([first, second])
    n, (members, count) = len(first), _members(groups, len(first))
    found = abs(float(value(first, None) - value(second, None)))
    least = found - 1e-9 * max(1.0, found)  # rounding: a swap that agrees is as far apart
    bits, step, as_far = _swaps(seed, resamples, count), max(1, 2**19 // n), 0
    weights = np.empty((step, 2 * n))
    for start in range(0, resamples, step):
        swapped = np.unpackbits(np.stack(bits[start : start + step]), axis=1, count=count)
        own = weights[: len(swapped)]
        np.subtract(1, _spread(swapped, members, own[:, n:]), out=own[:, :n])
        apart = value(both, own)
        apart = apart - value(both, np.subtract(1, own, out=own))
        as_far += int((np.abs(apart) >= least).sum())
    return (1 + as_far) / (1 + resamples)


def outcomes(rows: Array, value: Value) -> Array | None:
    """The 0/1 outcome of each row [n,...] if ``value`` is the rate of the ones in percent, else None (a mean, a maximum, a class mean)."""
    alone = np.empty(len(rows))
    for start in range(0, len(rows), 256):
        some = rows[start : start + 256]
        try:
            value(some[:1], None)
            alone[start : start + 256] = value(some, np.eye(len(some))) / 100  # each row for itself
        except ValueError:  # a single image may have no value (PxAP with an empty mask)
            return None
        if not np.isin(alone[start : start + 256], (0, 1)).all():
            return None
    return alone if np.isclose(100 * alone.mean(), value(rows, None)) else None


def paired_p(first: Rows, second: Rows, value: Value = mean, *, groups: Callable[[NDArray[np.int64]], ArrayLike] | None = None) -> float:
    """Two-sided p-value of ``value(first) - value(second)`` on the common ids: exact McNemar for a rate, else `randomization`.

    Arguments as in `paired_difference`. If images have several rows each (classes), the rows of a rate are not independent: `randomization`
    then, with the rows of an image swapped together.
    """
    ids, rows_first, rows_second = common(first, second)
    members = ids if groups is None else np.asarray(groups(ids))
    if len(np.unique(members)) == len(ids):
        ones, others = outcomes(rows_first, value), outcomes(rows_second, value)
        if ones is not None and others is not None:
            return mcnemar(ones, others)
    return randomization(rows_first, rows_second, value, groups=members)


def same_rows(first: Rows, second: Rows) -> bool:
    """Whether two methods' rows are equal up to rounding: 99 % of the entries on the common ids within a thousandth.

    Not all entries: rounding sometimes changes a map's quantized level, and with it a box.
    """
    _, a, b = common(first, second)
    step = max(1, 2**22 // max(1, a[0].size))
    equal = sum(int(np.isclose(a[i : i + step], b[i : i + step], rtol=1e-3, atol=1e-5).sum()) for i in range(0, len(a), step))
    return equal >= 0.99 * a.size


def holm(pvalues: ArrayLike) -> Array:
    """P-values [m] adjusted for m comparisons by Holm's step-down (1979): the chance of any false alarm stays below the level.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(pvalues, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be one row of numbers from 0 to 1, got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted
