"""The figures of CALM's page: the network, cue localization, remove-and-classify, EM beside ML, and calibration."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from cells import cell, rows_link, seed_interval
from flow import flow
from matplotlib.lines import Line2D
from names import name
from plot_lfi_cam import read
from plots import BLUE, GREY, ORANGE, TEAL, WIDTH, WINE, below, figure, folded, is_narrow, place, row
from tables import load_yaml

PUBLISHED = Path(__file__).parent / "published.yaml"
METHODS = {"cam": ("CAM", TEAL, "plain"), "calm_em": ("CALM-EM", WINE, "calm_em"), "calm_ml": ("CALM-ML", ORANGE, "calm_ml")}
DATA = {"cub": "CUB-200-2011", "drawn_cub": "drawn birds"}
NETWORKS = {"cub": "resnet18", "drawn_cub": "resnet8"}  # those with several seeds
SHOWN = {"paper": "calm", "backbone": list(NETWORKS.values()), "method": list(METHODS)}  # of the Explorer's rows


def published(metric):
    """What the authors printed of a metric, by setting: method -> value."""
    entries = (one for one in load_yaml(PUBLISHED) if one["paper"] == "calm" and one["columns"][0][0] == metric)
    entry = next(entries)
    values = entry["backbones"]["not stated"]
    return {setting: {of: own[column] for of, own in values.items()} for column, (_, setting) in enumerate(entry["columns"])}


def chosen(rows, dataset):
    """The rows of CALM on one data set, of the network with several seeds."""
    return rows[(rows["paper"] == "calm") & (rows["dataset"] == dataset) & (rows["backbone"] == NETWORKS[dataset])]


# ---- the network ------------------------------------------------------------------------------------------------------


def network(options):
    """The way of the data through a CALM network."""
    boxes = {
        "image": (0, 0.5, "image $x$"), "trunk": (1, 0.5, "convolutions"),
        "class": (2.3, 0, "1×1 convolution,\nsoftmax over\nclasses: $p(y|x,z)$"),
        "location": (2.3, 1, "1×1 convolution,\nReLU, over its\nsum: $p(z|x)$"), "joint": (3.9, 0.5, "their product:\n$p(y,z|x)$"),
        "map": (5.3, 0, "map: the plane\nof class $y$"), "sum": (5.3, 1, "sum over places\n$z$: $p(y|x)$"),
    }  # fmt: skip

    arrows = [("image", "trunk"), ("trunk", "class"), ("trunk", "location"), ("class", "joint"), ("location", "joint"), ("joint", "map"),
              ("joint", "sum")]  # fmt: skip

    def draw(into, theme):
        flow(into, boxes, arrows, theme, own=("class", "location", "joint", "map", "sum"), wide=0.52)

    return figure(
        options, "calm-network", draw, size=(WIDTH, 2.4), phone=6.4, question="How does the data go through CALM?",
        answer="Wine: CALM's head, in the place of a plain network's. The map and the prediction are two readings of one probability.",
        alt="Diagram: image, convolutions, two 1×1 convolutions for the class at each place and for the place; their product is the joint "
        "probability; its sum over the places is the prediction, its plane of one class the map.",
    )  # fmt: skip


# ---- cue localization -------------------------------------------------------------------------------------------------


def cues(rows, dataset):
    """Cue localization over all pairs of classes, a row a seed, and the accuracy of the network behind each: columns by method."""
    own = chosen(rows, dataset)
    scores = own[own["metric"].isin(["cue_localization", "cue_localization_box"]) & (own["setting"] == "all pairs")]
    right = own[own["metric"] == "accuracy"].pivot_table(index="seed", columns="method", values="value")
    wide = scores.pivot_table(index="seed", columns="method", values="value")[list(METHODS)]
    return wide, right.rename(columns={network: of for of, (*_, network) in METHODS.items()})[list(METHODS)]


def failed(right):
    """Seeds and methods whose network hardly learned, as the verdicts say it: below half of the median over the seeds."""
    low = right < 0.5 * right.median()
    return [(seed, of) for of in right for seed in right.index[low[of]]]


def cue_localization(options, rows):
    """Slopes CAM, CALM-EM, CALM-ML, a line a seed, each point coloured by the accuracy of its network."""
    found = {of: cues(rows, of) for of in DATA}
    printed = published("cue_localization")["mean"]
    colours = mpl.colormaps["viridis"]

    def draw(into, theme):
        panels = row(into, 2, width_ratios=(3, 4))
        for axes, (dataset, (scores, right)) in zip(panels, found.items(), strict=True):
            for seed in scores.index:
                axes.plot(range(3), scores.loc[seed], "-", color=GREY, lw=1, zorder=1)
                tints = colours(right.loc[seed] / 100)
                axes.scatter(range(3), scores.loc[seed], c=tints, s=46, edgecolor=theme.text, lw=0.5, zorder=2)
            for seed, of in failed(right):
                axes.annotate(f"seed {seed}: {right.loc[seed, of]:.0f} % right", (list(METHODS).index(of), scores.loc[seed, of]), (10, -3),
                              textcoords="offset points", fontsize=8)  # fmt: skip
            if dataset == "cub":
                theirs = [printed[of] for of in METHODS]
                axes.plot(range(3), theirs, "x:", color=theme.text, lw=1.2, ms=6, label="the authors, CUB, another form")
                axes.legend(loc="lower left", fontsize=8)
            axes.set(xlim=(-0.35, 2.55), ylim=(0, 42), xticks=range(3), xticklabels=[words for words, *_ in METHODS.values()])
            axes.set_title(f"{DATA[dataset]}, {name(NETWORKS[dataset])}, {len(scores)} seeds", loc="left", fontsize=9.5)
            axes.grid(axis="y", lw=0.6)
            axes.tick_params(length=0)
        panels[0].set_ylabel("cue localization (pixel AP), %")
        bar = into.colorbar(mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 100), colours), ax=panels, fraction=0.03, pad=0.01)
        bar.set_label("accuracy of the network, %")
        bar.outline.set_visible(False)

    (cub, _), (drawn, right) = found.values()
    trained = ", ".join(f"{METHODS[of][0]} under seed {seed} ({right.loc[seed, of]:.0f} % right)" for seed, of in failed(right))
    ahead = [f"{sum(one['cam'] > one['calm_em'])} of {len(one)}" for one in (drawn, cub)]
    answer = (
        f"One line a seed. CAM points better than CALM-EM under {ahead[0]} seeds on drawn birds and {ahead[1]} on CUB. On drawn birds EM "
        f"is above ML under {sum(drawn['calm_em'] > drawn['calm_ml'])} of {len(drawn)} seeds."
    ) + (f" Trainings that failed: {trained}." if trained else "")
    return figure(
        options, "calm-cues", draw, size=(WIDTH, 3.6), phone=6.6, answer=answer,
        question="Does CALM point better at the parts in which two classes differ?",
        alt="Slope plots of cue localization from CAM to CALM-EM to CALM-ML, a line a seed, points coloured by the network's accuracy.",
        rows=rows_link("values", metric=["cue_localization", "cue_localization_box"], **SHOWN),
    )  # fmt: skip


# ---- remove and classify ----------------------------------------------------------------------------------------------

SHARES = {"correct_after_removal": "-", "correct_after_random_removal": ":"}


def removed(rows, dataset, metric):
    """The mean over the seeds at each share k that is removed: a column a method, k in percent as the index."""
    own = chosen(rows, dataset)
    own = own[(own["metric"] == metric) & own["method"].isin(list(METHODS))]
    wide = own.assign(k=own["setting"].str.rstrip("%").astype(int)).pivot_table(index="k", columns="method", values="value")
    return wide[list(METHODS)]


def decided(differences, dataset):
    """The shares at which the interval over the seeds decides R of CALM-EM minus CAM: in its favour, and against it."""
    own = chosen(differences, dataset)
    own = own[(own["metric"] == "remove_and_classify") & (own["method"] == "calm_em") & (own["than"] == "cam")]
    intervals = {setting: seed_interval(list(of["value"])) for setting, of in own.groupby("setting")}
    intervals = {setting: of for setting, of in intervals.items() if of}
    return [of for of, one in intervals.items() if one[2] < 0], [of for of, one in intervals.items() if one[1] > 0]


def removal(options, rows, differences):
    """R against k, and beside it the shares of images whose ratio it is."""
    printed = published("remove_and_classify")
    counts = {of: chosen(rows, of).query("metric == 'correct_after_removal'")["n"].max() for of in DATA}

    def draw(into, theme):
        grid = row(into, 2 * len(DATA), sharex=True).reshape(-1, 2) if is_narrow(into) else into.subplots(len(DATA), 2, sharex=True)
        for (left, right), (dataset, words) in zip(grid, DATA.items(), strict=True):
            for method, (_, tint, _) in METHODS.items():
                ratio = removed(rows, dataset, "remove_and_classify")[method]
                left.plot(ratio.index, ratio, "o-", color=tint, ms=4)
                if dataset == "cub":
                    left.plot([int(k.rstrip("%")) for k in printed], [of[method] for of in printed.values()], "x:", color=tint, lw=1, ms=5)
                for metric, style in SHARES.items():
                    share = removed(rows, dataset, metric)[method]
                    right.plot(share.index, share, style, color=tint, marker="o" if style == "-" else "", ms=4)
            left.axhline(1, color=theme.text, lw=0.8, zorder=0)
            left.set_ylabel("$R_k$ (lower is better)")
            right.set_ylabel(f"right, % of {counts[dataset]} images")
            left.set_title(words, loc="left")
            for axes in (left, right):
                axes.grid(lw=0.6)
                axes.set(xticks=range(10, 100, 20))
                axes.tick_params(length=0)
        for axes in grid[-1]:
            axes.set_xlabel("removed, % of the pixels")
        handles = [Line2D([], [], color=tint, marker="o", label=words) for words, tint, _ in METHODS.values()]
        handles += [Line2D([], [], color=GREY, ls=":", label="random pixels removed"),
                    Line2D([], [], color=GREY, ls=":", marker="x", label="the authors, CUB")]  # fmt: skip
        below(into, handles, 5)

    before, after = (removed(rows, "cub", metric).loc[50] for metric in SHARES)
    gain, loss = decided(differences, "drawn_cub")
    answer = (
        "R is the share of images still right when the pixels that the map marks are gone, over the share when random ones are. "
        "At 50 % on CUB, "
        + ", ".join(f"{words}: {cell(before[of])} over {cell(after[of])} %" for of, (words, *_) in METHODS.items())
        + f" (means of the seeds). On drawn birds the interval over the seeds goes against CALM-EM at {', '.join(loss) or 'no share'}"
        f" and for it at {', '.join(gain) or 'none'}."
    )
    return figure(
        options, "calm-removal", draw, size=(WIDTH, 5.2), phone=9,
        question="Does the network need the pixels that CALM marks?", answer=answer,
        alt="Line plots of R against the share of removed pixels, and of the shares right after removal and after random removal.",
        rows=rows_link("values", dataset="cub", metric=["remove_and_classify", *SHARES], setting="50%", **SHOWN)
        + " " + rows_link("differences", dataset="drawn_cub", metric="remove_and_classify", **SHOWN | {"method": "calm_em", "than": "cam"}),
    )  # fmt: skip


# ---- EM beside ML -----------------------------------------------------------------------------------------------------

WAYS = {
    "calm_em minus calm_ml": ("EM minus ML", WINE),
    "calm_ml[probabilities] minus calm_ml": ("ML computed otherwise minus ML", TEAL),
    "calm_em[detached] minus calm_ml[detached]": ("EM minus ML, S a constant as released", ORANGE),
}


def gaps(rows):
    """Differences of accuracy between two trainings that share a seed, by way."""
    seeds = rows[(rows["part"] == "seeds") & (rows["metric"] == "accuracy")].pivot_table(index="seed", columns="way", values="value")
    return {way: seeds[first] - seeds[second] for way in WAYS for first, _, second in [way.partition(" minus ")]}


def em_beside_ml(options, rows):
    """Strips of differences over seeds, under the gaps that the authors printed."""
    rows_ = read(options, "em_ml")
    found = gaps(rows_)
    lines = [(words, tint, found[way]) for way, (words, tint) in WAYS.items()]
    for dataset, words in DATA.items():
        right = cues(rows, dataset)[1]
        lines.append((f"EM minus ML, {words}", BLUE, right["calm_em"] - right["calm_ml"]))
    printed = {where: of["calm_em"] - of["calm_ml"] for where, of in published("accuracy").items()}

    def draw(into, theme):
        axes = into.subplots()
        for height, (_, tint, values) in enumerate(lines):
            axes.plot(values, [height] * len(values), "o", color=tint, ms=6, alpha=0.7, mec=theme.paper)
            axes.plot([values.mean()] * 2, [height - 0.3, height + 0.3], color=tint, lw=2.4)
        for where, value in printed.items():
            axes.axvline(value, color=theme.text, lw=1, ls="--" if where == "CUB" else ":", zorder=0)
        axes.text(printed["CUB"] - 1, -0.62, "authors: CUB" if is_narrow(into) else "the authors: CUB", ha="left", fontsize=8.5)
        axes.text(max(of for where, of in printed.items() if where != "CUB") + 1, -0.62, "OpenImages, ImageNet", ha="right", fontsize=8.5)
        axes.set(yticks=range(len(lines)), ylim=(len(lines) - 0.5, -0.55), xlabel="difference of accuracy, points")
        axes.set_yticklabels(folded(into, [f"{words} ({len(values)} seeds)" for words, _, values in lines]))
        axes.grid(axis="x", lw=0.6)
        axes.tick_params(length=0)

    chance = found["calm_ml[probabilities] minus calm_ml"]
    own = rows_[(rows_["part"] == "spread") & (rows_["metric"] == "accuracy")].set_index("way").loc["calm_em minus calm_ml"]
    inside = "within" if chance.min() <= printed["CUB"] <= chance.max() else "outside"
    answer = (
        f"One dot a seed, a bar at the mean. The accuracy of EM minus that of ML is "
        f"{cell(own['value'], own['ci_low'], own['ci_high'], sign='+')} points over {own['n']:.0f} short trainings on "
        f"{place(own['dataset'])}. ML minus ML, computed in two ways that differ by rounding alone, goes from {cell(chance.min())} to "
        f"{cell(chance.max(), sign='+')}: the published gap on CUB, {cell(printed['CUB'], sign='+')}, lies {inside} what chance does here."
    )
    return figure(
        options, "calm-em-ml", draw, size=(WIDTH, 3), phone=3.8, question="Is EM better than ML, or is it chance?", answer=answer,
        alt="Strip plots of the difference of accuracy between two trainings, one dot a seed; lines are the gaps that the authors printed.",
        rows=rows_link("differences", metric="accuracy", **SHOWN | {"method": "calm_em", "than": "calm_ml"}),
    )  # fmt: skip


# ---- calibration ------------------------------------------------------------------------------------------------------

WAYS_TO_READ = {  # calibration, thresholds, variant: words, marker
    ("min_max", "even", "zeros kept"): ("min-max", "o"),
    ("max", "even", "zeros kept"): ("divided by the maximum", "s"),
    ("clipping", "even", "zeros kept"): ("clipped to 0..1", "X"),
    ("min_max", "log", "zeros kept"): ("min-max, logarithmic thresholds", "^"),
    ("clipping", "log", "per pair"): ("clipped, logarithmic, dark pixels left out", "D"),
}
STUDIES = ("calibration-cub-resnet18", "calibration-drawn_cub-resnet8")


def calibrated(rows):
    """Scores of CAM, CALM-EM and CALM-ML under each way to read a map: a column a method."""
    wide = rows.pivot_table(index=["calibration", "thresholds", "variant"], columns=["network", "method"], values="value")
    return pd.DataFrame({of: wide[network, of] for of, (*_, network) in METHODS.items()}).loc[list(WAYS_TO_READ)]


def calibration(options):
    """How far a score moves with the way in which the map is brought into [0, 1] and read."""
    found = {what: read(options, what) for what in STUDIES}
    scores = {what: calibrated(rows) for what, rows in found.items()}

    def draw(into, theme):
        for column, (axes, what) in enumerate(zip(row(into, 2), STUDIES, strict=True)):
            for height, (method, (_, tint, _)) in enumerate(METHODS.items()):
                values = scores[what][method]
                axes.plot([values.min(), values.max()], [height] * 2, color=theme.grid, lw=2, zorder=0)
                for way, (_, marker) in WAYS_TO_READ.items():
                    axes.plot(values[way], height, marker, color=tint, mec=theme.paper, mew=0.8, ms=8)
            axes.set(yticks=range(len(METHODS)), ylim=(len(METHODS) - 0.5, -0.5), xlim=(0, 44), xlabel="cue localization, %")
            axes.set_yticklabels([] if column and not is_narrow(into) else [words for words, *_ in METHODS.values()])
            axes.set_title(place(found[what]["dataset"].iloc[0]), loc="left")
            axes.grid(axis="x", lw=0.6)
            axes.tick_params(length=0)
        handles = [Line2D([], [], color=GREY, marker=marker, ls="", label=words) for words, marker in WAYS_TO_READ.values()]
        below(into, handles, 3)

    lifts = {variant: [abs(lift) for rows in found.values() for lift in log_lifts(rows, variant)] for variant in ("zeros kept", "per pair")}
    ways = list(WAYS_TO_READ)
    clipped = [own["cam"][ways[0]] - own["cam"][ways[2]] for own in scores.values()]
    kept, left = (f"{cell(min(of))} to {cell(max(of))}" for of in lifts.values())
    answer = (
        f"Clipped, CAM loses {cell(min(clipped))} to {cell(max(clipped))} points against min-max, as its values are no probabilities. "
        f"Logarithmic thresholds lift CALM by {kept} points, and by {left} where the pixels below the last threshold are left out, as "
        "in the release."
    )
    return figure(
        options, "calm-calibration", draw, size=(WIDTH, 2.6), phone=4.6,
        question="How far does the score depend on how a map is read?", answer=answer,
        alt="Dot plots of cue localization of CAM, CALM-EM and CALM-ML under five ways to bring a map into 0 to 1 and to set thresholds.",
    )  # fmt: skip


def log_lifts(rows, variant):
    """How many points logarithmic thresholds give CALM's two maps above even ones, under each calibration."""
    own = rows[(rows["variant"] == variant) & rows["method"].isin(["calm_em", "calm_ml"])]
    wide = own.pivot_table(index=["method", "calibration"], columns="thresholds", values="value")
    return list(wide["log"] - wide["even"])
