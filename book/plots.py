"""Figures of the book, for desk and phone, in the colours of both themes: a forest of differences, brightness against Average Drop."""

import html
import io
import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from cells import rows_link, seed_interval
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from names import is_control, name, place
from tables import PROPOSED, of_the_first

FOLDER = "_static/plots"
WIDTH = 8.2  # inches, which the column shows at its full width
NARROW = 4.2  # inches, which a phone shows
PHONES = "screen and (max-width: 40rem)"
WINE, ORANGE, TEAL, BLUE, GREY = "#9b2c6b", "#d9772b", "#1f8a84", "#3f6fb5", "#8a8a8a"
COLOURS = {  # one a method, in every figure
    "increment_cam": WINE, "increment_cam[channels]": ORANGE, "l_cam_fm": WINE, "l_cam_img": ORANGE, "lfi_cam": WINE, "abn": ORANGE,
    "random_l_cam": BLUE, "other_l_cam_fm": ORANGE, "grad_cam[power=0.5]": TEAL,
    "calm_em": WINE, "calm_ml": ORANGE, "grad_cam": TEAL, "cam": TEAL, "score_cam": BLUE, "plain": TEAL,
}  # fmt: skip
RIVALS = {"grad_cam": WINE, "grad_cam[power=2]": ORANGE, "mean_activation": TEAL, "mean_features": BLUE, "cam": WINE}  # of a forest
THEMES = {
    "light": {"text": "#1f1f24", "grid": "#dddddf", "paper": "#ffffff"},
    "dark": {"text": "#e6e6ea", "grid": "#3b3d44", "paper": "#14181e"},
}


@dataclass(frozen=True)
class Theme:
    """What a figure may ask its theme for: colours of text, grid lines and the paper behind."""

    text: str
    grid: str
    paper: str


def figure(options, slug, draw, *, size, question, answer, alt, phone=None, rows=""):
    """A figure as HTML: `draw(figure, theme)` fills a matplotlib Figure of `size` inches; SVG files for both themes lie in the site.

    The ``question`` stands above as its title, the ``answer`` below as its caption (HTML), with a link to its ``rows`` (`rows_link`);
    ``alt`` says what is to be seen.
    It is drawn once more for phones, `NARROW` inches wide and ``phone`` high (as high as the wide one without it), where `row` stacks
    its panels, so that no figure scrolls.
    """
    folder = options.out / "src" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    sizes, light = {"": size, "-phone": (NARROW, phone or size[1])}, THEMES["light"]
    for kind, inches in sizes.items():
        with mpl.rc_context(_style(**light)):
            drawn, file = Figure(figsize=inches, layout="constrained"), io.StringIO()
            draw(drawn, Theme(**light))
            drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        for theme, colours in THEMES.items():  # the same drawing in the other theme's colours
            turned = {light[part]: colours[part] for part in light}
            text = re.sub("|".join(light.values()), lambda colour, to=turned: to[colour[0]], file.getvalue())
            (folder / f"{slug}-{theme}{kind}.svg").write_text(text, encoding="utf-8")
    said = html.escape(alt, quote=True)
    pictures = [
        f'<picture><source media="{PHONES}" srcset="{FOLDER}/{slug}-{theme}-phone.svg" {_sides(sizes["-phone"])}>'
        f'<img class="only-{theme}" src="{FOLDER}/{slug}-{theme}.svg" alt="{said}" {_sides(size)} loading="lazy"></picture>'
        for theme in THEMES
    ]
    plot = f'<div class="plot">{"".join(pictures)}</div>'
    title = f'<p class="plot-title">{html.escape(question)}</p>'
    caption = f"<figcaption>{answer} {rows}".rstrip() + "</figcaption>"
    return f'<figure class="plot-figure" id="plot-{slug}">\n{title}\n{plot}\n{caption}\n</figure>\n'


def is_narrow(into):
    """Whether a figure is being drawn for a phone."""
    return into.get_figwidth() == NARROW


def row(into, count, *, width_ratios=None, height_ratios=None, **options):
    """``count`` axes side by side; on a phone one below the other, with the ``height_ratios``."""
    if is_narrow(into):
        return into.subplots(count, 1, squeeze=False, height_ratios=height_ratios, **options).ravel()
    return into.subplots(1, count, squeeze=False, width_ratios=width_ratios, **options).ravel()


def folded(into, texts, width=20):
    """Labels as they are; on a phone broken into lines of about ``width`` letters."""
    return [textwrap.fill(text, width) for text in texts] if is_narrow(into) else list(texts)


