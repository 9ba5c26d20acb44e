"""The figures of LFI-CAM's page: the network, stability, accuracy, features and parameters; and what they decide of its statements."""

from pathlib import Path
from types import SimpleNamespace

import experiments
import pandas as pd
from cells import cell, rows_link, seed_interval
from flow import flow
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from names import name
from plots import GREY, ORANGE, TEAL, WIDTH, WINE, below, figure, folded, is_narrow, place, row
from tables import load_yaml
from verdicts import overall

STABILITY = ("scratch-cifar10-resnet20", "scratch-cifar10-resnet20-seeds", "scratch-cifar10-resnet20-e36", "scratch-cat_dog-resnet18",
             "scratch-drawn_imagenet-resnet8")  # fmt: skip
ABLATIONS = ("scratch-drawn_imagenet-resnet8-ablations",)
MAPS = {  # of a training: what the figure calls its map, and the colour
    "lfi_cam": ("LFI-CAM", WINE), "abn": ("ABN", ORANGE),
    "lfi_cam: mean_activation": ("mean of LFI-CAM's features", GREY), "plain: cam": ("CAM, plain network", TEAL),
    "plain: mean_activation": ("mean activation, plain network", TEAL),
    "lfi_cam[uniform]": ("equal weights", ORANGE), "lfi_cam[learned]": ("one learned map", ORANGE),
    "lfi_cam[kernel=1]": ("1×1 importance network", ORANGE), "plain[widened]: cam": ("CAM, widened plain network", TEAL),
    "plain[widened]: mean_activation": ("mean activation, widened", TEAL),
}  # fmt: skip
MEASURES = {"stability_iou_script": "IoU, authors' script, %", "stability_iou_area": "IoU, brightest fifth, %",
            "stability_correlation": "correlation"}  # fmt: skip
SCRIPT = "stability_iou_script"
PUBLISHED = Path(__file__).parent / "published.yaml"


def read(options, what):
    """The rows of a study, noted among what the page reads."""
    options.read.append(f"{options.results.name}/studies/{what}.csv")
    return experiments.read(options.results / "studies" / f"{what}.csv")


def title_of(rows):
    """What a study trained, in words: data, epochs, what differs between its trainings and how many there are."""
    first, trained = rows.iloc[0], rows[(rows["role"] == "training") & (rows["metric"] == "accuracy")]
    settings, seeds = (len(trained[of].unique()) for of in ("setting", "seed"))
    count, differs = (settings, "settings") if settings > 1 else (seeds, "seeds")
    return f"{place(first['dataset'])}, {first['epochs']} epochs: {count} {differs}"


# ---- the network ------------------------------------------------------------------------------------------------------


def network(options):
    """The way of the data through an LFI-CAM network."""
    boxes = {
        "image": (0, 0.5, "image $X$"), "trunk": (1, 0.5, "convolutions"), "features": (2, 0.5, "features $F$,\n$C$ channels"),
        "mask": (3, 0, "channels ×\ngrey image"), "fin": (4, 0, "FIN, average,\nsoftmax: $w$"), "map": (4, 1, "attention $A$"),
        "attend": (5, 1, "$(1+A)\\odot F$"), "head": (6, 1, "pooling,\nlinear layer"),
    }  # fmt: skip
    arrows = [("image", "trunk"), ("trunk", "features"), ("features", "mask"), ("features", "map"), ("mask", "fin"), ("fin", "map"),
              ("map", "attend"), ("attend", "head")]  # fmt: skip

    def draw(into, theme):
        flow(into, boxes, arrows, theme, own=("mask", "fin", "map", "attend"))

    return figure(
        options, "lfi-network", draw, size=(WIDTH, 2.1), phone=5.6, question="How does the data go through LFI-CAM?",
        answer="Wine: what LFI-CAM adds to a plain network. The map comes from the forward pass; no class and no gradient enter it.",
        alt="Diagram: image, convolutions, features; masked channels and the importance network make weights; their sum is the attention "
        "map, which multiplies the features before pooling and the linear layer.",
    )  # fmt: skip


# ---- stability --------------------------------------------------------------------------------------------------------


