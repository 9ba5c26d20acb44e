"""The figures of L-CAM's page: what is trained, drawn images, the planted mark, what was learned, the tries of the recipe, the cost."""

import pandas as pd
from cells import rows_link
from flow import flow
from matplotlib.lines import Line2D
from names import name
from plot_increment_cam import bars, read
from plots import COLOURS, GREY, ORANGE, TEAL, WIDTH, WINE, below, configurations, figure, folded, forest, is_narrow, row

BOXES = {  # of the diagram: column, row, words
    "image": (0, 0, "image"),
    "trunk": (1, 0, "frozen trunk:\nfeatures $A$"),
    "attention": (2, 0, "1×1 convolution,\nsigmoid: map $m$\nof each class"),
    "fm": (3, 0, "Fm: $m \\odot A$\ninto the frozen\nhead"),
    "img": (3, 1, "Img: $m \\odot$ image\ninto the frozen\nnetwork"),
    "loss": (4, 0.5, "keep the answer;\nsmall and smooth\nmap"),
}
ARROWS = (("image", "trunk"), ("trunk", "attention"), ("attention", "fm"), ("attention", "img"), ("fm", "loss"), ("img", "loss"))


def data_way(options):
    """What is trained and what is frozen, as a diagram."""
    return figure(
        options, "l-cam-way", lambda into, theme: flow(into, BOXES, ARROWS, theme, own=("attention",)),
        size=(WIDTH, 2.6), phone=5.4, question="What is trained?",
        answer="Only the 1×1 convolution, outlined in wine. After training the path ends at its map: one pass forward, for any class.",
        alt="From the image through the frozen trunk and a trained convolution to a map, which masks the features or the image.",
    )  # fmt: skip


# ---- the planted mark -------------------------------------------------------------------------------------------------

GROUPS = {
    "explain the label": ("grad_cam", "grad_cam_pp", "layer_cam", "score_cam", "cam", "saliency", "l_cam_fm", "l_cam_img"),
    "for the twin's label": ("other_grad_cam", "other_l_cam_fm", "other_l_cam_img"),
    "know no class": ("mean_activation", "random_l_cam"),
}
TWIN = {
    "other_grad_cam": "Grad-CAM, for the twin",
    "other_l_cam_fm": "L-CAM-Fm, for the twin",
    "other_l_cam_img": "L-CAM-Img, for the twin",
}


def marked(rows):
    """Values with the mark shown: metric, method, trained (with the mark, without it, their difference), seed."""
    found = rows[(rows["shown"] == "with") & (rows["method"] != "plain")]
    return found.set_index(["metric", "method", "trained", "seed"]).sort_index()


def tells(rows, method):
    """Under which seeds a method's map tells that the network reads the mark for this label.

    Its maximum must lie on the mark, of the network that learned the mark, in more images than of the one that never did (interval of the
    difference above zero), and in more than the maximum of its map for the twin's label, against which the mark speaks (intervals apart).
    """
    found = marked(rows).loc["maximum_in_box"]
    seeds = sorted(rows["seed"].unique())
    own, twin = ({seed: found.loc[(of, "with", seed)] for seed in seeds} for of in (method, f"other_{method}"))
    return [seed for seed in seeds if found.loc[(method, "difference", seed), "ci_low"] > 0 and own[seed]["ci_low"] > twin[seed]["ci_high"]]


def bias(rows):
    """The verdict on "the maps show the biases of the data", of both L-CAMs under all seeds: all, none, or not decided."""
    told, seeds = [tells(rows, method) for method in ("l_cam_fm", "l_cam_img")], rows["seed"].nunique()
    if all(len(found) == seeds for found in told):
        return "holds"
    return "not decided" if any(told) else "does not hold"


