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


# --- the learned models ----------------------------------------------------------------------------------------------------------------


def _each(rows, digits=1):
    """The values of the seeds, one after another; a single one with its interval."""
    if not rows:
        return "–"
    if len(rows) == 1:
        return _number(rows[0])
    return " · ".join(f"{float(row['value']):.{digits}f}" for row in sorted(rows, key=lambda row: int(row["seed"])))


def _picked(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _told_seeds(rows):
    count = len({row["seed"] for row in rows})
    return "value [95 % interval over images]" if count == 1 else f"one value a seed, {count} seeds"


def shortcut(rows):
    """What the network does with the mark, and how much of each map lies on it."""
    first, told = rows[0], _told_seeds(rows)
    lines = [
        [
            f"trained {condition} the mark",
            _each(_picked(rows, trained=condition, metric="accuracy", shown="without")),
            *(_each(_picked(rows, trained=condition, metric="called_so", shown=shown)) for shown in ("with", "without")),
        ]
        for condition in ("with", "without")
    ]
    head = ["network", "accuracy, other classes", f"twins called “{first['label']}”, mark shown", "mark not shown"]
    parts = [list_table(head, lines, f"{name(first['backbone'])}, drawn objects; the mark goes with “{first['label']}”; {told}")]
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != "plain"]
    for metric, title in (("energy_pointing_game", "Share of the map on the mark"), ("maximum_in_box", "Maximum of the map on the mark")):
        own = _picked(rows, metric=metric)
        asked = [("with", "with"), ("without", "with"), ("difference", "with"), ("with", "without"), ("without", "without")]
        lines = [
            [("control: " if is_control(m) else "") + name(m), *(_each(_picked(own, method=m, trained=t, shown=s)) for t, s in asked)]
            for m in methods
        ]
        head = ["map", "learned the mark, sees it", "never learned it, sees it", "difference", "learned it, not shown", "never, not shown"]
        parts.append(list_table(head, lines, f"{title}, %; test images of the twins, explained for “{first['label']}”; {told}"))
    return "\n".join(parts)


def lfi_features(rows):
    """Accuracy under each head; localization under the own head and under the probe; differences to the plain trunk."""
    own, told = _picked(rows, than=""), _told_seeds(rows)
    heads = {"own": "its own head, attention out", "probe": "linear probe", "attended": "as trained, attention in"}
    trunks, where = list(dict.fromkeys(row["trunk"] for row in own)), f"{name(rows[0]['backbone'])}, {name(rows[0]['dataset'])}"
    lines = [[name(t), *(_each(_picked(own, trunk=t, head=h, metric="accuracy")) for h in heads)] for t in trunks]
    parts = [list_table(["trunk of", *heads.values()], lines, f"Accuracy, %; {where}; {told}")]
    columns = [(m, k) for k in ("energy_pointing_game", "pixel_precision") for m in ("cam", "grad_cam", "mean_activation")]
    for head, title in heads.items():
        lines = [
            [name(t), *(_each(_picked(own, trunk=t, head=head, method=m, metric=k)) for m, k in columns)]
            for t in trunks
            if _picked(own, trunk=t, head=head)
        ]
        parts.append(list_table(["trunk of", *(f"{name(m)}: {name(k)}" for m, k in columns)], lines, f"{title}; {told}"))
    lines = [
        [f"{name(t)} − plain, {heads[h]}", *(_each(_picked(rows, trunk=t, than="plain", head=h, method=m, metric=k)) for m, k in columns)]
        for t in trunks
        for h in ("own", "probe")
        if t != "plain"
    ]
    parts.append(list_table(["difference", *(f"{name(m)}: {name(k)}" for m, k in columns)], lines, f"Paired, on the same images; {told}"))
    return "\n".join(parts)


def em_ml(rows):
    """How far each way goes from ML's weights, and the spread over seeds."""
    steps, ends, first = _picked(rows, part="steps"), _picked(rows, part="end"), rows[0]
    updates = list(dict.fromkeys(row["update"] for row in steps))
    ways = list(dict.fromkeys(row["way"] for row in steps))
    lines = []
    for way in ways:
        found = {row["update"]: f"{float(row['value']):.0e}" for row in _picked(steps, way=way)}
        ended = {row["metric"]: float(row["value"]) for row in _picked(ends, way=way)}
        last = (f"{ended['accuracy']:.1f}", f"{ended['nll']:.4f}") if ended else ("–", "–")
        lines.append([way, *(found.get(update, "–") for update in updates), *last])
    head = ["training", *(f"after {int(float(update))} updates" for update in updates), "accuracy in the end", "−log p(y|x) in the end"]
    where = f"{name(first['backbone'])}, {first['images']} drawn objects, {first['epochs']} epochs, {first['tested']} test images"
    parts = [list_table(head, lines, f"Relative distance of the weights from ML's; {where}")]
    spread = _picked(rows, part="spread")
    cells = {(row["way"], row["metric"]): row for row in spread}
    lines = [
        [
            " − ".join(name(part) for part in way.split(" minus ")),
            *(cell for metric, digits in (("accuracy", 1), ("nll", 3)) for cell in _spread(cells[way, metric], digits)),
        ]
        for way in dict.fromkeys(row["way"] for row in spread)
    ]
    head = ["training", "accuracy, mean", "standard deviation", "least to most", "−log p(y|x), mean", "standard deviation", "least to most"]
    parts.append(list_table(head, lines, f"{int(float(spread[0]['n']))} seeds; mean over the seeds [95 % interval]; {where}"))
    return "\n".join(parts)


