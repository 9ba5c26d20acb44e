"""Tables of the studies and benchmarks, made from results/studies/*.csv and results/benchmarks/*.csv; nothing here computes a number."""

import csv
import inspect
from pathlib import Path

from tables import is_control, list_table, name


def study(folder, what):
    """The table of one study by its name: the part before a dash names the kind, `forms-resnet18` being of the kind `forms`."""
    if what in SUMMARIES:
        return SUMMARIES[what]([_rows(path) for path in sorted(Path(folder).glob(f"{what}-*.csv"))])
    path = Path(folder) / f"{what}.csv"
    if not path.exists():
        return f"*Not run yet: {', '.join(name(part) for part in what.split('-'))}.*\n"
    return KINDS[what.partition("-")[0]](_rows(path))


def _rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def recipe(rows):
    """Every try of the choice of L-CAM's recipe, beside maps that learn nothing."""
    networks = list(dict.fromkeys(row["backbone"] for row in rows))
    cells = {(row["method"], row["backbone"], row["metric"], row["setting"]): row for row in rows}
    wanted = [(b, m, s) for b in networks for m, s in (("average_drop", "50%"), ("average_drop", "100%"), ("map_mean", "100%"))]
    head = ["masks, rate", *(f"{name(b)}: {name(m)} {s}" for b, m, s in wanted)]
    methods = dict.fromkeys(row["method"] for row in rows)
    lines = [
        [("control: " if is_control(m) else "") + name(m), *(_number(cells.get((m, *key)), interval=False) for key in wanted)]
        for m in methods
    ]
    first = rows[0]
    return list_table(head, lines, f"{first['n']} held-out images, L-CAM-Fm, {first['epochs']} epochs; intervals left out, about ±5")


def forms(rows):
    """Pairs of forms of one method."""
    head = ["form", "beside", "correlation of the maps", "worst", "energy in the box", "beside", "n"]
    lines = [
        [
            *(name(row[key]) for key in ("form", "other")),
            f"{float(row['correlation']):.3f} [{float(row['ci_low']):.3f},\N{NO-BREAK SPACE}{float(row['ci_high']):.3f}]",
            f"{float(row['worst']):.3f}",
            *(f"{float(row[key]):.1f}" for key in ("energy", "energy_other")),
            row["n"],
        ]
        for row in rows
    ]
    return list_table(
        head, lines, f"{name(rows[0]['backbone'])} (`{rows[0]['weights']}`), ImageNet validation images; value [95 % interval]"
    )


