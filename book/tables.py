"""Tables of the runs' metrics.csv and differences.csv, as `results.load` gives them, and of published.yaml."""

from collections import Counter
from pathlib import Path

import pandas as pd
import yaml
from cells import cells, controls_below, digits_of, grid, list_table, over_seeds, pivot, told_seeds
from names import label, measure, name

PAPERS = ("increment_cam", "l_cam", "lfi_cam", "calm")
PROPOSED = ("increment_cam", "l_cam_fm", "l_cam_img", "lfi_cam", "calm_em")
COLUMN = ["protocol", "metric", "setting"]


def results(rows, differences, paper):
    """One table per protocol of a run, or of runs that differ in the seed alone: method × metric. A line says so when nothing ran.

    Of many seeds the paired ``differences`` of what the paper proposes follow.
    """
    rows = rows[rows["paper"] == paper]
    if rows.empty:
        return "*Not run.*\n"
    parts = []
    keys = ["dataset", "backbone", "recipe", "split", "weights"]  # a run may hold several networks, each with its weights
    for (dataset, backbone, recipe, split, weights), group in rows.groupby(keys, sort=False):
        parts.append(f"#### {', '.join(filter(None, (name(dataset), name(backbone), recipe)))}\n")
        parts.append(_where(split, weights, group[["seed", "key"]].drop_duplicates()))
        parts += [_table(own, protocol) for protocol, own in group.groupby("protocol", sort=False)]
    paired = differences[(differences["paper"] == paper) & differences["method"].isin(PROPOSED)]
    parts += [_paired_over_seeds(own, rows) for _, own in paired.groupby(["dataset", "backbone", "recipe"], sort=False)]
    return "\n".join(parts)


def _where(split, weights, seeds):
    told, s = f"weights `{weights}`" if weights else "weights trained here", "s" * (len(seeds) > 1)
    which, runs = ", ".join(map(str, seeds["seed"])), ", ".join(f"`{run}`" for run in seeds["key"])
    return f"Split {split}, {told}, seed{s} {which}. Run{s} {runs}.{stand_in(weights)}\n"


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
    runs = rows["key"].unique()
    digits = rows.groupby("metric")["value"].agg(digits_of).to_dict() | {"empty_maps": 0}
    usual = {method: Counter(own["n"]).most_common(1)[0][0] for method, own in rows.groupby("method")}
    rows = rows.assign(cell=cells(rows, rows["metric"].map(digits)))

    def over_runs(method, metric, setting, keys, values, counts, texts):
        mean = over_seeds(values, digits[metric])
        if mean:
            return mean + _of_n(counts, usual[method], setting)
        each = {key: text + _of_n([n], usual[method], setting) for key, n, text in zip(keys, counts, texts, strict=True)}
        return tuple(each.get(run, "not run") for run in runs)

    found = rows.groupby(["method", "metric", "setting"], sort=False)[["key", "value", "n", "cell"]].agg(list).reset_index()
    found["cell"] = [over_runs(*own) for own in found.itertuples(index=False)]
    wide = controls_below(pivot(found, "method", ["metric", "setting"], "not run"))
    head = ["method", *map(measure, wide.columns), "n"]
    wide["n"] = [f"{usual[method]:,}" for method in wide.index]
    return grid(wide, head, f"Protocol {protocol}; {told_seeds(len(runs))}; n images (or pairs)")


def _of_n(counts, usual, setting):
    """How many images a number is of, where they are not the ``usual`` ones of its line and its setting does not say so."""
    least, most = min(counts), max(counts)  # of some metrics it is the images that a network gets right
    if least == most == usual or setting.endswith(f"first {least}"):
        return ""
    return f" (n {least:,})" if least == most else f" (n {least:,}–{most:,})"


def _paired_over_seeds(differences, rows):
    """What the paper proposes minus other maps, by protocol: the mean of the seeds' paired differences; nothing where seeds are few."""
    first, count = differences.iloc[0], differences["key"].nunique()
    found = _by_pair(differences, rows)
    found = found[~found["metric"].isin(["map_mean", "empty_maps"])]
    digits = rows.groupby("metric")["value"].agg(digits_of)
    parts = []
    for protocol, own in found.groupby("protocol", sort=False):
        means = own.groupby(["method", "than", "metric", "setting"], sort=False)["value"].agg(list).rename("cell").reset_index()
        means["cell"] = [
            over_seeds(values, digits[metric], "+") or "–" for metric, values in zip(means["metric"], means["cell"], strict=True)
        ]
        wide = pivot(means, ["method", "than"], ["metric", "setting"])
        wide = wide[(wide != "–").any(axis=1)].sort_index(level="method", key=lambda of: of.map(PROPOSED.index), sort_remaining=False)
        if len(wide):
            where = f"{name(first['dataset'])}, {name(first['backbone'])}, protocol {protocol}"
            head = ["difference", *map(measure, wide.columns)]
            parts.append(grid(wide, head, f"Paired differences, {where}; {told_seeds(count)}", minus))
    return "\n".join(parts)


def minus(pair):
    """The printed form of (method, than)."""
    method, than = pair
    return f"{name(method)} − {label(than)}"


def _by_pair(differences, rows):
    """The differences of every run, pair by pair.

    What a run has no difference of (maps brought to one mean, the map of another class) is subtracted here, within one network and on as
    many images.
    """
    pairs = differences[["method", "than"]].drop_duplicates()
    others = pairs[["method"]].drop_duplicates()
    pairs = pd.concat([pairs, others.assign(than="other_" + others["method"])]).drop_duplicates()
    own = rows[rows["key"].isin(differences["key"]) & ~of_the_first(rows)]
    other = own.rename(columns={"method": "than", "value": "less"})[["key", "weights", "n", "than", "less", *COLUMN]]
    taken = own.merge(pairs).merge(other)
    found = pd.concat([differences, taken.assign(value=taken["value"] - taken["less"])])
    return pairs.merge(found.drop_duplicates(["method", "than", "key", *COLUMN]))


def of_the_first(rows):
    """Which rows are of the first images alone, as those of slow methods are."""
    return (" " + rows["setting"] + " ").str.contains(" first ")


def published(entries, paper):
    """Tables of what others printed, each with the mark that says how it is known."""
    parts = []
    for entry in entries:
        if entry["paper"] != paper:
            continue
        parts.append(f"**{entry['title']}** ({entry['mark']}). {entry['note'].strip()}\n")
        for backbone, methods in entry["backbones"].items():
            head = ["method", *map(measure, entry["columns"])]
            rows = [[name(m), *("–" if v is None else f"{v:g}" for v in values)] for m, values in methods.items()]
            parts.append(list_table(head, rows, f"{name(backbone)}; {entry['mark']}"))
    return "\n".join(parts)


def load_yaml(path):
    """Read one of the book's yaml files."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
