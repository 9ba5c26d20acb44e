"""The figures of Increment-CAM's page: its phases, all readings of the abstract, what a network knows of tiny images, what a map costs."""

import base64
import html
import json

import experiments
from flow import flow
from matplotlib.lines import Line2D
from names import name
from plots import BLUE, COLOURS, FOLDER, GREY, ORANGE, TEAL, WIDTH, WINE, below, figure, folded, is_narrow, place, row

GROUP = "ResNet-18, batch 8, Increment-CAM"  # of results/benchmarks/methods.csv
FAR_LESS = 10  # times: a method that costs less than a tenth costs "far less"


BOXES = {  # of the diagram: column, row, words
    "image": (0, 0, "image"),
    "network": (1, 0, "network,\nforward and\nbackward"),
    "first": (2, 0, "phase 1:\nGrad-CAM $L_1$"),
    "map": (3, 0, "phase 3:\nmean of both, $M$"),
    "small": (0, 1, "image, as small\nas the map: $x_d$"),
    "masked": (1, 1, "masked by\neach channel,\n$s(A_k) \\odot x_d$"),
    "again": (2, 1, "network: one\ntiny pass for\neach channel"),
    "second": (3, 1, "phase 2: weights\n$w_k$, map $L_2$"),
}
ARROWS = (
    ("image", "network"), ("network", "first"), ("first", "map"), ("image", "small"), ("network", "masked"), ("small", "masked"),
    ("masked", "again"), ("again", "second"), ("second", "map"),
)  # fmt: skip


def data_way(options):
    """The three phases as a diagram."""
    return figure(
        options, "increment-way", lambda into, theme: flow(into, BOXES, ARROWS, theme, own=("masked", "again", "second")),
        size=(WIDTH, 3), phone=4.6, question="Where does the map come from?",
        answer=(
            "Outlined in wine: what Increment-CAM adds to Grad-CAM. Each channel with a positive weight costs one pass of "
            "the tiny image."
        ),
        alt="From the image through Grad-CAM, and from the reduced image through masked passes, to the merged map.",
    )  # fmt: skip


def phases(options):
    """The three phases on drawn images, as the notebook of this copy drew them; nothing where it has not run."""
    found = sorted((options.runs / options.profile / "increment_cam").glob("drawn_*/notebook.ipynb"))
    cells = json.loads(found[0].read_text(encoding="utf-8"))["cells"] if found else []
    pictures = [
        output["data"]["image/png"]
        for cell in cells
        if cell["cell_type"] == "code" and '"phase 2"' in "".join(cell["source"])
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]
    if not pictures:
        return ""
    folder = options.out / "src" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "increment-phases.png").write_bytes(base64.b64decode("".join(pictures[0])))
    empty = read(options, "increment_cam-drawn_imagenet-resnet8")
    empty = empty[(empty["metric"] == "empty_maps") & (empty["method"] == "phase 2 alone") & (empty["protocol"] == "energy")].iloc[0]
    alt = "Drawn images; beside each its map after phase 1, by phase 2 alone, and merged. Several maps of phase 2 are empty."
    question = "What does phase 2 add on drawn images?"
    answer = (
        f"Phase 2 alone is an empty map where no channel raises the score: on {empty['value']:.0f} of {empty['n']:.0f} "
        "drawn images of the study. "
        "The merged map is then Grad-CAM itself. Blue: the true box."
    )
    return (
        f'<figure class="plot-figure" id="plot-increment-phases">\n<p class="plot-title">{question}</p>\n'
        f'<div class="plot" tabindex="0" role="region" aria-label="{question}"><img src="{FOLDER}/increment-phases.png" '
        f'alt="{html.escape(alt, quote=True)}" loading="lazy"></div>\n<figcaption>{answer}</figcaption>\n</figure>\n'
    )


def read(options, what, folder="studies"):
    """The rows of a study or benchmark, noted among what the page reads."""
    options.read.append(f"results/{folder}/{what}.csv")
    return experiments.read(options.results / folder / f"{what}.csv")


# ---- the readings -----------------------------------------------------------------------------------------------------