def budget(rows):
    """Way x number of passes: correlation with the exact map; then what the greedy choice costs and promises."""
    cells = {(row["way"], row["m"], f"{row['metric']} {row['setting']}".strip()): row for row in rows}
    passes = [m for m in dict.fromkeys(row["m"] for row in rows if row["way"].startswith("predicted")) if m]
    lines = []
    for way in dict.fromkeys(row["way"] for row in rows if row["way"] != "exact" and "until" not in row["way"]):
        found = [cells.get((way, m, "correlation")) or cells.get((way, "0", "correlation")) for m in passes]
        lines.append([way, *("–" if c is None else f"{float(c['value']):.3f} ({float(c['worst']):.3f})" for c in found)])
    where = f"{name(rows[0]['backbone'])} (`{rows[0]['weights']}`), {max(int(row['n']) for row in rows)} images"
    first = list_table(["channels passed", *passes], lines, f"Correlation with the exact map, mean (worst); {where}")

    ways = dict.fromkeys((row["way"], row["m"]) for row in rows if row["metric"] == "promised")
    numbers = ("passes", "correlation", "reaches", "promise_off")
    measured = list(dict.fromkeys(f"{row['metric']} {row['setting']}".strip() for row in rows if row["difference"]))
    lines = []
    for way, m in ways:
        found = [float(cells[way, m, key]["value"]) for key in numbers]
        line = [
            way if "until" in way else f"{way}, {m}",
            f"{found[0]:.0f}",
            f"{found[1]:.3f}",
            f"{100 * found[2]:.0f} %",
            f"{found[3]:.3f}",
        ]
        lines.append([*line, *(_difference(cells[way, m, key]) for key in measured)])
    lines.append(["equal weights", "0", f"{float(cells['equal weights', '0', 'correlation']['value']):.3f}", "", "",
                  *(_difference(cells["equal weights", "0", key]) for key in measured)])  # fmt: skip
    exact = next(row["m"] for row in rows if row["way"] == "exact")
    lines.append(["exact", exact, "1", "", "", *(f"{float(cells['exact', exact, key]['value']):.1f}" for key in measured)])
    head = ["way", "passes", "correlation", "images at .99 or above", "promise off by", *(_named(key) for key in measured)]
    caption = f"What the greedy choice costs beside the exact map, whose values stand in the last line; paired differences; {where}"
    return first + "\n" + list_table(head, lines, caption)


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
            lines.append([where, f"{name(metric)} {setting}".strip(), n, *(_number(cell, sign=True) for cell in cells)])
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
    lines = [[name(m), *(_number(cells.get((m, *column))) for column in columns)] for m in methods]
    first, chosen = rows[0], [row for row in rows if row["role"] == "chosen"]
    text = [f"**{name(first['dataset'])}, {name(first['backbone'])}** (`{first['weights']}`).\n"]
    text += [
        f"Best of {float(row['n']):.0f} tries on the first half: {name(row['method'])} is {_settings(row['setting'])}.\n" for row in chosen
    ]
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
    lines = [[f"{name(a)} − {name(b)}", *(_number(found.get((a, b, *column)), sign=True) for column in columns)] for a, b in keys]
    text.append(list_table(["difference", *(f"{name(m)} {s}".strip() for m, s in columns)], lines, "Paired, on the same images"))
    return "\n".join([*text, *_knowledge([row for row in rows if row["role"] == "weights"])])


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
            *(_number(cells[where, metric], digits=digits) for metric, digits in (("spearman", 2), ("effective_share", 2), ("rank", 0))),
        ]
        for where in dict.fromkeys(row["method"] for row in rows)
    ]
    caption = f"What the second phase's weights know; first half, n up to {max(float(row['n']) for row in rows):.0f}"
    return [list_table(head, lines, caption)]


def _settings(text):
    return text.strip("{}").replace("'", "").replace(": ,", ": last,")


def race(rows):
    """Contenders of a benchmark, each beside the first of its group."""
    parts = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        if own[0].get("correlation"):
            lines = [[row["contender"], f"{float(row['correlation']):.5f}"] for row in own]
            parts.append(list_table(["maps", "least correlation"], lines, group))
            continue
        base = own[0]
        lines = [
            [
                row["contender"],
                f"{float(row['seconds']):.2f} s",
                f"{float(row['seconds']) / float(base['seconds']):.2f}",
                f"{float(row['cpu_seconds']) / float(base['cpu_seconds']):.2f}",
                f"{float(row['extra_mb']):.0f} MB",
            ]
            for row in own
        ]
        parts.append(
            list_table(
                ["contender", "least time", "ratio", "CPU time, ratio", "extra memory"],
                lines,
                f"{group}; {float(base['rounds']):.0f} rounds in turn",
            )
        )
    return "\n".join([*parts, f"Measured on {rows[0]['machine']}; {rows[0]['packages']}.\n"])


def counted(rows):
    """A race, and below it what was counted once: passes, megabytes."""
    counts = [row for row in rows if row.get("count")]
    parts = [race([row for row in rows if not row.get("count")])]
    for group in dict.fromkeys(row["group"] for row in counts):
        lines = [[row["contender"], f"{float(row['count']):,.0f}"] for row in counts if row["group"] == group]
        parts.append(list_table(["counted", "number"], lines, group))
    return "\n".join(parts)


def _number(row, *, interval=True, sign=False, digits=1):
    if row is None or not row["value"]:
        return "–"
    text = f"{float(row['value']):{'+' if sign else ''}.{digits}f}"
    if interval and row.get("ci_low") and row.get("ci_high"):
        text += f" [{float(row['ci_low']):.{digits}f},\N{NO-BREAK SPACE}{float(row['ci_high']):.{digits}f}]"
    return text


