"""Running notebooks: what ends under a final name is complete, what does not is kept under another."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from reproduce import batch, results, run, status
from reproduce.__main__ import main
from reproduce.files import no_room

HOME = Path(__file__).resolve().parents[2]
PARAMETERS = "seed = 0  # seed\nvalue = 1.0  # number to report\nout_dir = None  # where to write"
SAVE = """
from reproduce import results
text = dict.fromkeys(results.TEXT, "x")
results.save(out_dir, [text | dict(value=value, ci_low=0.0, ci_high=9.0, n=4, seed=seed)], (), {"chunk": 8})
"""


def notebook(folder, *cells, parameters=PARAMETERS):
    path = folder / "l_cam.ipynb"
    head = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[head, *map(new_code_cell, cells)], metadata={"kernelspec": spec}), path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_is_complete_under_its_name_and_runs_once(tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3"  # a stranger's kernelspec must not be started
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "no", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    cells = ["import sys; print(sys.executable)\nimport os; print(os.environ['OMP_NUM_THREADS']); os.makedirs(rows_dir)", SAVE]
    source = notebook(tmp_path, *cells, parameters=f"{PARAMETERS}\nrows_dir = None")
    out = tmp_path / "runs" / "key"
    (tmp_path / "runs" / "key.part").mkdir(parents=True)  # a killed run's leftovers
    (tmp_path / "runs" / "key.part" / "stale.txt").write_text("old")
    (tmp_path / "runs" / "key.failed").mkdir()
    (out / "metrics.csv").parent.mkdir()
    (out / "metrics.csv").write_text("half")  # a final name without provenance is no run
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")  # restored afterwards
    assert run.run(source, out, {"seed": 3, "value": 0.1 + 0.2}, threads=2)
    assert names(out) == ["metrics.csv", "notebook.ipynb", "provenance.json", "run.log", "run_facts.json"]
    assert names(out.parent) == ["key"]
    assert results.read_records(out / "metrics.csv").value.tolist() == [0.1 + 0.2]
    facts = json.loads((out / "provenance.json").read_text())
    assert (facts["seed"], facts["chunk"], facts["notebook"]) == (3, 8, "l_cam.ipynb")
    assert 0 < facts["wall_seconds"] < 60
    executed = (out / "notebook.ipynb").read_text()
    assert nbformat.validate(nbformat.reads(executed, as_version=4)) is None
    printed = [o["text"] for cell in json.loads(executed)["cells"] for o in cell.get("outputs", []) if "text" in o]
    assert "".join(printed[0]).split() == [sys.executable, "2"]
    assert str(tmp_path) not in executed
    assert "key.kept" not in executed + json.dumps(facts)
    assert str(tmp_path) not in json.dumps(facts)
    before = (out / "provenance.json").stat().st_mtime_ns
    assert not run.run(source, out, {"seed": 3, "value": 0.1 + 0.2})
    for other, told in (({"seed": 4, "value": 0.1 + 0.2}, "seed 3, now 4"), ({"seed": 3}, r"value 0.30000000000000004, now not given")):
        with pytest.raises(ValueError, match=rf"holds a run with other parameters \({told}\): name another folder, or .* --force"):
            run.run(source, out, other)
    with pytest.raises(ValueError, match=r"other parameters \(notebook l_cam.ipynb, now calm.ipynb\)"):
        run.run(source.with_name("calm.ipynb"), out, {"seed": 3, "value": 0.1 + 0.2})
    assert (out / "provenance.json").stat().st_mtime_ns == before
    assert run.run(source, out, {"seed": 4}, force=True)
    assert results.read_records(out / "metrics.csv").seed.tolist() == [4]
    assert names(out.parent) == ["key"]


@pytest.mark.parametrize(
    "cells, sentence",
    [
        (("1 + 1", "raise KeyError('lost')"), "l_cam.ipynb: cell 4 of 4 stopped with KeyError: 'lost'; log and"),
        (("1 + 1",), "wrote no metrics.csv"),
        ((SAVE, "open(f'{out_dir}/metrics.csv', 'a').write('torn,row')"), "metrics.csv"),
        (("import os; os.kill(os.getpid(), 9)",), "cell 3 of 3 stopped: its kernel was killed \\(signal 9; out of memory\\?\\)"),
    ],
)
def test_a_failing_run_keeps_its_log_under_another_name(tmp_path, cells, sentence):
    out = tmp_path / "key"
    with pytest.raises(run.RunError, match=sentence) as caught:
        run.run(notebook(tmp_path, *cells), out, {"seed": 1})
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert {"run.log", "notebook.ipynb"} <= set(names(tmp_path / "key.failed"))
    assert "provenance.json" not in names(tmp_path / "key.failed")
    assert re.search(sentence.split(":")[-1].split("; log")[0], (tmp_path / "key.failed" / "run.log").read_text())


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file")


def torn(_notebook, target, **_options):
    target.write_text("")


def told_by_the_kernel(*_args, **_options):
    raise RuntimeError(f"OSError: [Errno 28] {os.strerror(errno.ENOSPC)}: 'metrics.csv'")


@pytest.mark.parametrize(
    "where, fails, free",
    [
        ("reproduce.run.files.write_json", full, 1e9),
        ("reproduce.journal.write_json", full, 0),  # full from the start
        ("papermill.execute_notebook", full, 0),
        ("papermill.execute_notebook", torn, 0),
        ("papermill.execute_notebook", told_by_the_kernel, 1e6),
    ],
)
def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch, capsys, where, fails, free):
    def executed(_notebook, target, **_options):
        (target.parent / "metrics.csv").write_text("")
        target.write_text(json.dumps({"cells": [], "metadata": {"papermill": {"end_time": "now", "parameters": {}}}}))

    source, out = notebook(tmp_path, SAVE), tmp_path / "key"
    monkeypatch.setattr("papermill.execute_notebook", executed)
    monkeypatch.setattr("reproduce.results.read_records", lambda _path: None)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Namespace(free=free))
    monkeypatch.setattr(where, fails)
    assert main(["run", str(source), "--out", str(out)]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"error: l_cam.ipynb: no room left on /\S* \({free / 1e9:.1f} GB free\): make room there, and start again; .*", told
    )
    assert not out.exists()


def test_other_errors_on_a_full_disk_keep_their_words(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Namespace(free=0))
    assert no_room(ValueError("why"), tmp_path) == ""
    assert no_room(OSError(errno.EACCES, "not allowed"), tmp_path) == ""


def test_a_notebook_that_names_no_kernel_is_run_with_ours(tmp_path):
    source = notebook(tmp_path, SAVE)
    content = json.loads(source.read_text())
    content["metadata"] = {}
    source.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no parameter sed; it takes out_dir, seed, value"):
        run.run(source, tmp_path / "key", {"sed": 1})
    assert run.run(source, tmp_path / "key", {"seed": 2})
    assert results.read_records(tmp_path / "key" / "metrics.csv").seed.tolist() == [2]


@pytest.mark.parametrize("command", [["run", "l_cam.ipynb", "--out", "key"], ["batch", "--profile", "smoke"]])
def test_an_interrupt_says_that_the_same_command_resumes(command, monkeypatch, capsys):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupted)
    monkeypatch.setattr(batch, "batch", interrupted)
    assert main(command) == 130
    assert "interrupted: start the same command again, and it resumes" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_or_training_and_is_told(tmp_path, monkeypatch, capsys, number):
    def signalled(*_args, **_options):
        os.kill(os.getpid(), number)
        time.sleep(9)

    monkeypatch.setattr("papermill.execute_notebook", signalled)
    monkeypatch.setattr("reproduce.jobs.train", signalled)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    source, marker = notebook(tmp_path, SAVE), tmp_path / "marker.json"
    assert main(["run", str(source), "--out", str(tmp_path / "key")]) == 128 + number
    assert main(["train", "calm", "--marker", str(marker)]) == 128 + number
    assert capsys.readouterr().err.count(f"interrupted (signal {int(number)}): start the same command again, and it resumes") == 2
    assert status.failure(tmp_path / "key.failed" / run.LOG) == ("interrupted", f"l_cam.ipynb: interrupted (signal {int(number)})")
    assert status.failure(marker.with_suffix(".log")) == ("interrupted", f"interrupted (signal {int(number)})")
    assert names(tmp_path) == ["key.failed", "l_cam.ipynb", "marker.log"]


@pytest.mark.parametrize("value", ["-4", "0", "soon", "2.5"])
def test_a_count_of_cores_or_threads_is_a_whole_number(value, capsys):
    for command in (["batch", "--profile", "smoke", "--cores"], ["run", "l_cam.ipynb", "--out", "key", "--threads"]):
        with pytest.raises(SystemExit):
            main([*command, value])
        assert f"expected a whole number of at least 1, got '{value}'" in capsys.readouterr().err


def test_a_training_of_no_paper_is_refused(tmp_path, capsys):
    marker = ["--marker", str(tmp_path / "marker.json")]
    assert main(["train", "nope", "-p", "dataset", "drawn_cub", "-p", "backbone", "resnet8", *marker]) == 1
    assert "paper is 'nope', expected one of increment_cam, l_cam, calm, lfi_cam" in capsys.readouterr().err
    assert names(tmp_path) == ["marker.log"]


def test_wrong_calls_stop_before_anything_runs(tmp_path):
    source = notebook(tmp_path, SAVE)
    with pytest.raises(ValueError, match="no parameter sed; it takes out_dir, seed, value"):
        run.run(source, tmp_path / "key", {"sed": 1})
    with pytest.raises(FileNotFoundError, match="no such notebook"):
        run.run(tmp_path / "none.ipynb", tmp_path / "key", {})
    with pytest.raises(ValueError, match=r"may not end in \.part"):
        run.run(source, tmp_path / "key.part", {})
    (tmp_path / "text.ipynb").write_text("text")
    with pytest.raises(ValueError, match="is no notebook"):
        run.run(tmp_path / "text.ipynb", tmp_path / "key", {})
    assert names(tmp_path) == ["l_cam.ipynb", "text.ipynb"]


def test_a_killed_run_leaves_no_final_folder_and_a_live_one_is_respected(tmp_path):
    gate = tmp_path / "gate"
    wait = f"import time, pathlib\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)"
    source, out = notebook(tmp_path, SAVE, "print('half way')", wait), tmp_path / "key"
    command = [sys.executable, "-m", "reproduce", "run", str(source), "--out", str(out), "-p", "seed", "5"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 40
        while "half way" not in _text(tmp_path / "key.part" / "run.log") and time.monotonic() < deadline:
            time.sleep(0.1)
        with pytest.raises(run.RunError, match="being written by another process"):
            run.run(source, out, {"seed": 5})
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert names(tmp_path) == ["key.part", "l_cam.ipynb"]
    assert (tmp_path / "key.part" / "metrics.csv").exists()  # numbers were there: still no result
    assert results.load(tmp_path).empty
    gate.touch()
    assert run.run(source, out, {"seed": 5})
    assert names(tmp_path) == ["gate", "key", "l_cam.ipynb"]


def _text(path):
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("None", None),
        ("true", True),
        ("False", False),
        ("[1, 2]", [1, 2]),
        ("{'score_cam': 16}", {"score_cam": 16}),
        ("resnet50", "resnet50"),
        ("data/drawn", "data/drawn"),
    ],
)
def test_parameters_from_the_command_line_get_their_type(text, value):
    assert run.parse_value(text) == value
    assert type(run.parse_value(text)) is type(value)
