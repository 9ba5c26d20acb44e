"""Tables of the book, made from the metrics.csv and differences.csv of runs, and from published.yaml."""

import csv
import operator
import re
import statistics
from collections import Counter
from pathlib import Path

import yaml
from names import name
from scipy import stats

from cam_core.methods.control import is_control

PAPERS = ("increment_cam", "l_cam", "lfi_cam", "calm")


def read(folder, profile, file="metrics.csv"):
    """Rows of every complete run of a profile (text as in the file; `run` and `profile` added), in the order of their folders."""
    rows = []
    for path in sorted((Path(folder) / profile).glob(f"*/*/{file}")):
        finished = not {".part", ".failed", ".old"} & set(path.parent.suffixes)
        if finished and (path.parent / "provenance.json").exists():
            with path.open(newline="", encoding="utf-8") as source:
                rows += [{**row, "run": path.parent.name, "profile": profile} for row in csv.DictReader(source)]
    for row in (row for row in rows if "weights" in row):
        row["weights"] = re.sub(r"^random\b", "trained here", row["weights"])  # as `results.read_records` reads them
    return rows


def results(rows, paper, differences=(), level=4):
    """One table per protocol of a run, or of runs that differ in the seed alone: method × metric. A line says so when nothing ran.

    Of many seeds the paired ``differences`` of what the paper proposes follow.
    """
    rows = [row for row in rows if row["paper"] == paper]
    if not rows:
        return "*Not run.*\n"
    keys = ("dataset", "split", "backbone", "weights", "recipe")
    parts = []
    for key in dict.fromkeys(tuple(row[k] for k in keys) for row in rows):  # a run may hold several networks, each with its weights
        run, group = dict(zip(keys, key, strict=True)), [row for row in rows if tuple(row[k] for k in keys) == key]
        parts.append(f"{'#' * level} {name(run['dataset'])}, {name(run['backbone'])}{_recipe(run)}\n")
        parts.append(_where(run, list(dict.fromkeys((row["seed"], row["run"]) for row in group))))
        protocols = dict.fromkeys(row["protocol"] for row in group)
        parts += [_table([row for row in group if row["protocol"] == protocol], protocol) for protocol in protocols]
    paired = [row for row in differences if row["paper"] == paper and row["method"] in PROPOSED]
    configuration = operator.itemgetter("dataset", "backbone", "recipe")
    parts += [_paired_over_seeds([d for d in paired if configuration(d) == key], rows) for key in dict.fromkeys(map(configuration, paired))]
    return "\n".join(parts)


PROPOSED = ("increment_cam", "l_cam_fm", "l_cam_img", "lfi_cam", "calm_em")


def _paired_over_seeds(differences, rows):
    """What the paper proposes minus other maps, by protocol: the mean of the seeds' paired differences; nothing where seeds are few."""
    first, count = differences[0], len({d["run"] for d in differences})
    found = _by_pair(differences, rows)
    columns = [key for key in dict.fromkeys(key for of in found.values() for key in of) if key[1] not in ("map_mean", "empty_maps")]
    digits = {metric: digits_of([row for row in rows if row["metric"] == metric]) for _, metric, _ in columns}
    parts = []
    for protocol in dict.fromkeys(key[0] for key in columns):
        shown = [key for key in columns if key[0] == protocol]
        lines = []
        for (method, than), of in sorted(found.items(), key=lambda one: PROPOSED.index(one[0][0])):
            cells = [over_seeds(list(of.get(key, {}).values()), digits[key[1]], "+") for key in shown]
            if any(cells):
                label = f"{name(method)} − {'control: ' * is_control(than)}{name(than)}"
                lines.append([label, *(cell or "–" for cell in cells)])
        if lines:
            head = ["difference", *(f"{name(metric)} {setting}".strip() for _, metric, setting in shown)]
            where = f"{name(first['dataset'])}, {name(first['backbone'])}, protocol {protocol}"
            parts.append(list_table(head, lines, f"Paired differences, {where}; {told_seeds(count)}"))
    return "\n".join(parts)