PAIRS = {  # on the reported half: label, colour
    ("increment_cam", "grad_cam"): ("literal reading − Grad-CAM", WINE),
    ("increment_cam_tuned", "grad_cam"): ("chosen reading − Grad-CAM", ORANGE),
    ("increment_cam_tuned", "grad_cam_tuned"): ("chosen reading − Grad-CAM's best try", TEAL),
    ("increment_cam_tuned", "increment_cam_tuned, weights equal"): ("chosen reading − itself, equal weights", GREY),
}


def studies(options):
    """All data sets and networks whose readings were tried, real images first."""
    names = sorted(path.stem for path in (options.results / "studies").glob("increment_cam-*.csv"))
    return [read(options, what) for what in sorted(names, key=lambda what: "drawn" in what)]


def tries(rows):
    """Pixel AP of every try minus that of plain Grad-CAM on the same images: of Increment-CAM's readings, and of Grad-CAM's own variants.

    The literal reading is the first of the tries; the chosen one is the best.
    """
    tried = rows[rows["role"] == "tried"]
    own, other = (tried[tried["method"].str.startswith(f"{method}[")] for method in ("increment_cam", "grad_cam"))
    (plain,) = other.loc[other["method"].isin(["grad_cam[last, mean, 1]", "grad_cam[last, mean, 1, 1]"]), "value"]
    return own["value"].to_numpy() - plain, other["value"].to_numpy() - plain


def paired(rows):
    """The differences in pixel AP on the half that chose nothing, by (method, than)."""
    found = rows[(rows["role"] == "difference") & (rows["metric"] == "pixel_precision")]
    return {pair: found.set_index(["method", "than"]).loc[pair] for pair in PAIRS}


def readings(options):
    """Every reading beside Grad-CAM on the half that chooses; the literal and the chosen one on the other half, with their controls."""
    found = studies(options)
    where = [f"{place(rows['dataset'].iloc[0])},\n{name(rows['backbone'].iloc[0])}" for rows in found]
    tried, held = [tries(rows) for rows in found], [paired(rows) for rows in found]

    def draw(into, theme):
        left, right = row(into, 2)
        for line, ((own, other), pairs) in enumerate(zip(tried, held, strict=True)):
            for values, shift, tint in ((own, -0.17, WINE), (other, 0.17, TEAL)):
                left.plot(values, [line + shift] * len(values), "|", color=tint, ms=9, alpha=0.35)
                left.plot(values.max(), line + shift, "D", color=tint, ms=6)
            left.plot(own[0], line - 0.17, "o", color=WINE, mfc=theme.paper, ms=6, mew=1.6)
            for step, (pair, (_, tint)) in enumerate(PAIRS.items()):
                one, height = pairs[pair], line + (step - 1.5) * 0.19
                clear = one["ci_low"] > 0 or one["ci_high"] < 0
                right.plot([one["ci_low"], one["ci_high"]], [height, height], color=tint, lw=1.6)
                right.plot(one["value"], height, "o", color=tint, mfc=tint if clear else theme.paper, mew=1.4)
        for axes, title in ((left, "every reading, on the half that chooses"), (right, "on the other half, 95 % intervals")):
            axes.axvline(0, color=theme.text, lw=0.8, zorder=0)
            axes.set(yticks=range(len(where)), yticklabels=where if axes is left or is_narrow(into) else [], ylim=(len(where) - 0.5, -0.5))
            axes.set_title(folded(into, [title], 26)[0], loc="left")
            axes.set_xlabel("pixel AP minus Grad-CAM's" if axes is left else "worse ← difference in pixel AP → better")
            axes.tick_params(length=0)
            axes.grid(axis="x", lw=0.6)
        handles = [
            Line2D([], [], color=WINE, marker="|", ls="", ms=9, label="a reading"),
            Line2D([], [], color=WINE, marker="o", mfc=theme.paper, ls="", label="the literal one"),
            Line2D([], [], color=WINE, marker="D", ls="", label="the chosen one"),
            Line2D([], [], color=TEAL, marker="|", ls="", ms=9, label="a try of Grad-CAM, ◆ its best"),
            *(Line2D([], [], color=tint, marker="o", label=words) for words, tint in PAIRS.values()),
        ]
        below(into, handles, 3)

    all_own = [value for own, _ in tried for value in own]
    ahead = {pair: sum(pairs[pair]["ci_low"] > 0 for pairs in held) for pair in PAIRS}
    behind = {pair: sum(pairs[pair]["ci_high"] < 0 for pairs in held) for pair in PAIRS}
    literal, chosen, against, equal = PAIRS
    of = f"of the {len(found)} pairs of data and network"
    answer = (
        f"{sum(value > 0 for value in all_own):,} of {len(all_own):,} readings rank the pixels better than plain "
        "Grad-CAM on the half that chooses. "
        f"On the other half the literal reading is ahead of Grad-CAM on {ahead[literal]} {of} and behind on "
        f"{behind[literal]}; the chosen one is "
        f"ahead on {ahead[chosen]} and behind on {behind[chosen]}. Against the best of as many tries of Grad-CAM it is ahead on "
        f"{ahead[against]}, and against itself with all weights of phase 2 equal on {ahead[equal]}. Filled: the interval is clear of zero."
    )
    return figure(
        options, "increment-readings", draw, size=(WIDTH, 1.6 + 0.72 * len(found)), phone=3 + 1.3 * len(found), answer=answer,
        question="Does any reading of the abstract rank the object's pixels better than Grad-CAM?",
        alt=(
            "Left, for each data set and network, the pixel AP of every reading minus Grad-CAM's. Right, paired "
            "differences with intervals."
        ),
    )  # fmt: skip


