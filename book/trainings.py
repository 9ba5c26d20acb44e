"""Tables of the studies of learned models."""

from cells import list_table, over_seeds, told_seeds
from names import name
from tables import number

from cam_core.methods.control import is_control


def recipe(rows):
    """Every try of the choice of L-CAM's recipe, beside maps that learn nothing."""
    networks = list(dict.fromkeys(row["backbone"] for row in rows))
    cells = {(row["method"], row["backbone"], row["metric"], row["setting"]): row for row in rows}
    wanted = [(b, m, s) for b in networks for m, s in (("average_drop", "50%"), ("average_drop", "100%"), ("map_mean", "100%"))]
    head = ["masks, rate", *(f"{name(b)}: {name(m)} {s}" for b, m, s in wanted)]
    methods = dict.fromkeys(row["method"] for row in rows)
    lines = [
        [("control: " if is_control(m) else "") + name(m), *(number(cells.get((m, *key)), interval=False) for key in wanted)]
        for m in methods
    ]
    first = rows[0]
    variant = name("l_cam_" + (first.get("variant") or "fm"))
    return list_table(
        head, lines, f"{first['n']} held-out images, {variant}, {first['epochs']} epochs; intervals left out, about ±8 for Average Drop"
    )


def _each(rows):
    """The values of few seeds, each with its interval; of many their mean with the interval over them."""
    together = over_seeds([float(row["value"]) for row in rows])
    return together or tuple(number(row) for row in sorted(rows, key=lambda row: int(row["seed"]))) or "–"


def _picked(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _told_seeds(rows):
    return told_seeds(len({row["seed"] for row in rows}))


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
    bump = {k: next((row for row in own if (row["method"], row["metric"]) == ("center_gaussian", k)), None) for _, k in columns}
    control = "; ".join(f"{name(k)} {number(row)}" for k, row in bump.items() if row)
    for head, title in heads.items():
        lines = [
            [name(t), *(_each(_picked(own, trunk=t, head=head, method=m, metric=k)) for m, k in columns)]
            for t in trunks
            if _picked(own, trunk=t, head=head)
        ]
        where = f"{title}; {told}" + (f"; control, a centre Gaussian: {control}" if control else "")
        parts.append(list_table(["trunk of", *(f"{name(m)}: {name(k)}" for m, k in columns)], lines, where))
    columns.insert(0, ("network", "accuracy"))
    lines = [
        [f"{name(t)} − plain, {heads[h]}", *(_each(_picked(rows, trunk=t, than="plain", head=h, method=m, metric=k)) for m, k in columns)]
        for t in trunks
        for h in heads
        if _picked(rows, trunk=t, than="plain", head=h)
    ]
    head = ["difference", *(f"{name(m)}: {name(k)}" if m != "network" else name(k) for m, k in columns)]
    parts.append(list_table(head, lines, f"Paired, on the same images; {told}"))
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
    from cam_core.learned.plans import SETTINGS

    first, planned = rows[0], [row for row in rows if row["role"] == "training"]
    settings = [f"learning rate {of.lr:g}, batch {of.batch}, weight decay {of.weight_decay:g}" for of in SETTINGS.get(first["dataset"], ())]
    ways = list(dict.fromkeys((row["setting"], row["seed"]) for row in planned))
    digits = {"accuracy": 1, "effective_channels": 1, "empty_maps": 0}
    shown = [row for row in planned if row["metric"] in digits and (row["metric"] != "empty_maps" or float(row["value"] or 0))]
    numbers = sorted(dict.fromkeys((row["model"], row["metric"]) for row in shown), key=lambda number: list(digits).index(number[1]))

    def cell(setting, seed, model, metric):
        row = next(iter(_picked(planned, setting=setting, seed=seed, model=model, metric=metric)), None)
        return f"{float(row['value']):.{digits[metric]}f}" if row and row["value"] else row["state"] if row else "–"

    where = f"{name(first['dataset'])}, {name(first['backbone'])}, {first['epochs']} epochs"
    told = [f"{name(m)}: {name(k)}" for m, k in numbers]
    if len({setting for setting, _ in ways}) == 1:  # seeds side by side, however many models and numbers there are
        where += f"; {settings[int(float(ways[0][0]))]}" if settings else ""
        head = ["network", *(f"seed {int(float(seed))}" for _, seed in ways)]
        lines = [[title, *(cell(*way, *number) for way in ways)] for title, number in zip(told, numbers, strict=True)]
    else:
        head = ["training", *told]
        lines = [
            [f"{settings[int(float(way[0]))]}; seed {int(float(way[1]))}", *(cell(*way, *number) for number in numbers)] for way in ways
        ]
    parts = [list_table(head, lines, where)]
    means = [row for row in rows if row["role"] == "mean"]
    kinds = {"settings": "Trainings under two settings", "seeds": "Trainings from two seeds"}
    for what, told in kinds.items():
        if len({row[what[:-1]] for row in planned}) == 1:
            continue
        own = _picked(means, differs=what)
        measures = [metric for metric in dict.fromkeys(row["metric"] for row in own) if "dice" not in metric]  # the IoU says as much
        lines = []
        for method in dict.fromkeys(row["method"] for row in own):
            same = {(row["metric"], row["of"]): row for row in _picked(own, method=method)}
            one = next(iter(same.values()))
            cells = [_beside(same[m, "pair"], same[m, "shuffled"], 2 if m == "stability_correlation" else 1) for m in measures]
            lines.append(
                [": ".join(name(part) for part in method.split(": ")), *cells, f"{int(float(one['n']))} of {int(float(one['planned']))}"]
            )
        if lines:
            ranges = ", beneath it least to most over the pairs" if max(float(row["n"]) for row in own) > 1 else ""
            head = ["map", *(name(m) for m in measures), "pairs"]
            parts.append(
                list_table(head, lines, f"{told}: mean over the pairs (maps of different images){ranges}; {first['images']} test images")
            )
        else:
            parts.append(f"*{told}: not run yet.*\n")
    measured = {row["metric"] for row in means}
    if "stability_iou_script" in measured and "stability_dice_script" not in measured:  # tables of the whole script have both
        told = "the maps are neither written as 8-bit pictures nor stretched a second time"
        parts.append(f"The IoU by LFI-CAM's script has an earlier form here, until these trainings are run again: {told}.\n")
    return "\n".join(parts)


def _beside(pair, shuffled, digits):
    value, other, least, most = (f"{float(v):z.{digits}f}" for v in (pair["value"], shuffled["value"], pair["least"], pair["most"]))
    return (f"{value} ({other})", f"{least} to {most}") if float(pair["n"]) > 1 else f"{value} ({other})"


def parameters(rows):
    """Parameters of each network and of what joins it, in millions."""
    head = {"plain": "network", "fin_3x3": "importance network, 3×3", "fin_1x1": "importance network, 1×1", "abn_branch": "ABN's branch"}
    lines = []
    for backbone, classes in dict.fromkeys((row["backbone"], row["classes"]) for row in rows):
        of = {row["part"]: int(row["value"]) / 1e6 for row in _picked(rows, backbone=backbone)}
        lines.append([f"{name(backbone)}, {classes} classes", *(f"{of[part]:.2f}" for part in head)])
    return list_table(["network", *head.values()], lines, "Parameters, millions; without the network that they join")


KINDS = {
    "parameters": parameters, "l_cam_recipe": recipe, "shortcut": shortcut, "lfi_features": lfi_features, "em_ml": em_ml,
    "scratch": scratch,
}  # fmt: skip