def _by_pair(differences, rows):
    """(method, than) -> (protocol, metric, setting) -> run -> difference.

    What a run has no difference of (maps brought to one mean, the map of another class) is subtracted here, within one network and on as
    many images.
    """
    column = operator.itemgetter("protocol", "metric", "setting")
    found = {}
    for d in differences:
        found.setdefault((d["method"], d["than"]), {}).setdefault(column(d), {})[d["run"]] = float(d["value"])
    runs = {d["run"] for d in differences}
    own = [row for row in rows if row["run"] in runs and " first " not in f" {row['setting']} "]
    values = {(row["run"], row["weights"], row["method"], column(row)): row for row in own}
    others = [(method, f"other_{method}") for method in dict.fromkeys(method for method, _ in found)]
    for pair in [*found, *others]:
        for (run, weights, method, key), one in values.items():
            other = values.get((run, weights, pair[1], key))
            if method == pair[0] and other and other["n"] == one["n"]:
                found.setdefault(pair, {}).setdefault(key, {}).setdefault(run, float(one["value"]) - float(other["value"]))
    return found


def _recipe(run):
    return f", {run['recipe']}" if run["recipe"] else ""


def _where(run, seeds):
    weights = f"weights `{run['weights']}`" if run["weights"] else "weights trained here"
    which, runs = ", ".join(seed for seed, _ in seeds), ", ".join(f"`{folder}`" for _, folder in seeds)
    text = f"Split {run['split']}, {weights}, {_plural('seed', seeds)} {which}. {_plural('Run', seeds)} {runs}."
    return text + stand_in(run["weights"]) + "\n"


def _plural(word, of):
    return word if len(of) == 1 else word + "s"


def stand_in(weights):
    """The sentence that must stand wherever a paper's network is replaced by a quantized one."""
    if "pqf" in weights:
        return (
            " These ResNet weights are a quantized stand-in for the official ones, a little less accurate;"
            " a published number beside them is no strict comparison."
        )
    if "onnxzoo" in weights:
        return " These weights come from the ONNX model zoo, not from torchvision."
    return ""


def _table(rows, protocol):
    """Of one run the values with their intervals; of several, one value a seed, and of many seeds the interval over them."""
    columns = list(dict.fromkeys((row["metric"], row["setting"]) for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    methods.sort(key=is_control)  # stable: what explains first, controls below
    runs = list(dict.fromkeys(row["run"] for row in rows))
    cells = {(row["run"], row["method"], row["metric"], row["setting"]): row for row in rows}
    digits = {metric: digits_of([r for r in rows if r["metric"] == metric]) for metric, _ in columns} | {"empty_maps": 0}
    lines = []
    for method in methods:
        own = [[cells.get((run, method, *column)) for run in runs] for column in columns]
        usual = Counter(cell["n"] for found in own for cell in found if cell).most_common(1)[0][0]
        values = [_cell(found, digits[metric], usual) for found, (metric, _) in zip(own, columns, strict=True)]
        lines.append([("control: " if is_control(method) else "") + name(method), *values, thousands(usual)])
    head = ["method", *(f"{name(metric)} {setting}".strip() for metric, setting in columns), "n"]
    return list_table(head, lines, f"Protocol {protocol}; {told_seeds(len(runs))}; n images (or pairs)")


ENOUGH_SEEDS = 10


def told_seeds(count):
    """What the cells of a table hold, whose configurations were trained under so many seeds."""
    if count == 1:
        return "value [95 % interval]"
    if count < ENOUGH_SEEDS:
        return f"one value a seed [95 % interval over the images of that seed], {count} seeds"
    return f"mean of {count} seeds [its 95 % interval over the seeds]"


def _cell(found, digits, usual):
    if not any(found):
        return "not run"
    mean = over_seeds([float(cell["value"]) for cell in found if cell], digits)
    if not mean:
        return tuple("not run" if cell is None else _value(cell, digits, usual) for cell in found)
    counts = {int(float(cell["n"])) for cell in found if cell}  # of some metrics it is the images that a network gets right
    said = counts == {int(float(usual))} or all(cell["setting"].endswith(f"first {min(counts)}") for cell in found if cell)
    n = "" if said else "–".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))
    return mean + (f" (n {n})" if n else "")


