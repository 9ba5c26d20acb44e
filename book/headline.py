"""The README's table, written from results/: `python book/headline.py` puts it between the marks; `--check` says whether it is current."""

import re
import sys
from pathlib import Path

import pandas as pd
from cells import cells, pivot
from names import is_control, measure, name

from reproduce import results

HOME = Path(__file__).resolve().parents[1]
MARKS = ("<!-- headline table: begin -->", "<!-- headline table: end -->")
METHODS = ("increment_cam", "l_cam_fm", "l_cam_img", "grad_cam", "score_cam", "grad_cam[power=2]", "grad_cam[power=0.5]", "mean_activation")
FEWEST = 10  # images: an interval over fewer says nothing; the book's pages have these rows, too
COLUMNS = (("average_drop", "50%"), ("map_mean", "50%"), ("energy_pointing_game", ""))


def table(rows):
    """Markdown: the subset's ImageNet runs, method × metric with interval and n; controls in italics."""
    head = ["run", "method", *map(measure, COLUMNS), "n"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows = pd.DataFrame(COLUMNS, columns=["metric", "setting"]).merge(rows[(rows["dataset"] == "imagenet") & rows["method"].isin(METHODS)])
    for (paper, _, backbone), own in rows.assign(cell=cells(rows)).groupby(["paper", "key", "backbone"]):
        n = own.groupby("method")["n"].first()
        wide = pivot(own, "method", ["metric", "setting"]).reindex(METHODS).dropna().reindex(columns=COLUMNS, fill_value="–")
        for method, values in wide[n.reindex(wide.index) >= FEWEST].iterrows():
            shown = f"*{name(method)}*" if is_control(method) else name(method)
            lines.append("| " + " | ".join([f"{name(paper)}, {name(backbone)}", shown, *values, str(n[method])]) + " |")
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
    new = filled(text, results.load(HOME / "results/subset"))
    if "--check" in arguments:
        return 0 if new == text else "README.md: the headline table is not that of results/; run `python book/headline.py`"
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
