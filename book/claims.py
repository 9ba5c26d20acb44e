"""The page of claims: each statement of a paper beside what the runs at hand say to it."""

import itertools
from collections import Counter

import pandas as pd
from cells import cell, digits_of, list_table, over_seeds, seed_interval
from names import name
from tables import PAPERS, of_the_first

SAME = ["paper", "key", "profile", "metric", "setting", "protocol"]  # what two rows share that may be compared
TRAINED = ["paper", "profile", "metric", "setting", "protocol", "dataset", "split", "backbone", "recipe", "weights", "weights_than"]
FEW = 30  # images: the intervals of fewer are too narrow to be judged by alone


def claims(entries, rows, differences):
    """The claims of the papers, each with what the runs at hand say to it: by their paired ``differences`` where a run has them."""
    parts = []
    for paper, group in itertools.groupby(sorted(entries, key=lambda e: PAPERS.index(e["paper"])), lambda e: e["paper"]):
        parts.append(f"## {name(paper)}\n")
        lines = [[e["statement"], e["source"], _evidence(e, rows, differences)] for e in group]
        parts.append(list_table(["statement", "where it stands", "here"], lines, kind="prose", widths="24 18 58"))
    return "\n".join(parts)


def _evidence(entry, rows, differences):
    if "seen" in entry:
        return f"see {entry['seen']}"
    if "check" not in entry:
        return f"{entry['status']}: needs runs that are not part of this book yet"
    check = entry["check"]
    wanted = rows[rows["metric"].isin([check["metric"], check["metric"] + "_box"]) & ~of_the_first(rows)]
    if "setting" in check:
        wanted = wanted[wanted["setting"] == check["setting"]]
    own, other = (wanted[wanted["method"] == check[side]] for side in ("method", "than"))
    paired = differences[(differences["method"] == check["method"]) & (differences["than"] == check["than"])]
    seeds = own.merge(other, on=SAME, suffixes=("", "_than")).merge(paired, "left", SAME, suffixes=("", "_paired"))
    found = [_compare(check, list(of.itertuples())) for _, of in seeds.groupby(TRAINED, sort=False)]
    said = [f"Read beside it: {entry['beside']}"] if found and "beside" in entry else []
    return [*found, *said] or "not run"


def _compare(check, seeds):
    """What one configuration says: each of its ``seeds`` has the method's row, the other's (`_than`) and their difference (`_paired`)."""
    first = seeds[0]
    notes = [first.profile, *(["stand-in"] if "pqf" in first.weights else []), *(["box"] if first.metric.endswith("_box") else [])]
    what = f", {first.setting}" if first.setting and "setting" not in check else ""
    where = f"{name(first.dataset)}, {name(first.backbone)}{what} ({', '.join(notes)})"
    digits = digits_of([value for seed in seeds for value in (seed.value, seed.value_than)])
    said = [_verdict(check, seed) for seed in seeds]
    if len(seeds) == 1:
        (said,), note = said, ""
        if first.weights != first.weights_than and said != "not decided":
            said, note = "not decided", f"; {said} by the images, but each network was trained once, and another training may say otherwise"
        return f"**{said}** on {where}: {_against(first, digits)}{note}"
    differences = [seed.value - seed.value_than if pd.isna(seed.value_paired) else seed.value_paired for seed in seeds]
    interval = seed_interval(differences)
    if interval:
        counted = ", ".join(f"{one} under {count}" for one, count in Counter(said).most_common())
        said = f"mean difference {over_seeds(differences, digits, '+')}, the interval over the seeds. By the images of one seed: {counted}"
        return f"**{_by_interval(check, *interval[1:])}** on {where}, {len(seeds)} seeds: {said}"
    agreed = len(set(said)) == 1
    listed = " · ".join(_short(seed, digits) + ("" if agreed else f" ({one})") for seed, one in zip(seeds, said, strict=True))
    return f"**{said[0] if agreed else 'not decided'}** on {where}, {len(seeds)} seeds, n {first.n:,}, differences {listed}"


def _verdict(check, seed):
    """The claim by the images of one seed.

    By the interval of the paired difference and its corrected p, both of which must decide. With a margin, not worse by more than that
    (non-inferiority, one-sided 2.5 %): by the interval alone, which then must come of `FEW` images or more.
    Without a paired difference by the order of two values whose own intervals lie apart; a claim with a margin is then not judged.
    """
    margin = "margin" in check
    if pd.isna(seed.value_paired):
        apart = seed.ci_low > seed.ci_high_than or seed.ci_high < seed.ci_low_than
        higher = seed.value > seed.value_than
        decided = "holds" if higher == (check["direction"] == "higher") else "does not hold"
        return "not judged" if margin else decided if apart else "not decided"
    if seed.n_paired < FEW if margin else seed.same_as or seed.p_holm > 0.05:
        return "not decided"
    return _by_interval(check, seed.ci_low_paired, seed.ci_high_paired)


def _by_interval(check, low, high):
    """Whether all of the difference's interval lies on the claim's side of a loss of its margin."""
    worst, best = (low, high) if check["direction"] == "higher" else (-high, -low)
    margin = check.get("margin", 0)
    return "holds" if worst > -margin else "does not hold" if best < -margin else "not decided"


def _cell(seed, digits, of="", sign=""):
    return cell(*(getattr(seed, key + of) for key in ("value", "ci_low", "ci_high")), digits=digits, sign=sign)


def _short(seed, digits):
    """A seed's paired difference, or the two values where a run has none."""
    if pd.isna(seed.value_paired):
        return f"{_cell(seed, digits)} against {_cell(seed, digits, '_than')}"
    return _cell(seed, digits, "_paired", "+")


def _against(seed, digits):
    """The two values and their paired difference, with its corrected p, in words."""
    n = "" if seed.n == seed.n_than else f" (n {seed.n:,} and {seed.n_than:,})"
    told = f"{_cell(seed, digits)} against {_cell(seed, digits, '_than')}{n}; "
    if pd.isna(seed.value_paired):
        return f"{told}intervals of each alone, no paired difference"
    told += f"difference {_short(seed, digits)}, n {seed.n_paired:,.0f}"
    if seed.same_as:
        return f"{told}; the same map as {name(seed.same_as)}, counted once"
    return f"{told}, corrected p {f'{seed.p_holm:.2g}' if seed.p_holm >= 0.001 else 'below 0.001'}"
