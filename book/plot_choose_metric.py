"""Figures of the page *Choose a metric*: metrics judged by known truths, known maps, Average Drop at equal mean, and others."""

import html

import experiments
import numpy as np
from cells import list_table
from names import label, measure, name
from plots import BLUE, GREY, ORANGE, TEAL, WIDTH, WINE, below, figure, folded, is_narrow, row
from scipy.optimize import isotonic_regression

from cam_core.methods import is_control
from cam_core.pretrained import LITE


def study(options, what):
    """The rows of a study, its file noted for the provenance of the page."""
    options.read.append(f"results/studies/{what}.csv")
    rows = experiments.read(options.results / "studies" / f"{what}.csv")
    return rows.replace({"setting": SAME_STEP}) if "setting" in rows else rows


def ran(options, what):
    """Whether a study has a table."""
    return (options.results / "studies" / f"{what}.csv").exists()


SAME_STEP = {"step 3584": "step 896"}  # a 56th of the pixels: of a grid of four images, and of one
NOT_YET = "*Not run yet.*\n"

# ---- where known maps land --------------------------------------------------------------------------------------------

RIGHT = ("cue_mask", "cue_mask_coarse", "cue_mask_coarse[power=2]", "cue_mask_coarse[power=0.5]", "grad_cam")
WRONG = ("random_map", "center_gaussian", "fake_cam", "cue_mask_inverse")
HEADS = {
    "cue_mask": "the mask", "cue_mask_coarse": "on the grid", "cue_mask_coarse[power=2]": "squared",
    "cue_mask_coarse[power=0.5]": "root", "grad_cam": "Grad-CAM", "random_map": "noise", "center_gaussian": "centre",
    "fake_cam": "Fake-CAM", "cue_mask_inverse": "inverse",
}  # fmt: skip
ASKED = {  # what a metric asks, and the metrics of the table with their settings
    "Where is the object?": (
        ("energy_pointing_game", ""), ("false_activation", "20%"), ("maximum_in_box", ""), ("pixel_precision", ""),
        ("pointing_game", "15px"), ("max_box_acc", ""), ("max_box_acc_v2", ""), ("localization_error", "GT-known 20%"),
        ("box_iou", "20%"), ("pxap", ""), ("cue_localization", "all pairs"),
    ),
    "What does the network lose or keep?": (
        ("average_drop", "100%"), ("average_drop", "50%"), ("average_drop", "15%"), ("average_drop", "equal mean"),
        ("average_drop", "100% mean fill"), ("average_drop", "50% mean fill score_cam"), ("increase_in_confidence", "100%"),
        ("average_gain", "100%"), ("win", "100%"), ("adcc", ""), ("insertion", "step 448"), ("deletion", "step 448"),
        ("remove_and_classify", "10%"), ("remove_and_classify", "50%"), ("road_morf", "20%"), ("road_lerf", "20%"),
        ("road_combined", "20%"), ("sensitivity_n", "20% 50 sets"), ("infidelity", "scaled sides 2"),
    ),
    "Does the map stay when the image moves?": (("coherency", ""), ("max_sensitivity", "radius 0.02")),
}  # fmt: skip
SETTINGS = {"100% mean fill": "100%, mean colour", "50% mean fill score_cam": "as in Score-CAM", "step 448": "", "20% 50 sets": "20%",
            "scaled sides 2": "scaled", "radius 0.02": "", "all pairs": "", "15px": ""}  # fmt: skip


def known(rows, metric, setting):
    """One row of the table: the nine maps under a metric, of the trained network (cue localization: of the drawn birds).

    Columns: `value`, `rank` (1 is best, equal values share it), `beats` (better than the mask by the paired interval), `printed`.
    """
    network = "birds" if metric == "cue_localization" else "trained"
    own = rows[(rows["network"] == network) & (rows["metric"] == metric) & (rows["setting"] == setting) & (rows["method"] != "network")]
    own = own.set_index("method")
    digits = 1 if own["value"].abs().max() >= 10 else 2
    printed = own["value"].map(lambda value: f"{value:.{digits}f}".replace("-0.00", "0.00").replace("-0.0", "0.0"))
    better = printed.astype(float) * (-1 if own["better"].iloc[0] == "lower" else 1)
    beats = (own["against_cue"] == "better") & (printed != printed.get("cue_mask"))  # what is printed alike is level
    return own.assign(printed=printed, rank=better.rank(ascending=False, method="min").astype(int), beats=beats).reindex(
        [method for method in (*RIGHT, *WRONG) if method in own.index]
    )


