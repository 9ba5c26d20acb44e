"""The scripts of book/ are no package; a small book with invented runs, built once."""

import base64
import csv
import io
import json
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat import v4

from reproduce import results

BOOK = Path(__file__).resolve().parents[2] / "book"
RESULTS = BOOK.parent / "results"  # the published ones: every figure of the book is drawn from them
sys.path.insert(0, str(BOOK))

RUNS = {
    "increment_cam": ["drawn_imagenet-resnet8-s0", "drawn_voc-resnet8-s0"],
    "l_cam": ["drawn_imagenet-resnet8-s0"],
    "lfi_cam": ["drawn_imagenet-resnet8-s0"],
    "calm": ["drawn_cub-resnet8-s0"],
}


def row(**given):
    base = dict.fromkeys(results.COLUMNS, "") | {
        "split": "val",
        "protocol": "energy",
        "metric": "energy_pointing_game",
        "n": "40",
        "seed": "0",
    }
    return base | {"ci_low": "1.0", "ci_high": "99.0"} | given


def frame(rows, columns=results.COLUMNS):
    """Rows of texts as `results.load` gives them: numbers are numbers, a text that is not there is empty."""
    table = pd.DataFrame(rows, columns=["profile", "key", *columns]).fillna("")
    numbers = {column: pd.to_numeric(table[column]) for column in (*results.NUMBERS, "p", "p_holm") if column in table}
    return table.assign(**numbers).astype({"n": int, "seed": int})


def write_run(folder, rows):
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text("{}")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, results.COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_study(folder, name, rows):
    """Write the file of a study or benchmark; the tables that the book makes of it."""
    import experiments

    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return experiments.study(folder, name)


def picture():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2))
    figure.subplots().imshow(np.eye(7))
    file = io.BytesIO()
    figure.savefig(file)
    return base64.b64encode(file.getvalue()).decode()


def executed(title, alt="The identity as a heat map"):
    """An executed notebook with an equation, parameters, a progress bar and one picture."""
    metadata = {"image/png": {"alt": alt}} if alt else {}
    outputs = [
        v4.new_output("stream", name="stderr", text="100%|####|"),
        v4.new_output("display_data", data={"image/png": picture(), "text/plain": "<Figure>"}, metadata=metadata),
    ]
    cells = [
        v4.new_markdown_cell(f"# {title}\n\nOf {{cite:p}}`kim2021calm`, with $\\alpha_k$ and\n\n$$L = \\sum_k \\alpha_k A_k$$"),
        v4.new_code_cell("seed = 0  # random seed", metadata={"tags": ["parameters"]}, execution_count=1),
        v4.new_code_cell("show()", outputs=outputs, execution_count=2),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return v4.new_notebook(cells=cells, metadata=kernel)


def write_photographs(folder):
    """Grey tiles in the place of every photograph and its maps; of the last method the map is empty."""
    from photographs import CONTROLS, EXPLAINED, slug
    from PIL import Image

    from data_scripts.photographs import PHOTOGRAPHS

    folder.mkdir(parents=True)
    entries = {}
    for name in PHOTOGRAPHS:
        files = {method: f"{name}-{slug(method)}.webp" for method in (*EXPLAINED, *CONTROLS)}
        heats = {method: file.replace(".webp", "-heat.webp") for method, file in files.items()}
        for file in (f"{name}.webp", f"{name}-large.webp", *files.values(), *heats.values()):
            Image.new("L", (30, 20), 128).save(folder / file)
        of = {method: {"file": file, "heat": heats[method], "same_as": None} for method, file in files.items()}
        maps = {method: {**entry, "empty": method == CONTROLS[-1]} for method, entry in of.items()}
        sizes = {"size": [30, 20], "large": [60, 40]}
        entries[name] = {**sizes, "said": [["tabby & <cat>", 61.6], ["lynx", 2.0]], "maps": maps}
    (folder / "photographs.json").write_text(json.dumps({"digest": "", "photographs": entries}))


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """runs/smoke with all four papers."""
    root = tmp_path_factory.mktemp("book")
    for paper, keys in RUNS.items():
        for key in keys:
            folder = root / "runs" / "smoke" / paper / key
            dataset, backbone, _ = key.split("-")
            rows = [
                row(paper=paper, dataset=dataset, backbone=backbone, method=m, value=v) for m, v in (("grad_cam", "40.0"), (paper, "50.0"))
            ]
            write_run(folder, rows)
            nbformat.write(executed(f"{paper}, {dataset}"), folder / "notebook.ipynb")
    took = {"wall_seconds": 83, "cpu_seconds": 160, "peak_memory_mib": 1536}
    (root / "runs/smoke/calm/drawn_cub-resnet8-s0/provenance.json").write_text(json.dumps(took))
    failed = root / "runs/smoke/calm/drawn_cub-resnet8-s1.failed"
    failed.mkdir()
    (failed / "run.log").write_text("12:00:00  calm.ipynb: cell 3 of 9 stopped with ValueError: a < b & `c`\n")
    (root / "runs/models").mkdir()
    (root / "runs/models/smoke-calm-drawn_cub-resnet8-s2.log").write_text("Traceback\ninterrupted (signal 15)\n")
    write_photographs(root / "runs" / "photographs")
    return root


@pytest.fixture(scope="session")
def site(root):
    """The folder of the finished pages of that book, built with warnings as errors."""
    import assemble

    assert assemble.main(["--runs", str(root / "runs"), "--results", str(RESULTS), "--out", str(root / "_site")]) == 0
    return root / "_site" / "html"


def rows(*methods, **given):
    base = {"paper": "l_cam", "dataset": "imagenet", "backbone": "resnet50", "key": "r", "profile": "subset"}
    return [row(**(base | {"method": m, "value": v, "ci_low": low, "ci_high": high} | given)) for m, v, low, high in methods]


def paired(low, high, **given):
    base = rows(("l_cam_img", str((float(low) + float(high)) / 2), low, high))[0]
    return base | {"than": "grad_cam", "p": "0.01", "p_holm": "0.034", "same_as": ""} | given