def alike(rows):
    """How alike the maps of two trainings are, mean over the pairs: a row a map and measure, with `pair`, `shuffled` and `excess`."""
    means = rows[(rows["role"] == "mean") & rows["metric"].isin(list(MEASURES))]
    return means.pivot_table(index=["method", "metric"], columns="of", values="value", sort=False).reset_index()


def stability(options, studies=STABILITY, slug="stability"):
    """Dumbbells from maps of different images to maps of the same image, for each study, map and measure."""
    read_ = {what: read(options, what) for what in studies}
    found = {what: alike(rows) for what, rows in read_.items()}
    shown = {what: [of for of in MAPS if of in set(own["method"])] for what, own in found.items()}
    printed = authors() if slug == "stability" else {}

    def draw(into, theme):
        heights = [len(of) + 1.2 for of in shown.values()]
        grid = into.subplots(len(found), len(MEASURES), sharex="col", squeeze=False, height_ratios=heights)
        for line, (what, own) in zip(grid, found.items(), strict=True):
            for column, (axes, metric) in enumerate(zip(line, MEASURES, strict=True)):
                values = own[own["metric"] == metric].set_index("method")
                for height, of in enumerate(shown[what]):
                    one, tint = values.loc[of], MAPS[of][1]
                    axes.plot([one["shuffled"], one["pair"]], [height] * 2, color=tint, lw=2.2, solid_capstyle="butt")
                    axes.plot(one["shuffled"], height, "o", color=tint, mfc=theme.paper, mew=1.4)
                    axes.plot(one["pair"], height, "o", color=tint)
                    if metric == SCRIPT and (what, of) in printed:
                        axes.plot(printed[what, of], height, "|", color=theme.text, ms=13, mew=1.6)
                axes.set(ylim=(len(shown[what]) - 0.5, -0.6), yticks=range(len(shown[what])))
                lines = [] if column else folded(into, [MAPS[of][0] for of in shown[what]], 17)
                axes.set_yticklabels(lines, fontsize=7.5 if is_narrow(into) else 8.5)
                axes.grid(axis="x", lw=0.6)
                axes.tick_params(length=0)
            line[0].set_title(title_of(read_[what]), loc="left", fontsize=9)
        for axes, words in zip(grid[-1], MEASURES.values(), strict=True):
            axes.set_xlabel(folded(into, [words], 12)[0])
        marks = [Line2D([], [], color=GREY, marker="o", mfc=theme.paper, ls="", label="maps of different images"),
                 Line2D([], [], color=GREY, marker="o", ls="", label="maps of the same image")]  # fmt: skip
        marks += [Line2D([], [], color=theme.text, marker="|", ls="", ms=11, mew=1.6, label="the authors' figure")] * bool(printed)
        below(into, marks, 3)

    size = (WIDTH, 0.75 + sum(0.2 * len(of) + 0.42 for of in shown.values()))
    phone = 1.6 + sum(0.34 * len(of) + 0.5 for of in shown.values())
    alt = "Dumbbell plots, a block a set of trainings, a line a map: agreement of maps of different images and of the same image."
    if slug == "stability":
        question = "Do two trainings give the same map, beyond what maps of different images share?"
        return figure(
            options, "lfi-stability", draw, size=size, phone=phone, question=question, answer=_stability_in_words(read_, found), alt=alt
        )
    question = "Which part of LFI-CAM makes its maps agree?"
    excess = found[studies[0]].set_index(["metric", "method"])["excess"][SCRIPT]
    answer = (
        f"Drawn objects, three seeds: LFI-CAM {cell(excess['lfi_cam'])} points above maps of different images; equal weights "
        f"{cell(excess['lfi_cam[uniform]'])}; a plain network of as many parameters {cell(excess['plain[widened]: cam'])} by its CAM and "
        f"{cell(excess['plain[widened]: mean_activation'])} by its mean activation (IoU of the authors' script)."
    )
    return figure(options, f"lfi-{slug}", draw, size=size, phone=phone, question=question, answer=answer, alt=alt)


def authors():
    """The agreement that the authors' figure shows, in percent, by study and map."""
    entry = next(one for one in load_yaml(PUBLISHED) if one["paper"] == "lfi_cam")
    studies = {"CIFAR-10": "scratch-cifar10-resnet20", "Cat-Dog": "scratch-cat_dog-resnet18"}
    columns = {where: column for column, (_, where) in enumerate(entry["columns"])}
    printed = entry["backbones"]["not stated"]
    return {(what, of): 100 * printed[of][columns[where]] for where, what in studies.items() for of in printed}


