"""The README's finding and table, written from results/: `python book/headline.py` puts them between the marks; `--check` compares."""

import re
import sys
from pathlib import Path

import pandas as pd
import tables
import verdicts
from cells import cells, pivot
from names import is_control, measure, name

from reproduce import results

HOME = Path(__file__).resolve().parents[1]
MARKS = ("<!-- headline table: begin -->", "<!-- headline table: end -->")
METHODS = ("increment_cam", "l_cam_fm", "l_cam_img", "grad_cam", "score_cam", "grad_cam[power=2]", "grad_cam[power=0.5]", "mean_activation")
FEWEST = 10  # images: an interval over fewer says nothing; the book's pages have these rows, too
COLUMNS = (("average_drop", "50%"), ("map_mean", "50%"), ("energy_pointing_game", ""))
NETWORK = "efficientnet_lite0"  # whose weights are the full ones; the book has the stand-ins' runs, too


def table(rows):
    """Markdown: the main network's runs on ImageNet, method × metric with interval and n; controls in italics."""
    rows = rows[rows["backbone"] == NETWORK]
    head = ["run", "method", *map(measure, COLUMNS), "n"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows = pd.DataFrame(COLUMNS, columns=["metric", "setting"]).merge(rows[(rows["dataset"] == "imagenet") & rows["method"].isin(METHODS)])
    for (paper, _), own in rows.assign(cell=cells(rows)).groupby(["paper", "key"]):
        n = own.groupby("method")["n"].first()
        wide = pivot(own, "method", ["metric", "setting"]).reindex(METHODS).dropna().reindex(columns=COLUMNS, fill_value="–")
        for method, values in wide[n.reindex(wide.index) >= FEWEST].iterrows():
            shown = f"*{name(method)}*" if is_control(method) else name(method)
            lines.append("| " + " | ".join([name(paper), shown, *values, str(n[method])]) + " |")
    return "\n".join(lines) if len(lines) > 2 else "*No run on real images has been published yet.*"


def filled(text, rows, differences):
    """The README with the finding and the table between its marks; ``rows`` and ``differences`` of all published profiles."""
    begin, end = (re.escape(mark) for mark in MARKS)
    entries = tables.load_yaml(HOME / "book/claims.yaml")
    found = verdicts.judged(entries, rows, differences)
    said = f"{verdicts.finding(entries, found)}\n\n{verdicts.holding(entries, found)}"
    body = (
        f"\n\n{said}\n\nImageNet validation images through {name(NETWORK)}, value [95 % interval]; controls, which explain nothing, in"
        f" italics.\n\n{table(rows)}\n\n"
    )
    return re.sub(f"({begin}).*?({end})", lambda m: m[1] + body + m[2], text, flags=re.DOTALL)


def main(arguments):
    """Write the table, or with --check exit with 1 where it is not the one of results/."""
    readme = HOME / "README.md"
    text = readme.read_text(encoding="utf-8")
    published = (
        pd.concat([results.load(HOME / "results" / profile, file) for profile in ("subset", "drawn")], ignore_index=True)
        for file in (results.METRICS, results.DIFFERENCES)
    )
    new = filled(text, *published)
    if "--check" in arguments:
        return 0 if new == text else "README.md: the headline table is not that of results/; run `python book/headline.py`"
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