def below(into, handles, columns):
    """The legend below a figure, in ``columns``, or in as few of them as fit its width."""
    for count in range(min(columns, len(handles)), 0, -1):
        drawn = into.legend(handles=handles, loc="outside lower center", ncols=count, fontsize=8.5)
        if count == 1 or drawn.get_window_extent().width <= into.bbox.width - 8:
            return
        drawn.remove()


def _sides(inches):
    """Width and height in CSS pixels, so that the page does not jump while it loads."""
    return 'width="{:.0f}" height="{:.0f}"'.format(*(96 * side for side in inches))


def _style(text, grid, paper):
    return {
        "svg.fonttype": "path", "svg.hashsalt": "book", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5,
        "text.color": text, "axes.labelcolor": text, "xtick.color": text, "ytick.color": text, "axes.edgecolor": grid,
        "grid.color": grid, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold", "lines.markersize": 5,
    }  # fmt: skip


# ---- forests ----------------------------------------------------------------------------------------------------------


def configurations(differences):
    """Paired differences as a forest shows them: one row a seed, from ten seeds on one of their mean with its interval.

    Columns: those of the differences, `where` (data set and network) and `decided` (whether the mark is filled).
    """
    keys = ["profile", "dataset", "backbone", "recipe", "protocol", "method", "than", "metric", "setting"]
    found = []
    for of, own in differences[~of_the_first(differences)].groupby(keys, sort=False):
        interval = seed_interval(list(own["value"]))
        if interval:
            mean, low, high = interval
            one = dict(zip(keys, of, strict=True)) | {
                "value": mean,
                "ci_low": low,
                "ci_high": high,
                "n": own["n"].iloc[0],
                "seeds": len(own),
            }
            found.append(pd.DataFrame([one | {"decided": low > 0 or high < 0}]))
        else:
            found.append(own[[*keys, "value", "ci_low", "ci_high", "n", "seed"]].assign(decided=own["p_holm"] <= 0.05, seeds=1))
    rows = (
        pd.concat(found, ignore_index=True)
        if found
        else pd.DataFrame(columns=[*keys, "value", "ci_low", "ci_high", "n", "decided", "seeds"])
    )
    return rows.assign(where=[f"{place(one.dataset)}, {name(one.backbone)}" for one in rows.itertuples()])


def forest(axes, rows, theme, *, colour="than", better=""):
    """Rows of `configurations` on one axis: a line for each `where`, in it one bar for each rival (or seed), filled where it is decided.

    ``better``: the direction of the metric that is better, "higher" or "lower", or "" to leave the axis unmarked.
    """
    places = list(dict.fromkeys(rows["where"]))
    kinds = list(dict.fromkeys(rows[colour]))
    for line, where in enumerate(places):
        own = rows[rows["where"] == where].sort_values(colour, key=lambda of: of.map(kinds.index), kind="stable")
        for step, one in enumerate(own.itertuples()):
            height = line + (step - (len(own) - 1) / 2) * 0.8 / max(len(own), 3)
            tint = RIVALS.get(getattr(one, colour)) or COLOURS.get(getattr(one, colour), GREY)
            axes.plot([one.ci_low, one.ci_high], [height, height], color=tint, lw=1.6, solid_capstyle="round")
            axes.plot(one.value, height, "o", color=tint, mfc=tint if one.decided else theme.paper, mew=1.4)
    axes.axvline(0, color=theme.text, lw=0.8, zorder=0)
    lines = [where.replace(", ", ",\n", 1) for where in places] if is_narrow(axes.figure) else places
    axes.set(yticks=range(len(places)), yticklabels=lines, ylim=(len(places) - 0.4, -0.6))
    axes.grid(axis="x", lw=0.6)
    axes.tick_params(length=0)
    if better:
        between = "→" if is_narrow(axes.figure) or len(axes.figure.axes) > 1 else "difference →"
        axes.set_xlabel(f"worse ← {between} better" if better == "higher" else f"better ← {between} worse")
    return kinds


def legend(figure_, kinds, *, colour="than"):
    """The colours of a forest and what filled means, below the figure."""
    tints = [RIVALS.get(one) or COLOURS.get(one, GREY) for one in kinds]
    words = [f"minus {name(one)}" if colour == "than" else name(one) for one in kinds]
    handles = [Line2D([], [], color=tint, marker="o", label=word) for tint, word in zip(tints, words, strict=True)]
    handles.append(Line2D([], [], color=GREY, marker="o", ls="", label="filled: decided"))
    below(figure_, handles, 4)


