"""Tables of the studies of learned models: a file of results/studies each."""

import pandas as pd
from cells import by_seed, cells, grid, keys, list_table, pivot, texts, told_seeds
from names import measure, name


def recipe(rows):
    """Every try of the choice of L-CAM's recipe, beside maps that learn nothing."""
    asked = pd.DataFrame([("average_drop", "50%"), ("average_drop", "100%"), ("map_mean", "100%")], columns=["metric", "setting"])
    columns = keys(rows[["backbone"]].drop_duplicates().merge(asked, "cross"), ["backbone", "metric", "setting"])
    wide = pivot(rows.assign(cell=texts(rows["value"])), "method", columns.names).reindex(columns=columns, fill_value="–")
    head = ["masks, rate", *(f"{name(backbone)}: {measure(of)}" for backbone, *of in columns)]
    first = rows.iloc[0]
    told = f"{first['n']} held-out images, {name('l_cam_' + (first['variant'] or 'fm'))}, {first['epochs']} epochs"
    return grid(wide, head, f"{told}; intervals left out, about ±8 for Average Drop")


def shortcut(rows):
    """What the network does with the mark, and how much of each map lies on it."""
    first, told = rows.iloc[0], told_seeds(rows["seed"].nunique())
    found = by_seed(rows, ["method", "metric", "trained", "shown"])
    called = [("accuracy", "without"), ("called_so", "with"), ("called_so", "without")]
    wide = pivot(found[found["method"] == "plain"], "trained", ["metric", "shown"]).reindex(["with", "without"])[called]
    head = ["network", "accuracy, other classes", f"twins called “{first['label']}”, mark shown", "mark not shown"]
    caption = f"{name(first['backbone'])}, drawn objects; the mark goes with “{first['label']}”; {told}"
    parts = [grid(wide, head, caption, lambda trained: f"trained {trained} the mark")]
    asked = [("with", "with"), ("without", "with"), ("difference", "with"), ("with", "without"), ("without", "without")]
    head = ["map", "learned the mark, sees it", "never learned it, sees it", "difference", "learned it, not shown", "never, not shown"]
    for metric, title in (("energy_pointing_game", "Share of the map on the mark"), ("maximum_in_box", "Maximum of the map on the mark")):
        wide = pivot(found[found["metric"] == metric], "method", ["trained", "shown"]).reindex(columns=asked, fill_value="–")
        parts.append(grid(wide, head, f"{title}, %; test images of the twins, explained for “{first['label']}”; {told}"))
    return "\n".join(parts)


HEADS = {"own": "its own head, attention out", "probe": "linear probe", "attended": "as trained, attention in"}
PLACED = pd.MultiIndex.from_product([("energy_pointing_game", "pixel_precision"), ("cam", "grad_cam", "mean_activation")])
ACCURACY = ("accuracy", "network")


def lfi_features(rows):
    """Accuracy under each head; localization under the own head and under the probe; differences to the plain trunk."""
    first, told = rows.iloc[0], told_seeds(rows["seed"].nunique())
    where = f"{name(first['backbone'])}, {name(first['dataset'])}"
    places = [f"{name(method)}: {name(metric)}" for metric, method in PLACED]
    found = by_seed(rows, ["trunk", "than", "head", "metric", "method"])
    trunks = keys(rows[rows["than"] == ""], "trunk")

    def wide(of, index, columns):
        return pivot(of, index, ["metric", "method"]).reindex(columns=columns, fill_value="–")

    own = found[found["than"] == ""]
    accuracy = pivot(own[own["metric"] == "accuracy"], "trunk", "head").reindex(index=trunks, columns=list(HEADS), fill_value="–")
    parts = [grid(accuracy, ["trunk of", *HEADS.values()], f"Accuracy, %; {where}; {told}", name)]
    bump = rows[(rows["than"] == "") & (rows["method"] == "center_gaussian")].drop_duplicates("metric")
    control = "; ".join(name(metric) + " " + text for metric, text in zip(bump["metric"], cells(bump), strict=True))
    for head, title in HEADS.items():
        caption = f"{title}; {told}" + (f"; control, a centre Gaussian: {control}" if control else "")
        parts.append(grid(wide(own[own["head"] == head], "trunk", PLACED), ["trunk of", *places], caption, name))
    differences = wide(found[found["than"] == "plain"], ["trunk", "head"], [ACCURACY, *PLACED])
    differences = differences.reindex([key for key in ((trunk, head) for trunk in trunks for head in HEADS) if key in differences.index])
    head = ["difference", name("accuracy"), *places]
    parts.append(grid(differences, head, f"Paired, on the same images; {told}", lambda key: f"{name(key[0])} − plain, {HEADS[key[1]]}"))
    return "\n".join(parts)