# ---- what a network knows of a tiny image -----------------------------------------------------------------------------

NETWORKS = {"resnet18": WINE, "resnet50": ORANGE, "mobilenet_v2": TEAL, "squeezenet1_1": BLUE}  # EfficientNet-Lite0 in the text's colour
SMALLEST = 7  # cells of the map of these networks but SqueezeNet's, whose readings have no image as small as its map
CLASSES = 1000


def known(rows):
    """Of the weights of phase 2 at the last layer: side of the image, how it became so small (path), rank of the class, correlation."""
    weights = rows[(rows["role"] == "weights") & rows["method"].str.startswith("last, ")]
    wide = weights.pivot(index="method", columns="metric", values="value")
    sides, paths = zip(*(key.split(", ")[1:] for key in wide.index), strict=True)
    wide = wide.assign(side=[SMALLEST if side == "map" else int(side) for side in sides], path=paths)
    return wide.sort_values("side").reset_index(drop=True)


def knowledge(options):
    """Rank of the class on the reduced image, and how far the weights found there agree with those of the largest image tried."""
    found = {rows["backbone"].iloc[0]: known(rows) for rows in studies(options) if rows["dataset"].iloc[0] == "imagenet"}

    def draw(into, theme):
        axes = row(into, 2)
        colours = {backbone: NETWORKS.get(backbone, theme.text) for backbone in found}
        for backbone, rows in found.items():
            for path, style in (("map", "o-"), ("direct", "s--")):
                own = rows[rows["path"] == path]
                axes[0].plot(own["side"], own["rank"], style, color=colours[backbone], mfc=theme.paper if path == "direct" else None)
                own = own[own["spearman"] < 1]  # the largest is what the others are held against
                axes[1].plot(own["side"], own["spearman"], style, color=colours[backbone], mfc=theme.paper if path == "direct" else None)
        axes[0].axhline((CLASSES - 1) / 2, color=theme.text, lw=0.8, ls=":")
        axes[0].annotate("chance", (224, (CLASSES - 1) / 2), (0, 4), textcoords="offset points", ha="right", fontsize=8)
        axes[1].axhline(0, color=theme.text, lw=0.8)
        axes[0].set_title("classes that are ranked above the right one", loc="left")
        axes[1].set_title("rank correlation of the weights", loc="left")
        for one in axes:
            one.set(
                xscale="log", xticks=[7, 32, 64, 112, 224], xticklabels=[7, 32, 64, 112, 224], xlabel="side of the reduced image, pixels"
            )
            one.minorticks_off()
            one.grid(lw=0.5)
        axes[1].set_ylim(top=1)
        handles = [Line2D([], [], color=tint, marker="o", label=name(backbone)) for backbone, tint in colours.items()]
        handles += [
            Line2D([], [], color=GREY, marker="o", label="through the map's size"),
            Line2D([], [], color=GREY, marker="s", ls="--", mfc=theme.paper, label="resized directly"),
        ]
        below(into, handles, 3)

    smallest = [rows[rows["side"] == SMALLEST].iloc[0] for rows in found.values() if (rows["side"] == SMALLEST).any()]
    ranks, agree = ([one[key] for one in smallest] for key in ("rank", "spearman"))
    answer = (
        f"Shrunk to {SMALLEST} pixels, the image leaves the right class at rank {min(ranks):.0f} to {max(ranks):.0f} of "
        f"{CLASSES:,}, where chance "
        f"puts {(CLASSES - 1) / 2:.0f}, and the weights found there correlate by {min(agree):.2f} to {max(agree):.2f} "
        "with those of the largest "
        "image tried. Enlarging the tiny image helps little; an image that was never so small keeps more."
    )
    return figure(
        options, "increment-knowledge", draw, size=(WIDTH, 3.7), phone=6.6, answer=answer,
        question="What does a network know of a tiny image?",
        alt="Two line plots over the side of the reduced image: rank of the class, and correlation of the channel weights.",
    )  # fmt: skip


