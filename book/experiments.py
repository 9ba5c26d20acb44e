"""Tables of the studies of methods: their forms, Score-CAM within a budget, the readings of Increment-CAM."""

from cells import list_table
from names import name
from tables import number

from cam_core.methods.control import is_control


def forms(rows):
    """Pairs of forms of one method that have names here; below them what the peers compute otherwise by the same name."""
    where = f"{name(rows[0]['backbone'])} (`{rows[0]['weights']}`), ImageNet validation images; value [95 % interval]"
    named, peers = [row for row in rows if not row.get("otherwise")], [row for row in rows if row.get("otherwise")]
    head = ["form", "beside", "correlation of the maps", "worst", "energy in the box", "beside", "n"]
    parts = [list_table(head, [[f"`{row['form']}`", f"`{row['other']}`", *_apart(row)] for row in named], where)] if named else []
    if peers:
        head = ["peer", "is our", "with", "correlation of the maps (worst)", "energy in the box, ours / theirs", "n"]
        lines = [[row["other"], f"`{row['form']}`", row["otherwise"], *_in_short(row)] for row in peers]
        parts.append(list_table(head, lines, f"What a peer computes otherwise; {where}", kind="prose", widths="18 14 28 22 14 4"))
    return "\n".join(parts)


def _apart(row):
    interval = f"[{float(row['ci_low']):.3f},\N{NO-BREAK SPACE}{float(row['ci_high']):.3f}]"
    energies = [f"{float(row[key]):.1f}" for key in ("energy", "energy_other")]
    return [f"{float(row['correlation']):.3f} {interval}", f"{float(row['worst']):.3f}", *energies, row["n"]]


def _in_short(row):
    correlation, worst, ours, theirs, n = _apart(row)
    return [f"{correlation} ({worst})", f"{ours} / {theirs}", n]


def budget(rows):
    """Way x number of passes: correlation with the exact map; then what the greedy choice promises, and what it costs."""
    cells = {(row["way"], row["m"], f"{row['metric']} {row['setting']}".strip()): row for row in rows}
    passes = [m for m in dict.fromkeys(row["m"] for row in rows if row["way"].startswith("predicted")) if m]
    lines = []
    for way in dict.fromkeys(row["way"] for row in rows if row["way"] != "exact" and "until" not in row["way"]):
        found = [cells.get((way, m, "correlation")) or cells.get((way, "0", "correlation")) for m in passes]
        lines.append([way, *("–" if c is None else f"{float(c['value']):.3f} ({float(c['worst']):.3f})" for c in found)])
    where = f"{name(rows[0]['backbone'])} (`{rows[0]['weights']}`), {max(int(row['n']) for row in rows)} images"
    first = list_table(["channels passed", *passes], lines, f"Correlation with the exact map, mean (worst); {where}")

    ways = dict.fromkeys((row["way"], row["m"]) for row in rows if row["metric"] == "promised")
    kept, cost = [], []
    measured = list(dict.fromkeys(f"{row['metric']} {row['setting']}".strip() for row in rows if row["difference"]))
    for way, m in ways:
        title = way if "until" in way else f"{way}, {m}"
        spent, correlation, reached, off = (
            float(cells[way, m, key]["value"]) for key in ("passes", "correlation", "reaches", "promise_off")
        )
        kept.append([title, f"{spent:.0f}", f"{correlation:.3f}", f"{100 * reached:.0f} %", f"{off:.3f}"])
        cost.append([title, *(_difference(cells[way, m, key]) for key in measured)])
    cost.append(["equal weights", *(_difference(cells["equal weights", "0", key]) for key in measured)])
    exact = next(row["m"] for row in rows if row["way"] == "exact")
    cost.append(["exact, its value", *(f"{float(cells['exact', exact, key]['value']):.1f}" for key in measured)])
    second = list_table(
        ["way", "passes", "correlation", "images at .99 or above", "promise off by"], kept, f"What the greedy choice promises; {where}"
    )
    third = list_table(["way", *(_named(key) for key in measured)], cost, f"Difference from the exact map, paired [95 % interval]; {where}")
    return "\n".join([first, second, third])


def _named(key):
    metric, _, setting = key.partition(" ")
    return f"{name(metric)} {setting}".strip()


def _difference(row):
    return f"{float(row['difference']):+.1f} [{float(row['ci_low']):.1f},\N{NO-BREAK SPACE}{float(row['ci_high']):.1f}]"


COMPARED = {
    "literal − Grad-CAM": ("increment_cam", "grad_cam"),
    "tuned − Grad-CAM": ("increment_cam_tuned", "grad_cam"),
    "tuned − Grad-CAM, tuned": ("increment_cam_tuned", "grad_cam_tuned"),
    "tuned − tuned, weights equal": ("increment_cam_tuned", "increment_cam_tuned, weights equal"),
}


def readings(studies):
    """Every data set and network of the Increment-CAM study in one line a metric: the differences that its claims rest on."""
    if not studies:
        return "*Not run yet.*\n"
    lines = []
    for rows in studies:
        found = {(row["method"], row["than"], row["metric"], row["setting"]): row for row in rows if row["role"] == "difference"}
        where = f"{name(rows[0]['dataset'])}, {name(rows[0]['backbone'])}"
        for metric, setting in (("pixel_precision", ""), ("maximum_in_box", ""), ("false_activation", "20%")):
            cells = [found.get((*pair, metric, setting)) for pair in COMPARED.values()]
            n = next((f"{float(cell['n']):.0f}" for cell in cells if cell), "–")
            lines.append([where, f"{name(metric)} {setting}".strip(), n, *(number(cell, sign=True) for cell in cells)])
    return list_table(
        ["data, network", "measure", "n", *COMPARED], lines, "Paired differences on images that chose nothing [95 % interval]"
    )


