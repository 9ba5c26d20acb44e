"""What of a profile is done, runs, failed and is left, from the files on the disk: it may be asked at any time, and changes nothing."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from reproduce import content, journal, layout, shard
from reproduce.costs import alone, scale
from reproduce.layout import LOG, is_complete

if TYPE_CHECKING:
    from reproduce.batch import Job, Profile

SILENT = 600  # seconds after which a job on another machine is no more taken to run
# The states of a run that ended without a result, by the words that `processes.words` has for them; the others failed.
ENDS = {"out of time:": "out of time", "interrupted (signal": "interrupted", "killed (signal": "killed"}
STATES = ("done", "running", *ENDS.values(), "failed", "left")


@dataclass(frozen=True)
class Row:
    """What became of one run: one of STATES, and in words what it took, how far it is, why it failed, or what it lacks."""

    state: str
    run: str
    words: str
    seconds: float | None = None  # measured, of a run that is done; of one that runs, what went into it so far


def rows(profile: "Profile", begun: datetime | None = None) -> list[Row]:
    """The state of each job. ``begun``: when the batch that asks began; a run begun before and done after was finished elsewhere."""
    return [_row(job, begun) for job in profile.jobs]


def _row(job: "Job", begun: datetime | None) -> Row:
    folder, part, failed = (Path(job.folder + suffix) for suffix in ("", ".part", ".failed"))
    marker = Path(job.marker)
    training, trouble = marker.with_suffix(".progress"), marker.with_suffix(".log")
    if is_complete(folder):
        told, made = costs(folder, marker), folder / layout.PROVENANCE
        if begun and made.stat().st_mtime > begun.timestamp() > _started(_read(made)):
            told = f"finished elsewhere; {told}"
        return Row("done", job.folder, told, measured(job))
    at_work = {"notebook": (part / journal.NAME, part / LOG), "training": (training, training)}
    at_work |= {f"shard {path.stem.replace('-', ' ')}": (path, path) for path in sorted(shard.kept(folder).glob("*-of-*.progress"))}
    parts = [_begun(job, known, what, log) for what, (path, log) in at_work.items() if (known := journal.read(path)) is not None]
    if running := [row for row in parts if row.state == "running"]:
        return _together(job, running)
    if parts:
        return parts[0]
    if part.exists():
        return Row("killed", job.folder, f"{part / LOG}: begun, and no process works on it")
    if failed.exists():
        return _ended(job, failed / LOG, "")
    if trouble.exists():
        return _ended(job, trouble, "training: ")
    so_far = f"{len(_marks(job))} of {job.shards} shards are measured" if _marks(job) else "not begun"
    return Row("left", job.folder, "its model is not trained" if job.train and not marker.exists() else so_far)


def _begun(job: "Job", known: Mapping[str, Any], what: str, log: Path) -> Row:
    alive, silent = journal.alive(dict(known)), time.time() - known["updated"]
    where = f"on {known['host']}" + (f", Slurm's job {known['slurm_job']}" if known["slurm_job"] else "")
    if alive or (alive is None and silent < SILENT):
        return Row(
            "running", job.folder, f"{what} {where if alive is None else ''}".strip() + f": {_doing(known)}", time.time() - known["begun"]
        )
    if alive is None:
        return Row("left", job.folder, f"{what} begun {where}, without a word for {duration(silent)}: it waits, or was killed; {log}")
    worked = duration(known["updated"] - known["begun"])
    return Row("killed", job.folder, f"{what} killed (signal 9; out of memory?), last seen at work after {worked}; {log}")


def _together(job: "Job", running: Sequence[Row]) -> Row:
    """What runs of a job: one of its parts, or several shards at once."""
    words = [f"{len(_marks(job))} of {job.shards} shards are measured"] if job.shards > 1 else []
    words += [row.words for row in running]
    return Row("running", job.folder, "; ".join(words), sum(row.seconds or 0.0 for row in running) + _seconds(_marks(job)))


def _marks(job: "Job") -> list[dict[str, Any]]:
    """What the shards took that are measured."""
    every = (_read(shard.mark(job.folder, number, job.shards)) for number in range(1, job.shards + 1))
    return [took for took in every if took]


def _doing(known: Mapping[str, Any]) -> str:
    since = f"since {datetime.fromtimestamp(known['begun']):%H:%M:%S}"
    if "n" not in known:
        return since
    of = f" of {known['total']}" if known["total"] else ""
    step = f"{known['prefix']}{'' if known['prefix'].endswith(': ') else ': '}{known['n']}{of} {known['unit']}"
    left = f"{duration(known['seconds_left'])} left of this step" if known["seconds_left"] is not None else ""
    return ", ".join(filter(None, (step, known["postfix"], left, since)))


def _ended(job: "Job", log: Path, what: str) -> Row:
    state, words = failure(log)
    return Row(state, job.folder, f"{what}{words}; {log}")


def failure(log: Path) -> tuple[str, str]:
    """Of the log of a run or training without a result: its state, and its last sentence."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    time_of_day, gap, sentence = lines[-1].partition("  ") if lines else ("", "", "")
    words = (sentence if gap else time_of_day) or "it left no word (was the disk full?)"
    return next((state for said, state in ENDS.items() if said in words), "failed"), words