# ---- cost -------------------------------------------------------------------------------------------------------------


def speed(rows):
    """The verdict on "costs far less than Score-CAM", from the benchmark, and how many times less it costs."""
    seconds = rows[rows["group"] == GROUP].set_index("contender")["seconds"]
    times = seconds["score_cam"] / seconds["increment_cam"]
    return "holds" if times >= FAR_LESS else "does not hold" if times <= 1 else "not decided", times


def cost(options):
    """Milliseconds a map on ResNet-18, logarithmic."""
    rows = read(options, "methods", "benchmarks")
    seconds = rows[rows["group"] == GROUP].set_index("contender")["seconds"].sort_values()
    times = speed(rows)[1]
    answer = (
        f"Increment-CAM takes {seconds['increment_cam'] / seconds['grad_cam']:.1f} times as long as Grad-CAM, and "
        f"Score-CAM {times:.0f} times as long as "
        "Increment-CAM. At 112 pixels the advantage over Score-CAM shrinks to "
        f"{seconds['score_cam'] / seconds['increment_cam[mid]']:.0f} times, "
        f"at full size to {seconds['score_cam'] / seconds['increment_cam[full]']:.1f}. ResNet-18, two CPU cores, batches of eight."
    )
    labels = {
        "increment_cam": "Increment-CAM, 7 pixels",
        "increment_cam[full]": "Increment-CAM, full size",
        "score_cam[budget=64]": "Score-CAM within 64 passes",
    }
    values = {labels.get(one, name(one)): 1000 * value / 8 for one, value in seconds.items()}
    tints = [COLOURS.get(one.split("[")[0], GREY) for one in seconds.index]
    return bars(options, "increment-cost", values, tints, "milliseconds a map", question="What does a map cost?", answer=answer)


def bars(options, slug, values, tints, unit, *, question, answer):
    """Bars on a logarithmic axis, each with its number."""

    def draw(into, _theme):
        axes = into.subplots()
        drawn = axes.barh(list(values), list(values.values()), color=tints, height=0.62)
        axes.bar_label(drawn, [f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in values.values()], padding=4, fontsize=8.5)
        axes.set(xscale="log", xlabel=unit, xlim=(min(values.values()) / 3, 3 * max(values.values())))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)

    return figure(
        options, slug, draw, size=(WIDTH, 0.8 + 0.33 * len(values)), question=question, answer=answer,
        alt=f"Bars: {', '.join(f'{label} {value:,.3g}' for label, value in values.items())} {unit}.",
    )  # fmt: skip