def _spread(row, digits):
    mean, least, most = (f"{float(row[key]):.{digits}f}" for key in ("value", "least", "most"))
    if row["ci_low"]:
        mean += f" [{float(row['ci_low']):.{digits}f},\N{NO-BREAK SPACE}{float(row['ci_high']):.{digits}f}]"
    return mean, f"{float(row['deviation']):.{digits}f}" if row["deviation"] else "–", f"{least} to {most}"


def scratch(rows):
    """Accuracy of every planned training, and how alike the maps of two trainings are."""
    first, planned = rows[0], [row for row in rows if row["role"] == "training"]
    ways = list(dict.fromkeys((row["setting"], row["seed"]) for row in planned))
    columns = [(m, "accuracy") for m in dict.fromkeys(row["model"] for row in planned)] + [("lfi_cam", "effective_channels")]
    lines = []
    for setting, seed in ways:
        found = [_picked(planned, setting=setting, seed=seed, model=m, metric=k) for m, k in columns]
        cells = [f"{float(one[0]['value']):.1f}" if one and one[0]["value"] else one[0]["state"] if one else "–" for one in found]
        lines.append([f"setting {int(float(setting))}, seed {int(float(seed))}", *cells])
    where = f"{name(first['dataset'])}, {name(first['backbone'])}, {first['epochs']} epochs"
    parts = [list_table(["training", *(f"{name(m)}: {name(k)}" for m, k in columns)], lines, where)]
    means = [row for row in rows if row["role"] == "mean"]
    for what, told in (("settings", "Trainings under two settings"), ("seeds", "Trainings from two seeds")):
        own = _picked(means, differs=what)
        measures = list(dict.fromkeys(row["metric"] for row in own))
        lines = []
        for method in dict.fromkeys(row["method"] for row in own):
            same = {(row["metric"], row["of"]): row for row in _picked(own, method=method)}
            one = next(iter(same.values()))
            cells = [_beside(same[m, "pair"], same[m, "shuffled"], 2 if m == "stability_correlation" else 1) for m in measures]
            lines.append(
                [": ".join(name(part) for part in method.split(": ")), *cells, f"{int(float(one['n']))} of {int(float(one['planned']))}"]
            )
        if lines:
            head = ["map", *(name(m) for m in measures), "pairs"]
            parts.append(list_table(head, lines, f"{told}: mean over the pairs (maps of different images); {first['images']} test images"))
        else:
            parts.append(f"*{told}: not run yet.*\n")
    return "\n".join(parts)


def _beside(pair, shuffled, digits):
    return f"{float(pair['value']):.{digits}f} ({float(shuffled['value']):.{digits}f})"


def training(rows):
    """What was promised and what was found; one explanation beside a forward pass; the races; multiply-adds."""
    promised = [row for row in rows if row.get("asked")]
    lines = [[row["contender"], row["asked"], f"{float(row['found']):.2f}"] for row in promised]
    parts = [list_table(["ratio", "asked", "found"], lines, "What was promised")]
    single = [row for row in rows if row["group"].startswith("one explanation")]
    lines, batches = [], list(dict.fromkeys(row["group"].rpartition(" ")[2] for row in single))
    for model in dict.fromkeys(row["group"].split(", ")[1] for row in single):
        own = {batch: [row for row in single if row["group"] == f"one explanation, {model}, batch {batch}"] for batch in batches}
        base = {batch: float(found[0]["seconds"]) for batch, found in own.items()}
        for contender in [row["contender"] for row in own[batches[0]][1:]]:
            cells = []
            for batch in batches:
                seconds = float(_picked(own[batch], contender=contender)[0]["seconds"])
                cells += [f"{1000 * base[batch]:.0f} ms", f"{seconds / base[batch]:.2f}"]
            lines.append([name(contender), *cells])
    head = ["explanation", *(cell for batch in batches for cell in (f"bare forward, batch {batch}", "ratio"))]
    parts.append(list_table(head, lines, "One explanation over a bare forward of the network that it explains"))
    adds = [row for row in rows if row.get("multiply_adds")]
    lines = [[row["group"].split(", ")[1], row["contender"], f"{float(row['multiply_adds']):.1f}"] for row in adds]
    parts.append(list_table(["network", "what", "10⁹ multiply-adds an image"], lines, "Forward pass at 224, stem of stride 1"))
    others = [row for row in rows if row not in promised and row not in single and row not in adds]
    others = [{**row, "rounds": int(float(row["rounds"]))} for row in others]
    loads = [
        f"{row['contender']}: {float(row['images']) / float(row['seconds']):.0f} images a second." for row in others if row.get("images")
    ]
    return "\n".join([*parts, race(others), "Loader, " + " ".join(loads) + "\n"])


LEARNED = {"shortcut": shortcut, "lfi_features": lfi_features, "em_ml": em_ml, "scratch": scratch, "training": training}


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


def _number(row, *, interval=True, sign=False):
    if row is None or not row["value"]:
        return "–"
    text = f"{float(row['value']):{'+' if sign else ''}.1f}"
    if interval and row.get("ci_low") and row.get("ci_high"):
        text += f" [{float(row['ci_low']):.1f},\N{NO-BREAK SPACE}{float(row['ci_high']):.1f}]"
    return text


KINDS = {"l_cam_recipe": recipe, "forms": forms, "score_cam_budget": budget, "increment_cam": reported, "methods": race, **LEARNED}


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
