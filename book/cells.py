"""Numbers as the book prints them, and tables of them as MyST."""

import html
import math
import statistics
from urllib.parse import urlencode

import numpy as np
import pandas as pd
from names import is_control, label
from scipy import stats

from reproduce.results import number

NBSP = "\N{NO-BREAK SPACE}"
ENOUGH_SEEDS = 10


def cell(value, low=math.nan, high=math.nan, *, digits=1, sign="", unit=""):
    """A number as it stands in a table, `41.3 [40.0, 42.5]`: each part is rounded once, from what the file has; without a value a dash."""
    if pd.isna(value):
        return "–"
    ends = "" if pd.isna(low) or pd.isna(high) else f" [{number(low, digits)},{NBSP}{number(high, digits)}]"
    return f"{number(value, digits, sign)}{unit}{ends}"


def texts(values, digits=1, unit=""):
    """The cells of a column of values; ``digits``: one number, or one a value."""
    found = zip(values, np.broadcast_to(digits, len(values)), strict=True)
    return pd.Series([cell(value, digits=of, unit=unit) for value, of in found], values.index, object)


def cells(rows, digits=1, sign="", value="value"):
    """The cell of every row: its ``value`` and, where it has them, `ci_low` and `ci_high`; ``digits``: one number, or one a row."""
    found = rows.reindex(columns=[value, "ci_low", "ci_high"]).itertuples(index=False)
    wanted = zip(found, np.broadcast_to(digits, len(rows)), strict=True)
    return pd.Series([cell(*row, digits=of, sign=sign) for row, of in wanted], rows.index, object)


def rows_link(kind, **wanted):
    """A link to rows of the Explorer: "values", "differences" or "studies"; what is wanted of a column, one word or several."""
    asked = {column: words if isinstance(words, str) else "|".join(dict.fromkeys(words)) for column, words in wanted.items()}
    query = urlencode({"kind": kind} | {column: words for column, words in asked.items() if words})
    return f'<a class="rows" href="explorer.html#{html.escape(query)}">rows</a>'


def digits_of(values):
    """One for percentages, two for ratios, which stay below 3 here, three for what lies between -1 and 1."""
    largest = max(map(abs, values), default=0)
    return 1 if largest > 3 else 2 if largest > 1 else 3


def seed_interval(values):
    """Mean and 95 % t interval of the mean of ten seeds or more, seeds being what is drawn and the images fixed; of fewer, None."""
    if len(values) < ENOUGH_SEEDS:
        return None
    mean, half = statistics.fmean(values), stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def over_seeds(values, digits=1, sign=""):
    """The cell of the mean over the seeds with its interval; nothing where the seeds are too few."""
    interval = seed_interval(values)
    return cell(*interval, digits=digits, sign=sign) if interval else ""


def keys(rows, by):
    """What a column, or several, hold: every value once, in order of appearance."""
    return rows.set_index(by).index.unique()


def pivot(rows, index, columns, missing="–"):
    """The column `cell` spread over lines and columns, both in order of appearance."""
    wide = rows.pivot(index=index, columns=columns, values="cell")  # noqa: PD010 (a pivot_table would hide two cells in one place)
    return wide.reindex(index=keys(rows, index), columns=keys(rows, columns)).fillna(missing)


def controls_below(wide):
    """The lines of methods with what explains first."""
    return wide.loc[sorted(wide.index, key=is_control)]


def grid(wide, head, caption, line=label):
    """A pivot as a list-table; ``line`` turns a key of its index into what is printed."""
    return list_table(head, [[line(key), *found] for key, found in zip(wide.index, wide.to_numpy(), strict=True)], caption)


def list_table(head, rows, caption="", kind="numbers", widths=""):
    """A MyST list-table; every row has as many cells as the head.

    A cell that is a list becomes one; of one that is a tuple, the seeds' values, each stands on a line that does not break.
    """
    lines = [f":::{{list-table}} {caption}".rstrip(), ":header-rows: 1", *([f":widths: {widths}"] if widths else []), f":class: {kind}", ""]
    for row in [head, *rows]:
        for i, entry in enumerate(row):
            begin = "* - " if i == 0 else "  - "
            if isinstance(entry, list):
                lines += [f"{'    ' if j else begin}- {_text(one)}" for j, one in enumerate(entry)]
            else:
                lines.append(begin + _text(entry))
    return "\n".join([*lines, ":::", ""])


def _text(entry):
    if isinstance(entry, tuple) and len(entry) > 1:
        return "\\\n    ".join(one.replace(" ", NBSP) for one in entry)
    return str(entry[0] if isinstance(entry, tuple) else entry).replace("\n", " ")
