"""The README's table, written from results/: `python book/headline.py` puts it between the marks; `--check` says whether it is current."""

import re
import sys
from pathlib import Path

import tables
from names import name

from cam_core.methods import is_control

HOME = Path(__file__).resolve().parents[1]
MARKS = ("<!-- headline table: begin -->", "<!-- headline table: end -->")
METHODS = ("increment_cam", "l_cam_fm", "l_cam_img", "grad_cam", "score_cam", "grad_cam[power=2]", "grad_cam[power=0.5]", "mean_activation")
FEWEST = 10  # images: an interval over fewer says nothing; the book's pages have these rows, too
COLUMNS = (("average_drop", "50%"), ("map_mean", "50%"), ("energy_pointing_game", ""))


def table(rows):
    """Markdown: the subset's ImageNet runs, method × metric with interval and n; controls in italics."""
    head = ["run", "method", *(f"{name(metric)} {setting}".strip() for metric, setting in COLUMNS), "n"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for run in dict.fromkeys((r["paper"], r["run"]) for r in rows if r["dataset"] == "imagenet"):
        own = {(r["method"], r["metric"], r["setting"]): r for r in rows if (r["paper"], r["run"]) == run}
        for method in METHODS:
            cells = [own.get((method, *column)) for column in COLUMNS]
            first = next((cell for cell in cells if cell), None)
            if first and int(float(first["n"])) >= FEWEST:
                title = f"{name(run[0])}, {name(first['backbone'])}"
                shown = f"*{name(method)}*" if is_control(method) else name(method)
                values = [tables.number(cell) if cell else "–" for cell in cells]
                lines.append("| " + " | ".join([title, shown, *values, first["n"]]) + " |")
    return "\n".join(lines) if len(lines) > 2 else "*No run on real images has been published yet.*"


def filled(text, rows):
    """The README with the table between its marks."""
    begin, end = (re.escape(mark) for mark in MARKS)
    body = (
        "\n\nReal ImageNet validation images, value [95 % interval]. Controls, which explain nothing, in italics; ResNet weights are"
        f" quantized stand-ins.\n\n{table(rows)}\n\n"
    )
    return re.sub(f"({begin}).*?({end})", lambda m: m[1] + body + m[2], text, flags=re.DOTALL)


def main(arguments):
    """Write the table, or with --check exit with 1 where it is not the one of results/."""
    readme = HOME / "README.md"
    text = readme.read_text(encoding="utf-8")
    new = filled(text, tables.read(HOME / "results", "subset"))
    if "--check" in arguments:
        return 0 if new == text else "README.md: the headline table is not that of results/; run `python book/headline.py`"
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
