"""What a job asks Snakemake, and through it Slurm, for: time, memory, GPUs, processes. Does not load torch."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from reproduce.preflight import room

if TYPE_CHECKING:
    from reproduce.batch import Job, Profile

Stage = Literal["train", "shard", "notebook"]
REFERENCE_CORES = 2  # `minutes` in a profile are those of two cores
ROOM = {"time": 2.0, "memory": 1.25}  # asked for, over what was measured: another machine is slower, another data set larger
GPU, USEFUL = "an A100", 8e12  # operations a second: two fifths of what its data sheet says of float32; reckoned, not measured
SHORTEST = 10  # minutes: what a job takes to start, read and check on a busy file system is not in the measured ones
ASKED = ("runtime", "mem_mb", "gpu", "gres", "nodes", "tasks", "tasks_per_gpu", "mpi")


def scale(job: "Job", threads: int) -> float:
    """What a job's `minutes` are to be multiplied by on ``threads`` cores; those of a GPU do not depend on them."""
    return 1.0 if gpus(job) else REFERENCE_CORES / threads


def minutes(job: "Job", stage: Stage, threads: int) -> float:
    """About how long a job of a run takes on ``threads`` cores; the notebook as if its shards were not measured yet."""
    own = job.train_minutes if stage == "train" else job.minutes - job.train_minutes
    return own * scale(job, threads) / (job.shards if stage == "shard" else 1)


def alone(job: "Job") -> float:
    """The share of its `minutes` that a run takes where its shards are measured side by side."""
    return (job.train_minutes + (job.minutes - job.train_minutes) / job.shards) / job.minutes


def on_gpus(jobs: Sequence["Job"]) -> str:
    """The GPU hours of these runs and the disk they fill, for the plan; "" without a GPU."""
    hours = sum(job.minutes * gpus(job) for job in jobs) / 60
    disk = sum(map(room, jobs)) / 1e9
    return f"{hours:,.0f} GPU hours, reckoned for {GPU}; about {disk:,.0f} GB of disk" if hours else ""


def trained_minutes(multiply_adds: float, images: int, epochs: int) -> float:
    """Minutes of a training on `GPU`, reckoned: forward, and backward for weights and inputs, of ``multiply_adds`` an image each."""
    return 3 * 2 * multiply_adds * images * epochs / USEFUL / 60


def gpus(job: "Job") -> int:
    """GPUs of one machine that each process of a job shares out: one a process."""
    return int(str(job.parameters.get("device", "cpu")).startswith("cuda"))


def processes(job: "Job", stage: Stage) -> tuple[int, int]:
    """(processes of each machine, machines); a notebook is one process."""
    return (job.processes.get("devices", 1), job.processes.get("nodes", 1)) if stage == "train" else (1, 1)


def ask(job: "Job", stage: Stage, threads: int, hours: float | None = None) -> dict[str, int | str]:
    """The resources of a job by Snakemake's names; ``hours``: no longer than this, since a training is resumed.

    ``gpu`` is what Snakemake counts (and Kubernetes reads), ``gres`` what Slurm is asked for. ``mpi``: the job starts its own processes.
    """
    each, machines = processes(job, stage)
    asked = max(SHORTEST, math.ceil(ROOM["time"] * minutes(job, stage, threads)))
    devices = each * gpus(job)
    return {
        "runtime": min(asked, math.floor(60 * hours)) if hours else asked,
        "mem_mb": math.ceil(ROOM["memory"] * job.memory * each / 100) * 100,
        "gpu": devices * machines,
        "gres": f"gpu:{devices}" if devices else "",
        "nodes": machines,
        "tasks": each * machines,
        "tasks_per_gpu": 0,  # the plugin would take `tasks` for it
        "mpi": "srun" if each * machines > 1 else "",
    }


def retries(profile: "Profile", stage: Stage, threads: int) -> int:
    """How often a job may be started again, to go on from its checkpoint or rows: as often as ``hours`` go into the longest, else never."""
    if not profile.hours:
        return 0
    longest = max(ROOM["time"] * minutes(job, stage, threads) for job in profile.jobs)
    return math.ceil(longest / (60 * profile.hours))
