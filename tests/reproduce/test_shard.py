"""A run whose evaluation is measured in shards: which statements of a notebook a shard takes, and the bytes of the whole run."""

import ast
import json
from pathlib import Path

import nbformat
import pytest

from cam_core.kept import Kept
from reproduce import shard
from reproduce.__main__ import main
from reproduce.parameters import DATASETS

NOTEBOOKS = [Path(f"notebooks/{paper}.ipynb") for paper in DATASETS]
CELLS = (
    'data_root = "here"\nout_dir = None\nrows_dir = None',
    """
    from dataclasses import replace
    from pathlib import Path
    import torch
    from cam_core import metrics
    from cam_core.evaluate import evaluate
    from cam_core.kept import Kept
    from cam_core.learned import lfi_backbone
    from cam_core.methods import method
    from reproduce import results, sources
    """,
    """
    kept = replace(rows_dir if isinstance(rows_dir, Kept) else Kept(Path(rows_dir)), block=2)
    images = sources.images("drawn_imagenet", data_root, limit=7)
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", len(images("crop").classes)).eval()
    methods = [method("grad_cam")]
    methods.append(method("random_map"))
    """,
    """
    table = evaluate(classifier, images, methods, [metrics.MapMean()], batch_size=2, progress=False, kept=kept)
    table.records().style
    """,
    """
    names = ("paper", "dataset", "split", "backbone", "weights", "recipe")
    of = dict.fromkeys(names, "x") | dict(seed=0)
    records, differences = table.records().assign(**of), table.differences("random_map").assign(**of)
    _ = results.save(out_dir, records, table.per_image(), None, differences)
    """,
)


@pytest.fixture
def notebook(tmp_path):
    cells = [nbformat.v4.new_code_cell("\n".join(line.removeprefix("    ") for line in cell.strip().splitlines())) for cell in CELLS]
    cells[0].metadata.tags = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "l_cam.ipynb")
    return tmp_path / "l_cam.ipynb"


def test_seven_shards_give_the_bytes_of_one(tmp_path, drawn, notebook):
    def whole(name, rows):
        """What a run's kernel does."""
        (_, *rest), values = shard._sources(notebook), {"data_root": str(drawn), "out_dir": str(tmp_path / name), "rows_dir": str(rows)}
        for code in rest:
            exec(code, values)

    whole("1", tmp_path / "rows")
    for number in range(7, 0, -1):  # of four blocks: the last three shards have none
        assert main(["shard", str(notebook), f"{number}/7", "--out", str(tmp_path / "7"), "-p", "data_root", str(drawn)]) == 0
    took = [json.loads(shard.mark(tmp_path / "7", number, 7).read_text()) for number in range(1, 8)]
    assert all(0 < of["cpu_seconds"] < 1e4 for of in took)
    assert [*(tmp_path / "7.kept").glob("*.progress")] == []
    blocks = sorted((tmp_path / "7.kept").rglob("*.npz"))
    assert [file.name[-17:-4] for file in blocks] == ["000000-000002", "000002-000004", "000004-000006", "000006-000007"]
    blocks[1].unlink()  # a killed one
    whole("7", shard.folder(notebook, tmp_path / "7"))
    assert sorted((tmp_path / "7.kept").rglob("*.npz")) == blocks
    for name in ("metrics.csv", "differences.csv", "per_image.parquet"):
        assert (tmp_path / "7" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_rows_of_another_notebook_are_not_found(tmp_path, notebook):
    content = nbformat.read(notebook, 4)
    content.cells.append(nbformat.v4.new_markdown_cell("prose"))
    nbformat.write(content, tmp_path / "prose.ipynb")
    content.cells[2].source += "\nmethods = methods[:1]"
    nbformat.write(content, tmp_path / "other.ipynb")
    folders = [shard.folder(tmp_path / f"{name}.ipynb", tmp_path / "out") for name in ("l_cam", "prose", "other")]
    assert folders[0] == folders[1] != folders[2]


def test_a_shard_takes_what_its_evaluations_need_and_nothing_else():
    code = """
import torch, pandas as pd
from cam_core.evaluate import evaluate as evaluate
data = load()
report.show(data)
scale = 2
def explain(probe): return scale * probe
methods = []
for name in names:
    methods.append(name)
methods.append(explain)
options["chunk"] = 8
torch.manual_seed(0)
net = torch.rand(3)
if data:
    measured = [1]
table = {n: evaluate(net, data, methods, measured, **options) for n in methods}
frame = pd.concat(table)
measured = frame
"""
    taken = ast.unparse(ast.Module(shard.statements(code), type_ignores=[]))
    left = {"report.show(data)", "frame = pd.concat(table)", "measured = frame"}
    assert taken.splitlines() == [line for line in ast.unparse(ast.parse(code)).splitlines() if line not in left]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_evaluation_of_the_notebooks_keeps_its_rows_and_shards_compute_no_number(path):
    _, *cells = shard._sources(path)
    code = "\n".join(cells)
    taken = ast.unparse(ast.Module(shard.statements(code), type_ignores=[]))
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and ast.unparse(node.func) in shard.MEASURING]
    assert calls
    assert all("kept=kept" in ast.unparse(call) for call in calls)
    assert sum(taken.count(f"{name}(") for name in shard.MEASURING) == len(calls)
    for what in ("worth", "save", "records", "differences", "report.", "figures.grid", "Table("):
        assert f"{what}(" not in taken.replace("report.", "report.(")


def test_a_wrong_call_is_told(tmp_path, notebook, capsys):
    assert main(["shard", str(notebook), "1/2", "--out", str(tmp_path / "x"), "-p", "sed", "1"]) == 1
    assert "has no parameter sed" in capsys.readouterr().err
    for part in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(SystemExit):
            main(["shard", str(notebook), part, "--out", "x"])
    with pytest.raises(ValueError, match="numbered from 0"):
        Kept(tmp_path, 2, 2)