def pairs(rows):
    """Every pair of trainings: by how much LFI-CAM's maps agree better than ABN's, by the authors' IoU and by its excess; a frame."""
    own = rows[(rows["role"] == "pair") & (rows["metric"] == SCRIPT) & rows["method"].isin(["lfi_cam", "abn"])]
    wide = own.pivot_table(index=["setting", "seed", "other_setting", "other_seed"], columns=["of", "method"], values="value")
    return pd.DataFrame({of: wide[of, "lfi_cam"] - wide[of, "abn"] for of in ("pair", "excess")}) if "abn" in set(own["method"]) else None


def stability_word(rows):
    """What a study of trainings under other settings says; one whose trainings differ by the seed alone does not ask.

    LFI-CAM's maps must agree better than ABN's in every pair, by the authors' IoU and by its excess; or in none, by neither.
    """
    if set(rows.loc[rows["role"] == "pair", "differs"]) != {"settings"}:
        return "not run"
    better = pairs(rows) > 0
    return "holds" if better.all(axis=None) else "not decided" if better.any(axis=None) else "does not hold"


def _stability_in_words(read_, found):
    real = [what for what in found if "drawn" not in what]
    settings, cats = (pairs(read_[what]) for what in ("scratch-cifar10-resnet20", "scratch-cat_dog-resnet18"))
    ahead = 0
    for what in real:
        excess = found[what].set_index(["metric", "method"])["excess"][SCRIPT]
        ahead += excess["plain: mean_activation"] > excess["lfi_cam"]
    return (
        "The length of a line is what two trainings agree on. When the settings differ, LFI-CAM's line is longer than ABN's in "
        f"{sum(settings['excess'] > 0)} of {len(settings)} pairs on CIFAR-10 and in {sum(cats['excess'] > 0)} of {len(cats)} on cats "
        f"and dogs (IoU of the authors' script); its IoU itself is higher in {sum(settings['pair'] > 0)} and {sum(cats['pair'] > 0)}. The "
        "mean activation of the plain network, which nobody trained for stability, has a longer line than LFI-CAM in "
        f"{ahead} of {len(real)} sets of trainings on real images."
    )


# ---- accuracy ---------------------------------------------------------------------------------------------------------

MODELS = {"lfi_cam": WINE, "plain": TEAL, "abn": ORANGE}
SPAN = 5  # points that an axis shows at least, so that a small difference looks small


def accuracies(options, rows):
    """Accuracy of every training, a column a model: of each study on real images, then of the published runs on drawn objects."""
    found = {}
    for what in STABILITY:
        study = read(options, what)
        if not study["dataset"].iloc[0].startswith("drawn"):
            own = study[(study["role"] == "training") & (study["metric"] == "accuracy")]
            found[title_of(study)] = own.pivot_table(index=["setting", "seed"], columns="model", values="value").reindex(
                columns=list(MODELS)
            )
    drawn = rows[(rows["paper"] == "lfi_cam") & (rows["metric"] == "accuracy") & rows["dataset"].str.startswith("drawn")]
    wide = drawn.pivot_table(index=["dataset", "seed"], columns="method", values="value").reindex(columns=list(MODELS))
    return found | {f"{place(of)}: {len(own)} seeds": own for of, own in wide.groupby(level="dataset", sort=False)}


def losses(found):
    """LFI-CAM's accuracy minus that of the plain network beside it, of every training on real images."""
    real = [own for of, own in found.items() if "drawn" not in of]
    return pd.concat([own["lfi_cam"] - own["plain"] for own in real], ignore_index=True).round(6)


