"""Tables of the benchmarks."""

from cells import list_table
from names import name


def named(contender):
    """Its printed name: what stands before a comma may be an identifier."""
    first, comma, rest = contender.partition(", ")
    return name(first) + comma + rest


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
                named(row["contender"]),
                f"{float(row['seconds']):.2f} s",
                f"{float(row['seconds']) / float(base['seconds']):.2f}",
                f"{float(row['cpu_seconds']) / float(base['cpu_seconds']):.2f}",
                f"{float(row['extra_mb']):.0f} MB" if row["extra_mb"] else "–",
            ]
            for row in own
        ]
        parts.append(
            list_table(
                ["contender", "least time", "ratio", "CPU time, ratio", "extra memory"],
                lines,
                f"{group}; {float(base['rounds']):.0f} rounds in turn",
            )
        )
        parts += _floor(own)
    return "\n".join([*parts, f"Measured on {rows[0]['machine']}; {rows[0]['packages']}.\n"])


PEERS = ("grad-cam: ", "torchcam: ")


def _floor(rows):
    """What no implementation can win, where a floor was measured: the peer, ours, the fastest floor, and their ratios."""
    seconds = {row["contender"]: float(row["seconds"]) for row in rows}
    floors = [s for contender, s in seconds.items() if contender.startswith("floor: ")]
    if not floors:
        return []
    peer, ours, least = min((c for c in seconds if c.startswith(PEERS)), key=seconds.get), rows[0]["contender"], min(floors)
    work = next(float(row["multiply_adds"]) for row in rows if row["multiply_adds"])
    text = f"The faster peer ({peer}) takes {seconds[peer]:.1f} s, ours {seconds[ours]:.1f} s. The passes that are needed hold"
    text += f" {work / 1000:.1f}·10¹² multiply-adds, which take {least:.1f} s at the highest rate found on this machine. So no exact"
    text += f" Score-CAM in float32 by direct convolution can be more than {seconds[peer] / least:.2f} times as fast as the peer; ours is"
    text += f" {seconds[peer] / seconds[ours]:.2f} times as fast, and {100 * least / seconds[ours]:.0f} % of its time is that of the floor."
    quick = next((contender for contender in seconds if contender.startswith("bfloat16 floor: ")), None)
    if quick and f"{ours}, bfloat16" in seconds:
        text += f" In bfloat16 they take {seconds[quick]:.1f} s, {seconds[peer] / seconds[quick]:.2f} times less than the peer in float32;"
        text += f" ours then takes {seconds[peer] / seconds[f'{ours}, bfloat16']:.2f} times less."
    return [text + "\n"]


def counted(rows):
    """A race, and below it what was counted once: passes, megabytes."""
    counts = [row for row in rows if row.get("count")]
    parts = [race([row for row in rows if not row.get("count")])]
    for group in dict.fromkeys(row["group"] for row in counts):
        lines = [[row["contender"], f"{float(row['count']):,.0f}"] for row in counts if row["group"] == group]
        parts.append(list_table(["counted", "number"], lines, group))
    return "\n".join(parts)


def training(rows):
    """What was promised and what was found; one explanation beside a forward pass; the races; multiply-adds."""
    promised = [row for row in rows if row.get("asked")]
    lines = [[row["contender"], row["asked"], f"{float(row['found']):.2f}"] for row in promised]
    parts = [list_table(["ratio", "asked", "found"], lines, "What was promised")]
    single = [row for row in rows if row["group"].startswith("one explanation")]
    lines, batches = [], list(dict.fromkeys(row["group"].rpartition(" ")[2] for row in single))
    for model in dict.fromkeys(row["group"].split(", ")[1] for row in single):
        own = {batch: [row for row in single if row["group"] == f"one explanation, {model}, batch {batch}"] for batch in batches}
        for contender in [row["contender"] for row in own[batches[0]][1:]]:
            lines.append([name(contender), *(cell for batch in batches for cell in _over_a_forward(own[batch], contender))])
    head = ["explanation", *(cell for batch in batches for cell in (f"bare forward, batch {batch}", "ratio"))]
    parts.append(list_table(head, lines, "One explanation over a bare forward of the network that it explains"))
    adds, lines = [row for row in rows if row.get("multiply_adds")], []
    for row in adds:
        _, network, stem = row["group"].split(", ")
        lines.append([name(network), stem.rpartition(" ")[2], named(row["contender"]), f"{float(row['multiply_adds']):.1f}"])
    head = ["network", "stride of the stem", "what", "10⁹ multiply-adds an image"]
    parts.append(list_table(head, lines, "Forward pass at 224"))
    others = [row for row in rows if row not in promised and row not in single and row not in adds]
    others = [{**row, "rounds": int(float(row["rounds"]))} for row in others]
    loads = [
        f"{row['contender']}: {float(row['images']) / float(row['seconds']):.0f} images a second." for row in others if row.get("images")
    ]
    return "\n".join([*parts, race(others), "Loader, " + " ".join(loads) + "\n"])


def _over_a_forward(rows, contender):
    """Milliseconds of the bare forward, which is the group's first row, and the contender's time over it; dashes where it did not run."""
    if not rows:
        return "–", "–"
    base, seconds = (float(row["seconds"]) for row in (rows[0], next(row for row in rows if row["contender"] == contender)))
    return f"{1000 * base:.0f} ms", f"{seconds / base:.2f}"


KINDS = {"methods": race, "metrics": counted, "training": training}