def em_ml(rows):
    """How far each way goes from ML's weights, and the spread over seeds."""
    first, part = rows.iloc[0], dict(iter(rows.groupby("part")))
    steps, ends, spread = part["steps"], part["end"], part["spread"]
    wide = pivot(steps.assign(cell=[f"{value:.0e}" for value in steps["value"]]), "way", "update")
    head = ["training", *(f"after {update:.0f} updates" for update in wide.columns), "accuracy in the end", "−log p(y|x) in the end"]
    for metric, digits in (("accuracy", 1), ("nll", 4)):
        own = ends[ends["metric"] == metric].set_index("way")["value"]
        wide[metric] = texts(own, digits).reindex(wide.index, fill_value="–")
    where = f"{name(first['backbone'])}, {first['images']} drawn objects, {first['epochs']} epochs, {first['tested']} test images"
    parts = [grid(wide, head, f"Relative distance of the weights from ML's; {where}", str)]
    lines = {way: [" − ".join(map(name, way.split(" minus ")))] for way in keys(spread, "way")}
    for metric, digits in (("accuracy", 1), ("nll", 3)):
        own = spread[spread["metric"] == metric].set_index("way")
        ends = texts(own["least"], digits) + " to " + texts(own["most"], digits)
        for way, *found in zip(own.index, cells(own, digits), texts(own["deviation"], digits), ends, strict=True):
            lines[way] += found
    head = ["training", "accuracy, mean", "standard deviation", "least to most", "−log p(y|x), mean", "standard deviation", "least to most"]
    caption = f"{spread['n'].iloc[0]:.0f} seeds; mean over the seeds [95 % interval]; {where}"
    return "\n".join([*parts, list_table(head, lines.values(), caption)])


DIGITS = {"accuracy": 1, "effective_channels": 1, "empty_maps": 0}


def scratch(rows):
    """Accuracy of every planned training, and how alike the maps of two trainings are."""
    from training.recipes import SETTINGS

    first, planned = rows.iloc[0], rows[rows["role"] == "training"]
    settings = [f"learning rate {of.lr:g}, batch {of.batch}, weight decay {of.weight_decay:g}" for of in SETTINGS.get(first["dataset"], ())]
    found = texts(planned["value"], planned["metric"].map(DIGITS).fillna(0).astype(int)).where(planned["value"].notna(), planned["state"])
    wide = pivot(planned.assign(cell=found), ["model", "metric"], ["setting", "seed"])
    numbers = keys(planned[(planned["metric"] != "empty_maps") | (planned["value"].fillna(0) != 0)], ["model", "metric"])
    wide = wide.loc[[(model, metric) for metric in DIGITS for model, of in numbers if of == metric]]
    where = f"{name(first['dataset'])}, {name(first['backbone'])}, {first['epochs']} epochs"
    titles = [f"{name(model)}: {name(metric)}" for model, metric in wide.index]
    one, *others = (int(float(setting)) for setting in wide.columns.unique("setting"))
    if others:
        lines = grid(wide.T, ["training", *titles], where, lambda way: f"{settings[int(float(way[0]))]}; seed {way[1]:.0f}")
    else:  # seeds side by side, however many models and numbers there are
        wide.index = titles
        where += f"; {settings[one]}" if settings else ""
        lines = grid(wide, ["network", *(f"seed {seed:.0f}" for _, seed in wide.columns)], where, str)
    parts, means = [lines], rows[rows["role"] == "mean"]
    for what, told in (("setting", "Trainings under two settings"), ("seed", "Trainings from two seeds")):
        if len(planned[what].unique()) > 1:
            own = means[(means["differs"] == f"{what}s") & ~means["metric"].str.contains("dice")]  # the IoU says as much
            parts.append(_alike(own, told, first["images"]) if len(own) else f"*{told}: not run yet.*\n")
    measured = set(means["metric"])
    if "stability_iou_script" in measured and "stability_dice_script" not in measured:  # tables of the whole script have both
        told = "the maps are neither written as 8-bit pictures nor stretched a second time"
        parts.append(f"The IoU by LFI-CAM's script has an earlier form here, until these trainings are run again: {told}.\n")
    return "\n".join(parts)


def _alike(rows, told, images):
    """How alike the maps of two trainings are, beside the maps of different images."""
    pair, shuffled = (rows[rows["of"] == of].set_index(["method", "metric"]) for of in ("pair", "shuffled"))
    digits = [2 if metric == "stability_correlation" else 1 for _, metric in pair.index]
    value, other, least, most = (texts(of, digits) for of in (pair["value"], shuffled["value"], pair["least"], pair["most"]))
    alone, ranges = value + " (" + other + ")", least + " to " + most
    found = [(text, of) if n > 1 else text for text, of, n in zip(alone, ranges, pair["n"], strict=True)]
    wide = pivot(pair.assign(cell=found).reset_index(), "method", "metric")
    head = ["map", *map(name, wide.columns), "pairs"]
    each = pair.reset_index().drop_duplicates("method")
    wide["pairs"] = [f"{n:.0f} of {planned:.0f}" for n, planned in zip(each["n"], each["planned"], strict=True)]
    ranges = ", beneath it least to most over the pairs" if pair["n"].max() > 1 else ""
    caption = f"{told}: mean over the pairs (maps of different images){ranges}; {images} test images"
    return grid(wide, head, caption, lambda method: ": ".join(map(name, method.split(": "))))


PARTS = {"plain": "network", "fin_3x3": "importance network, 3×3", "fin_1x1": "importance network, 1×1", "abn_branch": "ABN's branch"}


def parameters(rows):
    """Parameters of each network and of what joins it, in millions."""
    wide = pivot(rows.assign(cell=texts(rows["value"] / 1e6, 2)), ["backbone", "classes"], "part")[list(PARTS)]
    caption = "Parameters, millions; without the network that they join"
    return grid(wide, ["network", *PARTS.values()], caption, lambda key: f"{name(key[0])}, {key[1]} classes")


KINDS = {
    "parameters": parameters, "l_cam_recipe": recipe, "shortcut": shortcut, "lfi_features": lfi_features, "em_ml": em_ml,
    "scratch": scratch,
}  # fmt: skip