def fooled(own):
    """The wrong maps that a metric puts before the mask, or level with it."""
    return [method for method in WRONG if method in own.index and (own.loc[method, "beats"] or method in _level(own))]


def _level(own):
    wrong = own.loc[[method for method in WRONG if method in own.index]]
    return list(wrong.index[~wrong["beats"] & (wrong["printed"] == own.loc["cue_mask", "printed"])])


def _dot(mark, words):
    return f' <span class="heat-dot" role="img" aria-label="{words}">{mark}</span>'


def heat(options):
    """The table metric × known map: colour is the rank, a dot says that the map beats the mask."""
    rows = study(options, "trust")
    head = "".join(f'<th scope="col">{HEADS[method]}</th>' for method in (*RIGHT, *WRONG))
    groups = f'<th colspan="{len(RIGHT)}" scope="colgroup">right maps</th><th colspan="{len(WRONG)}" scope="colgroup">wrong maps</th>'
    lines = [f'<thead><tr><td></td>{groups}</tr><tr><th scope="col">metric</th>{head}</tr></thead>']
    columns = len(HEADS) + 1
    for asked, metrics in ASKED.items():
        lines.append(f'<tbody><tr><th class="heat-group" colspan="{columns}" scope="rowgroup">{asked}</th></tr>')
        for metric, setting in metrics:
            own = known(rows, metric, setting)
            told = html.escape(measure((metric, SETTINGS.get(setting, setting))))
            cells = "".join(_cell(own, method) if method in own.index else "<td>–</td>" for method in HEADS)
            lines.append(f'<tr><th scope="row">{told}</th>{cells}</tr>')
        lines.append("</tbody>")
    facts = rows[(rows["network"] == "trained") & (rows["metric"] != "network")].set_index("metric")
    images = facts.loc["average_drop", "n"].iloc[0]
    caption = (
        f"<caption>The trained network on {images} drawn images; cue localization on drawn birds. Colour: the rank in its line, dark is "
        'best. <span class="heat-dot">●</span> better than the mask, by the paired 95 % interval; <span class="heat-dot">○</span> a '
        "wrong map level with it.</caption>"
    )
    table = "\n".join(lines)
    frame = '<div class="plot" tabindex="0" role="region" aria-label="Known maps under every metric">'
    return f'{frame}\n<table class="heat">{caption}\n{table}\n</table>\n</div>\n'


def _cell(own, method):
    one, last = own.loc[method], own["rank"].max()
    shade = 0.62 * (last - one["rank"]) / max(last - 1, 1)
    dot = _dot("●", "better than the mask") if one["beats"] else _dot("○", "level with the mask") if method in _level(own) else ""
    return f'<td style="background-color: rgba(31, 138, 132, {shade:.2f}) !important; white-space: nowrap">{one["printed"]}{dot}</td>'


# ---- metrics judged by a truth ----------------------------------------------------------------------------------------

TRUTHS = {"single_deletion": "single deletion", "completeness": "completeness", "grid_localization": "DiFull"}
OF_PLACE = ("energy_pointing_game", "maximum_in_box", "pixel_precision", "false_activation", "max_box_acc", "max_box_acc_v2", "box_iou",
            "localization_error", "pxap")  # fmt: skip
NOT_JUDGED = {  # why some metrics have no line in the table: the reason, and their classes in cam_core.metrics
    "Mean of the map, tied pixels, right after *random* removal: neither direction is better.":
        ("MapMean", "TiedPixels", "CorrectAfterRandomRemoval"),
    "Remove-and-classify: it divides right after removal by a number that is the same for every map, so the order is the same.":
        ("RemoveAndClassify",),
    "Pointing game: with one object in an image it is the maximum in the box, up to its tolerance.": ("PointingGame",),
    "Cue localization: it reads the difference of two classes' maps, and the truths are of one class's map.": ("CueLocalization",),
    "Stability: it reads the maps of two trainings, and the truths are of one network.": ("Stability",),
    "FunnyBirds' scores and localization in grids: they are the truth, or read the same redrawn pictures.":
        ("SingleDeletion", "PairDeletion", "Completeness", "ControlledCheck", "PreservationCheck", "DeletionCheck", "Distractibility",
         "BackgroundIndependence", "TargetSensitivity", "GridLocalization"),
}  # fmt: skip


