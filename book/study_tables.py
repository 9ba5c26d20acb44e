"""Tables of the studies and benchmarks, made from results/studies/*.csv and results/benchmarks/*.csv; nothing here computes a number."""

import csv
from pathlib import Path

from tables import is_control, list_table, name


def study(folder, what):
    """The table of one study by its name: the part before a dash names the kind, `forms-resnet18` being of the kind `forms`."""
    path = Path(folder) / f"{what}.csv"
    if not path.exists():
        return f"*Not run yet: {', '.join(name(part) for part in what.split('-'))}.*\n"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return KINDS[what.partition("-")[0]](rows)


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
    """Way x number of passes: correlation with the exact map."""
    passes = list(dict.fromkeys(row["m"] for row in rows if row["m"] != "0"))
    cells = {(row["way"], row["m"]): row for row in rows}
    lines = []
    for way in dict.fromkeys(row["way"] for row in rows):
        found = [cells.get((way, m)) or cells.get((way, "0")) for m in passes]
        lines.append([way, *("–" if c is None else f"{float(c['mean']):.3f} ({float(c['worst']):.3f})" for c in found)])
    where = f"{name(rows[0]['backbone'])} (`{rows[0]['weights']}`), {rows[0]['n']} images"
    return list_table(["channels passed", *passes], lines, f"Correlation with the exact map, mean (worst); {where}")


def reported(rows):
    """The reported half of the Increment-CAM study, and the paired differences."""
    shown = [row for row in rows if row["role"] == "reported" and row["metric"] not in ("empty_maps", "seconds")]
    columns = list(dict.fromkeys((row["metric"], row["setting"]) for row in shown))
    cells = {(row["method"], row["metric"], row["setting"]): row for row in shown}
    methods = sorted(dict.fromkeys(row["method"] for row in shown), key=is_control)
    lines = [[name(m), *(_number(cells.get((m, *column))) for column in columns)] for m in methods]
    first, chosen = rows[0], [row for row in rows if row["role"] == "chosen"]
    text = [f"**{name(first['dataset'])}, {name(first['backbone'])}** (`{first['weights']}`).\n"]
    text += [f"Chosen on the first half: {name(row['method'])} is {_settings(row['setting'])}.\n" for row in chosen]
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
    return "\n".join(text)


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
                ["contender", "least time", "ratio", "CPU time, ratio", "extra memory"], lines, f"{group}; {base['rounds']} rounds in turn"
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


def _number(row, *, interval=True, sign=False):
    if row is None or not row["value"]:
        return "–"
    text = f"{float(row['value']):{'+' if sign else ''}.1f}"
    if interval and row.get("ci_low") and row.get("ci_high"):
        text += f" [{float(row['ci_low']):.1f},\N{NO-BREAK SPACE}{float(row['ci_high']):.1f}]"
    return text


KINDS = {"l_cam_recipe": recipe, "forms": forms, "score_cam_budget": budget, "increment_cam": reported, "methods": race, "metrics": counted}


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
