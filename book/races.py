"""Tables of the benchmarks: a file of results/benchmarks each."""

import pandas as pd
from cells import cell, grid, list_table, pivot, texts
from names import name

PEERS = ("grad-cam: ", "torchcam: ")
DEFAULT, BATCH = "ONNX Runtime", 8  # the engine of masked images, and how many of them pass at once


def named(contender):
    """Its printed name: what stands before a comma may be an identifier."""
    first, comma, rest = contender.partition(", ")
    return name(first) + comma + rest


def race(rows):
    """Contenders of a benchmark, each beside the first of its race; below them what no implementation can win, and how far maps agree."""
    lines, floors = [], []
    agree = rows["correlation"].notna() if "correlation" in rows else rows["group"] == ""
    for group, own in rows[~agree].groupby("group", sort=False):
        base, contenders = own.iloc[0], own["contender"].map(named)
        seconds, ratio, cpu = own["seconds"], own["seconds"] / base["seconds"], own["cpu_seconds"] / base["cpu_seconds"]
        columns = [contenders, texts(seconds, 2, " s"), texts(ratio, 2), texts(cpu, 2), texts(own["extra_mb"], 0, " MB")]
        races = [f"**{group}**, {base['rounds']:.0f} rounds in turn", *[""] * (len(own) - 1)]
        lines += zip(races, *columns, strict=True)
        floors += [*_floor(own), *_halved(own)]
    head = ["race", "contender", "least time", "ratio", "CPU time, ratio", "extra memory"]
    parts = [list_table(head, lines), *floors, f"Measured on {rows['machine'].iloc[0]}; {rows['packages'].iloc[0]}.\n"]
    if agree.any():
        same = rows[agree]
        found = zip(same["contender"], texts(same["correlation"], 5), strict=True)
        parts.append(list_table(["maps", "least correlation"], found, same["group"].iloc[0]))
    return "\n".join(parts)


def _floor(rows):
    """What no implementation can win, where a floor was measured: the peer, ours, the fastest floor, and their ratios."""
    seconds = dict(zip(rows["contender"], rows["seconds"], strict=True))
    floors = [s for contender, s in seconds.items() if contender.startswith("floor: ")]
    if not floors:
        return []
    peer, ours, least = min((c for c in seconds if c.startswith(PEERS)), key=seconds.get), rows["contender"].iloc[0], min(floors)
    work = rows["multiply_adds"].dropna().iloc[0]
    text = f"The faster peer ({peer}) takes {seconds[peer]:.1f} s, ours {seconds[ours]:.1f} s. The passes that are needed hold"
    text += f" {work / 1000:.1f}·10¹² multiply-adds, which take {least:.1f} s at the highest rate found on this machine. So no exact"
    text += f" Score-CAM in float32 by direct convolution can be more than {seconds[peer] / least:.2f} times as fast as the peer; ours is"
    text += f" {seconds[peer] / seconds[ours]:.2f} times as fast, and {100 * least / seconds[ours]:.0f} % of its time is that of the floor."
    quick = next((contender for contender in seconds if contender.startswith("bfloat16 floor: ")), None)
    if quick and f"{ours}, bfloat16" in seconds:
        text += f" In bfloat16 they take {seconds[quick]:.1f} s, {seconds[peer] / seconds[quick]:.2f} times less than the peer in float32;"
        text += f" ours then takes {seconds[peer] / seconds[f'{ours}, bfloat16']:.2f} times less."
    return [text + "\n"]


def _halved(rows):
    """What bfloat16 gains on this processor, and what it would gain without instructions for it, where that was measured."""
    if not rows["group"].iloc[0].startswith("bfloat16, "):
        return []
    seconds = rows.set_index("contender")["seconds"]
    states = [contender.removeprefix("bfloat16") for contender in seconds.index if contender.startswith("bfloat16")]
    shares = [f"{seconds[f'bfloat16{state}'] / seconds[f'float32{state}']:.2f} of its time in float32{state}" for state in states]
    return [f"bfloat16 by processor: on {rows['machine'].iloc[0]} a masked pass in bfloat16 takes {'; '.join(shares)}.\n"]


def counted(rows):
    """A race, and below it what was counted once: passes, megabytes."""
    counts = rows["count"].notna()
    found = rows[counts]
    groups = found["group"].where(~found["group"].duplicated(), "").map(lambda group: group and f"**{group}**")
    lines = zip(groups, found["contender"], found["count"].map("{:,.0f}".format), strict=True)
    return "\n".join([race(rows[~counts]), list_table(["counted", "of", "number"], lines)])