def reported(rows):
    """The reported half of the Increment-CAM study, and the paired differences."""
    rows = [row for row in rows if row["metric"] != "false_activation" or row["setting"] == "20%"]  # the csv has the others
    shown = [row for row in rows if row["role"] == "reported" and row["metric"] != "empty_maps"]
    columns = list(dict.fromkeys((row["metric"], row["setting"]) for row in shown))
    cells = {(row["method"], row["metric"], row["setting"]): row for row in shown}
    methods = sorted(dict.fromkeys(row["method"] for row in shown), key=is_control)
    lines = [[name(m), *(number(cells.get((m, *column))) for column in columns)] for m in methods]
    first, chosen = rows[0], [row for row in rows if row["role"] == "chosen"]
    text = [f"**{name(first['dataset'])}, {name(first['backbone'])}** (`{first['weights']}`).\n"]
    text += [
        f"Best of {float(row['n']):.0f} tries on the first half: {name(row['method'])} is {_settings(row['setting'])}.\n" for row in chosen
    ]
    text.append(_tried(rows))
    text.append(
        list_table(
            ["method", *(f"{name(m)} {s}".strip() for m, s in columns)],
            lines,
            f"Second half; n {int(float(shown[0]['n']))}; value [95 % interval]",
        )
    )
    pairs = [row for row in rows if row["role"] == "difference"]
    keys = list(dict.fromkeys((row["method"], row["than"]) for row in pairs))
    found = {(row["method"], row["than"], row["metric"], row["setting"]): row for row in pairs}
    columns = list(dict.fromkeys((row["metric"], row["setting"]) for row in pairs))
    lines = [[f"{name(a)} − {name(b)}", *(number(found.get((a, b, *column)), sign=True) for column in columns)] for a, b in keys]
    text.append(list_table(["difference", *(f"{name(m)} {s}".strip() for m, s in columns)], lines, "Paired, on the same images"))
    return "\n".join([*text, *_knowledge([row for row in rows if row["role"] == "weights"])])


DIMENSIONS = {  # what the names of the tries list, by their number: results made before a dimension was added do not have it
    ("increment_cam", 5): ("layer", "resolution", "path", "weight", "merge"),
    ("increment_cam", 7): ("layer", "resolution", "path", "masks", "selection", "weight", "merge"),
    ("grad_cam", 3): ("layer", "gradients", "share of the channels"),
    ("grad_cam", 4): ("layer", "gradients", "share of the channels", "exponent"),
}


def _tried(rows):
    """Which values of which dimension were tried, as a list; a dimension of very many values is told by its ends."""
    lines = []
    for side in ("increment_cam", "grad_cam"):
        tries = [row["method"].removeprefix(f"{side}[").removesuffix("]").split(", ") for row in rows
                 if row["role"] == "tried" and row["method"].startswith(f"{side}[")]  # fmt: skip
        if tries:
            values = [list(dict.fromkeys(column)) for column in zip(*tries, strict=True)]
            told = [", ".join(v) if len(v) <= 6 else f"{len(v)} from {v[0]} to {v[-1]}" for v in values]
            named = zip(DIMENSIONS[side, len(values)], told, strict=True)
            lines.append(f"- {name(side)}, {len(tries)} tries: " + "; ".join(f"{dimension} {value}" for dimension, value in named))
    return "\n".join(["Tried on the first half:\n", *lines, ""])


def _knowledge(rows):
    """What the weights of the second phase know, by layer, resolution and path."""
    if not rows:
        return []
    cells = {(row["method"], row["metric"]): row for row in rows}
    of = rows[0]["setting"].removeprefix("of ")
    head = ["layer, resolution, path", f"Spearman with the weights at {of}", "effective share of the channels", "rank of the class"]
    lines = [
        [
            where,
            *(number(cells[where, metric], digits=digits) for metric, digits in (("spearman", 2), ("effective_share", 2), ("rank", 0))),
        ]
        for where in dict.fromkeys(row["method"] for row in rows)
    ]
    caption = f"What the second phase's weights know; first half, n up to {max(float(row['n']) for row in rows):.0f}"
    return [list_table(head, lines, caption)]


def _settings(text):
    return text.strip("{}").replace("'", "").replace(": ,", ": last,")


def by_share(rows):
    """A table a network: Average Drop and Increase in Confidence at each share of the map that is shown, and the mean of the map."""
    tables = []
    for network in dict.fromkeys(row["backbone"] for row in rows):
        own = [row for row in rows if row["backbone"] == network]
        shares = dict.fromkeys(row["setting"] for row in own if row["metric"] == "average_drop")
        columns = [(metric, share) for metric in ("average_drop", "increase_in_confidence") for share in shares] + [("map_mean", "100%")]
        cells = {(row["method"], row["metric"], row["setting"]): row for row in own}
        methods = sorted(dict.fromkeys(row["method"] for row in own), key=is_control)
        lines = [
            [("control: " if is_control(m) else "") + name(m), *(number(cells.get((m, *column))) for column in columns)] for m in methods
        ]
        caption = f"{name(network)} (`{own[0]['weights']}`), {float(own[0]['n']):.0f} ImageNet validation images; value [95 % interval]"
        tables.append(list_table(["method", *(f"{name(metric)} {share}" for metric, share in columns)], lines, caption))
    return "\n".join(tables)


KINDS = {
    "published_gap": by_share, "l_cam_views": by_share, "l_cam_epochs": by_share, "forms": forms, "score_cam_budget": budget,
    "increment_cam": reported, "increment_cam_selections": reported,
}  # fmt: skip