PANELS = {  # of a paper's page: metric, setting, the direction that is better
    "increment_cam": (("energy_pointing_game", "", "higher"), ("pixel_precision", "", "higher"), ("average_drop", "50%", "lower")),
    "l_cam": (("average_drop", "100%", "lower"), ("average_drop", "50%", "lower"), ("average_drop", "15%", "lower")),
    "lfi_cam": (("energy_pointing_game", "", "higher"), ("max_box_acc_v2", "", "higher"), ("average_drop", "50%", "lower")),
    "calm": (("cue_localization", "all pairs", "higher"), ("energy_pointing_game", "", "higher"), ("max_box_acc_v2", "", "higher")),
}
AGAINST = {"calm": ("cam",), "lfi_cam": ("grad_cam", "grad_cam[power=2]", "mean_features")}  # others: the mean activation
METHOD = {"increment_cam": "increment_cam", "l_cam": "l_cam_fm", "lfi_cam": "lfi_cam", "calm": "calm_em"}


def paper_forest(options, differences, paper, method=None):
    """The forest of a paper's page: what it proposes minus Grad-CAM, its square and the mean activation (for CALM, minus CAM)."""
    method = method or METHOD[paper]
    rivals = AGAINST.get(paper, ("grad_cam", "grad_cam[power=2]", "mean_activation"))
    own = differences[(differences["paper"] == paper) & (differences["method"] == method) & differences["than"].isin(rivals)]
    rows = configurations(own.assign(metric=own["metric"].str.removesuffix("_box")))
    panels = [panel for panel in PANELS[paper] if ((rows["metric"] == panel[0]) & (rows["setting"] == panel[1])).any()]
    places = list(dict.fromkeys(rows["where"]))
    shown = [rows[(rows["metric"] == metric) & (rows["setting"] == setting)] for metric, setting, _ in panels]
    lines = [one["where"].nunique() for one in shown]
    asked = {panel[:2] for panel in panels}
    behind = own[[(metric.removesuffix("_box"), setting) in asked for metric, setting in own[["metric", "setting"]].to_numpy()]]

    def draw(into, theme):
        kinds = []
        drawn = row(into, len(panels), height_ratios=[0.7 + 0.5 * count for count in lines])
        for column, (axes, chosen, (metric, setting, better)) in enumerate(zip(drawn, shown, panels, strict=True)):
            kinds = forest(axes, chosen if is_narrow(into) else _on_all_lines(chosen, places), theme, better=better) or kinds
            axes.set_title(name(metric).rstrip("↑↓ \N{NO-BREAK SPACE}") + (f" {setting}" if setting.endswith("%") else ""), loc="left")
            if column and not is_narrow(into):
                axes.set_yticklabels([])
        legend(into, [rival for rival in rivals if rival in kinds])

    seen = rows.merge(pd.DataFrame(panels, columns=["metric", "setting", "better"]))
    counts = [
        f"against {name(rival)} better in {sum(own['decided'] & good)} and worse in {sum(own['decided'] & ~good)} of {len(own)} bars"
        for rival, own in seen.groupby("than", sort=False)
        for good in [(own["value"] > 0) == (own["better"] == "higher")]
    ]
    answer = (
        "Paired differences on the same images, with 95 % intervals; one bar for each map it is compared with, and for each seed where "
        "there are fewer than ten. "
        f"Decided: {'; '.join(counts)}."
    )
    return figure(
        options, f"forest-{paper}-{method}", draw, size=(WIDTH, 1.5 + 0.52 * len(places)), answer=answer,
        phone=1 + sum(0.7 + 0.5 * count for count in lines), question=f"Is {name(method)} better than the maps beside it?",
        alt=f"Forest plot: {name(method)} minus {', '.join(map(name, rivals))}, one line for each data set and network.",
        rows=rows_link("differences", paper=paper, method=method, than=rivals, metric=behind["metric"], setting=behind["setting"]),
    )  # fmt: skip


def _on_all_lines(rows, places):
    """The rows with those of missing places as empty ones, so that the panels of a figure share their lines."""
    missing = pd.DataFrame({"where": [where for where in places if where not in set(rows["where"])]})
    rows = pd.concat([rows, missing.assign(than="", decided=False)]) if len(missing) else rows
    return rows.sort_values("where", key=lambda of: of.map(places.index), kind="stable")