def agreements(*studies):
    """Truth -> Kendall's tau of every metric with it, over all networks: rows (metric, setting), the best first."""
    return {
        truth: own.set_index(["metric", "setting"])[["kendall", "ci_low", "ci_high"]].sort_values("kendall", ascending=False, kind="stable")
        for rows in studies
        for truth, own in rows[rows["network"] == "all"].groupby("truth")
    }


def decided(found, sign):
    """The metrics whose agreement with a truth is above (``sign`` 1) or below (-1) zero by its interval as printed, the clearest first."""
    return list(found.index[(sign * found["ci_low" if sign > 0 else "ci_high"]).round(2) > 0])[::sign]


ASKS = {  # what the metrics that one may take ask, in a few words
    "false_activation": "heat outside the box", "max_box_acc": "does a box around the heat fit?", "pxap": "heat inside the mask",
    "sensitivity_n": "does the heat predict the drop?", "infidelity": "the same, under noise", "deletion": "hottest pixels go, in steps",
    "insertion": "hottest pixels come, in steps", "correct_after_removal": "hottest pixels at the mean colour",
    "road_morf": "hottest pixels imputed", "road_combined": "hottest and coldest imputed",
    "f_fidelity_plus": "hottest cells go, network used to holes", "f_fidelity_minus": "coldest cells go, network used to holes",
    "arcc": "ROAD, size and coherency in one",
}  # fmt: skip
TAKE, BESIDE, ALONE = "take it", "beside another", "never alone"
ENOUGH = 0.2  # Kendall's tau: of ten pairs of maps six are in the truth's order
OF_SIZE = ("complexity",)  # sees only how small a map is


def advised(found, trust):
    """What the page advises of every judged metric, from the table of truths and that of known maps: (metric, setting) -> one of three.

    To be taken, a metric has to agree with two truths by `ENOUGH` or more with its whole interval, contradict none, and not be won by a
    wrong map, as far as known maps were asked. One that agrees with no truth, or contradicts one, is never to be used alone.
    """
    agrees, against = ([decided(of, sign) for of in found.values()] for sign in (1, -1))
    said = {}
    for key in found["single_deletion"].index:
        well = sum(round(of.loc[key, "ci_low"], 2) >= ENOUGH for of in found.values() if key in of.index)
        if not any(key in of for of in agrees) or any(key in of for of in against):
            said[key] = ALONE
        else:
            said[key] = TAKE if well > 1 and key[0] not in OF_SIZE and not _won(trust, key) else BESIDE
    return said


def _won(trust, key):
    """The wrong maps that win a judged metric or tie; where only its step differs in the table of known maps, that one's."""
    settings = [setting for metrics in ASKED.values() for metric, setting in metrics if metric == key[0]]
    setting = key[1] if key[1] in settings else settings[0] if len(settings) == 1 else None
    return [] if setting is None else fooled(known(trust, key[0], setting))


def advice(options):
    """Three cards: what to take for place, what for the network, and what never alone."""
    studies = [study(options, file) for file in ("judged-parts", "judged-grids") if ran(options, file)]
    if not studies:
        return NOT_YET
    said = advised(agreements(*studies), study(options, "trust"))
    asked = {kind: {key: word for key, word in said.items() if (key[0] in OF_PLACE) == (kind == "place")} for kind in ("place", "network")}
    names = {metric for metric, _ in said}
    masks = "" if "pxap" in names else " With masks: PxAP."  # what the tables of truths do not have
    drop = "" if ("average_drop", "equal mean") in said else " Average Drop only at equal mean."
    told = {
        "Is it on the object?": f"{_chosen(asked['place'])}\n\nCompare with the centre Gaussian and the squared map.{masks}",
        "Does the network need it?": f"{_chosen(asked['network'])}{drop}",
        "Never alone": f"{_judges(said, ALONE)}\n\nThey agree with no truth below, or contradict one.",
    }
    cards = [f"::::{{grid-item-card}} {title}\n{words}\n::::\n" for title, words in told.items()]
    return "\n".join([":::::{grid} 1 1 3 3", ":gutter: 2", "", *cards, ":::::", ""])


def _chosen(said):
    taken = _judges(said, TAKE)
    others = "Take others only beside these." if taken and BESIDE in said.values() else ""
    return f"{taken or 'None by itself.'}\n\n{others}"


