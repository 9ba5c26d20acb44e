"""Signals: whatever ends a batch, nothing that it started stays. Snakemake, a job and its kernel are small stand-ins."""

import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest

from reproduce import processes

SNAKEMAKE = """
import subprocess, sys
job = subprocess.Popen([sys.executable, "-c", open("job.py").read(), "-m", "reproduce", "train", "calm"])
try:
    sys.exit(job.wait())
except KeyboardInterrupt:
    job.wait()
    print("Snakemake was asked", flush=True)
    sys.exit(1)
"""
JOB = """
import pathlib, signal, subprocess, sys
def stop(*_):
    if pathlib.Path("deaf").exists():
        return pathlib.Path("heard").touch()
    kernel.kill()
    kernel.wait()
    print("the job was asked", flush=True)
    sys.exit(1)
kernel = subprocess.Popen(["sleep", "60"], start_new_session=True)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("ready").touch()
while True:
    signal.pause()
"""
COMMAND = [sys.executable, "-c", SNAKEMAKE, "-m", "snakemake"]


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The mark of a batch whose job is the stand-in; nothing with it may be left."""
    monkeypatch.chdir(tmp_path)
    Path("job.py").write_text(JOB)
    Path("lock").touch()
    yield str(tmp_path)
    assert processes.marked(str(tmp_path)) == []


def when(file, act):
    """Do that once the file is there."""

    def wait():
        while not Path(file).exists():
            time.sleep(0.02)
        act()

    threading.Thread(target=wait, daemon=True).start()


def attended(mark):
    with Path("lock").open() as lock:
        return processes.attend(COMMAND, mark, lock.fileno())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_all_end_in_order(mark, number, capfd):
    handler = signal.getsignal(number)
    when("ready", lambda: os.kill(os.getpid(), number))
    assert attended(mark) == (1, number)
    assert capfd.readouterr().out.split("\n")[:2] == ["the job was asked", "Snakemake was asked"]
    assert signal.getsignal(number) is handler


def test_a_second_signal_hurries(mark):
    Path("deaf").touch()
    when("ready", lambda: os.kill(os.getpid(), signal.SIGINT))
    when("heard", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert attended(mark) == (-9, signal.SIGINT)


def test_jobs_of_a_killed_snakemake_end(mark, capfd):
    def kill():
        for process in processes.marked(mark):
            if "(snakemake)" in processes.told([process]):
                process.kill()

    when("ready", kill)
    assert attended(mark) == (-9, None)
    assert "the job was asked" in capfd.readouterr().out


def test_the_guard_ends_what_a_killed_batch_left(mark):
    code = f"import os; from reproduce import processes\nprocesses.attend({COMMAND!r}, {mark!r}, os.open('lock', os.O_RDONLY))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as batch:
        when("ready", batch.kill)
        said = batch.stdout.read()  # until the last process has closed it
    assert said.split("\n")[:2] == ["the job was asked", "Snakemake was asked"]
    while processes.marked(mark):
        time.sleep(0.05)


@pytest.mark.parametrize(
    "line, kind",
    [
        ("python -m reproduce train calm -p seed 1", "reproduce train calm"),
        ("python -m reproduce.__main__ train calm -p seed 1", "reproduce train calm"),  # the second process of a training
        ("/usr/bin/python -m snakemake --cores 2", "snakemake"),
        ("/bin/sleep 60", "sleep"),
    ],
)
def test_what_a_process_is(line, kind):
    process = Namespace(pid=7, cmdline=line.split)
    assert processes.told([process]) == f"7 ({kind})"


def test_the_words_of_signals(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert [processes.words(number) for number in (2, 9, 11)] == [
        "interrupted (signal 2)", "killed (signal 9; out of memory?)", "killed (signal 11)",
    ]  # fmt: skip
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    assert processes.words(15) == "interrupted (signal 15): Slurm's job 7 was cancelled, preempted or out of time"
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    told = subprocess.CompletedProcess([], 0, "JobId=7 JobState=RUNNING EndTime=2020-01-01T00:00:00 Dependency=(null)")
    monkeypatch.setattr(processes.subprocess, "run", lambda *_args, **_options: told)
    assert processes.words(15) == "out of time: Slurm's job 7 reached its time limit"
