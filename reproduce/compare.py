"""Does a run agree with the published one? Record by record: identical to the bit, within the interval, or outside."""

from pathlib import Path

import pandas as pd

from reproduce import results

IDENTICAL, WITHIN, OUTSIDE = "identical", "within", "outside"
MEASURED = ["value", "ci_low", "ci_high", "n"]
NAMES = ["paper", "key", "method", "metric", "setting"]  # enough to find a record; the table has to fit a screen


def compare(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Join two tables of `results.load` on the columns that identify a record, and add the column `verdict`.

    verdict: "identical" (value, interval and n equal to the bit), "within" (our value lies in the published interval,
    or equals the published value), "outside", "only ours", "only published".
    """
    on = ["key", *results.KEY]
    if len({*ours.profile}) > 1 or len({*published.profile}) > 1:
        on = ["profile", *on]
    joined = ours[[*on, *MEASURED]].merge(published[[*on, *MEASURED]], on=on, how="outer", suffixes=("", "_published"), indicator=True)
    same = pd.Series(True, joined.index)
    for column in MEASURED:
        a, b = joined[column], joined[f"{column}_published"]
        same &= (a == b) | (a.isna() & b.isna())
    within = joined.value.between(joined.ci_low_published, joined.ci_high_published)
    within |= joined.value == joined.value_published
    joined["verdict"] = OUTSIDE
    joined.loc[within, "verdict"] = WITHIN
    joined.loc[same, "verdict"] = IDENTICAL
    joined.loc[joined._merge == "left_only", "verdict"] = "only ours"
    joined.loc[joined._merge == "right_only", "verdict"] = "only published"
    return joined.drop(columns="_merge")


def report(ours: Path | str, published: Path | str) -> tuple[str, bool]:
    """The comparison of two folders in words, counts first, and whether they agree (rows shared, none outside)."""
    tables = [results.load(root) for root in (ours, published)]
    for root, table in zip((ours, published), tables, strict=True):
        if table.empty:
            return f"{root} holds no complete run: nothing to compare", False
    joined = compare(*tables)
    count = {verdict: int((joined.verdict == verdict).sum()) for verdict in (IDENTICAL, WITHIN, OUTSIDE)}
    lines = [
        f"{sum(count.values())} records in both {ours} and {published}",
        f"  {count[IDENTICAL]:6d} identical bit for bit",
        f"  {count[WITHIN]:6d} within the published interval",
        f"  {count[OUTSIDE]:6d} outside of it",
    ]
    if not sum(count.values()):
        lines = [f"{ours} and {published} share no record: other profile, seed, backbone or weights?"]
    outside = joined[joined.verdict == OUTSIDE]
    if len(outside):
        columns = [*NAMES, "value", "value_published", "ci_low_published", "ci_high_published", "n", "n_published"]
        shown = outside[columns].rename(columns=lambda name: name.replace("_published", "'"))
        lines += ["", "outside (' marks the published side):", shown.to_string(index=False)]
    for verdict, root in (("only ours", ours), ("only published", published)):
        alone = joined[joined.verdict == verdict]
        if len(alone):
            lines += ["", f"only in {root}, {len(alone)} records:"]
            lines += [alone[[*NAMES, "weights", "seed"]].to_string(index=False, max_rows=40)]
    if len(hint := _other_weights(joined)):
        lines += ["", f"{len(hint)} records differ in nothing but the weights file: other weights, other numbers"]
    return "\n".join(lines), bool(sum(count.values())) and not count[OUTSIDE]


def _other_weights(joined: pd.DataFrame) -> pd.DataFrame:
    on = ["key", *(name for name in results.KEY if name != "weights")]
    alone = [joined.loc[joined.verdict == verdict, on] for verdict in ("only ours", "only published")]
    return alone[0].merge(alone[1], on=on)
