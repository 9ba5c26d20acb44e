"""The page of claims: each statement of a paper beside what the runs at hand say to it."""

import itertools
from collections import Counter

from names import name
from tables import PAPERS, digits_of, list_table, number, over_seeds, seed_interval, thousands


def claims(entries, rows, differences=()):
    """The claims of the papers, each with what the runs at hand say to it: by their paired ``differences`` where a run has them."""
    parts = []
    for paper, group in itertools.groupby(sorted(entries, key=lambda e: PAPERS.index(e["paper"])), lambda e: e["paper"]):
        parts.append(f"## {name(paper)}\n")
        lines = [[e["statement"], e["source"], _evidence(e, rows, differences)] for e in group]
        parts.append(list_table(["statement", "where it stands", "here"], lines, kind="prose", widths="24 18 58"))
    return "\n".join(parts)


SAME = ("paper", "run", "profile", "metric", "setting", "protocol")  # what two rows share that may be compared
TRAINED = ("paper", "profile", "metric", "setting", "protocol", "dataset", "split", "backbone", "weights", "recipe")  # all but the seed


def _evidence(entry, rows, differences):
    if "seen" in entry:
        return f"see {entry['seen']}"
    if "check" not in entry:
        return f"{entry['status']}: needs runs that are not part of this book yet"
    check = entry["check"]
    metrics = (check["metric"], check["metric"] + "_box")
    wanted = [row for row in rows if row["metric"] in metrics]
    wanted = [row for row in wanted if check.get("setting") in (None, row["setting"]) and " first " not in f" {row['setting']} "]
    pairs = {(*(d[k] for k in SAME), d["method"], d["than"]): d for d in differences if d["metric"] in metrics}
    trials = {}
    for own in (row for row in wanted if row["method"] == check["method"]):
        others = [r for r in wanted if r["method"] == check["than"] and all(r[k] == own[k] for k in SAME)]
        paired = pairs.get((*(own[k] for k in SAME), check["method"], check["than"]))
        for other in others:
            trials.setdefault((*(own[k] for k in TRAINED), other["weights"]), []).append((own, other, paired))
    found = [_compare(check, seeds) for seeds in trials.values()]
    said = [f"Read beside it: {entry['beside']}"] if found and "beside" in entry else []
    return [*found, *said] or "not run"


def _compare(check, seeds):
    """What one configuration says, whose ``seeds`` are (the method's row, the other's, their paired difference or None)."""
    own, *_ = seeds[0]
    notes = [own["profile"], *(["stand-in"] if "pqf" in own["weights"] else []), *(["box"] if own["metric"].endswith("_box") else [])]
    what = f", {own['setting']}" if own["setting"] and "setting" not in check else ""
    where = f"{name(own['dataset'])}, {name(own['backbone'])}{what} ({', '.join(notes)})"
    digits = digits_of([row for seed in seeds for row in seed[:2]])
    if len(seeds) == 1:
        said, note = _verdict(check, *seeds[0]), ""
        if own["weights"] != seeds[0][1]["weights"] and said != "not decided":
            said, note = "not decided", f"; {said} by the images, but each network was trained once, and another training may say otherwise"
        return f"**{said}** on {where}: {_against(*seeds[0], digits)}{note}"
    differences = [float(paired["value"]) if paired else float(own["value"]) - float(other["value"]) for own, other, paired in seeds]
    said = [_verdict(check, *seed) for seed in seeds]
    head = f"**{_over_all_seeds(check, said, differences)}** on {where}, {len(seeds)} seeds"
    if mean := over_seeds(differences, digits, "+"):
        counted = ", ".join(f"{one} under {count}" for one, count in Counter(said).most_common())
        return f"{head}: mean difference {mean}, the interval over the seeds. By the images of one seed: {counted}"
    each = [f" ({one})" if len(set(said)) > 1 else "" for one in said]
    listed = " · ".join(_short(*seed, digits) + one for seed, one in zip(seeds, each, strict=True))
    return f"{head}, n {thousands(own['n'])}, differences {listed}"


def _short(own, other, paired, digits):
    """A seed's paired difference, or the two values where a run has none."""
    return number(paired, sign=True, digits=digits) if paired else f"{number(own, digits=digits)} against {number(other, digits=digits)}"


def _against(own, other, paired, digits):
    n = "" if own["n"] == other["n"] else f" (n {thousands(own['n'])} and {thousands(other['n'])})"
    told = _difference(paired, digits) if paired else "intervals of each alone, no paired difference"
    return f"{number(own, digits=digits)} against {number(other, digits=digits)}{n}; {told}"


def _verdict(check, own, other, paired):
    sign, margin = 1 if check["direction"] == "higher" else -1, check.get("margin")
    return _paired_verdict(sign, paired, margin) if paired else _marginal_verdict(sign, own, other, margin)


def _over_all_seeds(check, said, differences):
    """By the interval over the seeds where there are enough of them; else what all of them ``said``, each by its own images."""
    interval = seed_interval(differences)
    if interval is None:
        return said[0] if len(set(said)) == 1 else "not decided"
    return _by_interval(1 if check["direction"] == "higher" else -1, *interval, check.get("margin", 0))


FEW = 30  # images: the intervals of fewer are too narrow to be judged by alone


def _paired_verdict(sign, paired, margin=None):
    """The claim by the interval of its paired difference and by the corrected p, both of which must decide.

    With a margin: not worse by more than that (non-inferiority, one-sided 2.5 %), by the interval alone, which
    then must come of `FEW` images or more.
    """
    few = margin is not None and float(paired["n"]) < FEW
    if few or (margin is None and (paired["same_as"] or float(paired["p_holm"]) > 0.05)):
        return "not decided"
    return _by_interval(sign, float(paired["ci_low"]), float(paired["ci_high"]), margin or 0)


def _by_interval(sign, low, high, margin):
    """Whether all of the difference's interval lies on the claim's side of a loss of ``margin``."""
    worst, best = sorted((sign * low, sign * high))
    return "holds" if worst > -margin else "does not hold" if best < -margin else "not decided"


def _marginal_verdict(sign, own, other, margin=None):
    """The claim by the order of two values whose own intervals lie apart; one with a margin is not judged so."""
    if margin is not None:
        return "not judged"
    holds = sign * (float(own["value"]) - float(other["value"])) > 0
    known = all(row[bound] for row in (own, other) for bound in ("ci_low", "ci_high"))
    apart = known and (float(own["ci_low"]) > float(other["ci_high"]) or float(own["ci_high"]) < float(other["ci_low"]))
    return ("holds" if holds else "does not hold") if apart else "not decided"


def _difference(paired, digits=1):
    """A paired difference with its interval and corrected p, in words."""
    told = f"difference {number(paired, sign=True, digits=digits)}, n {thousands(paired['n'])}"
    if paired["same_as"]:
        return f"{told}; the same map as {name(paired['same_as'])}, counted once"
    p = float(paired["p_holm"])
    return f"{told}, corrected p {f'{p:.2g}' if p >= 0.001 else 'below 0.001'}"