def _judges(said, word):
    """The metrics with one advice, as a list: by name alone where all settings have it."""
    lines = []
    for metric in dict.fromkeys(key[0] for key, of in said.items() if of == word):
        own = {key: of for key, of in said.items() if key[0] == metric}
        some = [] if set(own.values()) == {word} else [JUDGED_AS.get(key[1], key[1]) for key, of in own.items() if of == word]
        told = some if word != TAKE else [*some, ASKS[metric]]
        lines.append(f"- {_bare(metric)}{': ' if told else ''}{'; '.join(told)}")
    return "\n".join(lines)


def _bare(words):
    """A metric's name in running text, without the arrow of its direction."""
    return " ".join(name(words).replace("↑", "").replace("↓", "").split())


def place_of(values, key, method):
    """On each network: the place of a map under a metric (1 is best, ties share the worse one), and how many maps there are."""
    own = values[(values["metric"] == key[0]) & (values["setting"] == key[1])].copy()
    own["better_value"] = own["value"] * np.where(own["better"] == "lower", -1, 1)
    own["place"] = own.groupby("network")["better_value"].rank(ascending=False, method="max")
    return own.loc[own["method"] == method, "place"].astype(int).tolist(), own["method"].nunique()


def judged(options):
    """The table metric × truth: how well the metric's order of the maps agrees with the truth's; of grids where those were judged."""
    studies = [study(options, file) for file in ("judged-parts", "judged-grids") if ran(options, file)]
    if not studies:
        return NOT_YET
    found = agreements(*studies)
    truths = [truth for truth in TRUTHS if truth in found]
    head = "".join(f'<th scope="col">{TRUTHS[truth]}</th>' for truth in truths)
    said, values = advised(found, study(options, "trust")), study(options, "judged-values")
    heads = f'{head}<th scope="col">place of Fake-CAM</th><th scope="col">advice</th>'
    lines = [f'<thead><tr><th scope="col">metric</th>{heads}</tr></thead>']
    for asked, of_place in (("Where is the object?", True), ("What does the network lose or keep?", False)):
        lines.append(f'<tbody><tr><th class="heat-group" colspan="{len(truths) + 3}" scope="rowgroup">{asked}</th></tr>')
        for key in found["single_deletion"].index:
            if (key[0] in OF_PLACE) == of_place:
                cells = "".join(_tau(found[truth], key) for truth in truths)
                cells += f"<td>{_span(place_of(values, key, 'fake_cam')[0])}</td>"
                lines.append(f'<tr><th scope="row">{html.escape(_judge(key))}</th>{cells}<td class="heat-words">{said[key]}</td></tr>')
        lines.append("</tbody>")
    table = "\n".join(lines)
    frame = '<div class="plot" tabindex="0" role="region" aria-label="Agreement of every metric with known truths">'
    caption = f"<caption>{_judged_caption(studies, values, found)}</caption>"
    in_cells = "In grids, every metric of place: it would be given the cell, which is the truth."
    left_out = "\n".join(f"- {why}" for why in (*NOT_JUDGED, in_cells))
    told = f":::{{dropdown}} Metrics that are not judged, and why\n{left_out}\n:::\n"
    return f'{frame}\n<table class="heat">{caption}\n{table}\n</table>\n</div>\n\n{told}'


JUDGED_AS = SETTINGS | {"step 896": "", "50% 50 sets": "50%", "radius 0.02 4 samples": ""}


def _judge(key):
    return measure((key[0], JUDGED_AS.get(key[1], key[1])))


def _tau(found, key):
    if key not in found.index:
        return "<td>–</td>"
    value, low, high = found.loc[key, ["kendall", "ci_low", "ci_high"]]
    tint = "31, 138, 132" if value > 0 else "158, 58, 82"
    sure = _dot("●", "apart from zero") if round(low, 2) > 0 or round(high, 2) < 0 else ""
    told = f"{value:.2f} [{low:.2f}, {high:.2f}]".replace("-0.00", "0.00").replace("-", "−")
    return f'<td style="background-color: rgba({tint}, {0.62 * abs(value):.2f}) !important; white-space: nowrap">{told}{sure}</td>'


