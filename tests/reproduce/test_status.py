"""The status: a true word for each run, from files alone; and how long the rest will take."""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from cam_core.progress import JOURNAL, Bar
from reproduce import batch, journal, processes, shard, status
from reproduce.__main__ import main

GIB = 1024.0


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The jobs of a profile, by data set; each would train."""
    monkeypatch.chdir(tmp_path)
    names = ["done", "raised", "killed", "begun", "runs", "trains", "stopped", "untrained", "waiting", "fresh", "late", "away", "lost"]
    Path("profiles").mkdir()
    Path("profiles/tiny.yaml").write_text(f"jobs: [{{paper: calm, dataset: [{', '.join(names)}], backbone: r, train: true, minutes: 2}}]")
    Path("runs/models").mkdir(parents=True)
    return {job.dataset: job for job in batch.read_profile("tiny", check=False).jobs}


def make(folder, **files):
    Path(folder).mkdir(parents=True)
    for name, text in files.items():
        Path(folder, name.replace("__", ".")).write_text(text)


def log(sentence):
    return f"12:00:00  first\n12:00:01  {sentence}\n"


def begun(pid, created, host=None, **more):
    facts = {"pid": pid, "created": created, "host": host or platform.node(), "slurm_job": None}
    return json.dumps({**facts, "begun": time.time() - 80, "updated": time.time() - 60, **more})


def test_each_run_gets_a_true_word(jobs, monkeypatch, capsys):
    took = {"wall_seconds": 83, "cpu_seconds": 160, "peak_memory_mib": 1.5 * GIB, "started": "2026-01-01T00:00:00+00:00"}
    make(jobs["done"].folder, provenance__json=json.dumps(took), notebook__ipynb="")
    Path(jobs["done"].marker).write_text(json.dumps({"wall_seconds": 7203, "cpu_seconds": 7200, "peak_memory_mib": 0.5 * GIB}))
    make(jobs["raised"].folder + ".failed", run__log=log("calm.ipynb: cell 3 of 9 stopped with ValueError: why"))
    make(jobs["killed"].folder + ".failed", run__log=log(f"calm.ipynb: cell 3 of 9 stopped: its kernel was {processes.words(9)}"))
    make(jobs["stopped"].folder + ".failed", run__log=log(f"calm.ipynb: {processes.words(15)}"))
    make(jobs["begun"].folder + ".failed", run__log=log("that was the attempt before"))
    me = psutil.Process()
    make(jobs["begun"].folder + ".part", progress__json=begun(me.pid, me.create_time() - 100))  # another process had this number
    bar = {"prefix": "r squash", "n": 3, "total": 12, "unit": "batch", "postfix": "", "seconds_left": 61.2}
    make(jobs["runs"].folder + ".part", progress__json=begun(me.pid, me.create_time(), **bar))
    bar = {
        "prefix": "calm_em: ",
        "n": 5,
        "total": None,
        "unit": "batch",
        "postfix": "epoch 3, loss 0.5, 250 images/s",
        "seconds_left": None,
    }
    Path(jobs["trains"].marker).with_suffix(".progress").write_text(begun(me.pid, me.create_time(), **bar))
    Path(jobs["untrained"].marker).with_suffix(".log").write_text("Traceback\nValueError: no data\n")
    Path(jobs["fresh"].marker).touch()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time())))
    make(jobs["late"].folder + ".failed", run__log=log(f"calm.ipynb: {processes.words(15)}"))
    monkeypatch.delenv("SLURM_JOB_ID")
    make(jobs["away"].folder + ".part", progress__json=begun(1, 1.0, "node7", slurm_job="12"))
    make(jobs["lost"].folder + ".part", progress__json=begun(1, 1.0, "node7", updated=time.time() - 7300))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    rows = {job.dataset: row for job, row in zip(jobs.values(), status.rows(batch.read_profile("tiny", check=False)), strict=True)}
    assert {name: row.state for name, row in rows.items()} == {
        "done": "done", "raised": "failed", "killed": "killed", "begun": "killed", "runs": "running", "trains": "running",
        "stopped": "interrupted", "untrained": "failed", "waiting": "left", "fresh": "left", "late": "out of time", "away": "running",
        "lost": "left",
    }  # fmt: skip
    assert rows["done"].words == "notebook 1:23 min, CPU 2:40 min, 1.5 GiB; training 2:00 h, CPU 2:00 h, 0.5 GiB"
    assert rows["raised"].words == f"calm.ipynb: cell 3 of 9 stopped with ValueError: why; {jobs['raised'].folder}.failed/run.log"
    assert "its kernel was killed (signal 9; out of memory?)" in rows["killed"].words
    assert rows["begun"].words.startswith("notebook killed (signal 9; out of memory?), last seen at work after 0:20 min")
    assert rows["runs"].words.startswith("notebook: r squash: 3 of 12 batch, 1:01 min left of this step, since ")
    assert rows["trains"].words.startswith("training: calm_em: 5 batch, epoch 3, loss 0.5, 250 images/s, since ")
    assert rows["untrained"].words == f"training: ValueError: no data; runs/models/{Path(jobs['untrained'].marker).stem}.log"
    assert [rows[name].words for name in ("waiting", "fresh")] == ["its model is not trained", "not begun"]
    assert "out of time: Slurm's job 7 reached its time limit" in rows["late"].words
    assert rows["away"].words.startswith("notebook on node7, Slurm's job 12: since ")
    assert rows["lost"].words.startswith("notebook begun on node7, without a word for 2:01 h: it waits, or was killed")
    assert main(["status", "--profile", "tiny"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 done, 3 running, 1 out of time, 1 interrupted, 2 killed, 2 failed, 3 left\n")
    assert "\r" not in text
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_the_shards_of_a_run_tell_their_images_and_the_time_left(tmp_path, monkeypatch):
    """While they are measured; what they took counts as gone, and stands beside the run that summarised them."""
    monkeypatch.chdir(tmp_path)
    (job,) = jobs = [batch.Job("tiny", "calm", "d", "r", 0, 10.0, False, shards=4)]
    took = {"wall_seconds": 60.0, "cpu_seconds": 100.0, "peak_memory_mib": GIB}

    def put(number, ending, content):
        path = shard.mark(job.folder, number, 4).with_suffix(ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def told():
        (row,) = status.rows(batch.Profile("tiny", jobs))
        return row

    assert told().words == "not begun"
    put(1, ".json", json.dumps(took))
    assert (told().state, told().words) == ("left", "1 of 4 shards are measured")
    me = psutil.Process()
    put(2, ".progress", begun(me.pid, me.create_time() - 100))
    assert told().words.startswith("shard 2 of 4 killed (signal 9; out of memory?), last seen at work after 0:20 min; ")
    bar = {"prefix": "r squash", "n": 384, "total": 12500, "unit": "image", "postfix": "", "seconds_left": 61.2}
    for number in (2, 3):
        put(number, ".progress", begun(me.pid, me.create_time(), **bar))
    first, second, third = told().words.split("; ")
    assert first == "1 of 4 shards are measured"
    assert second.startswith("shard 2 of 4: r squash: 384 of 12500 image, 1:01 min left of this step, since ")
    assert third.startswith("shard 3 of 4: ")
    assert told().seconds == pytest.approx(60 + 2 * 80, abs=2)
    assert status.remaining(batch.Profile("tiny", jobs, threads=1), [told()], cores=1) == pytest.approx(20 * 60 - 220, abs=5)
    made = {**took, "shards": [took, {**took, "peak_memory_mib": 3 * GIB}]}
    make(job.folder, provenance__json=json.dumps(made), notebook__ipynb="")
    assert told().words == "notebook 1:00 min, CPU 1:40 min, 1.0 GiB; shards 2:00 min, CPU 3:20 min, 3.0 GiB"
    assert told().seconds == 180


def test_a_run_of_another_process_that_ends_during_a_batch_is_told(jobs):
    facts = {"wall_seconds": 9, "cpu_seconds": 9, "peak_memory_mib": GIB}
    hour = datetime.now(UTC).replace(microsecond=0)
    make(jobs["done"].folder, provenance__json=json.dumps({**facts, "started": "2026-01-01T00:00:00+00:00"}), notebook__ipynb="")
    make(jobs["fresh"].folder, provenance__json=json.dumps({**facts, "started": "2126-01-01T00:00:00+00:00"}), notebook__ipynb="")
    os.utime(Path(jobs["done"].folder, "provenance.json"), (hour.timestamp() + 60,) * 2)
    told = [row.words.split(";")[0] for row in status.rows(batch.read_profile("tiny", check=False), hour) if row.state == "done"]
    assert told == ["finished elsewhere", "notebook 0:09 min, CPU 0:09 min, 1.0 GiB"]


@pytest.mark.parametrize(
    "states, left",
    [
        ("llll", 4 * 120.0),  # nothing is known but the plan
        ("dlll", 3 * 30.0),  # what its like took
        ("drll", 10.0 + 2 * 30.0),  # one runs since 20 s
        ("dddd", 0.0),
    ],
)
def test_the_time_left_comes_from_what_was_measured(jobs, states, left):
    Path("profiles/tiny.yaml").write_text("threads: 2\njobs: [{paper: calm, dataset: d, backbone: r, seed: [0, 1, 2, 3], minutes: 2}]")
    profile = batch.read_profile("tiny", check=False)
    known = {"d": ("done", 30.0), "r": ("running", 20.0), "l": ("left", None)}
    found = [status.Row(known[of][0], job.folder, "", known[of][1]) for of, job in zip(states, profile.jobs, strict=True)]
    assert status.remaining(profile, found, cores=2) == pytest.approx(left)
    assert status.remaining(profile, found, cores=4) == pytest.approx(max(left / 2, 120.0 if states == "llll" else 30.0 if left else 0.0))


def test_other_networks_are_scaled_by_what_was_measured(jobs):
    Path("profiles/tiny.yaml").write_text("threads: 2\njobs: [{paper: calm, dataset: d, backbone: [r, s], minutes: 2}]")
    profile = batch.read_profile("tiny", check=False)
    found = [status.Row("done", profile.jobs[0].folder, "", 60.0), status.Row("left", profile.jobs[1].folder, "")]
    assert status.remaining(profile, found, cores=2) == pytest.approx(60.0)  # half of the 2 minutes of the plan


def test_a_bar_tells_its_journal_and_stays_out_of_logs(tmp_path, monkeypatch, capsys):
    path = tmp_path / "progress.json"
    with journal.kept(path):
        assert journal.alive(journal.read(path))
        monkeypatch.setattr(Bar, "_told", -1e9)
        bar = Bar(range(40), desc="seen", unit="image", mininterval=0, miniters=1)
        for step in bar:
            bar.set_postfix_str(f"epoch {step}")
            if step == 7:
                monkeypatch.setattr(Bar, "_told", -1e9)  # as if five seconds had gone
        told = journal.read(path)
        assert (told["pid"], told["prefix"], told["n"], told["total"], told["postfix"]) == (os.getpid(), "seen", 8, 40, "epoch 7")
        assert os.environ[JOURNAL] == str(path)
    assert not path.exists()
    assert JOURNAL not in os.environ
    assert list(Bar(range(3), desc="alone")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_the_journal_of_an_ended_process_tells_so(tmp_path):
    code = (
        f"import os; from pathlib import Path; from reproduce import journal\nwith journal.kept(Path({str(tmp_path)!r}) / 'j'): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert journal.alive(journal.read(tmp_path / "j")) is False
    assert journal.alive({"host": "node7", "pid": os.getpid(), "created": 0}) is None
