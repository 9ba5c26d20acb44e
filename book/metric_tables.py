"""Tables of the studies of metrics: where known maps land, calibration, coverage, equal mean."""

from cells import list_table
from names import name
from tables import number

from cam_core.methods.control import is_control

LOCALIZATION = ("energy", "pointing", "wsol", "cue")


def trust(rows):
    """Where maps that are known to be right or wrong land under each metric, and which of them beat the cue's mask."""
    facts = {(row["network"], row["metric"]): row for row in rows if row["method"] == "network"}
    shown = [row for row in rows if row["method"] != "network"]
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
        ahead = {one for one, row in own.items() if row["against_cue"] == "better" and texts[one] != texts["cue_mask"]}
        told = {one: (f"**{text}**" if text == best else text) + (" +" if one in ahead else "") for one, text in texts.items()}
        form = setting.replace("score_cam", "in Score-CAM's form")
        lines.append([f"{name(metric)} {form}".strip(), *(told.get(one, "–") for one in maps)])
    return list_table(
        ["metric", *map(name, maps)], lines, f"{caption}. Bold: the best; +: better than the mask by the paired 95 % interval"
    )


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
        lines.append([name(network), name(method), *map(number, own), f"{span:.1f}", f"{max(everything) - min(everything):.1f}"])
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
    lines = [[("control: " if is_control(b) else "") + name(b), *(number(cells.get((b, *column))) for column in columns)] for b in bases]
    head = ["method", *(f"{name(metric)} {f'at mean {mean}' if mean else 'as it is'}" for metric, mean in columns)]
    first = rows[0]
    return list_table(head, lines, f"{name(first['backbone'])} (`{first['weights']}`), {int(float(first['n']))} ImageNet validation images")


def randomization(rows):
    """Rank correlation with the intact network's map after each block; below it every measure once all is lost."""
    methods = sorted(dict.fromkeys(row["method"] for row in rows), key=is_control)
    blocks = {int(row["depth"]): row["block"] for row in rows if row["depth"] != "0"}
    last, seeds = max(blocks), len({row["seed"] for row in rows})

    def cell(method, measure, depth):
        found = [row for row in rows if (row["method"], row["measure"], int(row["depth"])) == (method, measure, depth)]
        values, empty = [float(row["value"]) for row in found], sum(int(float(row["empty"])) for row in found)
        return f"{sum(values) / len(values):.2f}" + (f" ({empty} empty)" if empty else "")

    def lines(columns):
        return [[("control: " if is_control(m) else "") + name(m), *(cell(m, *column) for column in columns)] for m in methods]

    first = rows[0]
    told = f"{name(first['backbone'])} (`{first['weights']}`), {first['n']} ImageNet validation images, mean over {seeds} seeds"
    ranks = list_table(
        ["map", *(f"{block} lost" for block in blocks.values())],
        lines([("spearman", depth) for depth in blocks]),
        f"Rank correlation with the map of the intact network, blocks lost one after another; {told}",
    )
    measures = {
        "spearman": "rank correlation",
        "spearman_absolute": "of absolute values",
        "ssim": "SSIM",
        "spearman_hog": "of HOG descriptors",
    }
    return (
        ranks
        + "\n"
        + list_table(
            ["map", *measures.values()], lines([(measure, last) for measure in measures]), f"All measures when everything is lost; {told}"
        )
    )


KINDS = {"randomization": randomization, "trust": trust, "calibration": calibration, "coverage": coverage, "equal_mean": equal_mean}