def _judged_caption(studies, values, found):
    (parts, *grids), of_parts = studies, found["single_deletion"]
    one = _of_networks(parts)
    above, below = (decided(of_parts, sign) for sign in (1, -1))
    fake, maps = place_of(values, ("arcc", ""), "fake_cam")
    centre, _ = place_of(values, ("arcc", ""), "center_gaussian")
    told = [
        f"Kendall's τ between the metric's order of {parts['maps'].iloc[0]} maps and the truth's, with its 95 % interval over images.",
        '<span class="heat-dot">●</span> Apart from zero.',
        f"Parts: {one['network'].nunique()} networks, {_span(one['n'])} drawn birds each.",
        *(f"DiFull: {own['network'].nunique()} networks, {_span(own['n'])} grids each." for own in map(_of_networks, grids)),
        f"Under single deletion {len(above)} of {len(of_parts)} metrics order the maps better than chance, and {len(below)} worse.",
        f"Highest there: {', '.join(map(_judge, of_parts.index[:3]))}.",
        f"ARCC puts Fake-CAM at place {_span(fake)} of {maps}, and the centre Gaussian at place {_span(centre)}.",
    ]
    return " ".join(told)


def survival(options):
    """Whether ARCC survives Fake-CAM, in numbers, beside ADCC and what Fake-CAM was made to win."""
    if not ran(options, "judged-values"):
        return NOT_YET
    values = study(options, "judged-values")
    places, maps = place_of(values, ("arcc", ""), "fake_cam")
    own = values[values["metric"] == "arcc"].set_index("method")["value"].round().astype(int)
    fake, grad = (f"{_span(own.loc[[one]])} %" for one in ("fake_cam", "grad_cam"))
    others = (("adcc", ""), ("average_drop", "100%"), ("increase_in_confidence", "100%"), ("top_1_masked", "100%"))
    told = ", ".join(f"{_bare(_judge(key))} at place {_span(place_of(values, key, 'fake_cam')[0])}" for key in others)
    answer = "Yes" if min(places) >= maps - 1 else "Not everywhere"
    return (
        f"**Would ARCC survive Fake-CAM?** {answer}. On {len(places)} networks Fake-CAM's ARCC is "
        f"{fake}, place {_span(places)} of {maps}; Grad-CAM's is {grad}. Others put Fake-CAM elsewhere: {told}.\n"
    )


def _of_networks(rows):
    return rows[rows["network"] != "all"]


def _span(numbers):
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


# ---- parts and grids ------------------------------------------------------------------------------------------------------

SCORES = ("single_deletion", "pair_deletion", "completeness", "distractibility", "preservation_check", "deletion_check", "controlled_check",
          "target_sensitivity")  # fmt: skip
SHORT = {
    "single_deletion": "single deletion", "pair_deletion": "pairs", "completeness": "completeness", "distractibility": "distractibility",
    "preservation_check": "preservation", "deletion_check": "deletion", "controlled_check": "controlled", "target_sensitivity": "target",
}  # fmt: skip


def _listed(rows):
    return ", ".join(map(name, dict.fromkeys(rows["method"])))


def by_map(rows, column):
    """The mean over networks of a study's values, map × ``column``, methods before controls."""
    found = rows.pivot_table(index="method", columns=column, values="value", sort=False)
    return found.loc[sorted(found.index, key=is_control)]


def part_scores(options):
    """FunnyBirds' scores of every map on the plain networks, as a table."""
    if not ran(options, "parts"):
        return NOT_YET
    rows = study(options, "parts")
    plain, own_map = rows["network"].str.startswith("resnet"), rows["method"] == rows["network"]
    found = by_map(rows[plain | own_map], "metric")[list(SCORES)]
    rows, own_map = rows[plain], rows[own_map]
    lines = [[label(method), *("–" if np.isnan(value) else f"{value:.0f}" for value in own)] for method, own in found.iterrows()]
    networks = rows.drop_duplicates(["network", "seed"])
    apart = rows.loc[rows["metric"] == "background_independence", "value"].mean()
    told = (
        f"Percent, mean over {len(networks)} networks on {_span(rows['n'])} drawn birds each; 50 is chance in the first two. The networks "
        f"are {apart:.0f} % independent of the background. {_listed(own_map)}: each on the network that "
        f"learned it, on {_span(own_map['n'])} birds."
    )
    return list_table(["map", *(SHORT[score] for score in SCORES)], lines, told)


