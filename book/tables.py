"""Tables of the runs' metrics.csv and differences.csv, as `results.load` gives them, and of published.yaml."""

from pathlib import Path

import yaml
from cells import list_table
from names import measure, name

PAPERS = ("increment_cam", "l_cam", "lfi_cam", "calm")
PROPOSED = ("increment_cam", "l_cam_fm", "l_cam_img", "lfi_cam", "calm_em")


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
        rows = [
            [name(m), *("–" if v is None else f"{v:g}" for v in values), name(backbone)]
            for backbone, methods in entry["backbones"].items()
            for m, values in methods.items()
        ]
        parts.append(list_table(["method", *map(measure, entry["columns"]), "network"], rows, entry["mark"]))
    return "\n".join(parts)


def load_yaml(path):
    """Read one of the book's yaml files."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
