"""Figures and tables of the page *What came after*: newer methods beside the one they come from, and the peers' methods beside ours."""

from pathlib import Path

import pandas as pd
from cells import list_table
from matplotlib.lines import Line2D
from names import is_control, name
from plots import GREY, ORANGE, TEAL, WIDTH, WINE, below, figure, is_narrow, row
from tables import load_yaml

from cam_core.methods import METHODS

PEERS = Path(__file__).parent / "peers.yaml"
EQUAL = "mean 0.3"
PANELS = (("average_drop", "lower"), ("energy_pointing_game", "higher"))
KINDS = {"ancestor": (WINE, "minus its ancestor"), "mean_activation": (TEAL, "minus the mean activation"),
         "center_gaussian": (ORANGE, "minus the centre Gaussian")}  # fmt: skip


def lineage(options, dataset, backbone):
    """The rows of the study on one data set and network."""
    what = f"lineage-{dataset}-{backbone}"
    options.read.append(f"results/studies/{what}.csv")
    return pd.read_csv(options.results / f"studies/{what}.csv", keep_default_na=False)


def differences(rows, metric):
    """Each newcomer minus its ancestor and two controls, of maps at one mean, and on which side 0 is of the interval."""
    own = rows[(rows["metric"] == metric) & (rows["setting"] == EQUAL) & (rows["than"] != "")]
    of_both = [own[own["than"] == own["ancestor"]].assign(kind="ancestor"), own[own["than"].isin(KINDS)].assign(kind=lambda of: of["than"])]
    own = pd.concat(of_both, ignore_index=True)
    better = dict(PANELS)[metric]
    good, bad = (own["ci_low"] > 0, own["ci_high"] < 0) if better == "higher" else (own["ci_high"] < 0, own["ci_low"] > 0)
    return own.assign(side=good.map({True: 1, False: 0}) - bad.map({True: 1, False: 0}))


def forest(options, dataset, backbone):
    """Newcomers minus what they come from, one line each."""
    rows = lineage(options, dataset, backbone)
    found = {metric: differences(rows, metric) for metric, _ in PANELS}
    methods = list(dict.fromkeys(found["average_drop"]["method"]))

    def draw(into, theme):
        for column, (axes, (metric, better)) in enumerate(zip(row(into, 2), PANELS, strict=True)):
            for line, method in enumerate(methods):
                own = found[metric][found[metric]["method"] == method].set_index("kind")
                for step, (kind, (tint, _)) in enumerate(KINDS.items()):
                    if kind not in own.index:
                        continue
                    one, height = own.loc[kind], line + (step - 1) * 0.24
                    axes.plot([one["ci_low"], one["ci_high"]], [height, height], color=tint, lw=1.5, solid_capstyle="round")
                    axes.plot(one["value"], height, "o", color=tint, mfc=tint if one["side"] else theme.paper, mew=1.3, ms=4.5)
            axes.axvline(0, color=theme.text, lw=0.8, zorder=0)
            axes.set(yticks=range(len(methods)), ylim=(len(methods) - 0.4, -0.6), title=name(metric).rstrip("↑↓ \N{NO-BREAK SPACE}"))
            axes.set_yticklabels([] if column and not is_narrow(into) else [name(method) for method in methods])
            axes.set_xlabel({"higher": "worse ← difference → better", "lower": "better ← difference → worse"}[better])
            axes.grid(axis="x", lw=0.6)
            axes.tick_params(length=0)
        handles = [Line2D([], [], color=tint, marker="o", label=word) for tint, word in KINDS.values()]
        handles.append(Line2D([], [], color=GREY, marker="o", ls="", label="filled: the interval leaves out 0"))
        below(into, handles, 4)

    kind = "photographs" if dataset == "imagenet" else "drawn objects"
    answer = (
        f"Maps of {rows['n'].max()} images at one mean; paired differences with 95 % intervals, not corrected for their number. "
        f"{told(found)}"
    )
    return figure(
        options, f"lineage-{dataset}", draw, size=(WIDTH, 1.2 + 0.42 * len(methods)), phone=2.6 + 0.84 * len(methods), answer=answer,
        question=f"Does a newer method improve on the one it comes from? {name(backbone)}, {kind}",
        alt="Forest plots of Average Drop and energy in the box: newer methods minus their ancestors and controls, one line a method.",
    )  # fmt: skip


def told(found):
    """Which newcomers are better, and which worse, on both metrics than their ancestor, and than the mean activation, in words."""
    parts = []
    for kind, than in (("ancestor", "its ancestor"), ("mean_activation", "the mean activation")):
        own = pd.concat(rows[rows["kind"] == kind] for rows in found.values()).groupby("method", sort=False)["side"]
        better, worse = ([name(one) for one, sides in own if all(sides == side)] for side in (1, -1))
        parts.append(f"Better than {than}: {listed(better)}; worse: {listed(worse)}.")
    return f"On both metrics: {' '.join(parts)}"


def listed(names):
    """One, two and three; or nobody."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "none"


def values(options, dataset, backbone):
    """Every method and control of the study, as a table."""
    rows = lineage(options, dataset, backbone)
    own = rows[rows["than"] == ""].set_index(["method", "metric", "setting"])
    columns = [("average_drop", "as it is"), ("map_mean", "as it is"), ("average_drop", EQUAL), ("energy_pointing_game", EQUAL),
               ("road_combined", "as it is")]  # fmt: skip
    columns = [of for of in columns if any(key[1:] == of for key in own.index)]
    ancestors = dict(zip(rows["method"], rows["ancestor"], strict=True))
    head = ["method", "comes from", *(f"{name(metric)} {'' if setting == 'as it is' else setting}".strip() for metric, setting in columns)]
    lines = []
    for method in dict.fromkeys(own.index.get_level_values(0)):
        numbers = [cell(own.loc[(method, *of)]) if (method, *of) in own.index else "–" for of in columns]
        written = f"*{name(method)}*" if is_control(method) else name(method)
        lines.append([written, name(ancestors[method]) if ancestors[method] else "–", *numbers])
    return list_table(head, lines)


def cell(one):
    """A value with its interval."""
    return f"{one['value']:.1f} [{one['ci_low']:.1f}, {one['ci_high']:.1f}]"


def peers(_options):
    """Every CAM method of the peers beside ours, or why there is none."""
    lines = []
    for peer, of in load_yaml(PEERS).items():
        lines += [[peer, f"`{theirs}`", f"`{ours}`: {METHODS[ours].title}"] for theirs, ours in of["same"].items()]
        lines += [[peer, f"`{theirs}`", f"none: {why}"] for theirs, why in of["missing"].items()]
    return list_table(["package", "class", "here"], lines, kind="prose", widths="20 25 55")
