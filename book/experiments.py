"""Tables of the studies and benchmarks, a file each of results/studies or results/benchmarks; here those of methods and of metrics."""

from pathlib import Path

import numpy as np
import pandas as pd
import races
from cells import cell, cells, controls_below, grid, keys, list_table, pivot, texts
from names import measure, name

from reproduce import results

OWN = ("against_cue", "asked", "better", "block", "differs", "m", "mean", "of", "otherwise", "state", "than", "variant")
TEXT = (*results.TEXT, *OWN)


def study(folder, what):
    """The tables of one study or benchmark, `forms-resnet18` being of the kind `forms`, or of all studies of a kind together."""
    kind, path = what.partition("-")[0], Path(folder) / f"{what}.csv"
    found = [path] if path.exists() else sorted(Path(folder).glob(f"{what}-*.csv"))
    if found:
        return KINDS[kind](pd.concat([read(path) for path in found], ignore_index=True))
    state = "measured" if kind in races.KINDS else "run"
    return f"*Not {state} yet: {', '.join(map(name, what.split('-')))}.*\n"


def read(path):
    """The rows of a study: what is a text is one everywhere, and empty where there is none; other columns are numbers."""
    rows = pd.read_csv(path, dtype=dict.fromkeys(TEXT, "str"), keep_default_na=False, na_values=[""], float_precision="round_trip")
    return rows.assign(**{column: rows[column].fillna("") if column in rows else "" for column in TEXT})


def network_of(rows):
    """The networks that a study is about, and their weights."""
    return ", ".join(f"{name(backbone)} (`{weights}`)" for backbone, weights in keys(rows, ["backbone", "weights"]))


def forms(rows):
    """Pairs of forms of one method that have names here; below them what the peers compute otherwise by the same name."""
    rows = rows.assign(
        network=rows["backbone"].map(name), form="`" + rows["form"] + "`",
        other=rows["other"].where(rows["otherwise"] != "", "`" + rows["other"] + "`"), otherwise=rows["otherwise"].replace("", "–"),
        correlation=cells(rows, 3, value="correlation") + " (" + texts(rows["worst"], 3) + ")",
        energy=texts(rows["energy"]) + " / " + texts(rows["energy_other"]),
    ).sort_values("otherwise", key=lambda of: of != "–", kind="stable")  # fmt: skip
    head = ["form", "beside", "what differs", "correlation of the maps (worst)", "energy in the box", "n", "network"]
    lines = rows[["form", "other", "otherwise", "correlation", "energy", "n", "network"]].to_numpy()
    caption = f"{network_of(rows)}, ImageNet validation images; value [95 % interval]"
    return list_table(head, lines, caption, kind="prose", widths="14 17 24 18 12 5 10")


def budget(rows):
    """Way x number of passes: correlation with the exact map; then what the greedy choice promises, and what it costs; all networks."""
    where = f"{network_of(rows)}, {rows['n'].max()} images"
    each = [_budget(own) for _, own in rows.groupby("backbone", sort=False)]
    captions = ("Correlation with the exact map, mean (worst)",
                "What the greedy choice promises, and the difference from the exact map, paired [95 % interval]")  # fmt: skip
    return "\n".join(
        grid(wide, ["way", *wide.columns], f"{caption}; {where}", str)
        for caption, wide in zip(captions, map(pd.concat, zip(*each, strict=True)), strict=True)
    )


def _budget(rows):
    """The two tables of one network, each line beginning with its name."""
    passes = keys(rows[rows["way"].str.startswith("predicted") & (rows["m"] != "")], "m")
    found = rows[(rows["metric"] == "correlation") & (rows["way"] != "exact") & ~rows["way"].str.contains("until")]
    wide = pivot(found.assign(cell=texts(found["value"], 3) + " (" + texts(found["worst"], 3) + ")"), "way", "m", np.nan)
    wide = wide[passes].apply(lambda column: column.fillna(wide["0"])).fillna("–")  # equal weights need no pass of their own

    ways = keys(rows[rows["metric"] == "promised"], ["way", "m"])
    promised = rows.set_index(["way", "m"]).loc[ways]
    spent, correlation, reached, off = (promised.loc[promised["metric"] == metric, "value"] for metric in KEPT)
    kept = [texts(spent, 0), texts(correlation, 3), texts(100 * reached, 0, " %"), texts(off, 3)]
    promises = ("passes", "correlation", "images at .99 or above", "promise off by")
    kept = pd.DataFrame({head: of.to_numpy() for head, of in zip(promises, kept, strict=True)}, pd.MultiIndex.from_tuples(ways))

    measured = keys(rows[rows["difference"].notna()], ["metric", "setting"])
    exact = rows["way"] == "exact"
    rows = rows.assign(cell=np.where(exact, texts(rows["value"]), cells(rows, sign="+", value="difference")))
    cost = pivot(rows, ["way", "m"], ["metric", "setting"])[measured].loc[[*ways, ("equal weights", "0"), *keys(rows[exact], ["way", "m"])]]
    cost.columns = [*map(measure, measured)]
    cost = kept.reindex(cost.index).fillna("–").join(cost)
    network = name(rows["backbone"].iloc[0])
    return [own.set_axis([f"{network}: {_way(key)}" for key in own.index]) for own in (wide, cost)]