def accuracy(options, rows):
    """Paired dots LFI-CAM | plain | ABN, a line a training."""
    found = accuracies(options, rows)

    def draw(into, theme):
        columns = 2 if is_narrow(into) else len(found)
        grid = into.subplots(-(-len(found) // columns), columns, squeeze=False)
        for axes in list(grid.flat)[len(found) :]:
            axes.remove()
        for axes, (of, own) in zip(grid.flat, found.items(), strict=False):
            kept = own.dropna(axis="columns")
            for one in kept.itertuples(index=False):
                below = one.lfi_cam < one.plain
                axes.plot(range(len(one)), one, "-", color=WINE if below else GREY, lw=1.6 if below else 1)
            for column, model in enumerate(kept):
                axes.plot([column] * len(kept), kept[model], "o", color=MODELS[model], mec=theme.paper, mew=0.6)
            low, high = kept.min(axis=None), kept.max(axis=None)
            half = max(high - low, SPAN) / 2 + 0.3
            axes.set(ylim=((low + high) / 2 - half, (low + high) / 2 + half))
            axes.set(xlim=(-0.4, 2.4), xticks=range(3), xticklabels=["LFI", "plain", "ABN"])
            axes.set_title(of.replace(", ", ",\n", 1).replace(": ", ":\n"), loc="left", fontsize=8.5)
            axes.grid(axis="y", lw=0.6)
            axes.tick_params(length=0)
        into.supylabel("accuracy, %", fontsize=9.5)

    lost, drawn = losses(found), next(own for of, own in found.items() if "drawn" in of)
    gain = drawn["lfi_cam"] - drawn["plain"]
    answer = (
        f"One line a training, wine where LFI-CAM's network is below the plain one: {sum(lost < 0)} of {len(lost)} on real images, by "
        f"{cell(-lost.mean())} points on the mean of all {len(lost)}, and {sum(gain < 0)} of {len(gain)} on drawn objects."
    )
    return figure(
        options, "lfi-accuracy", draw, size=(WIDTH, 3), phone=2.5 * -(-len(found) // 2),
        question="Does the attention cost accuracy?", answer=answer,
        alt="Slope plots, a panel for each set of trainings: accuracy of LFI-CAM's network, the plain network and ABN.",
        rows=rows_link("values", paper="lfi_cam", metric="accuracy"),
    )  # fmt: skip


def accuracy_word(found, margin):
    """What real images say to "no worse by ``margin``": by the interval over ten trainings of one kind or more; fewer decide nothing."""
    intervals = [seed_interval(list(own["lfi_cam"] - own["plain"])) for of, own in found.items() if "drawn" not in of]
    return overall([SimpleNamespace(verdict=_no_worse(interval, margin)) for interval in intervals])


def _no_worse(interval, margin):
    if not interval or interval[1] <= -margin <= interval[2]:
        return "not decided"
    return "holds" if interval[1] > -margin else "does not hold"


# ---- features and parameters ------------------------------------------------------------------------------------------

PROBED = (("accuracy", "network", "accuracy, points"), ("pixel_precision", "grad_cam", "Grad-CAM: pixel AP, points"),
          ("energy_pointing_game", "mean_activation", "mean activation: energy, points"))  # fmt: skip
TRUNKS = {"lfi_cam": ("LFI-CAM", WINE), "lfi_cam[uniform]": ("equal weights", ORANGE)}


def probed(rows):
    """The differences from the plain trunk under a linear probe."""
    return rows[(rows["than"] == "plain") & (rows["head"] == "probe")]


def features_word(rows):
    """What the linear probe's accuracy says: the interval of every seed must lie on one side of zero."""
    own = probed(rows)
    own = own[(own["trunk"] == "lfi_cam") & (own["metric"] == "accuracy")]
    return "holds" if (own["ci_low"] > 0).all() else "does not hold" if (own["ci_high"] < 0).all() else "not decided"


def features(options):
    """What a linear probe and its maps gain on LFI-CAM's trunk, and on one with equal weights."""
    own = probed(read(options, "lfi_features"))
    seeds = sorted(own["seed"].unique())

    def draw(into, theme):
        for column, (axes, (metric, method, words)) in enumerate(zip(row(into, len(PROBED)), PROBED, strict=True)):
            chosen = own[(own["metric"] == metric) & (own["method"] == method)]
            for step, (trunk, (_, tint)) in enumerate(TRUNKS.items()):
                for one in chosen[chosen["trunk"] == trunk].itertuples():
                    height = seeds.index(one.seed) + 0.3 * step - 0.15
                    decided = one.ci_low > 0 or one.ci_high < 0
                    axes.plot([one.ci_low, one.ci_high], [height] * 2, color=tint, lw=1.6)
                    axes.plot(one.value, height, "o", color=tint, mfc=tint if decided else theme.paper, mew=1.4)
            axes.axvline(0, color=theme.text, lw=0.8, zorder=0)
            axes.set(yticks=range(len(seeds)), ylim=(len(seeds) - 0.5, -0.5))
            axes.set_yticklabels([] if column and not is_narrow(into) else [f"seed {seed}" for seed in seeds])
            axes.set_title(words, loc="left", fontsize=9)
            axes.grid(axis="x", lw=0.6)
            axes.tick_params(length=0)
        handles = [Line2D([], [], color=tint, marker="o", label=f"{words} minus plain") for words, tint in TRUNKS.values()]
        handles.append(Line2D([], [], color=GREY, marker="o", ls="", label="filled: interval off zero"))
        below(into, handles, 3)

    better = own[(own["metric"] == "accuracy") & (own["ci_low"] > 0)].groupby("trunk").size()
    answer = (
        "Drawn objects; 95 % intervals over the test images. The probe is more accurate on LFI-CAM's features, with an interval above "
        f"zero, in {better.get('lfi_cam', 0)} of {len(seeds)} seeds; with equal weights in {better.get('lfi_cam[uniform]', 0)}."
    )
    return figure(
        options, "lfi-features", draw, size=(WIDTH, 2.5), phone=5.2, answer=answer,
        question="Are the features better once the attention is taken out?",
        alt="Forest plots of a linear probe on the features of LFI-CAM and of equal weights, minus the plain network, three seeds.",
    )  # fmt: skip


PARTS = {
    "fin_3x3": ("LFI-CAM, 3×3 as released", WINE, WINE),
    "fin_1x1": ("LFI-CAM, 1×1", WINE, None),
    "abn_branch": ("ABN", ORANGE, ORANGE),
    "plain": ("the plain network itself", GREY, GREY),
}


def parameters_word(rows):
    """Whether LFI-CAM's importance network, as released, is smaller than ABN's branch on every network of the papers, or on none."""
    wide = rows.pivot_table(index=["backbone", "classes"], columns="part", values="value")
    fewer = wide["fin_3x3"] < wide["abn_branch"]
    return "holds" if fewer.all() else "not decided" if fewer.any() else "does not hold"


def parameters(options):
    """Parameters of each network and of what joins it."""
    rows = read(options, "parameters")
    wide = rows.pivot_table(index=["backbone", "classes"], columns="part", values="value", sort=False) / 1e6

    def draw(into, theme):
        axes = into.subplots()
        for height, (_, one) in enumerate(wide.iterrows()):
            axes.plot([one.min(), one.max()], [height] * 2, color=theme.grid, lw=1, zorder=0)
            for part, (_, edge, fill) in PARTS.items():
                axes.plot(one[part], height, "o", color=edge, mfc=fill or theme.paper, mew=1.6, ms=7)
        labels = folded(into, [f"{name(backbone)}, {classes} classes" for backbone, classes in wide.index], 14)
        axes.set(xscale="log", yticks=range(len(wide)), yticklabels=labels, ylim=(len(wide) - 0.5, -0.5), xlabel="parameters, millions")
        axes.set_xticks([0.3, 1, 3, 10, 30, 100], ["0.3", "1", "3", "10", "30", "100"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", lw=0.6)
        axes.tick_params(length=0, which="both")
        dots = {"marker": "o", "ls": ""}
        handles = [Line2D([], [], color=edge, mfc=fill or theme.paper, label=words, **dots) for words, edge, fill in PARTS.values()]
        below(into, handles, 4)

    more, small = (wide[part] > wide["abn_branch"] for part in ("fin_3x3", "fin_1x1"))
    answer = (
        f"As released, LFI-CAM adds more parameters than ABN on {sum(more)} of {len(wide)} networks of the papers. With 1×1 convolutions, "
        f"which the authors' code had once, it would add fewer on {sum(~small)}."
    )
    return figure(
        options, "lfi-parameters", draw, size=(WIDTH, 2.5), phone=4.8,
        question="Does LFI-CAM need fewer parameters than ABN?", answer=answer,
        alt="Dot plot on a logarithmic axis: parameters of the importance network, of ABN's branch and of five plain networks.",
    )  # fmt: skip