def in_grids(options):
    """Localization of every map in grids, network and setting side by side, as a table."""
    if not ran(options, "grids"):
        return NOT_YET
    rows = study(options, "grids")
    rows = rows.assign(column=rows["network"].str.replace(r" seed \d+", "", regex=True) + " " + rows["setting"])
    found = by_map(rows, "column")
    heads = [" ".join(name(word) for word in column.split()) for column in found]
    lines = [[label(method), *("–" if np.isnan(value) else f"{value:.0f}" for value in own)] for method, own in found.iterrows()]
    told = f"Share of the map in the cell of its class, percent; chance is 25. {_span(rows['n'])} grids."
    return list_table(["map", *heads], lines, told)


# ---- Average Drop at equal mean ---------------------------------------------------------------------------------------

AS_IT_IS = "as it is"
DRAWN_AS = {
    "grad_cam": TEAL, "grad_cam[power=2]": TEAL, "grad_cam[power=0.5]": TEAL, "layer_cam": WINE, "mean_activation": ORANGE,
    "random_map": GREY,
}  # fmt: skip


def equal_mean(options):
    """Average Drop of each map as it is and at the common mean, as slopes, one panel a network."""
    studies = [study(options, f"equal_mean-{backbone}") for backbone in (LITE, "resnet18")]
    found = {name(rows["backbone"].iloc[0]): (_drops(rows), rows["n"].iloc[0]) for rows in studies}

    def draw(into, theme):
        for axes, (network, (drop, count)) in zip(row(into, len(found)), found.items(), strict=True):
            for method in drop.index:
                axes.plot([0, 1], drop.loc[method], "o-", color=DRAWN_AS[method], lw=1.8)
            gap = np.ptp(drop.to_numpy()) / 20
            for side, column, align in ((0, AS_IT_IS, "right"), (1, drop.columns[1], "left")):
                for height, words in _spread(drop[column], gap):
                    axes.annotate(
                        words, (side, height), ((-12, 12)[side], 0), textcoords="offset points", ha=align, va="center", fontsize=8
                    )
            axes.set(xlim=(-2, 3.1), xticks=[0, 1], title=f"{network}, {count} photographs")
            axes.set_xticklabels(["as the\nmethod\nmakes it", f"at mean\n{float(drop.columns[1]):.0%}"])
            axes.grid(axis="y", lw=0.5)
            axes.tick_params(length=0)
        into.axes[0].set_ylabel("Average Drop, % (lower is better)")

    answer = "Grad-CAM, its square and its square root rank the pixels alike. " + " ".join(
        f"Through {network} their Average Drop differs by {_powers(drop[AS_IT_IS]):.0f} points as they are and by "
        f"{_powers(drop[drop.columns[1]]):.1f} at equal mean; {_beside(drop, 'layer_cam')}, {_beside(drop, 'mean_activation')}."
        for network, (drop, _) in found.items()
    )
    return figure(
        options, "equal-mean", draw, size=(WIDTH, 4.4), phone=8.4, answer=answer, question="How much of Average Drop is brightness?",
        alt="Slopes of Average Drop from the maps as they are to the same maps brought to one mean, for two networks.",
    )  # fmt: skip


def _drops(rows):
    """Average Drop by map: as it is, and at the common mean."""
    drop = rows[rows["metric"] == "average_drop"].pivot(index="base", columns="mean", values="value").rename(columns={"": AS_IT_IS})
    return drop[[AS_IT_IS, *drop.columns.drop(AS_IT_IS)]]


def _powers(drop):
    return np.ptp(drop[["grad_cam[power=0.5]", "grad_cam", "grad_cam[power=2]"]])


def _beside(drop, method):
    """How much better or worse than Grad-CAM a map is, as it is and at the common mean."""
    now, then = (f"{abs(gain):.1f} points {'worse' if gain > 0 else 'better'}" for gain in drop.loc[method] - drop.loc["grad_cam"])
    return f"{name(method)} is {now} than Grad-CAM as it is and {then} at equal mean"


def _spread(values, gap):
    """(height, words) of labels, moved apart as little as it takes for ``gap`` to lie between any two."""
    values, steps = values.sort_values(), gap * np.arange(len(values))
    return zip(isotonic_regression(values - steps).x + steps, map(name, values.index), strict=True)


# ---- calibration ------------------------------------------------------------------------------------------------------

