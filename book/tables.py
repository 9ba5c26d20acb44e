"""Tables of the book, made from the metrics.csv and differences.csv of runs, published.yaml and claims.yaml."""

import csv
import itertools
import operator
import statistics
from collections import Counter
from pathlib import Path

import yaml
from scipy import stats

NAMES = {
    "lfi_cam_1x1": "LFI-CAM with a 1×1 importance network",
    "lfi_cam": "LFI-CAM",
    "l_cam": "L-CAM",
    "l_cam_fm": "L-CAM-Fm",
    "l_cam_img": "L-CAM-Img",
    "l_cam_fm*": "L-CAM-Fm, CE only",
    "l_cam_img*": "L-CAM-Img, CE only",
    "calm": "CALM",
    "calm_em": "CALM-EM",
    "calm_ml": "CALM-ML",
    "abn": "ABN",
    "lfi_cam[uniform]": "LFI-CAM, equal weights",
    "lfi_cam[learned]": "LFI-CAM, one learned map",
    "lfi_cam[kernel=1]": "LFI-CAM, 1×1 importance network",
    "plain[widened]": "plain network, widened",
    "ablations": "with parts changed",
    "e36": "36 epochs",
    "calm_ml[probabilities]": "CALM-ML, in probabilities",
    "calm_em[lag=100]": "CALM-EM, posterior up to 100 updates old",
    "increment_cam": "Increment-CAM",
    "increment_cam_tuned": "Increment-CAM, tuned reading",
    "increment_cam_tuned, weights permuted": "the same, weights permuted",
    "increment_cam_tuned, weights equal": "the same, weights equal",
    "increment_cam[mid]": "Increment-CAM at 112 pixels",
    "increment_cam[channels]": "Increment-CAM, channel merge",
    "phase 2 alone": "its second phase alone",
    "grad_cam_tuned": "Grad-CAM, tuned",
    "grad_cam_tuned[power=2]": "Grad-CAM, tuned, squared",
    "pixel_precision": "pixel AP in the box\N{NO-BREAK SPACE}↑",
    "false_activation": "false activation\N{NO-BREAK SPACE}↓",
    "maximum_in_box": "maximum in the box\N{NO-BREAK SPACE}↑",
    "box_iou": "box IoU\N{NO-BREAK SPACE}↑",
    "xgrad_cam": "XGrad-CAM",
    "eigen_cam": "Eigen-CAM",
    "all_ones": "all ones",
    "fake_cam": "Fake-CAM",
    "edges": "edges",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "grad_cam_pp[l_cam]": "Grad-CAM++ as in L-CAM's tables",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "guided_backprop": "guided backprop",
    "score_cam": "Score-CAM",
    "rise": "RISE",
    "plain": "plain network",
    "grad_cam[no relu]": "Grad-CAM without ReLU",
    "grad_cam[power=2]": "Grad-CAM, squared",
    "grad_cam[power=0.5]": "Grad-CAM, square root",
    "random_map": "random map",
    "random_l_cam": "untrained L-CAM",
    "other_l_cam_fm": "L-CAM-Fm, map of another class",
    "other_l_cam_img": "L-CAM-Img, map of another class",
    "follows_cue": "follows the cue ↑",
    "keeps_class": "keeps its answer ↑",
    "empty_maps": "empty maps",
    "center_gaussian": "centre Gaussian",
    "mean_activation": "mean activation",
    "average_drop": "Average Drop\N{NO-BREAK SPACE}↓",
    "increase_in_confidence": "Increase in Confidence\N{NO-BREAK SPACE}↑",
    "map_mean": "mean of the map",
    "energy_pointing_game": "energy in the box\N{NO-BREAK SPACE}↑",
    "pointing_game": "pointing game\N{NO-BREAK SPACE}↑",
    "max_box_acc": "MaxBoxAcc\N{NO-BREAK SPACE}↑",
    "max_box_acc_v2": "MaxBoxAccV2\N{NO-BREAK SPACE}↑",
    "cue_localization": "cue localization\N{NO-BREAK SPACE}↑",
    "cue_localization_box": "cue localization, cut at the box\N{NO-BREAK SPACE}↑",
    "average_gain": "Average Gain\N{NO-BREAK SPACE}↑",
    "remove_and_classify": "R, remove-and-classify\N{NO-BREAK SPACE}↓",
    "correct_after_removal": "right after removal\N{NO-BREAK SPACE}↓",
    "correct_after_random_removal": "right after random removal",
    "stability_iou": "IoU of two trainings\N{NO-BREAK SPACE}↑",
    "stability_iou_script": "IoU by LFI-CAM's script\N{NO-BREAK SPACE}↑",
    "stability_iou_area": "IoU of the top fifth\N{NO-BREAK SPACE}↑",
    "stability_correlation": "correlation\N{NO-BREAK SPACE}↑",
    "effective_channels": "effective channels",
    "accuracy": "accuracy\N{NO-BREAK SPACE}↑",
    "mean_average_precision": "mean AP\N{NO-BREAK SPACE}↑",
    "drawn_imagenet": "drawn objects (ImageNet layout)",
    "drawn_voc": "drawn scenes (VOC layout)",
    "drawn_cub": "drawn birds (CUB layout)",
    "imagenet": "ImageNet validation",
    "voc07": "VOC2007 test",
    "cub": "CUB-200-2011 test",
    "cifar10": "CIFAR-10 (subset)",
    "cat_dog": "cats and dogs",
    "forms": "forms of one method",
    "shortcut": "a planted mark",
    "lfi_features": "features of LFI-CAM's backbone",
    "em_ml": "EM beside ML",
    "scratch": "trainings from scratch",
    "l_cam_recipe": "how the recipe was chosen",
    "img": "L-CAM-Img",
    "l_cam_epochs": "L-CAM-Fm over other numbers of epochs",
    "training": "speed of the learned models",
    "score_cam[until=0.99]": "Score-CAM until .99 is promised",
    "score_cam[budget=32]": "Score-CAM within 32 passes",
    "methods": "speed of the methods",
    "score_cam_budget": "Score-CAM within a budget",
    "trust": "which metrics can be trusted",
    "calibration": "calibration of cue localization",
    "coverage": "coverage of the intervals",
    "equal_mean": "Average Drop at equal mean",
    "cue_mask": "the cue's mask",
    "cue_mask_coarse": "the mask on the map's grid",
    "cue_mask_coarse[power=2]": "the same, squared",
    "cue_mask_coarse[power=0.5]": "the same, square root",
    "cue_mask_inverse": "the inverse",
    "calm_em[place]": "CALM-EM, place alone",
    "calm_ml[place]": "CALM-ML, place alone",
    "calm_em[family]": "CALM-EM, sum over the family",
    "calm_ml[family]": "CALM-ML, sum over the family",
    "calm_em, posterior": "CALM-EM, posterior",
    "calm_ml, posterior": "CALM-ML, posterior",
    "win": "Win %\N{NO-BREAK SPACE}↑",
    "insertion": "insertion\N{NO-BREAK SPACE}↑",
    "deletion": "deletion\N{NO-BREAK SPACE}↓",
    "tied_pixels": "tied pixels",
    "road_morf": "ROAD, most salient first\N{NO-BREAK SPACE}↓",
    "road_lerf": "ROAD, least salient first\N{NO-BREAK SPACE}↑",
    "road_combined": "ROAD, combined\N{NO-BREAK SPACE}↑",
    "adcc": "ADCC\N{NO-BREAK SPACE}↑",
    "coherency": "coherency\N{NO-BREAK SPACE}↑",
    "complexity": "complexity\N{NO-BREAK SPACE}↓",
    "sensitivity_n": "sensitivity-n\N{NO-BREAK SPACE}↑",
    "infidelity": "infidelity\N{NO-BREAK SPACE}↓",
    "max_sensitivity": "max-sensitivity\N{NO-BREAK SPACE}↓",
    "localization_error": "localization error\N{NO-BREAK SPACE}↓",
    "pxap": "PxAP\N{NO-BREAK SPACE}↑",
    "resnet50": "ResNet-50",
    "resnet110_bottleneck": "ResNet-110 with bottlenecks",
    "densenet100_12": "DenseNet-BC-100-12",
    "resnext29_8x64d": "ResNeXt-29 8×64d",
    "resnet8": "ResNet-8",
    "resnet14": "ResNet-14",
    "resnet20": "ResNet-20",
    "resnet18": "ResNet-18",
    "squeezenet1_1": "SqueezeNet 1.1",
    "vgg16": "VGG-16",
    "mobilenet_v2": "MobileNetV2",
}
CONTROLS = (
    "random_map", "center_gaussian", "mean_activation", "random_l_cam", "other_l_cam_fm", "other_l_cam_img", "all_ones", "fake_cam",
    "edges",
)  # fmt: skip
PAPERS = ("increment_cam", "l_cam", "lfi_cam", "calm")


