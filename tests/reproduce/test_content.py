"""What runs a job again: a table of changes."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from reproduce import batch, content, status

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ("calm", "increment_cam", "l_cam", "lfi_cam")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The code and the notebooks of the repository, to be changed."""
    home = tmp_path_factory.mktemp("home")
    for name in ("cam_core", "training", "reproduce", "data_scripts", "notebooks"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    (home / "data/drawn").mkdir(parents=True)
    (home / "data/drawn/drawn.json").write_text('{"seed": 0, "small": false}')
    return home


@pytest.fixture
def home(copy, monkeypatch):
    """The copy, as if the module lay in it."""
    monkeypatch.setattr(content, "HOME", copy)
    return copy


def state(home):
    """The digests of the four notebooks, and of a training job."""
    runs = {paper: content.of(home / f"notebooks/{paper}.ipynb", "drawn_cub") for paper in PAPERS}
    return {**runs, "train": content.of(None, "drawn_cub")}


unchanged = cache(state)


def append(text):
    return lambda old: old + text


def swap(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new, 1)

    return change


def again(runs, what):
    return {run: [what] for run in runs}


def with_output(text):
    written = nbformat.reads(text, as_version=4)
    next(cell for cell in written.cells if cell.cell_type == "code").outputs = [nbformat.v4.new_output("stream", text="1")]
    return nbformat.writes(written)


@pytest.mark.parametrize(
    "file, change, expected",
    [
        ("cam_core/figures.py", append("\n# a comment\n"), {}),
        ("cam_core/figures.py", swap('"""', '"""Other words. '), {}),
        ("cam_core/figures.py", append("\n\n\nNEW = 1\n"), again(PAPERS, "code")),
        ("cam_core/methods/increment.py", append("\nNEW = 1\n"), again(PAPERS, "code")),  # METHODS has it
        ("cam_core/metrics/components.py", append("\nNEW = 1\n"), None),
        ("training/loop.py", append("\nNEW = 1\n"), again((*PAPERS, "train"), "code")),
        ("reproduce/batch.py", append("\nNEW = 1\n"), {}),  # how runs are made, not what is in them
        ("cam_core/explain.py", append("\nNEW = 1\n"), {}),  # the command line of the package
        ("notebooks/calm.ipynb", with_output, {}),
        ("notebooks/calm.ipynb", swap("import torch", "import torch, math"), {"calm": ["notebook"]}),
        ("data/drawn/drawn.json", swap("false", "true"), again((*PAPERS, "train"), "data")),
    ],
)
def test_a_change_runs_what_depends_on_it_again(home, file, change, expected):
    before, path = unchanged(home), home / file
    text = path.read_text()
    path.write_text(change(text))
    try:
        after = state(home)
    finally:
        path.write_text(text)
    changed = {run: [name for name in after[run] if after[run][name] != before[run][name]] for run in after}
    changed = {run: names for run, names in changed.items() if names}
    if expected is None:  # those that import it by name, whichever they are
        users = {paper for paper in PAPERS if "components" in (home / f"notebooks/{paper}.ipynb").read_text()}
        assert users <= set(changed)
        assert "train" not in changed
    else:
        assert changed == expected


def test_real_data_are_known_by_the_names_of_their_files(tmp_path, monkeypatch):
    images = tmp_path / "CUB_200_2011/images/001"
    images.mkdir(parents=True)
    (images / "1.jpg").touch()
    before = content.data("cub", tmp_path)
    assert (content.data("cub", tmp_path), content.data("imagenet", tmp_path) == before) == (before, False)
    (tmp_path / "VOCdevkit").mkdir()  # another set
    assert content.data("cub", tmp_path) == before
    (images / "2.jpg").touch()
    assert content.data("cub", tmp_path) != before
    monkeypatch.delenv("CAM_DATA", raising=False)
    assert content.data("cub") == ""


def test_results_older_than_code_or_data_are_named(home, tmp_path, monkeypatch):
    """A profile that doesn't watch: what is done stays, and is told."""
    monkeypatch.chdir(tmp_path)
    jobs = [batch.Job("p", paper, "drawn_cub", "resnet8", 0, 1, False) for paper in PAPERS]
    kept = {
        "calm": {"depends": content.of(home / "notebooks/calm.ipynb", "drawn_cub")},
        "l_cam": {"depends": {**content.of(home / "notebooks/l_cam.ipynb", "drawn_cub"), "data": "others"}},
        "lfi_cam": {},
    }
    for job in jobs[:1] + jobs[2:]:
        Path(job.folder).mkdir(parents=True)
        Path(job.folder, "provenance.json").write_text(json.dumps(kept[job.paper]))
    profile = batch.Profile("p", jobs)
    told = content.outdated(profile)
    assert f"older than what it was made from: {jobs[2].folder} (data)" in status.report(profile)
    assert "older" not in status.report(batch.Profile("p", jobs, watch=True))
    assert told == {jobs[2].folder: ["data"], jobs[3].folder: ["nothing was recorded"]}


# Stands for `python -m reproduce run`, and takes no time.
RUN = """
import sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
for name in ("notebook.ipynb", "metrics.csv", "provenance.json"):
    (out / name).write_text("{}")
"""


@pytest.mark.slow
def test_a_profile_that_watches_runs_again_what_has_changed(tmp_path, monkeypatch):
    """By Snakemake: a comment and a later time of the file do nothing, another line of the notebook does."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    shutil.copytree(ROOT / "reproduce", "reproduce")
    Path("reproduce/__main__.py").write_text(RUN)
    for name in ("notebooks", "profiles"):
        Path(name).mkdir()
    Path("profiles/tiny.yaml").write_text("watch: true\njobs: [{paper: l_cam, dataset: cub, backbone: resnet18}]")

    def write(*lines):
        nbformat.write(
            new_notebook(cells=[new_code_cell(line) for line in ("from reproduce import costs", *lines)]), "notebooks/l_cam.ipynb"
        )

    write()
    profile = batch.read_profile("tiny", check=False)
    assert subprocess.run(batch._snakemake(profile, 1, "--quiet", "all"), check=False).returncode == 0
    write("# a comment")
    assert batch._pending(profile, 1) == set()
    write("other = 1")
    assert len(batch._pending(profile, 1)) == 3
