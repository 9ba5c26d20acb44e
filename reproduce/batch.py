"""Batches: a profile is read into jobs; Snakemake decides which must run and runs them, and goes on if one fails."""

import csv
import fcntl
import io
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from reproduce import costs, parameters, preflight, processes, start, status
from reproduce.status import duration

MEMORY = 4200  # MiB: the largest peak of any run of the subset profile
NAME = r"\w[\w.-]*"  # of what becomes a folder: it cannot lead out of its parent
AXES = ("dataset", "backbone", "seed", *parameters.RECIPE)


@dataclass(frozen=True)
class Job:
    """One notebook with its parameters: what becomes one run folder."""

    profile: str
    paper: str
    dataset: str
    backbone: str
    seed: int
    minutes: float
    train: bool  # train the model in a separate job before
    recipe: Mapping[str, Any] = field(default_factory=dict)  # the given ones of `parameters.RECIPE`
    extra: Mapping[str, Any] = field(default_factory=dict)  # the notebook's other parameters
    processes: Mapping[str, int] = field(default_factory=dict)  # of that training: "devices" of each of "nodes"
    shards: int = 1  # jobs that measure before the run summarises
    train_minutes: float = 0.0  # of ``minutes``: those of the training job
    memory: int = MEMORY  # MiB, the measured peak of the larger of its two jobs, all its processes together

    @property
    def key(self) -> str:
        """<dataset>-<backbone>[-<recipe>]-s<seed>."""
        name = parameters.recipe_name(**self.recipe)
        return "-".join(part for part in (self.dataset, self.backbone.replace("/", "_"), name, f"s{self.seed}") if part)

    @property
    def folder(self) -> str:
        """The run folder, relative to the repository."""
        return f"runs/{self.profile}/{self.paper}/{self.key}"

    @property
    def marker(self) -> str:
        """The small file that names the model of the training job."""
        return f"runs/models/{self.profile}-{self.paper}-{self.key}.json"

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the notebook (the runner adds out_dir)."""
        return {**self.training, **self.extra}

    @property
    def training(self) -> dict[str, Any]:
        """The parameters of the training job: those of `parameters` that say which model, and where."""
        where = {name: self.extra[name] for name in ("device", "data_root") if name in self.extra}
        return {"profile": self.profile, "dataset": self.dataset, "backbone": self.backbone, "seed": self.seed, **self.recipe, **where}


@dataclass(frozen=True)
class Profile:
    """What a batch runs. `watch`: run again what depends on changed code, notebooks or data. `threads`: None is all cores.

    `hours`: no job asks for more; a training that takes longer is started again and goes on from its checkpoint.
    """

    name: str
    jobs: list[Job]
    watch: bool = False
    threads: int | None = None
    hours: float | None = None
    needs: tuple[str, ...] = ()


def read_profile(name: str, folder: Path = Path("profiles"), *, check: bool = True) -> Profile:
    """Read profiles/<name>.yaml; a list under one of AXES stands for each of its entries.

    ``check``: also each job's parameters, which loads torch. FileNotFoundError or ValueError, in one sentence, names file and entry.
    """
    path = folder / f"{name}.yaml"
    if not re.fullmatch(NAME, name) or not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none here"
        raise FileNotFoundError(f"{path}: no such profile; there are: {known}")
    try:
        content = _mapping(yaml.safe_load(path.read_text()) or {}, {"watch", "threads", "hours", "needs", "parameters", "jobs"})
        common = _mapping(content.get("parameters") or {})
        jobs: list[Job] = []
        for entry in _value(content, "jobs", []):
            try:
                jobs += _jobs(name, entry, common, check)
            except ValueError as error:
                raise ValueError(f"the job {entry}: {error}") from error
        folders = [job.folder for job in jobs]
        if twice := {folder for folder in folders if folders.count(folder) > 1}:
            raise ValueError(f"two jobs would write {sorted(twice)[0]}; give one another seed or recipe")
        threads = None if content.get("threads", "all") == "all" else _value(content, "threads", 1)
        needs = tuple(_value(content, "needs", []))
        return Profile(name, jobs, _value(content, "watch", False), threads, _value(content, "hours", None), needs)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def _jobs(profile: str, entry: Any, common: Mapping[str, Any], check: bool) -> Iterator[Job]:
    known = {"paper", *AXES, "minutes", "train_minutes", "memory", "train", "parameters", "devices", "nodes", "shards"}
    _mapping(entry, known)
    if missing := {"paper", "dataset", "backbone"} - set(entry):
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    values = [entry.get(axis, 0 if axis == "seed" else None) for axis in AXES]
    for dataset, backbone, seed, *recipe in itertools.product(*(v if isinstance(v, list) else [v] for v in values)):
        job = Job(
            profile=profile,
            paper=entry["paper"],
            dataset=dataset,
            backbone=backbone,
            seed=seed,
            minutes=float(_value(entry, "minutes", 1)),
            train=_value(entry, "train", False),
            recipe={name: value for name, value in zip(parameters.RECIPE, recipe, strict=True) if value is not None},
            extra={**common, **_mapping(entry.get("parameters") or {})},
            processes={name: _value(entry, name, 1) for name in ("devices", "nodes") if name in entry},
            shards=_value(entry, "shards", 1),
            train_minutes=float(_value(entry, "train_minutes", 0)),
            memory=_value(entry, "memory", MEMORY),
        )
        if not re.fullmatch(NAME, job.paper) or not re.fullmatch(NAME, job.key):
            raise ValueError(f"its folder would be {job.paper}/{job.key}, expected letters, digits and _.- alone")
        if check:
            _check(job)
        yield job


def _check(job: Job) -> None:
    known = [name for name in parameters.names(job.paper) if name not in ("profile", *AXES, "out_dir", "rows_dir")]
    for name in job.extra:
        parameters.one_of("parameter", name, known)
    wanted = parameters.read(job.paper, job.parameters, here=False)
    if job.train and not wanted.trains:
        raise ValueError(f"{job.paper} on {job.dataset} trains nothing; leave `train` out")


def _mapping(content: Any, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"found {content!r}, expected names with values, as `name: value`")
    if known and (unknown := set(content) - known):
        raise ValueError(f"unknown key {min(map(str, unknown))!r}; known are {', '.join(sorted(known))}")
    return content


VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {  # the check of each key's value; a bool is not a number here
    "minutes": (lambda v: type(v) in (int, float) and v > 0, "a number above 0"),
    "hours": (lambda v: v is None or (type(v) in (int, float) and v > 0), "a number above 0"),
    "train_minutes": (lambda v: type(v) in (int, float) and v >= 0, "a number of at least 0"),
    **dict.fromkeys(("train", "watch"), (lambda v: type(v) is bool, "true or false")),
    **dict.fromkeys(
        ("threads", "devices", "nodes", "shards", "memory"), (lambda v: type(v) is int and v > 0, "a whole number of at least 1")
    ),
    "jobs": (lambda v: isinstance(v, list) and len(v) > 0, "a list of jobs"),
    "needs": (lambda v: isinstance(v, list), "a list of variables of the environment"),
}


def _value(content: Mapping[str, Any], key: str, usual: Any) -> Any:
    value, (right, expected) = content.get(key, usual), VALUES[key]
    if not right(value):
        raise ValueError(f"{key} is {value!r}, expected {expected}")
    return value


def batch(name: str, *, cores: int | None = None, dry_run: bool = False, passed_on: Sequence[str] = ()) -> int:
    """Run what a profile lacks. Exit code: 0 if every run is complete afterwards, 128 + a signal that ended the batch, else 1.

    `passed_on` goes to Snakemake as it is; if it names files of single runs, only these are run. A signal ends everything that was started
    before this returns. ``dry_run`` says what would run; it writes nothing.
    """
    profile, cores, begun = _asked(read_profile(name, check=False), passed_on), cores or os.cpu_count() or 1, datetime.now(UTC)
    with nullcontext() if dry_run else _only_batch(name) as held:
        pending, faults = _planned(profile, cores, passed_on)
        if held is None or not pending or faults:
            return int(bool(faults) and not dry_run)
        # passed_on may begin with a target, so it comes last
        command = _snakemake(
            profile, cores, "--quiet", "rules", "host", "reason", "--keep-going", *gpus_here(profile, passed_on), *passed_on
        )
        code, number = processes.attend(command, *held)
    rows = status.rows(profile, begun)
    print(status.table(rows), flush=True)
    if number:
        print("interrupted: start the same batch again, and it resumes with what is not complete", file=sys.stderr)
        return 128 + number
    if all(row.state == "done" for row in rows) and (code == 0 or not _pending(profile, cores)):
        return 0
    if code < 0:
        print(f"Snakemake was {processes.words(-code)}, and what it ran has been ended: start the same batch again", file=sys.stderr)
    elif code and not any(row.state == "failed" for row in rows):
        print(f"Snakemake ended with exit code {code}; its log is the newest of .snakemake/log", file=sys.stderr)
    return 1


def _planned(profile: Profile, cores: int, passed_on: Sequence[str]) -> tuple[set[str], list[str]]:
    """The outputs that would be made, and what stands in the way of that; both are told."""
    try:
        pending = _pending(profile, cores)
    except ValueError:
        read_profile(profile.name)  # where the profile is wrong, this says it better
        raise
    faults: list[str] = []
    if pending:
        read_profile(profile.name)  # checked now: that loads torch, for which a batch that lacks nothing need not wait
        faults = preflight.faults(profile, pending, queued=_elsewhere(passed_on))
    print(announce(profile, pending, cores), flush=True)
    if faults:
        print("\n".join(["this stands in the way:", *(f"  {fault}" for fault in faults)]), file=sys.stderr)
    return pending, faults


def _asked(profile: Profile, passed_on: Sequence[str]) -> Profile:
    """The profile with only the runs that are named, or all if none is."""
    named = [job for job in profile.jobs if any(word.startswith(f"{job.folder}/") for word in passed_on)]
    return replace(profile, jobs=named) if named else profile


def _snakemake(profile: Profile, cores: int, *more: str) -> list[str]:
    # --nolock: the lock below does its work, and unlike Snakemake's does not outlive a hard kill
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock", "--rerun-incomplete"]
    command += ["--scheduler", "greedy", "--config", f"profile={profile.name}", "--rerun-triggers"]
    return [*command, "mtime", "params", *(("input", "code") if profile.watch else ()), *more]


def _elsewhere(passed_on: Sequence[str]) -> bool:
    """Whether Snakemake is told to run the jobs on a cluster."""
    return any(word.startswith(("--executor", "--profile", "--workflow-profile")) for word in passed_on)


def gpus_here(profile: Profile, passed_on: Sequence[str]) -> list[str]:
    """Snakemake's option that limits the jobs by the GPUs of this machine, if they run here and want one."""
    asked = _elsewhere(passed_on) or any(word.startswith("--resources") for word in passed_on)
    count = len(start.here()) if any(map(costs.gpus, profile.jobs)) and not asked else 0
    return ["--resources", f"gpu={count}"] if count else []