def planted_mark(options):
    """Share of the map on the mark, and how often its maximum is there: networks that learned the mark beside networks that never did."""
    rows = read(options, "shortcut")
    found = marked(rows)
    methods = [method for group in GROUPS.values() for method in group]
    seeds = sorted(rows["seed"].unique())
    area = found.loc[("energy_pointing_game", "all_ones", "with"), "value"].mean()

    def draw(into, theme):
        both = row(into, 2, sharey=True)
        for axes, metric in zip(both, ("energy_pointing_game", "maximum_in_box"), strict=True):
            for line, method in enumerate(methods):
                for trained, tint in (("without", TEAL), ("with", WINE)):
                    values = found.loc[(metric, method, trained), "value"].to_numpy()
                    heights = [line + 0.18 * (step - (len(values) - 1) / 2) for step in range(len(values))]
                    axes.plot(values, heights, "o", color=tint, mfc=tint if trained == "with" else theme.paper, ms=5, mew=1.3)
            line = -0.5
            for group in list(GROUPS.values())[:-1]:
                line += len(group)
                axes.axhline(line, color=theme.text, lw=0.6)
            axes.grid(axis="both", lw=0.5)
            axes.tick_params(length=0)
        both[0].axvline(area, color=theme.text, lw=0.8, ls=":")
        for axes, words in zip(both, folded(into, ("share of the map on the mark, %", "maximum on the mark, % of images")), strict=True):
            axes.set_title(words, loc="left")
        both[0].set(yticks=range(len(methods)), yticklabels=[TWIN.get(one, name(one)) for one in methods], ylim=(len(methods) - 0.5, -0.5))
        handles = [
            Line2D([], [], color=WINE, marker="o", ls="", label="network that learned the mark"),
            Line2D([], [], color=TEAL, marker="o", ls="", mfc=theme.paper, label="network that never did"),
            Line2D([], [], color=theme.text, ls=":", label="share of the picture that the mark covers"),
        ]
        below(into, handles, 3)

    share = found.loc["energy_pointing_game"]["value"]
    on = {method: share.loc[(method, "with")] for method in ("grad_cam", "l_cam_fm", "mean_activation")}
    answer = (
        f"L-CAM-Fm's maximum goes to the mark for this class, and not for the twin's, under {len(tells(rows, 'l_cam_fm'))} of {len(seeds)} "
        f"seeds, L-CAM-Img's under {len(tells(rows, 'l_cam_img'))}, Grad-CAM's under {len(tells(rows, 'grad_cam'))}; a map without a class "
        "cannot tell the two. On a mark that covers "
        f"{area:.1f} % of the picture lie "
        f"{on['grad_cam'].min():.0f} to {on['grad_cam'].max():.0f} % of Grad-CAM's map, {on['mean_activation'].min():.0f} to "
        f"{on['mean_activation'].max():.0f} % of the mean activation and {on['l_cam_fm'].min():.1f} to "
        f"{on['l_cam_fm'].max():.1f} % of L-CAM-Fm's. "
        "One dot a seed."
    )
    return figure(
        options, "l-cam-mark", draw, size=(WIDTH, 1.5 + 0.32 * len(methods)), phone=2 + 0.56 * len(methods), answer=answer,
        question="Which maps show that the network reads a planted mark?",
        alt="Dot plots, one line a method: share of the map and of the maxima on the mark, of networks with and without the shortcut.",
    )  # fmt: skip


# ---- what was learned -------------------------------------------------------------------------------------------------

CONTROLS = {
    "random_l_cam": "the untrained mechanism",
    "other_l_cam_fm": "its map of another class",
    "grad_cam[power=0.5]": "the square root of Grad-CAM",
}


def learned(options, differences):
    """L-CAM-Fm's Average Drop minus that of maps that hold less of what it learned, at every share of the map."""
    own = differences[(differences["paper"] == "l_cam") & (differences["method"] == "l_cam_fm") & (differences["metric"] == "average_drop")]
    rows = configurations(own[own["than"].isin(CONTROLS)])
    shares = ("100%", "50%", "15%")
    places = list(dict.fromkeys(rows["where"]))

    def draw(into, theme):
        for column, (axes, share) in enumerate(zip(row(into, len(shares), sharey=True), shares, strict=True)):
            forest(axes, rows[rows["setting"] == share], theme, better="lower")
            axes.set_title(f"Average Drop {share}", loc="left")
            axes.tick_params(labelleft=column == 0 or is_narrow(into))
        handles = [Line2D([], [], color=COLOURS[than], marker="o", label=f"minus {words}") for than, words in CONTROLS.items()]
        below(into, handles, 3)

    counts = []
    for than, words in CONTROLS.items():
        of = rows[rows["than"] == than]
        counts.append(
            f"{words} on {sum(of['decided'] & (of['value'] < 0))} of {len(of)} bars (behind on {sum(of['decided'] & (of['value'] > 0))})"
        )
    return figure(
        options, "l-cam-learned", draw, size=(WIDTH, 1.5 + 0.5 * len(places)), phone=1 + (0.7 + 0.5 * len(places)) * 3,
        question="What has L-CAM-Fm learned?",
        answer=f"L-CAM-Fm drops less, decided, than {', '.join(counts)}. From ten seeds on one bar for all of them.",
        alt=(
            "Forest plots: Average Drop of L-CAM-Fm minus that of the untrained mechanism, of another class's map, and of "
            "the root of Grad-CAM."
        ),
        rows=rows_link("differences", paper="l_cam", metric="average_drop", setting=shares, method="l_cam_fm", than=CONTROLS),
    )  # fmt: skip


# ---- the recipe -------------------------------------------------------------------------------------------------------

TRIES = {  # file: what was tried, its colour; the lines of maps that learn nothing are in each
    "l_cam_recipe": ("Fm: masks × rate", WINE), "l_cam_epochs": ("Fm: epochs", WINE), "l_cam_views": ("Fm: views", WINE),
    "l_cam_recipe-img": ("Img: masks × rate", ORANGE),
}  # fmt: skip
UNTRAINED = {"grad_cam": TEAL, "mean_activation": GREY}


def drops(rows):
    """Average Drop at 50 % on the held-out images: network × method."""
    found = rows[(rows["metric"] == "average_drop") & (rows["setting"] == "50%")]
    return found.set_index(["backbone", "method"])["value"]


