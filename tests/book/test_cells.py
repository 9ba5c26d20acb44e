"""A cell rounds once and from what the file has; a pivot keeps the order of the file."""

import math
import statistics
from decimal import ROUND_HALF_EVEN, Decimal

import cells
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


@given(st.floats(-1e4, 1e4), st.integers(0, 3))
def test_a_number_is_rounded_once_from_its_exact_value(value, digits):
    """As decimal arithmetic rounds the exact value of the float, and zero has no minus."""
    exact = Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN)
    assert cells.cell(value, digits=digits) == (f"{exact:f}" if exact else f"{abs(exact):f}")


@pytest.mark.parametrize(
    ("value", "low", "high", "options", "text"),
    [
        (
            66.65,
            66.649,
            66.751,
            {},
            "66.7 [66.6, 66.8]",
        ),  # the float lies above the tie; times ten it does not
        (-0.04, -0.04, 0.04, {}, "0.0 [0.0, 0.0]"),
        (-0.04, -1.04, 0.0, {"sign": "+"}, "0.0 [-1.0, 0.0]"),
        (0.04, math.nan, math.nan, {"sign": "+"}, "+0.0"),
        (-0.06, math.nan, 1.0, {"sign": "+"}, "-0.1"),
        (0.1249, 0.1, 0.2, {"digits": 2, "unit": " s"}, "0.12 s [0.10, 0.20]"),
        (math.nan, 1.0, 2.0, {}, "–"),
    ],
)
def test_a_cell(value, low, high, options, text):
    assert cells.cell(value, low, high, **options).replace("\N{NO-BREAK SPACE}", " ") == text


def test_the_mean_over_seeds_is_exact():
    """Ten values whose mean is 3.75 to the last bit, so that the even digit is taken; added one by one they come to another."""
    values = [7.3, 4.3, 0.8, 2.2, 4.1, 3.1, 3.1, 7.0, 4.0, 1.6]
    assert sum(values) / 10 != statistics.fmean(values) == 3.75
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert cells.over_seeds(values) == f"3.8 [{found.low:.1f},\N{NO-BREAK SPACE}{found.high:.1f}]"
    assert cells.over_seeds(values[:9]) == ""


def test_a_pivot_keeps_the_order_of_the_file_and_hides_no_cell():
    rows = pd.DataFrame([("b", "y", 1), ("a", "y", 2), ("a", "x", 3)], columns=["line", "column", "cell"])
    wide = cells.pivot(rows, "line", "column")
    assert (list(wide.index), list(wide.columns), wide.to_numpy().tolist()) == (["b", "a"], ["y", "x"], [[1, "–"], [2, 3]])
    with pytest.raises(ValueError, match="duplicate"):
        cells.pivot(pd.concat([rows, rows]), "line", "column")