def name(word):
    """The printed form of an identifier; an unknown one is shown as it is."""
    return NAMES.get(word, word)


def is_control(method):
    """Maps that explain nothing, and Grad-CAM raised to a power."""
    return method in CONTROLS or "[power=" in method


def read(folder, profile, file="metrics.csv"):
    """Rows of every complete run of a profile (text as in the file; `run` and `profile` added), in the order of their folders."""
    rows = []
    for path in sorted((Path(folder) / profile).glob(f"*/*/{file}")):
        finished = not {".part", ".failed", ".old"} & set(path.parent.suffixes)
        if finished and (path.parent / "provenance.json").exists():
            with path.open(newline="", encoding="utf-8") as source:
                rows += [{**row, "run": path.parent.name, "profile": profile} for row in csv.DictReader(source)]
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
    digits = {metric: _digits([row for row in rows if row["metric"] == metric]) for _, metric, _ in columns}
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
    digits = {metric: _digits([r for r in rows if r["metric"] == metric]) for metric, _ in columns} | {"empty_maps": 0}
    lines = []
    for method in methods:
        own = [[cells.get((run, method, *column)) for run in runs] for column in columns]
        usual = Counter(cell["n"] for found in own for cell in found if cell).most_common(1)[0][0]
        values = [_cell(found, digits[metric], usual) for found, (metric, _) in zip(own, columns, strict=True)]
        lines.append([("control: " if is_control(method) else "") + name(method), *values, _count(usual)])
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
        return " · ".join("not run" if cell is None else _value(cell, digits, usual) for cell in found)
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


