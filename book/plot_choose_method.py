"""Figures of the page *Choose a method*: what a map costs, which methods beat their controls, what libraries call by the same name."""

import re

import experiments
import pandas as pd
from cells import rows_link, seed_interval
from names import name
from plots import BLUE, GREY, ORANGE, TEAL, WIDTH, WINE, below, figure, folded, is_narrow, place, row

from cam_core.methods import METHODS
from cam_core.pretrained import LITE

# ---- cost -------------------------------------------------------------------------------------------------------------

FAMILIES = {  # family: its colour and its methods, as the page has them
    "activations": (GREY, ("cam", "eigen_cam", "mean_activation")),
    "gradients": (TEAL, ("grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "layer_cam[fused]")),
    "a trained attention": (ORANGE, ("l_cam_fm", "l_cam_img", "lfi_cam", "abn", "calm")),
    "channels scored": (WINE, (
        "ablation_cam", "fd_cam", "increment_cam", "increment_cam[mid]", "increment_cam[full]", "group_cam", "score_cam[budget=64]",
        "score_cam[until=0.99]", "score_cam", "is_cam", "ss_cam",
    )),
    "masks and pixels": (BLUE, (
        "saliency", "guided_backprop", "smooth_grad", "integrated_gradients", "opti_cam", "rise",
    )),
}  # fmt: skip
LABELS = {
    "layer_cam[fused]": "LayerCAM, fused over stages", "increment_cam[mid]": "Increment-CAM at 112 pixels",
    "increment_cam[full]": "Increment-CAM at 224 pixels", "score_cam[budget=64]": "Score-CAM, 64 passes",
    "score_cam[until=0.99]": "Score-CAM until .99", "integrated_gradients": "integrated gradients", "guided_backprop": "guided backprop",
    "calm": "CALM", "increment_cam": "Increment-CAM at 7 pixels",
}  # fmt: skip
CHANNELS, SIDE, MAP = 512, 224, 7  # ResNet-18
GRADIENT = 3  # forward passes that a pass with its gradient amounts to
TERMS = (  # of `Method.passes`: a pattern, and the forward passes it stands for
    (r"(\d*) ?K heads", lambda found, head: int(found[1] or 1) * CHANNELS * head),
    (r"about K/2 at map resolution", lambda *_: CHANNELS / 2 * (MAP / SIDE) ** 2),
    (r"about K/2 at 112 x 112", lambda *_: CHANNELS / 2 * (112 / SIDE) ** 2),
    (r"about K/2 at image resolution", lambda *_: CHANNELS / 2),
    (r"(\d*) ?K", lambda found, _: int(found[1] or 1) * CHANNELS),
    (r"2 K of each layer", lambda *_: 2 * (64 + 128 + 256 + CHANNELS)),
    (r"(\d+) with gradient", lambda found, _: int(found[1]) * GRADIENT),
    (r"a gradient from each layer", lambda *_: GRADIENT - 1),
    (r"head", lambda _, head: 2 * head),
    (r"(\d+)", lambda found, _: int(found[1])),
)


def passes(text, head):
    """Forward passes of ResNet-18 that the words of `Method.passes` amount to; ``head``: what one pass of the head alone costs."""
    total = 0.0
    for term in text.split(" + "):
        found = next(((re.fullmatch(pattern, term), cost) for pattern, cost in TERMS if re.fullmatch(pattern, term)), None)
        if found is None:
            raise ValueError(f"the cost {term!r} is not known to the figure; add it to TERMS of {__name__}")
        total += found[1](found[0], head)
    return total


def measured(methods, training):
    """Times of ResNet-18 on eight images over that of a forward pass; of learned maps over the plain network of the same kind."""
    seconds = training.set_index(["group", "contender"])["seconds"]
    forward = seconds["one explanation, l_cam_fm, batch 8", "forward"]
    own = methods[methods["group"].str.startswith("ResNet-18") & ~methods["contender"].str.contains(":|,")]
    found = dict(zip(own["contender"], own["seconds"] / forward, strict=True))
    for method in ("cam", "grad_cam", "grad_cam_pp", "l_cam_fm"):
        found[method] = seconds["one explanation, l_cam_fm, batch 8", method] / forward
    plain = seconds["forward pass, ResNet-18 with a stem of stride 1, batch 8", "plain"]
    for method in ("lfi_cam", "abn"):
        found[method] = seconds[f"one explanation, {method}, batch 8", method] / plain
    for method in ("l_cam_img", "calm"):
        group = f"one explanation, {method}, batch 8"
        found[method] = seconds[group, method] / seconds[group, "forward"]
    return found


def costs(options):
    """(family, method, passes by count or None, measured ratio or None) of every method in the figure."""
    read = {}
    for what in ("methods", "training"):
        options.read.append(f"results/benchmarks/{what}.csv")
        read[what] = experiments.read(options.results / "benchmarks" / f"{what}.csv")
    times = measured(**read)
    head = (times["ablation_cam"] - 1) / CHANNELS
    options.read.append("results/studies/score_cam_budget-resnet18.csv")
    study = experiments.read(options.results / "studies/score_cam_budget-resnet18.csv")
    until = study[study["way"].str.contains("until") & (study["metric"] == "passes")]["value"].iloc[0]
    found = []
    for family, (_, methods) in FAMILIES.items():
        for method in methods:
            counted = (
                passes(METHODS[method].passes.replace("32, 64, ... or K, as it needs", f"{until:.0f}"), head) if method in METHODS else None
            )
            found.append((family, method, counted, times.get(method)))
    return found


def label(method):
    """A method's name in these figures."""
    return LABELS.get(method, name(method))


def cost(options):
    """What one map costs, in forward passes: bars from the count of passes, dots where it was timed."""
    found = costs(options)

    def draw(into, theme):
        axes = into.subplots()
        for line, (family, _, counted, timed) in enumerate(found):
            tint = FAMILIES[family][0]
            if counted:
                axes.barh(line, counted - 0.8, left=0.8, height=0.62, color=tint, alpha=0.55, lw=0)
            if timed:
                axes.plot(timed, line, "o", color=tint, mec=theme.text, mew=0.8, ms=6)
            largest = max(filter(None, (counted, timed)))
            told = f"{largest:,.0f}" if largest >= 10 else f"{largest:.1f}"
            axes.annotate(told, (largest, line), (7, 0), textcoords="offset points", va="center", fontsize=8)
        axes.axvline(1, color=theme.text, lw=0.8)
        axes.set_xscale("log")
        axes.set(yticks=range(len(found)), ylim=(len(found) - 0.4, -0.6), xlim=(0.8, 60000))
        axes.set_yticklabels([label(method) for _, method, _, _ in found])
        ticks = [1, 100, 10000] if is_narrow(into) else [1, 10, 100, 1000, 10000]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xlabel("forward passes for one map")
        axes.grid(axis="x", lw=0.5)
        axes.tick_params(length=0, which="both")
        _families(into)

    timed = {method: value for _, method, _, value in found if value}
    answer = (
        f"Bars: passes counted for ResNet-18 ({CHANNELS} channels); a gradient through the whole network counts as {GRADIENT} passes. Dots: "  # noqa: E501
        f"time on the same machine over a plain forward pass. "
        f"The number is the larger of both; other races, on the papers' pages, give other ratios. "
        f"Grad-CAM takes {timed['grad_cam']:.2f}, Ablation-CAM "
        f"{timed['ablation_cam']:.1f}, Score-CAM {timed['score_cam']:.0f}; LFI-CAM and ABN make the network itself "
        f"{timed['lfi_cam']:.1f} and {timed['abn']:.1f} times as slow."
    )
    return figure(
        options, "cost", draw, size=(WIDTH, 0.235 * len(found) + 1), answer=answer, question="What does one map cost?",
        alt="Bars on a logarithmic axis: forward passes for one map, one line a method, coloured by family.",
    )  # fmt: skip


def _families(into):
    from matplotlib.patches import Patch

    handles = [Patch(color=tint, alpha=0.7, label=family) for family, (tint, _) in FAMILIES.items()]
    below(into, handles, 5)


# ---- controls ---------------------------------------------------------------------------------------------------------

ASKED = {  # what a figure shows: metrics (the first that a run has), the direction that is better
    "localization": ((("max_box_acc_v2", ""), ("pointing_game", "15px")), "higher"),
    "faithfulness": ((("average_drop", "mean 30%"),), "lower"),
}
FEWEST = 20  # images: an interval over fewer says nothing
CONTROLS = ("random_map", "center_gaussian", "mean_activation", "random_l_cam")
ORDER = ("cam", "grad_cam", "grad_cam_pp", "hires_cam", "layer_cam", "saliency", "score_cam", "rise", "increment_cam",
         "increment_cam[channels]", "l_cam_fm", "l_cam_img", "lfi_cam", "abn", "calm_em", "calm_ml")  # fmt: skip
TINTS = {
    method: tint
    for tint, methods in ((TEAL, ORDER[:5]), (BLUE, ORDER[5:8]), (WINE, ORDER[8:10]), (ORANGE, ORDER[10:]))
    for method in methods
}


def held(rows, what, kind):
    """Each method beside the best control of its own network: one row a data set, network and method.

    Columns: `where`, `metric`, `method`, `n`, `seeds`, and those of `_beside`. A method that saw only the first images meets the control
    on the same ones.
    """
    metrics, better = ASKED[what]
    rows = rows[(rows["dataset"].str.startswith("drawn")) == (kind == "drawn")]
    keys = ["paper", "dataset", "backbone", "recipe", "weights"]
    found = []
    for of, own in rows.groupby(keys, sort=False):
        metric, setting = next((m for m in metrics if ((own["metric"] == m[0]) & (own["setting"] == m[1])).any()), (None, None))
        own = own[own["metric"] == metric]
        for method in ORDER:
            each = own[(own["method"] == method) & (own["setting"] == setting)]
            if each.empty or each["n"].min() < FEWEST:
                continue
            same = own[own["setting"].isin([setting, f"{setting} first {each['n'].iloc[0]}".strip()]) & (own["n"] == each["n"].iloc[0])]
            best = _best(same, better)
            if best is not None:
                found.append(dict(zip(keys, of, strict=True)) | {"metric": metric, "method": method, "n": each["n"].iloc[0],
                                                                 "seeds": len(each)} | _beside(each, best, better))  # fmt: skip
    table = pd.DataFrame(found)
    plain = ~table["weights"].str.endswith(" network") | table["weights"].str.endswith("plain network")
    table = table[plain | table["method"].isin(("calm_em", "calm_ml", "lfi_cam", "abn"))]  # others explain the plain network
    table = table.sort_values("n", ascending=False, kind="stable").drop_duplicates(["dataset", "backbone", "method"])
    if kind == "drawn":  # the network of each data set that has most methods, and most seeds
        size = table.groupby(["dataset", "backbone"])["seeds"].agg(["count", "sum"]).sort_values(["count", "sum"], kind="stable")
        table = table[table.set_index(["dataset", "backbone"]).index.isin(size.groupby("dataset").tail(1).index)]
    return table.assign(where=[f"{place(one.dataset)}, {name(one.backbone)}" for one in table.itertuples()])


def _best(rows, better):
    """The rows of the control that is best on the mean over the seeds; None without one."""
    means = rows[rows["method"].isin(CONTROLS)].groupby("method")["value"].mean()
    return None if means.empty else rows[rows["method"] == (means.idxmax() if better == "higher" else means.idxmin())]


def _beside(own, best, better):
    """A method and a control with their intervals; `ahead`: under every seed, or over ten seeds and more, the intervals are apart."""
    value, low, high, of_seeds = _over_seeds(own)
    best_value, best_low, best_high, _ = _over_seeds(best)
    if of_seeds:
        ahead = low > best_high if better == "higher" else high < best_low
    else:
        pair = own.merge(best, on="seed", suffixes=("", "_best"))
        ahead = bool(((pair["ci_low"] > pair["ci_high_best"]) if better == "higher" else (pair["ci_high"] < pair["ci_low_best"])).all())
    told = {"control": best["method"].iloc[0], "control_value": best_value, "control_low": best_low, "control_high": best_high}
    return {"value": value, "low": low, "high": high, "ahead": ahead} | told


def _over_seeds(own):
    """Mean, interval, and whether the interval is over seeds; of fewer than ten seeds the ends of all intervals."""
    interval = seed_interval(list(own["value"]))
    return (*interval, True) if interval else (own["value"].mean(), own["ci_low"].min(), own["ci_high"].max(), False)


def controls(options, rows, what, kind):
    """A panel a data set and network: every method beside the best control of its own network."""
    table, better = held(rows, what, kind), ASKED[what][1]
    places, settings = list(dict.fromkeys(table.sort_values(["dataset", "backbone"])["where"])), [setting for _, setting in ASKED[what][0]]
    methods = [method for method in ORDER if method in set(table["method"])]
    counts = [sum(table["where"] == where) for where in places]
    tall = {columns: [max(counts[first : first + columns]) for first in range(0, len(places), columns)] for columns in (1, 3)}

    def draw(into, theme):
        columns = 1 if is_narrow(into) else 3
        grid = into.subplots(len(tall[columns]), columns, squeeze=False, height_ratios=[most + 4 for most in tall[columns]])
        for number, (axes, where) in enumerate(zip(grid.flat, places, strict=False)):
            own = table[table["where"] == where]
            lines = [method for method in methods if method in set(own["method"])]
            for one in own.itertuples():
                line, tint = lines.index(one.method), TINTS[one.method]
                axes.barh(line, one.control_high - one.control_low, left=one.control_low, height=0.8, color=GREY, alpha=0.35, lw=0)
                axes.plot([one.control_value] * 2, [line - 0.4, line + 0.4], color=GREY, lw=1.4)
                axes.plot([one.low, one.high], [line, line], color=tint, lw=1.8, solid_capstyle="round")
                axes.plot(one.value, line, "o", color=tint, mfc=tint if one.ahead else theme.paper, mew=1.5)
            metric = own["metric"].iloc[0]
            axes.set_title(where if is_narrow(into) else where.replace(", ", "\n"), loc="left", fontsize=9)
            axes.set(yticks=range(len(lines)), ylim=(tall[columns][number // columns] - 0.4, -0.6))
            axes.set_yticklabels(map(label_short, lines), fontsize=8.5)
            axes.set_xlabel(name(metric).replace("\N{NO-BREAK SPACE}", " ") + ", %", fontsize=8.5)
            axes.grid(axis="x", lw=0.5)
            axes.tick_params(length=0)
        for axes in list(grid.flat)[len(places) :]:
            axes.remove()

    ahead = table.groupby("method")["ahead"].agg(["sum", "count"]).reindex(methods)
    told = [f"{label_short(method)} {one['sum']:.0f} of {one['count']:.0f}" for method, one in ahead.iterrows() if one["sum"]]
    none = [label_short(method) for method, one in ahead.iterrows() if not one["sum"]]
    answer = (
        f"Grey: the best control of the same network with its 95 % interval. Filled: the method's interval lies {'above' if better == 'higher' else 'below'} "  # noqa: E501
        f"it. {'Ahead of every control in ' + ', '.join(told) + ' panels' if told else 'No method is ahead of every control'}"
        f"{'; never: ' + ', '.join(none) if none and told else ''}."
    )
    asks = {"localization": "find the object better", "faithfulness": "lose less of the class"}[what]
    photographs = {"photographs": "photographs", "drawn": "drawn images"}[kind]
    return figure(
        options, f"controls-{what}-{kind}", draw, size=(WIDTH, 0.22 * sum(most + 4 for most in tall[3])),
        phone=0.22 * sum(most + 4 for most in tall[1]),
        question=f"Which methods {asks} than their controls? {photographs[0].upper()}{photographs[1:]}", answer=answer,
        alt=f"Dot plots of {what} on {photographs}, one panel a data set and network, one line a method, with the best control behind.",
        rows=rows_link("values", dataset=table["dataset"], metric=table["metric"], setting=settings, method=[*methods, *CONTROLS]),
    )  # fmt: skip


def label_short(method):
    """A name for the lines of the panels."""
    return {"increment_cam[channels]": "Increment-CAM, ch."}.get(method, name(method))


# ---- the same name in other libraries ---------------------------------------------------------------------------------

FORMS = {  # a pair of the study: its words in the figure
    ("grad_cam_pp", "grad_cam_pp[authors]"): "Grad-CAM++: paper / authors' code",
    ("grad_cam_pp", "grad_cam_pp[l_cam]"): "Grad-CAM++: paper / L-CAM's tables",
    ("grad_cam_pp", "grad-cam: GradCAMPlusPlus"): "Grad-CAM++: paper / pytorch-grad-cam",
    ("grad_cam_pp", "torchcam: GradCAMpp"): "Grad-CAM++: paper / TorchCAM",
    ("grad_cam", "captum: LayerGradCam"): "Grad-CAM: paper / Captum (no ReLU)",
    ("hires_cam", "grad-cam: HiResCAM"): "HiResCAM: paper / pytorch-grad-cam (ReLU)",
    ("ablation_cam", "grad-cam: AblationCAM"): "Ablation-CAM: paper / pytorch-grad-cam",
    ("layer_cam", "layer_cam[fused]"): "LayerCAM: one layer / fused",
    ("eigen_cam", "eigen_cam[centred]"): "Eigen-CAM: paper / pytorch-grad-cam's centred",
    ("group_cam", "group_cam[head]"): "Group-CAM: paper / latest code",
    ("score_cam", "score_cam[l_cam]"): "Score-CAM: authors / L-CAM's tables",
    ("score_cam", "score_cam[softmax]"): "Score-CAM: authors / libraries",
    ("is_cam", "is_cam[cumulative]"): "IS-CAM: paper / TorchCAM",
    ("smooth_grad", "smooth_grad[calm]"): "SmoothGrad: paper / CALM's tables",
    ("var_grad", "var_grad[calm]"): "VarGrad: paper / CALM's tables",
    ("integrated_gradients", "integrated_gradients[calm]"): "Integrated gradients: paper / CALM's tables",
}  # fmt: skip


def pairs(options):
    """Every pair of forms on the main network, in the order of FORMS."""
    options.read.append(f"results/studies/forms-{LITE}.csv")
    return experiments.read(options.results / "studies" / f"forms-{LITE}.csv").set_index(["form", "other"]).loc[list(FORMS)]


def forms(options):
    """Correlation of two maps that go by one name."""
    rows = pairs(options)

    def draw(into, theme):
        axes = into.subplots()
        for line, one in enumerate(rows.itertuples()):
            tint = TEAL if one.correlation > 0.99 else ORANGE if one.correlation > 0.9 else WINE
            axes.plot([one.worst, one.correlation], [line, line], color=tint, lw=1, alpha=0.6)
            axes.plot(one.worst, line, "|", color=tint, ms=10, mew=1.5)
            axes.plot(one.correlation, line, "o", color=tint, ms=6.5)
        axes.axvline(1, color=theme.text, lw=0.8)
        axes.set(yticks=range(len(rows)), ylim=(len(rows) - 0.4, -0.6), xlim=(min(0, rows["worst"].min()) - 0.05, 1.04))
        axes.set_yticklabels([words.replace(": ", ":\n" if is_narrow(into) else ": ") for words in FORMS.values()])
        axes.set_xlabel(folded(into, ["correlation of the two maps: mean (dot) and worst image (tick)"], 24)[0])
        axes.grid(axis="x", lw=0.5)
        axes.tick_params(length=0)

    same, other = rows[rows["correlation"] > 0.99], rows[rows["correlation"] < 0.95]
    answer = (
        f"{name(LITE)}, {rows['n'].min()} to {rows['n'].max()} photographs. "
        f"{len(same)} of {len(rows)} pairs are the same map but for details (mean correlation above .99); {len(other)} stay below .95. "
        f"Lowest: {FORMS[rows['correlation'].idxmin()]}, {rows['correlation'].min():.2f}. On single images two maps of one name can "
        f"even disagree in sign ({FORMS[rows['worst'].idxmin()]}, {rows['worst'].min():.2f})."
    )
    return figure(
        options, "forms", draw, size=(WIDTH, 0.27 * len(rows) + 0.9), phone=0.42 * len(rows) + 0.9, answer=answer, question="Do two libraries mean the same map by one name?",  # noqa: E501
        alt="Dot plot of the correlation between two forms of one method, mean and worst image.",
    )  # fmt: skip


# ---- Score-CAM within a budget ----------------------------------------------------------------------------------------

WAYS = {
    "predicted, variance": ("chosen by variance, rest predicted", WINE, "-"),
    "predicted, chance": ("drawn by chance, rest predicted", ORANGE, "-"),
    "alone, norm": ("the largest alone", TEAL, "--"),
    "alone, gradient (gScoreCAM)": ("the largest gradients alone", BLUE, "--"),
    "alone, chance": ("drawn by chance alone", GREY, "--"),
}


def budget(options):
    """Correlation with the exact Score-CAM against the passes spent."""
    found = {}
    for what in (LITE, "resnet18"):
        options.read.append(f"results/studies/score_cam_budget-{what}.csv")
        rows = experiments.read(options.results / "studies" / f"score_cam_budget-{what}.csv")
        found[what] = rows[rows["metric"].isin(["correlation", "passes", "reaches"])]

    def draw(into, theme):
        for axes, (what, rows) in zip(row(into, 2, sharey=True), found.items(), strict=True):
            right = rows[rows["metric"] == "correlation"]
            for way, (words, tint, dashes) in WAYS.items():
                own = right[right["way"] == way]
                own = own.assign(m=pd.to_numeric(own["m"])).sort_values("m")
                axes.plot(own["m"], own["value"], dashes, marker="o", ms=4, color=tint, lw=1.6, label=words)
            equal = right.loc[right["way"] == "equal weights", "value"].iloc[0]
            axes.axhline(equal, color=theme.text, lw=0.8, ls=":")
            axes.annotate("all weights equal", (own["m"].max(), equal), (0, -11), textcoords="offset points", fontsize=8, ha="right")
            until = rows[rows["way"].str.contains("until")].set_index("metric")["value"]
            axes.plot(until["passes"], until["correlation"], "*", color=WINE, ms=13, mec=theme.text, mew=0.6)
            axes.set_xscale("log", base=2)
            ticks = sorted({int(m) for m in own["m"]})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set(xlabel="channels passed", ylim=(0.55, 1.01))
            axes.set_title(name(what), loc="left")
            axes.grid(lw=0.5)
            axes.tick_params(which="both", length=0)
        axes.figure.axes[0].set_ylabel("correlation with the exact map")
        below(into, axes.get_legend_handles_labels()[0], 3)

    told = []
    for what, rows in found.items():
        until = rows[rows["way"].str.contains("until")].set_index("metric")["value"]
        total = rows.loc[rows["way"] == "exact", "m"].iloc[0]
        told.append(
            f"{until['passes']:.0f} of {total} channels for {name(what)} (correlation {until['correlation']:.3f}, .99 or more on {until['reaches']:.0%} of images)"  # noqa: E501
        )
    answer = f"Star: <code>score_cam[until=0.99]</code>, which passes {' and '.join(told)}. Dotted: all weights equal."
    return figure(
        options, "budget", draw, size=(WIDTH, 3.9), phone=6.8, answer=answer, question="How many channels does Score-CAM need?",
        alt="Curves of correlation with the exact Score-CAM map against the number of channels passed, for two networks.",
    )  # fmt: skip