def costs(folder: Path, marker: Path) -> str:
    """What a finished run took, and the training whose ``marker`` is there; "" if neither recorded it."""
    made = _read(folder / layout.PROVENANCE)
    took = {"notebook": _took(made), "shards": _took(*made.get("shards", [])), "training": _took(_read(marker))}
    return "; ".join(f"{what} {cost}" for what, cost in took.items() if cost)


def _read(path: Path) -> dict[str, Any]:
    return journal.read(path) or {}


def _started(made: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(made["started"]).timestamp() if "started" in made else 0.0


def _took(*jobs: Mapping[str, Any]) -> str:
    """ "1:23 min, CPU 2:40 min, 1.4 GiB" of `provenance.cost`, of several jobs sums and the largest peak; "" where it is not recorded."""  # noqa: D210
    if not jobs or not all("cpu_seconds" in of for of in jobs):
        return ""
    cpu, peak = sum(of["cpu_seconds"] for of in jobs), max(of["peak_memory_mib"] for of in jobs)
    return f"{duration(_seconds(jobs))}, CPU {duration(cpu)}, {peak / 1024:.1f} GiB"


def _seconds(jobs: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(of["wall_seconds"] for of in jobs))


def measured(job: "Job") -> float | None:
    """Seconds that a finished run took, its shards and its training included; None if it was not recorded."""
    made = _read(Path(job.folder) / layout.PROVENANCE)
    of = [made, *made.get("shards", []), *([_read(Path(job.marker))] if job.train else [])]
    return _seconds(of) if all("wall_seconds" in one for one in of) else None


def remaining(profile: "Profile", found: Sequence[Row], cores: int) -> float:
    """Seconds until the jobs that are left and those that run are done, ``cores`` at work.

    A job takes what its like have taken (all but the seed is equal), else its `minutes`, scaled by what others took against theirs.
    """
    each, together = min(profile.threads or cores, cores), max(1, cores // (profile.threads or cores))
    planned = {job.folder: job.minutes * 60 * scale(job, each) for job in profile.jobs}
    took: dict[tuple[Any, ...], list[float]] = {}
    ratios = []
    for job, row in zip(profile.jobs, found, strict=True):
        if row.state == "done" and row.seconds:
            took.setdefault(_like(job), []).append(row.seconds)
            ratios.append(row.seconds / planned[job.folder])
    slower = statistics.median(ratios) if ratios else 1.0
    total, longest = 0.0, 0.0
    for job, row in zip(profile.jobs, found, strict=True):
        if row.state != "done":
            known = took.get(_like(job))
            expected = statistics.fmean(known) if known else planned[job.folder] * slower
            left = max(expected - (row.seconds or 0.0), 0.0) if row.state == "running" else expected
            total, longest = total + left, max(longest, left * alone(job))
    return max(total / together, longest)


def _like(job: "Job") -> tuple[Any, ...]:
    return job.paper, job.dataset, job.backbone, *sorted(job.recipe.items()), *sorted((k, str(v)) for k, v in job.extra.items())


def duration(seconds: float) -> str:
    """ "1:23 min" or "2:05 h"."""  # noqa: D210
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}:{seconds // 60 % 60:02d} h"
    return f"{seconds // 60}:{seconds % 60:02d} min"


def table(found: Sequence[Row]) -> str:
    """The rows, aligned, under a line of counts."""
    states = [row.state for row in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    width = max(len(row.run) for row in found)
    return "\n".join([counts, *(f"  {row.state:<12}{row.run:<{width}}  {row.words}".rstrip() for row in found)])


def report(profile: "Profile") -> str:
    """The table, how long the rest will take, and what is at work here."""
    found, cores = rows(profile), os.cpu_count() or 1
    text = [table(found)]
    if any(row.state != "done" for row in found):
        text.append(f"about {duration(remaining(profile, found, cores))} left on {cores} cores")
    old = {} if profile.watch else content.outdated(profile)  # what is watched is made again
    text += [f"older than what it was made from: {run} ({', '.join(what)})" for run, what in old.items()]
    lock = Path("runs/.batch.lock")
    told = lock.read_text().strip() if lock.exists() else ""
    pid = told.removeprefix("pid ").split(",")[0]
    if pid.isdecimal() and psutil.pid_exists(int(pid)) and "reproduce" in psutil.Process(int(pid)).cmdline():
        text.append(f"a batch is running here ({told})")
    if shutil.which("squeue"):
        queue = subprocess.run(["squeue", "--me", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout.split()
        if queue:
            text.append(f"Slurm's queue: {queue.count('RUNNING')} of your jobs run, {queue.count('PENDING')} wait")
    return "\n".join(text)