LOCALIZATION = ("energy", "wsol", "cue")
SAME_ORDER = ("correct_after_removal", "correct_after_random_removal")  # R_k's parts: the second is the same for every map


def trust(rows):
    """Where maps that are known to be right or wrong land under each metric, and which of them beat the cue's mask."""
    facts = {(row["network"], row["metric"]): row for row in rows if row["method"] == "network"}
    shown = [row for row in rows if row["method"] != "network" and row["metric"] not in SAME_ORDER]
    parts = []
    for network in ("trained", "wired"):
        right, followed = (_hits(facts[network, metric]) for metric in ("accuracy", "follows_cue_only"))
        total = int(float(facts[network, "accuracy"]["n"]))
        own = [row for row in shown if row["network"] == network]
        where = f"The {network} network, right on {right} of {total} images, follows the cue and nothing else on {followed}: these"
        parts.append(_known([row for row in own if row["protocol"] not in LOCALIZATION], f"{where}; what asks the network"))
    place = [row for row in shown if row["protocol"] in LOCALIZATION and row["network"] != "wired"]
    parts.append(_known(place, "What asks for the place: the images of the trained network; cue localization on drawn birds"))
    return "\n".join(parts)


def _hits(row):
    return round(float(row["value"]) * float(row["n"]) / 100)


def _known(rows, caption):
    maps = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["metric"], row["setting"], row["method"]): row for row in rows}
    lines = []
    for metric, setting in dict.fromkeys((row["metric"], row["setting"]) for row in rows):
        own = {one: cells[metric, setting, one] for one in maps if (metric, setting, one) in cells}
        values = {one: float(row["value"]) for one, row in own.items()}
        better = next(iter(own.values()))["better"]
        digits = 1 if max(map(abs, values.values())) >= 10 else 2
        texts = {one: f"{value:.{digits}f}" for one, value in values.items()}
        extreme = {"higher": max, "lower": min}.get(better)
        best = f"{extreme(values.values()):.{digits}f}" if extreme and len(set(texts.values())) > 1 else None
        beaten = [name(one) for one, row in own.items() if row["against_cue"] == "better" and texts[one] != texts["cue_mask"]]
        texts = {one: f"**{text}**" if text == best else text for one, text in texts.items()}
        verdict = ", ".join(beaten) or ("none" if better else "–")
        lines.append([f"{name(metric)} {setting}".strip(), *(texts.get(one, "–") for one in maps), verdict])
    head = ["metric", *map(name, maps), "better than the mask"]
    return list_table(head, lines, f"{caption}. Bold: the best; last column: by the paired 95 % interval")


def calibration(rows):
    """A method's cue localization in every way its map can be brought into [0, 1] and read, and how far that moves it."""
    ways = list(dict.fromkeys((row["thresholds"], row["calibration"]) for row in rows))
    usual = [row for row in rows if row["variant"] == "zeros kept"]
    cells = {(row["network"], row["method"], row["thresholds"], row["calibration"]): row for row in usual}
    lines = []
    for network, method in dict.fromkeys((row["network"], row["method"]) for row in rows):
        own = [cells[network, method, *way] for way in ways]
        everything = [float(row["value"]) for row in rows if (row["network"], row["method"]) == (network, method)]
        span = max(float(row["value"]) for row in own) - min(float(row["value"]) for row in own)
        lines.append([name(network), name(method), *map(_number, own), f"{span:.1f}", f"{max(everything) - min(everything):.1f}"])
    head = ["network", "map", *(f"{calibration}, {thresholds}".replace("_", "-") for thresholds, calibration in ways)]
    networks = {row["network"]: f"{name(row['network'])} {float(row['accuracy']):.1f}" for row in rows}
    first = rows[0]
    caption = f"{name(first['dataset'])}, {name(first['backbone'])}: pixel AP over {first['pairs']} pairs of classes, {first['n']} images"
    caption += f", zeros kept; value [95 % interval]; accuracy in %: {', '.join(networks.values())}"
    return list_table([*head, "moves by", "with the other variants"], lines, caption)


