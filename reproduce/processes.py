"""The processes of a batch: each carries the batch's mark in its environment, so that all of them are found and ended with it.

python -m reproduce.processes MARK     # the guard: waits until the batch has ended, by KILL too, and ends what it left
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from cam_core.environment import ALLOCATOR

MARK = "CAM_BATCH"  # the variable of the environment; its value is the folder of the runs
GRACE = 40.0  # seconds that jobs have to stop: a kernel takes some; Slurm gives 30
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop; ``number`` is the signal, the message says in words what that means."""

    def __init__(self, number: int) -> None:
        super().__init__(words(number))
        self.number = number


@contextmanager
def stopping() -> Iterator[None]:
    """Inside, TERM and INT raise `Stopped` in the main thread."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled(stop):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """SIGNALS go to ``handler``; one that is ignored, as HUP under nohup, stays so. INT always counts: a shell's `&` switches it off."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, old in before.items():
        if old is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def words(number: int) -> str:
    """What a signal means that this process got, or that ended another: "out of time: ...", "killed (signal 9; out of memory?)", ..."""
    job = os.environ.get("SLURM_JOB_ID")
    if number == signal.SIGTERM and job:
        if _time_is_up(job):
            return f"out of time: Slurm's job {job} reached its time limit"
        return f"interrupted (signal 15): Slurm's job {job} was cancelled, preempted or out of time"
    if number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
        return f"killed (signal {number}{'; out of memory?' if number == signal.SIGKILL else ''})"
    return f"interrupted (signal {number})"


def _time_is_up(job: str) -> bool:
    """Whether a Slurm job is at its end, from the environment or, where that lacks it, from scontrol."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal():
        return time.time() > int(end) - 5
    try:
        command = ["scontrol", "show", "job", "-o", job]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
        known = dict(word.split("=", 1) for word in told if "=" in word)
        return known.get("JobState") == "TIMEOUT" or datetime.now() > datetime.fromisoformat(known["EndTime"])
    except (OSError, subprocess.SubprocessError, KeyError, ValueError):
        return False


def marked(mark: str) -> list[psutil.Process]:
    """The living processes with this mark, without this one and its ancestors."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # it has ended, or is another user's
            continue
    return found


def told(processes: list[psutil.Process]) -> str:
    """Pids and what they are: "12 (snakemake), 17 (reproduce train l_cam)"."""
    return ", ".join(f"{process.pid} ({_kind(process)})" for process in processes)


def _kind(process: psutil.Process) -> str:
    """The module that it runs, of ours with the first arguments, else its program."""
    try:
        line = process.cmdline()
        module = line.index("-m") + 1 if "-m" in line else 0
        if line[module] in ("reproduce", "reproduce.__main__"):  # Fabric starts the other processes of a training by the second name
            return " ".join(["reproduce", *line[module + 1 : module + 3]])
        return Path(line[module]).name
    except (psutil.Error, OSError, IndexError):
        return "ended"


def stop(mark: str, hurried: Callable[[], bool] = lambda: False) -> None:
    """End every process with this mark; returns once there is none.

    Runs and trainings get TERM and say why they end; Snakemake gets INT, upon which it also cancels what it has in a queue; the others end
    with these. What is left after GRACE seconds, or when ``hurried``, is killed.
    """
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + GRACE
    while left := marked(mark):
        late = hurried() or time.monotonic() > deadline
        for process in left:
            kind = _kind(process)
            number = signal.SIGINT if kind == "snakemake" else signal.SIGTERM if kind.startswith("reproduce ") else None
            try:
                if late:
                    process.kill()
                elif number and process not in asked:
                    process.send_signal(number)
            except psutil.Error:
                continue
            asked.add(process)
        time.sleep(0.1)


def attend(command: Sequence[str], mark: str, lock: int) -> tuple[int, int | None]:
    """Run a batch's Snakemake until it and all that carry its ``mark`` have ended: (its exit code, the signal that ended them or None).

    A first signal to this process lets them stop, a second one hurries. If Snakemake itself was killed, its jobs end too. ``lock`` is a
    file descriptor that it inherits.
    """
    got: list[int] = []
    guard = [sys.executable, "-m", "reproduce.processes", mark]
    own = {**os.environ, **ALLOCATOR, "TQDM_DISABLE": "1", MARK: mark}  # bars of several jobs would mix
    with (
        _handled(lambda number, _frame: got.append(number)),
        subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True),  # its stdin closes at the end of this block
        subprocess.Popen(command, env=own, pass_fds=[lock], start_new_session=True) as process,  # a session: Ctrl-C comes by us alone
    ):
        while process.poll() is None and not got:
            time.sleep(0.1)
        if got:
            print(f"{signal.Signals(got[0]).name}: ending what runs; once more, and it is killed", file=sys.stderr, flush=True)
        stop(mark, lambda: len(got) > 1)
    return process.returncode, got[0] if got else None


if __name__ == "__main__":
    for ignored in SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.read()
    stop(sys.argv[1])