def _pending(profile: Profile, cores: int) -> set[str]:
    """The outputs that Snakemake would make."""
    done = subprocess.run(_snakemake(profile, cores, "--summary"), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"Snakemake cannot plan profile {profile.name}:\n{done.stderr.strip()}")
    rows = csv.DictReader(io.StringIO(done.stdout[done.stdout.index("output_file") :]), delimiter="\t")
    return {row["output_file"] for row in rows if row["plan"] == "update pending"}


@contextmanager
def _only_batch(name: str) -> Iterator[tuple[str, int]]:
    """Hold runs/.batch.lock: (the mark of the batch, the lock). Snakemake inherits the lock, so that it is free once both have ended."""
    path = Path("runs/.batch.lock")
    try:
        path.parent.mkdir(exist_ok=True)
        lock, mark = os.open(path, os.O_RDWR | os.O_CREAT), str(path.parent.resolve())
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): make runs/ writable, or make room") from error
    try:
        free, before = True, path.read_text().strip()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        left = processes.marked(mark)
        if not free and psutil.pid_exists(int(before.split(",")[0].removeprefix("pid ") or 0)):
            raise ValueError(f"a batch is running here already ({before}); wait for it")
        if left or not free:
            pids = " ".join(str(process.pid) for process in left)
            raise ValueError(
                f"the batch that ran here ({before}) is dead, and these of its processes still run: {processes.told(left)}; "
                f"wait until they have ended, or end them (kill {pids})"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()}, profile {name}\n".encode(), 0)
        yield mark, lock
    finally:
        os.close(lock)


def announce(profile: Profile, pending: set[str], cores: int) -> str:
    """What a batch will run and about how long it takes, per job and in total (`minutes`, scaled to the cores)."""
    waiting = [job for job in profile.jobs if f"{job.folder}/provenance.json" in pending or job.marker in pending]
    kept = len(profile.jobs) - len(waiting)
    if not waiting:
        return f"profile {profile.name}: all {kept} runs are up to date"
    each, together = profile.threads or cores, max(1, cores // (profile.threads or cores))
    expected = {job.folder: job.minutes * costs.scale(job, min(each, cores)) for job in waiting}
    longest = max(expected[job.folder] * costs.alone(job) for job in waiting)
    total = max(sum(expected.values()) / together, longest)
    head = f"profile {profile.name}: {len(waiting)} runs to make, {kept} up to date"
    rows = (f"  {duration(60 * minutes):>9}  {folder}" for folder, minutes in expected.items())
    on_gpus = [f"  {told}" for told in [costs.on_gpus(waiting)] if told]
    return "\n".join([f"{head}, about {duration(60 * total)} on {cores} cores", *on_gpus, *rows])
