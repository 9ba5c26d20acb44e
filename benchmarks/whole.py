"""Runs of the subset profile beside the code before the engine: `python -m benchmarks.whole`, about ten minutes on two idle cores.

Each is a notebook of the profile on a share of its images, as `python -m reproduce run` executes it: a cold process, with pictures, tables
and files. The code before the engine is `engine: torch`. Needs CAM_DATA and CAM_WEIGHTS. Where images are few, the start of the process and
the export weigh more than in the profile itself. What a run trains (VOC2007's linear head) has to be there from an earlier run.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.race import HOME, write
from reproduce.batch import Job, read_profile

JOBS = ("imagenet-efficientnet_lite0-s0", "voc07-resnet18-s0")  # of Increment-CAM: they mask images the most, and train nothing
BEFORE, ENGINE = "PyTorch alone, as before", "with the engine"
TOGETHER = "all together"
ENGINES = {ENGINE: None, BEFORE: "torch"}  # None: as a run has it by itself


def part(job: Job, share: float, engine: str | None) -> dict[str, object]:
    """The parameters of a share of the job's images."""
    fewer = {name: max(1, round(share * job.parameters[name])) for name in ("limit", "first")}
    return job.parameters | fewer | {"engine": engine}


def took(job: Job, parameters: dict[str, object]) -> dict[str, float]:
    """Seconds and CPU seconds of a run, from the start of its process to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "reproduce", "run", f"notebooks/{job.paper}.ipynb", "--out", str(Path(folder) / "run")]
        command += [word for name, value in parameters.items() for word in ("-p", name, str(value))]
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=HOME, check=True)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def main() -> None:
    """Run in turn, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1, help="of each job's images")
    parser.add_argument("--rounds", type=int, default=1, help="the least counts; a run of minutes varies little")
    given = parser.parse_args()
    if lacking := [name for name in ("CAM_DATA", "CAM_WEIGHTS") if not os.environ.get(name)]:
        parser.error(f"{' and '.join(lacking)} not set: the profile runs on real images")
    jobs = {job.key: job for job in read_profile("subset").jobs if job.paper == "increment_cam"}
    rows = []
    for key in JOBS:
        for number in range(given.rounds):
            for contender, engine in ENGINES.items():
                parameters = part(jobs[key], given.share, engine)
                group = f"increment_cam, {key}, {parameters['limit']} images, Score-CAM on {parameters['first']}"
                rows.append({"group": group, "contender": contender, "round": number, **took(jobs[key], parameters)})
                print(rows[-1], flush=True)
    write([summed(pd.DataFrame(rows))], "whole")


def summed(rows: pd.DataFrame) -> pd.DataFrame:
    """The least of the rounds of each run, and the sum over the runs."""
    least = rows.groupby(["group", "contender"], sort=False)[["seconds", "cpu_seconds"]].min().reset_index()
    together = least.groupby("contender", sort=False)[["seconds", "cpu_seconds"]].sum().reset_index()
    return pd.concat([least, together.assign(group=TOGETHER)], ignore_index=True).assign(rounds=rows["round"].max() + 1)


if __name__ == "__main__":
    main()