def statement_forest(options, entry, found):
    """The forest of one statement: the difference that it is about, on every configuration."""
    seeds = []
    for one in found:
        where = f"{place(one.dataset)}, {name(one.backbone)}" + (f", {one.setting}" if len({of.setting for of in found}) > 1 else "")
        if one.low is not None and not pd.isna(one.low):
            seeds.append({"where": where, "kind": one.kind, "value": one.mean, "ci_low": one.low, "ci_high": one.high,
                          "decided": one.verdict in ("holds", "does not hold")})  # fmt: skip
            continue
        for seed, word, value in zip(one.seeds, one.by_image, one.differences, strict=True):
            seeds.append({"where": where, "kind": one.kind, "value": value, "ci_low": seed.ci_low_paired, "ci_high": seed.ci_high_paired,
                          "decided": word in ("holds", "does not hold")})  # fmt: skip
    rows, check = pd.DataFrame(seeds).dropna(subset=["ci_low"]), entry["check"]
    if rows.empty:
        return ""

    tints = {"photographs": "grad_cam", "drawn": "mean_activation"}  # the colours of these rivals

    def draw(into, theme):
        axes = into.subplots()
        forest(axes, rows.assign(than=rows["kind"].map(tints)), theme, better=check["direction"])
        handles = [Line2D([], [], color=RIVALS[tints[kind]], marker="o", label=kind) for kind in dict.fromkeys(rows["kind"])]
        handles.append(Line2D([], [], color=GREY, marker="o", ls="", label="filled: decided"))
        if check.get("margin"):
            axes.axvline(check["margin"] * (-1 if check["direction"] == "higher" else 1), color=theme.text, lw=0.8, ls=":")
            handles.append(Line2D([], [], color=theme.text, ls=":", label="the loss that counts as one"))
        below(into, handles, 4)

    pair = f"{name(check['method'])} minus {name(check['than'])}"
    counts = Counter(one.verdict for one in found)
    own = {"paper": entry["paper"], "metric": [one.metric for one in found], "setting": [one.setting for one in found]}
    return figure(
        options, f"statement-{entry['id']}", draw, size=(WIDTH, 1.2 + 0.42 * rows["where"].nunique()),
        question=f"{pair}: {name(check['metric'])}",
        answer=f"{', '.join(f'{count} {word}' for word, count in counts.most_common())}.",
        alt=f"Forest plot of {pair}, {name(check['metric'])}, one line for each data set and network.",
        rows=rows_link("differences", **own, method=check["method"], than=check["than"]),
    )  # fmt: skip


# ---- brightness -------------------------------------------------------------------------------------------------------

POWERS = ("grad_cam[power=2]", "grad_cam", "grad_cam[power=0.5]")
NAMED = ("mean_activation", "random_map", "random_l_cam", "rise")  # beside what a paper proposes; the others are dots