def seed_interval(values):
    """The 95 % t interval of the mean of ten seeds or more, seeds being what is drawn and the images fixed; of fewer, None."""
    if len(values) < ENOUGH_SEEDS:
        return None
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def over_seeds(values, digits=1, sign=""):
    """The mean over the seeds and its interval; nothing where the seeds are too few."""
    interval = seed_interval(values)
    if interval is None:
        return ""
    low, high = (f"{end:.{digits}f}" for end in interval)
    return f"{statistics.fmean(values):{sign}.{digits}f} [{low},\N{NO-BREAK SPACE}{high}]"


def digits_of(rows):
    """One for percentages, two for ratios, which stay below 3 here, three for what lies between -1 and 1."""
    largest = max((abs(float(row["value"])) for row in rows), default=0)
    return 1 if largest > 3 else 2 if largest > 1 else 3


def _value(cell, digits=1, usual=None):
    text = number(cell, digits=digits)
    said = usual in (None, cell["n"]) or cell["setting"].endswith(f"first {int(float(cell['n']))}")
    return text if said else f"{text} (n {thousands(cell['n'])})"


def thousands(n):
    """A number of images or pairs, with commas between thousands."""
    return f"{int(float(n)):,}"


def _text(entry):
    values = entry if isinstance(entry, tuple) else (entry,)
    if len(values) == 1:
        return str(values[0]).replace("\n", " ")
    return "\\\n    ".join(value.replace(" ", "\N{NO-BREAK SPACE}") for value in values)


def list_table(head, rows, caption="", kind="numbers", widths=""):
    """A MyST list-table; every row has as many cells as the head.

    A cell that is a list becomes one; of one that is a tuple, the seeds' values, each stands on a line that does not break.
    """
    lines = [f":::{{list-table}} {caption}".rstrip(), ":header-rows: 1", *([f":widths: {widths}"] if widths else []), f":class: {kind}", ""]
    for row in [head, *rows]:
        for i, cell in enumerate(row):
            entries = cell if isinstance(cell, list) else [cell]
            marks = ["- " if isinstance(cell, list) else ""] * len(entries)
            begin = ["* - " if i == 0 else "  - "] + ["    "] * (len(entries) - 1)
            lines += [b + m + _text(e) for b, m, e in zip(begin, marks, entries, strict=True)]
    return "\n".join([*lines, ":::", ""])


def published(entries, paper):
    """Tables of what others printed, each with the mark that says how it is known."""
    parts = []
    for entry in entries:
        if entry["paper"] != paper:
            continue
        parts.append(f"**{entry['title']}** ({entry['mark']}). {entry['note'].strip()}\n")
        for backbone, methods in entry["backbones"].items():
            head = ["method", *(f"{name(metric)} {setting}" for metric, setting in entry["columns"])]
            rows = [[name(m), *("–" if v is None else f"{v:g}" for v in values)] for m, values in methods.items()]
            parts.append(list_table(head, rows, f"{name(backbone)}; {entry['mark']}"))
    return "\n".join(parts)


def number(row, *, interval=True, sign=False, digits=1):
    """A row's value with its interval in brackets; a dash where there is none."""
    if row is None or not row["value"]:
        return "–"
    text = f"{float(row['value']):{'+' if sign else ''}.{digits}f}"
    if interval and row.get("ci_low") and row.get("ci_high"):
        text += f" [{float(row['ci_low']):.{digits}f},\N{NO-BREAK SPACE}{float(row['ci_high']):.{digits}f}]"
    return text


def load_yaml(path):
    """Read one of the book's yaml files."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