def coverage(rows):
    """How often the 95 % intervals held the truth, case by number of images; what lies outside 93 to 97 % stands out."""
    counts = list(dict.fromkeys(row["n"] for row in rows))
    cells = {(row["case"], row["n"]): float(row["coverage"]) for row in rows}
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        found = [cells[case, n] for n in counts]
        lines.append([case, *(f"{value:.1f}" if 93 <= value <= 97 else f"**{value:.1f}**" for value in found)])
    first = rows[0]
    caption = f"Intervals that held the truth, in %, of {first['repetitions']} each, {first['resamples']} resamples; bold: outside 93 to 97"
    return list_table(["case", *(f"n = {n}" for n in counts)], lines, caption)


def equal_mean(rows):
    """Each method as it is and at the common mean, side by side."""
    means = list(dict.fromkeys(row["mean"] for row in rows))
    columns = [(metric, mean) for metric in dict.fromkeys(row["metric"] for row in rows) for mean in means]
    cells = {(row["base"], row["metric"], row["mean"]): row for row in rows}
    bases = dict.fromkeys(row["base"] for row in rows)
    lines = [[("control: " if is_control(b) else "") + name(b), *(_number(cells.get((b, *column))) for column in columns)] for b in bases]
    head = ["method", *(f"{name(metric)} {f'at mean {mean}' if mean else 'as it is'}" for metric, mean in columns)]
    first = rows[0]
    return list_table(head, lines, f"{name(first['backbone'])} (`{first['weights']}`), {int(float(first['n']))} ImageNet validation images")


SUMMARIES = {"increment_cam": readings}
KINDS = {
    "l_cam_recipe": recipe, "forms": forms, "score_cam_budget": budget, "increment_cam": reported, "methods": race, "metrics": counted,
    "trust": trust, "calibration": calibration, "coverage": coverage, "equal_mean": equal_mean,
}  # fmt: skip


def methods(table):
    """The registry as a table: what each method is, whose, what it costs, whether it depends on the class."""
    lines = []
    for key, one in table.items():
        function, options = getattr(one.function, "func", one.function), getattr(one.function, "keywords", {})
        told = " ".join((function.__doc__ or "").strip().split("\n\n")[0].split()).replace("``", "`")
        if options:
            told += " Here with " + ", ".join(f"{option.replace('_', ' ')} = {value}" for option, value in options.items()) + "."
        if not one.target_dependent:
            told += " The same for every class."
        source = f"{one.paper}, {one.year}" if one.year else one.paper
        lines.append([f"`{key}`", told, source, one.passes])
    return list_table(["name", "what it computes", "source", "passes"], lines, "", kind="prose", widths="22 46 18 14")


NEEDS = {
    "probe": "the network", "method": "the network, and the method again", "boxes": "boxes", "masks": "masks",
    "boxes, correct": "boxes; whether the prediction is right", "points": "boxes of every class present", "cue": "the parts of two classes",
}  # fmt: skip
MEASURES = ("wins", "map_stability", "cascading_randomization")  # that give numbers without being a Metric


def metrics(module):
    """Every metric as a table: what it measures, what it needs beside the maps, its protocol, which direction is better."""
    lines = []
    for key in module.__all__:
        one = getattr(module, key)
        if key not in MEASURES and not (isinstance(one, type) and issubclass(one, module.Metric) and one is not module.Metric):
            continue
        told = inspect.getdoc(one).split("\n")[0].replace("``", "`")
        if key in MEASURES:
            lines.append([f"`{key}`", told, "–", "–", "–"])
            continue
        option = inspect.signature(one).parameters.get("protocol")
        protocol = one.protocol or ("" if option is None else option.default)
        better = {True: "higher", False: "lower", None: "neither"}[one.higher_is_better]
        lines.append([f"`{key}`", told, NEEDS.get(one.needs, one.needs), f"`{protocol}`" if protocol else "–", better])
    head = ["metric", "what it measures", "needs", "protocol", "better"]
    return list_table(head, lines, "", kind="prose", widths="20 46 16 10 8")