def _digits(rows):
    """One for percentages, three for what lies between -1 and 1."""
    return 1 if any(abs(float(row["value"])) > 1 for row in rows) else 3


def _value(cell, digits=1, usual=None):
    text = f"{float(cell['value']):.{digits}f}"
    if cell["ci_low"] and cell["ci_high"]:
        text += f" [{float(cell['ci_low']):.{digits}f},\N{NO-BREAK SPACE}{float(cell['ci_high']):.{digits}f}]"
    said = usual in (None, cell["n"]) or cell["setting"].endswith(f"first {int(float(cell['n']))}")
    return text if said else f"{text} (n {_count(cell['n'])})"


def _count(n):
    return f"{int(float(n)):,}"


def list_table(head, rows, caption="", kind="numbers", widths=""):
    """A MyST list-table; every row has as many cells as the head, a cell that is a list becomes one."""
    lines = [f":::{{list-table}} {caption}".rstrip(), ":header-rows: 1", *([f":widths: {widths}"] if widths else []), f":class: {kind}", ""]
    for row in [head, *rows]:
        for i, cell in enumerate(row):
            entries = cell if isinstance(cell, list) else [cell]
            marks = ["- " if isinstance(cell, list) else ""] * len(entries)
            begin = ["* - " if i == 0 else "  - "] + ["    "] * (len(entries) - 1)
            lines += [b + m + str(e).replace("\n", " ") for b, m, e in zip(begin, marks, entries, strict=True)]
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


def claims(entries, rows, differences=()):
    """The claims of the papers, each with what the runs at hand say to it: by their paired ``differences`` where a run has them."""
    parts = []
    for paper, group in itertools.groupby(sorted(entries, key=lambda e: PAPERS.index(e["paper"])), lambda e: e["paper"]):
        parts.append(f"## {name(paper)}\n")
        lines = [[e["statement"], e["source"], _evidence(e, rows, differences)] for e in group]
        parts.append(list_table(["statement", "where it stands", "here"], lines, kind="prose", widths="24 18 58"))
    return "\n".join(parts)


SAME = ("paper", "run", "profile", "metric", "setting", "protocol")  # what two rows share that may be compared
TRAINED = ("paper", "profile", "metric", "setting", "protocol", "dataset", "split", "backbone", "weights", "recipe")  # all but the seed


def _evidence(entry, rows, differences):
    if "seen" in entry:
        return f"see {entry['seen']}"
    if "check" not in entry:
        return f"{entry['status']}: needs runs that are not part of this book yet"
    check = entry["check"]
    metrics = (check["metric"], check["metric"] + "_box")
    wanted = [row for row in rows if row["metric"] in metrics]
    wanted = [row for row in wanted if check.get("setting") in (None, row["setting"]) and " first " not in f" {row['setting']} "]
    pairs = {(*(d[k] for k in SAME), d["method"], d["than"]): d for d in differences if d["metric"] in metrics}
    trials = {}
    for own in (row for row in wanted if row["method"] == check["method"]):
        others = [r for r in wanted if r["method"] == check["than"] and all(r[k] == own[k] for k in SAME)]
        paired = pairs.get((*(own[k] for k in SAME), check["method"], check["than"]))
        for other in others:
            trials.setdefault((*(own[k] for k in TRAINED), other["weights"]), []).append((own, other, paired))
    found = [_compare(check, seeds) for seeds in trials.values()]
    said = [f"Read beside it: {entry['beside']}"] if found and "beside" in entry else []
    return [*found, *said] or "not run"