def training(rows):
    """What was promised and what was found; one explanation beside a forward pass; the races; multiply-adds."""
    promised, single, adds = rows["asked"] != "", rows["group"].str.startswith("one explanation"), rows["multiply_adds"].notna()
    asked = rows[promised]
    lines = zip(asked["contender"], asked["asked"], texts(asked["found"], 2), strict=True)
    parts = ["\n".join(f"- {what}: asked {wanted}, found {got}" for what, wanted, got in lines), ""]

    own = rows[single].assign(base=rows[single].groupby("group")["seconds"].transform("first"))
    own[["model", "batch"]] = own["group"].str.extract(r"one explanation, (.*), batch (\d+)")
    own = own[own["contender"] != "forward"]
    sides = (("forward", texts(1000 * own["base"], 0, " ms")), ("ratio", texts(own["seconds"] / own["base"], 2)))
    both = pd.concat([own.assign(side=side, cell=found) for side, found in sides])
    batches = own["batch"].unique()
    wide = pivot(both, ["model", "contender"], ["batch", "side"])[[(batch, side) for batch in batches for side, _ in sides]]
    head = ["explanation", *(text for batch in batches for text in (f"bare forward, batch {batch}", "ratio"))]
    caption = "One explanation over a bare forward of the network that it explains"
    parts.append(grid(wide, head, caption, lambda key: name(key[1])))

    lines = []
    for row in rows[adds].itertuples():
        _, network, stem = row.group.split(", ")
        lines.append([name(network), stem.rpartition(" ")[2], named(row.contender), cell(row.multiply_adds)])
    head = ["network", "stride of the stem", "what", "10⁹ multiply-adds an image"]
    parts.append(list_table(head, lines, "Forward pass at 224"))

    others = rows[~promised & ~single & ~adds]
    loads = others[others["images"].notna()]
    rates = " ".join(f"{row.contender}: {row.images / row.seconds:.0f} images a second." for row in loads.itertuples())
    return "\n".join([*parts, race(others), f"Loader, {rates}\n"])


def engines(rows):
    """Network and batch x engine: milliseconds an image, and CPU time beside the frozen network in PyTorch."""
    rows = rows.assign(place=pd.factorize(rows["group"])[0]).sort_values(["place", "batch"], kind="stable")
    base = rows[rows["engine"] == "PyTorch frozen"].set_index(["group", "batch"])
    beside = base.loc[list(zip(rows["group"], rows["batch"], strict=True))]
    told = texts(1000 * rows["seconds"], 1, " ms") + " (" + texts(rows["cpu_seconds"] / beside["cpu_seconds"].to_numpy(), 2) + ")"
    wide = pivot(rows.assign(cell=told.to_numpy(), network=rows["group"].map(name)), ["network", "batch"], "engine")
    caption = f"Least time an image (CPU time beside the frozen network in PyTorch); {rows['machine'].iloc[0]}"
    return _gained(rows) + grid(wide, ["network, batch", *wide.columns], caption, lambda key: f"{key[0]}, {key[1]:.0f}")


def _gained(rows):
    """What the default gains, and how far the fastest of the others is from it."""
    times = rows[rows["batch"] == BATCH].pivot_table("seconds", "group", "engine", sort=False)
    if DEFAULT not in times:
        return ""
    ratios = times.div(times[DEFAULT], axis=0)
    told = [f"{name(network)} {row['PyTorch as loaded']:.2f} ({row['PyTorch frozen']:.2f})" for network, row in ratios.iterrows()]
    text = f"{DEFAULT} is the default on a CPU. At a batch of {BATCH} it is so many times as fast as the network as loaded (in brackets: as"
    text += f" PyTorch on the frozen network): {', '.join(told)}."
    others = ratios.drop(columns=[DEFAULT, "PyTorch as loaded", "PyTorch frozen"]).dropna(axis=1, how="all")
    for engine, own in others.items():
        text += f" {engine} takes {own.min():.2f} to {own.max():.2f} times as long as the default."
    batches = rows[rows["engine"] == DEFAULT].pivot_table("seconds", "batch", "group", sort=False)
    least, most, off = batches.index.min(), batches.index.max(), (batches.loc[BATCH] / batches.min()).max() - 1
    text += f" Of the batches from {least} to {most}, {BATCH} takes at most {100 * off:.0f} % longer an image than the fastest, so"
    text += " probes keep it."
    return text + "\n\n"


def goals(rows):
    """What was asked of the speed of masked images, what is found, and whether that is enough."""
    lines = []
    for row in rows.itertuples():
        kind, _, asked = row.asked.rpartition(" ")
        enough = row.found <= float(asked) if kind == "at most" else row.found >= float(asked)
        state = "not measured" if pd.isna(row.found) else "reached" if enough else "not reached"
        told = f"- {row.contender}, {row.asked}: **{state}**"
        if state != "not measured":
            told += f", {row.found:.2f} (CPU time {row.cpu:.2f}) beside {named(row.beside)}"
        lines.append(told + ("" if pd.isna(row.most) else f"; the floor leaves {row.most:.2f}") + ".\n")
    return (
        "".join(lines)
        + f"\nTimes of the other over ours, but for the passes, where it is ours over the floor; {rows['machine'].iloc[0]}.\n"
    )


def whole(rows):
    """Runs, each with and without the engine: seconds, beside the first contender's, CPU seconds."""
    rows, lines = rows.assign(ratio=rows["seconds"] / rows.groupby("group")["seconds"].transform("first")), []
    for group, own in rows.groupby("group", sort=False):
        paper, *of = group.split(", ")
        told = "; ".join(f"{one.contender} {one.seconds:.0f} s ({one.ratio:.2f}, CPU {one.cpu_seconds:.0f} s)" for one in own.itertuples())
        lines.append(f"- {', '.join([name(paper), *of])}: {told}.\n")
    return "".join(lines) + f"\n{rows['machine'].iloc[0]}.\n"


def gpu(rows):
    """Network and method x way: images a second."""
    rows = rows.assign(cell=texts(rows["images_per_second"], 1), network=rows["group"].map(name))
    wide = pivot(rows, ["network", "method"], "way")
    return grid(
        wide, ["network, method", *wide.columns], f"Images a second; {rows['device'].iloc[0]}", lambda key: f"{key[0]}, {name(key[1])}"
    )


KINDS = {
    "engines": engines, "goals": goals, "gpu": gpu, "methods": race, "metrics": counted, "training": training, "whole": whole,
}  # fmt: skip