def brightness(options, rows, paper, setting="100%"):
    """Mean of the map against Average Drop, a panel a configuration, with the curve through the powers of Grad-CAM."""
    keys = ["profile", "dataset", "backbone", "recipe"]
    own = rows[(rows["paper"] == paper) & (rows["setting"] == setting) & rows["metric"].isin(["average_drop", "map_mean"])]
    means = own.groupby([*keys, "method", "metric"], sort=False)["value"].mean().unstack("metric").dropna().reset_index()  # noqa: PD010
    panels = [(of, one.set_index("method")) for of, one in means.groupby(keys, sort=False) if set(POWERS) <= set(one["method"])][:4]
    proposed = [method for method in PROPOSED if method in set(means["method"])]

    def draw(into, theme):
        columns = 1 if is_narrow(into) else min(len(panels), 2)
        grid = into.subplots(-(-len(panels) // columns), columns, squeeze=False)
        for axes, (of, one) in zip(grid.flat, panels, strict=False):
            curve = one.loc[list(POWERS)]
            axes.plot(curve["map_mean"], curve["average_drop"], "o-", color=TEAL, lw=1.4, label="Grad-CAM, powers")
            for method, point in one.iterrows():
                at = point["map_mean"], point["average_drop"]
                if method in proposed:
                    axes.plot(*at, "D", color=COLOURS[method], ms=8, zorder=3, label=name(method))
                elif method not in POWERS and "[" not in method:
                    axes.plot(*at, "s" if is_control(method) else "o", color=GREY, ms=4)
            shown = one.loc[one.index.isin([*POWERS, *NAMED, *proposed]), "average_drop"]  # saliency lies far above
            spread = shown.max() - shown.min()
            axes.set_ylim(shown.min() - 0.15 * spread, shown.max() + 0.1 * spread)
            axes.margins(x=0.16)
            axes.set(xlabel="mean of the map, %", ylabel="Average Drop, % (lower is better)")
            axes.set_title(f"{place(of[1])}, {name(of[2])}", loc="left")
            axes.grid(lw=0.5)
        for axes in list(grid.flat)[len(panels) :]:
            axes.remove()
        handles, _ = grid[0, 0].get_legend_handles_labels()
        handles += [
            Line2D([], [], color=GREY, marker=mark, ls="", ms=4, label=word) for mark, word in (("o", "other methods"), ("s", "controls"))
        ]
        below(into, handles, len(handles))
        into.draw_without_rendering()  # so that the labels know where their points are
        for axes, (_, one) in zip(grid.flat, panels, strict=False):
            words = dict(zip(POWERS, ("squared", "as it is", "square root"), strict=True)) | {method: name(method) for method in NAMED}
            found = one.loc[[method for method in words if method in one.index]]
            place_labels(axes, [(words[method], (at["map_mean"], at["average_drop"]), TEAL if method in POWERS else theme.text)
                                for method, at in found.iterrows()])  # fmt: skip

    if not panels:
        return ""
    sides = [_side(one, method) for _, one in panels for method in proposed if method in one.index]
    under = sum(side < 0 for side in sides)
    answer = (
        "A brighter map hides less and drops less. A method has shown something only below the curve that Grad-CAM draws when it is merely "
        f"brightened: {under} of {len(sides)} points of the proposed methods lie below it."
    )
    return figure(
        options, f"brightness-{paper}", draw, size=(WIDTH, 0.4 + 3.3 * -(-len(panels) // 2)), phone=0.9 + 3 * len(panels), answer=answer,
        question="Is it a better map, or a brighter one?",
        alt="Scatter plots of the mean of the map against Average Drop, with the curve through the powers of Grad-CAM.",
        rows=rows_link("values", paper=paper, metric=["average_drop", "map_mean"], setting=setting),
    )  # fmt: skip


AROUND = [(8, 0), (-8, 0), (0, 9), (0, -9), (7, 7), (-7, 7), (7, -7), (-7, -7)]  # of a point, in points: where its label may stand


def place_labels(axes, labels):
    """Write each of ``labels`` (words, point, colour) beside its point, where it covers neither a mark, a line nor another label.

    The axes must have been drawn once. A label that finds no place near its point stands farther away, with a line to it.
    """
    taken = []
    for line in axes.lines:
        half = 2 + line.get_markersize() / 2 * axes.figure.dpi / 72
        taken += [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in line.get_transform().transform(line.get_xydata())]
        taken += [Bbox.from_extents(x - 3, y - 3, x + 3, y + 3) for x, y in _along(line.get_transform().transform(line.get_xydata()))]
    for words, at, colour in labels:
        text = axes.annotate(words, at, (0, 0), textcoords="offset points", fontsize=8, color=colour, va="center")
        text.set_in_layout(False)
        best = None
        for away in (1, 2, 3.2, 4.5):
            for x, y in AROUND:
                text.set(position=(x * away, y * away), ha=("center", "left", "right")[(x > 0) + 2 * (x < 0)])
                box = text.get_window_extent()
                over = sum(box.overlaps(other) for other in taken) + 100 * (not _within(box, axes.bbox))
                if best is None or over < best[0]:
                    best = over, text.get_position(), text.get_ha(), box, away
            if best[0] == 0:
                break
        _, position, side, box, away = best
        text.set(position=position, ha=side)
        taken.append(box)
        if away > 1:
            line = axes.annotate("", at, position, textcoords="offset points", arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5})
            line.set_in_layout(False)


def _along(points, step=6):
    """The points of a line in pixels, and between them one every ``step``."""
    for start, end in pairwise(points):
        yield from np.linspace(start, end, 1 + max(1, int(np.hypot(*(end - start)) / step)))
    yield points[-1]


def _within(box, frame):
    return box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1


def _side(one, method):
    """Average Drop above (positive) or below the curve through Grad-CAM's powers at the method's brightness; its ends go on straight."""
    from scipy.interpolate import make_interp_spline

    curve = one.loc[list(POWERS)].sort_values("map_mean")
    line = make_interp_spline(curve["map_mean"], curve["average_drop"], k=1)
    return one.loc[method, "average_drop"] - float(line(one.loc[method, "map_mean"]))