def _compare(check, seeds):
    """What one configuration says, whose ``seeds`` are (the method's row, the other's, their paired difference or None)."""
    own, *_ = seeds[0]
    notes = [own["profile"], *(["stand-in"] if "pqf" in own["weights"] else []), *(["box"] if own["metric"].endswith("_box") else [])]
    what = f", {own['setting']}" if own["setting"] and "setting" not in check else ""
    where = f"{name(own['dataset'])}, {name(own['backbone'])}{what} ({', '.join(notes)})"
    digits = _digits([row for seed in seeds for row in seed[:2]])
    if len(seeds) == 1:
        return f"**{_verdict(check, *seeds[0])}** on {where}: {_against(*seeds[0], digits)}"
    differences = [float(paired["value"]) if paired else float(own["value"]) - float(other["value"]) for own, other, paired in seeds]
    said = [_verdict(check, *seed) for seed in seeds]
    head = f"**{_over_all_seeds(check, said, differences)}** on {where}, {len(seeds)} seeds"
    if mean := over_seeds(differences, digits, "+"):
        counted = ", ".join(f"{one} under {count}" for one, count in Counter(said).most_common())
        return f"{head}: mean difference {mean}, the interval over the seeds. By the images of one seed: {counted}"
    each = [f" ({one})" if len(set(said)) > 1 else "" for one in said]
    listed = " · ".join(_short(*seed, digits) + one for seed, one in zip(seeds, each, strict=True))
    return f"{head}, n {_count(own['n'])}, differences {listed}"


def _short(own, other, paired, digits):
    """A seed's paired difference, or the two values where a run has none."""
    return number(paired, sign=True, digits=digits) if paired else f"{_value(own, digits)} against {_value(other, digits)}"


def _against(own, other, paired, digits):
    n = "" if own["n"] == other["n"] else f" (n {_count(own['n'])} and {_count(other['n'])})"
    told = _difference(paired, digits) if paired else "intervals of each alone, no paired difference"
    return f"{_value(own, digits)} against {_value(other, digits)}{n}; {told}"


def _verdict(check, own, other, paired):
    sign, margin = 1 if check["direction"] == "higher" else -1, check.get("margin")
    return _paired_verdict(sign, paired, margin) if paired else _marginal_verdict(sign, own, other, margin)


def _over_all_seeds(check, said, differences):
    """By the interval over the seeds where there are enough of them; else what all of them ``said``, each by its own images."""
    interval = seed_interval(differences)
    if interval is None:
        return said[0] if len(set(said)) == 1 else "not decided"
    return _by_interval(1 if check["direction"] == "higher" else -1, *interval, check.get("margin", 0))


FEW = 30  # images: the intervals of fewer are too narrow to be judged by alone


def _paired_verdict(sign, paired, margin=None):
    """The claim by the interval of its paired difference and by the corrected p, both of which must decide.

    With a margin: not worse by more than that (non-inferiority, one-sided 2.5 %), by the interval alone, which
    then must come of `FEW` images or more.
    """
    few = margin is not None and float(paired["n"]) < FEW
    if few or (margin is None and (paired["same_as"] or float(paired["p_holm"]) > 0.05)):
        return "not decided"
    return _by_interval(sign, float(paired["ci_low"]), float(paired["ci_high"]), margin or 0)


def _by_interval(sign, low, high, margin):
    """Whether all of the difference's interval lies on the claim's side of a loss of ``margin``."""
    worst, best = sorted((sign * low, sign * high))
    return "holds" if worst > -margin else "does not hold" if best < -margin else "not decided"


def _marginal_verdict(sign, own, other, margin=None):
    """The claim by the order of two values whose own intervals lie apart; one with a margin is not judged so."""
    if margin is not None:
        return "not judged"
    holds = sign * (float(own["value"]) - float(other["value"])) > 0
    known = all(row[bound] for row in (own, other) for bound in ("ci_low", "ci_high"))
    apart = known and (float(own["ci_low"]) > float(other["ci_high"]) or float(own["ci_high"]) < float(other["ci_low"]))
    return ("holds" if holds else "does not hold") if apart else "not decided"


def _difference(paired, digits=1):
    """A paired difference with its interval and corrected p, in words."""
    told = f"difference {number(paired, sign=True, digits=digits)}, n {_count(paired['n'])}"
    if paired["same_as"]:
        return f"{told}; the same map as {name(paired['same_as'])}, counted once"
    p = float(paired["p_holm"])
    return f"{told}, corrected p {f'{p:.2g}' if p >= 0.001 else 'below 0.001'}"


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