WAYS = {  # thresholds, calibration, variant: words, mark, filled
    ("even", "min_max", "zeros kept"): ("min-max", "o", True),
    ("even", "max", "zeros kept"): ("maximum", "|", True),
    ("even", "clipping", "zeros kept"): ("cut off at 0 and 1", "s", True),
    ("log", "min_max", "zeros kept"): ("log thresholds", "o", False),
    ("log", "min_max", "per pair"): ("log thresholds, small values left out", "D", False),
}
MAPS = {"cam": TEAL, "grad_cam": BLUE, "calm_em": WINE, "calm_ml": ORANGE}


def ways(rows):
    """Cue localization by (network's own map, way), of `MAPS`; Grad-CAM is that of the plain network."""
    own = rows[rows["method"].isin(MAPS) & ((rows["method"] != "grad_cam") | (rows["network"] == "plain"))]
    return own.set_index(["method", "thresholds", "calibration", "variant"])["value"]


def calibration(options):
    """Cue localization of CAM and CALM in every way that brings a map into [0, 1] and reads it."""
    studies = {
        "drawn birds": study(options, "calibration-drawn_cub-resnet8"),
        "CUB photographs": study(options, "calibration-cub-resnet18"),
    }
    values = {where: ways(rows) for where, rows in studies.items()}

    def draw(into, theme):
        panels = row(into, len(values), sharey=True)
        for axes, (where, found) in zip(panels, values.items(), strict=True):
            for line, (method, tint) in enumerate(MAPS.items()):
                own = [found[(method, *way)] for way in WAYS]
                axes.plot([min(own), max(own)], [line, line], color=tint, lw=1, alpha=0.6)
                for value, (_, mark, filled) in zip(own, WAYS.values(), strict=True):
                    axes.plot(value, line, mark, color=tint, mfc=tint if filled else theme.paper, ms=12 if mark == "|" else 6, mew=1.5)
            axes.set(yticks=range(len(MAPS)), yticklabels=map(name, MAPS), ylim=(len(MAPS) - 0.5, -0.5), xlim=(0, None))
            axes.set_title(where, loc="left")
            axes.set_xlabel("cue localization, % (higher is better)")
            axes.grid(axis="x", lw=0.5)
            axes.tick_params(length=0)
        _marks(into, theme)

    cut = {
        where: found["cam", "even", "min_max", "zeros kept"] - found["cam", "even", "clipping", "zeros kept"]
        for where, found in values.items()
    }
    kept, left = (_log_gains(values, variant) for variant in ("zeros kept", "per pair"))
    answer = (
        f"Cutting at 0 and 1 costs CAM {cut['CUB photographs']:.0f} points on CUB and {cut['drawn birds']:.0f} on drawn birds, because its "
        f"values are logits. Logarithmic thresholds raise CALM by {min(kept):.1f} to {max(kept):.1f} points, and by {min(left):.0f} to "
        f"{max(left):.0f} where pixels below the lowest threshold are left out."
    )
    return figure(
        options, "calibration", draw, size=(WIDTH, 3.4), phone=6, answer=answer,
        question="How far does cue localization move by scaling alone?",
        alt="Dot plots of cue localization of CAM, Grad-CAM, CALM-EM and CALM-ML, one mark for each way to scale the map.",
    )  # fmt: skip


def _log_gains(values, variant):
    """What logarithmic thresholds add to CALM's maps, over data sets and both trainings."""
    return [
        found[method, "log", "min_max", variant] - found[method, "even", "min_max", variant]
        for found in values.values()
        for method in ("calm_em", "calm_ml")
    ]


def _marks(into, theme):
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=mark, color=GREY, mfc=GREY if filled else theme.paper, ms=10 if mark == "|" else 6, label=words)
        for words, mark, filled in WAYS.values()
    ]
    below(into, handles, 3)


# ---- forgetting -------------------------------------------------------------------------------------------------------

FORGETTING = {
    "cam": (TEAL, "-"), "grad_cam": (TEAL, ":"), "saliency": (BLUE, ":"), "grad_cam_pp": (WINE, "--"), "layer_cam": (WINE, "-"),
    "eigen_cam": (ORANGE, "--"), "guided_backprop": (BLUE, "-"), "mean_activation": (ORANGE, "-"), "edges": (GREY, "-"),
}  # fmt: skip


def similarity(rows):
    """Rank correlation with the intact network's map, method × number of blocks lost, mean over the seeds."""
    return rows[rows["measure"] == "spearman"].groupby(["method", "depth"])["value"].mean().unstack()