KEPT = ("passes", "correlation", "reaches", "promise_off")


def _way(key):
    if isinstance(key, str):
        return key
    way, m = key
    return {"exact": "exact, its value", "equal weights": way}.get(way, f"{way}, {m}" if m else way)


COMPARED = {
    "literal − Grad-CAM": ("increment_cam", "grad_cam"),
    "tuned − Grad-CAM": ("increment_cam_tuned", "grad_cam"),
    "tuned − Grad-CAM, tuned": ("increment_cam_tuned", "grad_cam_tuned"),
    "tuned − tuned, weights equal": ("increment_cam_tuned", "increment_cam_tuned, weights equal"),
}


def readings(rows):
    """Every data set and network of the Increment-CAM study in one line a metric: the differences that its claims rest on."""
    lines = []
    for (dataset, backbone), own in rows[rows["role"] == "difference"].groupby(["dataset", "backbone"], sort=False):
        where = f"{name(dataset)}, {name(backbone)}"
        found = own.assign(cell=cells(own, sign="+")).set_index(["metric", "setting", "method", "than"])
        for measured in (("pixel_precision", ""), ("maximum_in_box", ""), ("false_activation", "20%")):
            wanted = found.reindex([(*measured, *pair) for pair in COMPARED.values()])
            lines.append([where, measure(measured), cell(wanted["n"].bfill().iloc[0], digits=0), *wanted["cell"].fillna("–")])
    head = ["data, network", "measure", "n", *COMPARED]
    return list_table(head, lines, "Paired differences on images that chose nothing [95 % interval]")


def by_share(rows):
    """Average Drop and Increase in Confidence at each share of the map that is shown, and the mean of the map, network by network."""
    shares = rows.loc[rows["metric"] == "average_drop", "setting"].unique()
    columns = [(metric, share) for metric in ("average_drop", "increase_in_confidence") for share in shares] + [("map_mean", "100%")]
    each = [
        controls_below(pivot(own, "method", ["metric", "setting"])).reindex(columns=columns, fill_value="–").assign(network=name(backbone))
        for backbone, own in rows.assign(cell=cells(rows)).groupby("backbone", sort=False)
    ]
    caption = f"{network_of(rows)}, {rows['n'].iloc[0]:.0f} ImageNet validation images; value [95 % interval]"
    return grid(pd.concat(each), ["method", *map(measure, columns), "network"], caption)


def calibration(rows):
    """A method's cue localization in every way its map can be brought into [0, 1] and read, and how far that moves it; each data set."""
    rows = rows.assign(where=rows["dataset"].map(name) + ", " + rows["backbone"].map(name))
    usual, of = rows[rows["variant"] == "zeros kept"], ["where", "network", "method"]
    wide = pivot(usual.assign(cell=cells(usual)), of, ["thresholds", "calibration"])
    ways = [f"{calibration}, {thresholds}".replace("_", "-") for thresholds, calibration in wide.columns]
    for some in (usual, rows):
        wide[len(wide.columns)] = some.groupby(of)["value"].agg(np.ptp).map(cell)
    lines = [[where, *map(name, key), *found] for (where, *key), found in zip(wide.index, wide.to_numpy(), strict=True)]
    told = []
    for where, own in rows.groupby("where", sort=False):
        reached = own.drop_duplicates("network").set_index("network")["accuracy"]
        accuracy = ", ".join(f"{name(key)} {cell(value)}" for key, value in reached.items())
        told.append(f"{where}: {own['pairs'].iloc[0]} pairs of classes, {own['n'].iloc[0]} images, accuracy in %: {accuracy}")
    caption = f"Pixel AP, zeros kept; value [95 % interval]. {'. '.join(told)}"
    return list_table(["data, network", "trained as", "map", *ways, "moves by", "with the other variants"], lines, caption)


def coverage(rows):
    """How often the 95 % intervals held the truth, case by number of images; what lies outside 93 to 97 % stands out."""
    held = [f"{cell(value)}" if 93 <= value <= 97 else f"**{cell(value)}**" for value in rows["coverage"]]
    wide, first = pivot(rows.assign(cell=held), "case", "n"), rows.iloc[0]
    caption = f"Intervals that held the truth, in %, of {first['repetitions']} each, {first['resamples']} resamples; bold: outside 93 to 97"
    return grid(wide, ["case", *(f"n = {n}" for n in wide.columns)], caption)


KINDS = {
    "published_gap": by_share, "increment_cam": readings, "forms": forms, "score_cam_budget": budget, "calibration": calibration,
    "coverage": coverage, **races.KINDS,
}  # fmt: skip