def recipe(options):
    """Every try of the recipe beside Grad-CAM and the mean activation."""
    files = {what: read(options, what) for what in TRIES}
    found = {what: drops(rows) for what, rows in files.items()}
    networks = list(dict.fromkeys(found["l_cam_recipe"].index.get_level_values("backbone")))
    nothing = set(UNTRAINED) | {"cam", "random_map", "grad_cam[power=0.5]"}

    def tried(what, backbone):
        values = found[what].loc[found[what].index.get_level_values("backbone") == backbone]
        return values[~values.index.get_level_values("method").isin(nothing)].to_numpy()

    def draw(into, theme):
        for axes, backbone in zip(row(into, len(networks)), networks, strict=True):
            lines = [what for what in TRIES if len(tried(what, backbone))]
            for line, what in enumerate(lines):
                values, tint = tried(what, backbone), TRIES[what][1]
                axes.plot(values, [line] * len(values), "o", color=tint, mfc=theme.paper, mew=1.4, ms=6)
            for method, tint in UNTRAINED.items():
                axes.axvline(found["l_cam_recipe"].loc[(backbone, method)], color=tint, lw=1.4, label=name(method))
            axes.set_title(name(backbone), loc="left")
            axes.set(yticks=range(len(lines)), yticklabels=[TRIES[what][0] for what in lines], ylim=(len(lines) - 0.5, -0.5))
            axes.set_xlabel("Average Drop 50 %  (better ←)")
            axes.tick_params(length=0)
            axes.grid(axis="x", lw=0.5)
        below(into, axes.get_legend_handles_labels()[0], 2)

    every = [(value, backbone) for what in TRIES for backbone in networks for value in tried(what, backbone)]
    lose = {method: sum(value < found["l_cam_recipe"].loc[(backbone, method)] for value, backbone in every) for method in UNTRAINED}
    n = int(files["l_cam_recipe"]["n"].iloc[0])
    answer = (
        f"Of {len(every)} tries on {n} held-out images, {lose['grad_cam']} lose less than Grad-CAM and "
        f"{lose['mean_activation']} less than the mean "
        "activation, which learned nothing. One try has an interval of about eight points to either side."
    )
    return figure(
        options, "l-cam-recipe", draw, size=(WIDTH, 2.9), phone=1 + 1.9 * len(networks),
        question="Does any other recipe help?", answer=answer,
        alt="Average Drop of every try of masks, learning rate, epochs and views, with lines for Grad-CAM and the mean activation.",
    )  # fmt: skip


# ---- cost -------------------------------------------------------------------------------------------------------------

ONE_PASS = 1.1  # times the bare forward pass of the same network


def passes(rows):
    """How many times the forward pass of the explained network a map of each L-CAM takes, in batches of one and of eight."""
    seconds = rows.dropna(subset=["seconds"]).set_index(["group", "contender"])["seconds"]
    groups = {(method, batch): f"one explanation, {method}, batch {batch}" for method in ("l_cam_fm", "l_cam_img") for batch in (1, 8)}
    return {key: seconds[(group, key[0])] / seconds[(group, "forward")] for key, group in groups.items()}


def one_pass(rows):
    """The verdict on "one forward pass": every explanation takes no more than a tenth above the bare forward pass."""
    times = passes(rows).values()
    return "holds" if max(times) <= ONE_PASS else "does not hold" if min(times) > ONE_PASS else "not decided"


def cost(options):
    """Milliseconds a map on ResNet-18, one image at a time, logarithmic."""
    rows = read(options, "training", "benchmarks")
    chosen = {
        ("one explanation, l_cam_fm, batch 1", one): one for one in ("forward", "l_cam_fm", "cam", "grad_cam", "score_cam[budget=32]")
    }
    chosen |= {("one explanation, l_cam_img, batch 1", "l_cam_img"): "l_cam_img"}
    chosen |= {("one explanation, many passes, batch 1", one): one for one in ("score_cam", "rise")}
    seconds = rows.dropna(subset=["seconds"]).set_index(["group", "contender"])["seconds"]
    found = pd.Series({method: seconds[key] for key, method in chosen.items()}).sort_values()
    words = {"forward": "forward pass alone", "score_cam[budget=32]": "Score-CAM within 32 passes"}
    promised = rows[rows["contender"].str.startswith("L-CAM-Fm's epoch from cached")]["found"].iloc[0]
    times = passes(rows).values()
    over = {method: seconds[key] / seconds[key[0], "forward"] for key, method in chosen.items()}  # each over the pass of its own race
    answer = (
        f"A map of L-CAM takes {min(times):.2f} to {max(times):.2f} times the bare forward pass, one of Grad-CAM {over['grad_cam']:.2f}, "
        f"of Score-CAM {over['score_cam']:.0f}, of RISE {over['rise']:,.0f} times. Training Fm from cached "
        f"features makes an epoch {promised:.0f} times as fast. ResNet-18, two CPU cores, one image."
    )
    values = {words.get(one, name(one)): 1000 * value for one, value in found.items()}
    tints = [COLOURS.get(one.split("[")[0], GREY) for one in found.index]
    return bars(options, "l-cam-cost", values, tints, "milliseconds a map", question="What does a map cost?", answer=answer)