def forgetting(options):
    """Rank correlation with the intact network's map against the blocks that are lost."""
    rows = study(options, "randomization-resnet18")
    found, blocks = similarity(rows), rows[rows["depth"] > 0].drop_duplicates("depth").set_index("depth")["block"]

    def draw(into, theme):
        axes = into.subplots()
        for method, (tint, dashes) in FORGETTING.items():
            axes.plot(found.columns, found.loc[method], ls=dashes, color=tint, lw=1.8, label=name(method))
        axes.axhline(0, color=theme.text, lw=0.6)
        axes.set(xticks=found.columns, xlim=(0, found.columns.max()), ylim=(-0.2, 1.04))
        axes.set_xticklabels(
            ["none", *blocks], rotation=90 if is_narrow(into) else 40, ha="center" if is_narrow(into) else "right", fontsize=8.5
        )
        axes.set(xlabel="blocks that lost their weights, up to", ylabel="rank correlation with the first map")
        axes.grid(lw=0.5)
        if is_narrow(into):
            below(into, axes.get_legend_handles_labels()[0], 2)
        else:
            into.legend(loc="outside right upper", fontsize=8.5)

    first = found[1]
    stays = [method for method in ("grad_cam_pp", "layer_cam", "eigen_cam", "guided_backprop") if first[method] > 0.9]
    answer = (
        f"After the logits alone are lost, CAM keeps {first['cam']:.2f} of rank correlation and Grad-CAM {first['grad_cam']:.2f}; "
        f"{', '.join(map(name, stays))} keep {first[stays].min():.2f} or more. At every step Grad-CAM++, LayerCAM and Eigen-CAM "
        f"stay within {_largest_gap(found):.2f} of the mean activation. {name(rows['backbone'].iloc[0])}, {rows['n'].iloc[0]} images, "
        f"{rows['seed'].nunique()} seeds."
    )
    return figure(
        options, "forgetting", draw, size=(WIDTH, 4.2), phone=5.2, answer=answer,
        question="Does the map notice that the network has forgotten?",
        alt="Curves of rank correlation with the intact network's map, one a method, over the blocks that lost their weights.",
    )  # fmt: skip


def _largest_gap(found):
    """How far Grad-CAM++, LayerCAM and Eigen-CAM are from the mean activation, at the most."""
    return float((found.loc[["grad_cam_pp", "layer_cam", "eigen_cam"]] - found.loc["mean_activation"]).abs().max().max())


# ---- coverage ---------------------------------------------------------------------------------------------------------

GOOD = (93, 97)


def coverage(options):
    """How often the 95 % intervals hold the truth, case by number of images."""
    rows = study(options, "coverage")
    wide = rows.pivot(index="case", columns="n", values="coverage").reindex(list(dict.fromkeys(rows["case"])))
    tints = dict(zip(wide.columns, (WINE, ORANGE, TEAL, BLUE), strict=True))

    def draw(into, theme):
        axes = into.subplots()
        axes.axvspan(*GOOD, color=theme.grid, alpha=0.6, lw=0)
        axes.axvline(95, color=theme.text, lw=0.8)
        for n, tint in tints.items():
            axes.plot(wide[n], range(len(wide)), "o", color=tint, label=f"n = {n}", alpha=0.9)
        axes.set(yticks=range(len(wide)), yticklabels=folded(into, wide.index), ylim=(len(wide) - 0.5, -0.5), xlim=(65, 101))
        axes.set_xlabel("intervals that hold the truth, %")
        axes.grid(axis="x", lw=0.5)
        axes.tick_params(length=0)
        below(into, axes.get_legend_handles_labels()[0], len(tints))

    low = rows[rows["coverage"] < GOOD[0]].sort_values("coverage")
    worst = ", ".join(f"{one.case} at n = {one.n} ({one.coverage:.1f} %)" for one in low.itertuples())
    answer = (
        f"{(rows['coverage'].between(*GOOD)).sum()} of {len(rows)} cells lie between {GOOD[0]} and {GOOD[1]} %. Too few: {worst}. "
        f"{rows['repetitions'].iloc[0]:.0f} repetitions each, so a cell may be off by a point or two by chance."
    )
    return figure(
        options, "coverage", draw, size=(WIDTH, 4.2), answer=answer, question="Do the intervals hold what they promise?",
        alt="Dot plot of how often 95 % intervals hold the truth, one line a case, one colour a number of images.",
    )  # fmt: skip
