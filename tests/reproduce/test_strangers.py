"""Files and parameters of a stranger: nothing in them is executed, shown as HTML, or written outside of its folder."""

import json

import nbformat
import numpy as np
import pytest
import torch
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from cam_core import files, pretrained
from reproduce import batch, results, run, shard
from reproduce.__main__ import main
from tests.reproduce.test_results import difference, make_run, record


class Hostile:
    """Writes a file where it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return self.file.write_text, ("",)


@pytest.fixture
def executed(tmp_path):
    file = tmp_path / "executed"
    yield file
    assert not file.exists()


@pytest.mark.parametrize("name", ["cam.pth", "cam.pt", "cam.safetensors"])
def test_weights(tmp_path, executed, name):
    torch.save({"state_dict": Hostile(executed)}, tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        pretrained._read_state(tmp_path / name)


def test_maps(tmp_path, executed):
    with (tmp_path / "maps.npz").open("wb") as file:
        np.savez(file, ids=np.array([Hostile(executed)], object), cam=np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="cannot be read as maps"):
        results.read_maps(tmp_path / "maps.npz")


def test_profiles(tmp_path, executed):
    (tmp_path / "evil.yaml").write_text(f"jobs: !!python/object/apply:pathlib.Path.touch [{executed}]")
    with pytest.raises(ValueError, match=r"evil\.yaml"):
        batch.read_profile("evil", tmp_path)


@pytest.mark.parametrize("column", ["method", "weights", "setting", "backbone"])
@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '" onload="x', "a`b", "[x](javascript&colon;x)", "a\nb"])
def test_texts_that_a_page_would_take_for_more_than_text(tmp_path, column, text):
    with pytest.raises(ValueError, match="expected letters, digits"):
        results.save(tmp_path, [record(**{column: text})])
    results.save(tmp_path, [record()])
    table = (tmp_path / "metrics.csv").read_text().replace(record()[column] or ",,", f'"{text.replace(chr(34), chr(34) * 2)}"', 1)
    (tmp_path / "metrics.csv").write_text(table)
    with pytest.raises(ValueError, match=r"metrics\.csv"):
        results.read_records(tmp_path / "metrics.csv")


def test_texts_of_differences_and_names_of_folders(tmp_path):
    for column in ("than", "same_as"):
        with pytest.raises(ValueError, match="expected letters, digits"):
            results.save(tmp_path, [record()], differences=results.pd.DataFrame([difference(**{column: "<b>"})]))
    make_run(tmp_path / "smoke/l_cam/<img src=x>")
    with pytest.raises(ValueError, match="the folder of a run"):
        results.load(tmp_path)


@pytest.mark.parametrize("name", ["../profiles/smoke", "/etc/passwd", "..", "a/b", ""])
def test_a_profile_is_a_name(name, capsys):
    assert main(["status", "--profile", name]) == 1
    assert "no such profile" in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry", [{"dataset": "../../x"}, {"dataset": "/x"}, {"seed": "0/../../x"}, {"paper": "../x"}, {"dataset": "a; b"}]
)
def test_a_run_folder_lies_in_its_profiles(tmp_path, entry):
    job = {"paper": "l_cam", "dataset": "drawn_cub", "backbone": "resnet8", **entry}
    (tmp_path / "evil.yaml").write_text(json.dumps({"jobs": [job]}))
    with pytest.raises(ValueError, match="its folder would be"):
        batch.read_profile("evil", tmp_path, check=False)


def test_what_is_published_are_the_files_of_the_run_and_they_stay_in_results(tmp_path):
    one = make_run(tmp_path / "runs/smoke/l_cam/key")
    where = {"runs": tmp_path / "runs", "results": tmp_path / "results"}
    files.write_json(tmp_path / "private.json", {"dirty": False, "token": "secret"})
    (one / "provenance.json").unlink()
    (one / "provenance.json").symlink_to(tmp_path / "private.json")
    with pytest.raises(ValueError, match=r"provenance\.json is a link"):
        results.publish("smoke", **where)
    make_run(one).joinpath("provenance.json").unlink()
    make_run(one)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/smoke").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="lies outside of"):
        results.publish("smoke", **where)
    assert not [*(tmp_path / "elsewhere").iterdir()]


TEXTS = ['"; open(__file__) #', "x\nraise SystemExit", '"""', "\\", "'; import os; '", "{x}", "\N{LINE SEPARATOR}", "__import__('os')"]


@pytest.fixture
def notebook(tmp_path):
    cell = nbformat.v4.new_code_cell("seed = None\nout_dir = None\nrows_dir = None", metadata={"tags": ["parameters"]})
    nbformat.write(
        nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}),
        tmp_path / "n.ipynb",
    )
    return tmp_path / "n.ipynb"


@pytest.mark.parametrize("text", TEXTS)
def test_a_parameter_is_a_value(notebook, tmp_path, text):
    for value in (text, [text], {text: text}):
        written, values = parameterize_notebook(load_notebook_node(str(notebook)), {"seed": value}), {}
        for cell in written.cells:
            exec(cell.source, values)
        assert values["seed"] == value
        assert {name for name in values if not name.startswith("__")} == {"seed", "out_dir", "rows_dir"}
    assert isinstance(run.parse_value(text), str)  # on the command line
    shard.shard(notebook, tmp_path / "out", {"seed": text}, 1, 1)


@pytest.mark.parametrize("name", ["seed = 1\nimport os", "seed; x", "__builtins__", "os.environ"])
def test_the_name_of_a_parameter_is_one_of_the_notebooks(notebook, tmp_path, name):
    with pytest.raises(ValueError, match="has no parameter"):
        run.run(notebook, tmp_path / "out", {name: 1})
    with pytest.raises(ValueError, match="has no parameter"):
        shard.shard(notebook, tmp_path / "out", {name: 1}, 1, 1)
