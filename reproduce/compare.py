"""Does a run agree with the published one? Record by record: identical to the bit, within the interval, or outside."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reproduce import layout, results

IDENTICAL, WITHIN, OUTSIDE = "identical", "within", "outside"
MEASURED = ["value", "ci_low", "ci_high", "n"]
TESTED = ["p", "p_holm", "same_as"]  # of differences
NAMES = ["paper", "key", "method", "than", "metric", "setting"]  # enough to find a record; the table has to fit a screen
LEVEL = 0.05  # a corrected p-value below it is a finding
FACTS = {  # of a run's provenance: what it means if they differ, and their value where they are not recorded
    "data_digest": ("other data", "not recorded"),
    "weights_digest": ("other weights", "not recorded"),
    "engine": ("another engine, compared within the interval", "torch"),
}


def compare(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Join two tables of `results.load` (both of records, or both of differences) and add the column `verdict`.

    verdict: "identical" (all that was measured is equal to the bit), "within" (our value lies in the published interval, or is the
    published value up to rounding), "outside", "only ours", "only published". Of a difference the finding must be the same too: which
    methods give one map, and whether the corrected p-value is below `LEVEL`; and equal numbers must have equal p-values.
    """
    on = ["key", *results.KEY, *(["than"] if "than" in ours else [])]
    if len({*ours.profile}) > 1 or len({*published.profile}) > 1:
        on = ["profile", *on]
    columns = [*on, *MEASURED, *(TESTED if "than" in ours else [])]
    joined = ours[columns].merge(published[columns], on=on, how="outer", suffixes=("", "_published"), indicator=True)

    def equal(*names: str) -> "pd.Series[bool]":
        same = pd.Series(True, joined.index)
        for name in names:
            a, b = joined[name], joined[f"{name}_published"]
            same &= (a == b) | (a.isna() & b.isna())
        return same

    within = joined.value.between(joined.ci_low_published, joined.ci_high_published)
    within |= np.isclose(joined.value, joined.value_published, rtol=1e-9, atol=1e-9)
    if "than" in ours:
        found = (joined.p_holm < LEVEL) == (joined.p_holm_published < LEVEL)
        within &= found & equal("same_as") & (equal("p") | ~equal(*MEASURED))
    joined["verdict"] = OUTSIDE
    joined.loc[within, "verdict"] = WITHIN
    joined.loc[equal(*(name for name in columns if name not in on)), "verdict"] = IDENTICAL
    joined.loc[joined._merge == "left_only", "verdict"] = "only ours"
    joined.loc[joined._merge == "right_only", "verdict"] = "only published"
    return joined.drop(columns="_merge")


def report(ours: Path | str, published: Path | str) -> tuple[str, bool]:
    """The comparison of two folders in words, and whether they agree: everything published is in ours, and nothing of it is outside.

    One line for each run that is missing, or has other data, other weights or another engine; then the counts and what is outside. What
    only ours have, another engine, and other weights of a network that the run itself trains are named and decide nothing: the numbers do.
    """
    found = [results.complete(root) for root in (ours, published)]
    for root, folders in zip((ours, published), found, strict=True):
        if not folders:
            return f"{root} holds no complete run: nothing to compare", False
    told = list(_told(*found))
    lines, agree = [line for line, _ in told], not any(decides for _, decides in told)
    for file, what in ((layout.METRICS, "records"), (layout.DIFFERENCES, "differences")):
        tables = [results.load(root, file) for root in (ours, published)]
        if not tables[1].empty:
            joined = compare(*tables)
            agree &= {*joined.verdict} <= {IDENTICAL, WITHIN, "only ours"}
            lines += ["", *_counted(joined, ours, published, what)]
    return "\n".join(lines).strip(), agree


def _told(ours: Sequence[Path], published: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """A line for each run that is missing or was made in another way, and whether the folders then cannot agree."""
    several = any(len({folder.parts[-3] for folder in folders}) > 1 for folders in (ours, published))
    here, there = ({"/".join(folder.parts[-3 if several else -2 :]): folder for folder in folders} for folders in (ours, published))
    for run, folder in there.items():
        if run not in here:
            yield f"{run}: missing", True
            continue
        facts = [json.loads((of / layout.PROVENANCE).read_text()) for of in (here[run], folder)]
        for fact, (words, usual) in FACTS.items():
            this, that = (str(of.get(fact) or usual)[:12] for of in facts)
            if this != that:
                decides = fact == "data_digest" or (fact == "weights_digest" and not _trains_its_network(facts[0]))
                yield f"{run}: {words} ({this}, published {that})", decides
        for file in (layout.DIFFERENCES, layout.MAPS):
            if (folder / file).exists() and not (here[run] / file).exists():
                yield f"{run}: {file} is missing", True
        if all((of / layout.MAPS).exists() for of in (here[run], folder)) and _held(here[run]) != _held(folder):
            yield f"{run}: {layout.MAPS} holds other images or methods", True
    yield from ((f"{run}: not published", False) for run in here if run not in there)


def _trains_its_network(facts: Mapping[str, Any]) -> bool:
    """All but the networks pretrained on ImageNet are trained by the run; on another machine they get other weights."""
    of_run = facts.get("parameters", {}).get("dataset")
    return of_run is not None and (of_run != "imagenet" or "digest" in facts.get("models", {}).get("plain", {}))


def _held(folder: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    ids, maps = results.read_maps(folder / layout.MAPS)
    return ids, {name: heat.shape for name, heat in maps.items()}


def _counted(joined: pd.DataFrame, ours: Path | str, published: Path | str, what: str) -> list[str]:
    """How many records there are of each verdict, those outside, and those on one side only."""
    count = {verdict: int((joined.verdict == verdict).sum()) for verdict in (IDENTICAL, WITHIN, OUTSIDE)}
    lines = [
        f"{sum(count.values())} {what} in both {ours} and {published}",
        f"  {count[IDENTICAL]:6d} identical bit for bit",
        f"  {count[WITHIN]:6d} within the published interval",
        f"  {count[OUTSIDE]:6d} outside of it",
    ]
    if not sum(count.values()):
        lines = [f"{ours} and {published} share no {what}: other profile, seed, backbone or weights?"]
    names = [name for name in NAMES if name in joined]
    outside = joined[joined.verdict == OUTSIDE]
    if len(outside):
        of = ["value", "ci_low", "ci_high", "n", *(TESTED if "than" in joined else [])]
        columns = [*names, *(name for pair in ((one, f"{one}_published") for one in of) for name in pair)]
        shown = outside[columns].rename(columns=lambda name: name.replace("_published", "'"))
        lines += ["", "outside (' marks the published side):", shown.to_string(index=False)]
    for verdict, root in (("only ours", ours), ("only published", published)):
        alone = joined[joined.verdict == verdict]
        if len(alone):
            lines += ["", f"only in {root}, {len(alone)} {what}:"]
            lines += [alone[[*names, "weights", "seed"]].to_string(index=False, max_rows=40)]
    if len(hint := _other_weights(joined)):
        lines += ["", f"{len(hint)} {what} differ in nothing but the weights file: other weights, other numbers"]
    return lines


def _other_weights(joined: pd.DataFrame) -> pd.DataFrame:
    on = ["key", *(name for name in (*results.KEY, "than") if name in joined and name != "weights")]
    alone = [joined.loc[joined.verdict == verdict, on] for verdict in ("only ours", "only published")]
    return alone[0].merge(alone[1], on=on)
