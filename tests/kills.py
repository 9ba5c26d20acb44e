"""Twelve kills at random moments; then the numbers must be those of a batch that nobody disturbed: `python tests/kills.py [SEED]`.

Controller, Snakemake, trainings, shards, runs and kernels of small notebooks get INT, TERM or KILL in turn, the batch is started again each
time, no process may be left, and metrics.csv and differences.csv must end byte-identical, those of three shards with those of one pass.
Takes some minutes, so it is no part of the tests.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from data_scripts.draw import draw
from reproduce import processes

ROOT = Path(__file__).resolve().parents[1]
PROFILE = """
threads: 1
parameters: {data_root: data/drawn, limit: 16}
jobs: [{ paper: increment_cam, dataset: drawn_imagenet, backbone: resnet8, epochs: 8, seed: [0, 1], train: true, shards: SHARDS }]
"""
TAKEN = ("profile", "dataset", "backbone", "seed", "epochs", "limit", "data_root", "out_dir", "rows_dir")
PARAMETERS = "\n".join(f"{name} = None" for name in TAKEN)
WORK = """
from dataclasses import replace
from cam_core.evaluate import evaluate
from cam_core.methods import METHODS
from cam_core.metrics import AverageDrop, EnergyPointingGame
from reproduce import jobs, notebook, parameters
wanted = parameters.read("increment_cam", globals())
images, _, _ = notebook.open_images(wanted)
classifier, _, summaries = jobs.models(wanted)
methods = [METHODS[name] for name in ("increment_cam", "grad_cam", "mean_activation", "random_map")]
kept = rows_dir and replace(notebook.kept(wanted, summaries), block=3)
table = evaluate(classifier, images, methods, [AverageDrop(0.5), EnergyPointingGame()], batch_size=3, kept=kept)
differences = table.differences("increment_cam")
notebook.save(wanted, images("squash"), classifier, [table.records()], table.per_image(), differences, summaries)
"""
WHO = {
    "controller": "", "snakemake": "snakemake", "training": "reproduce train", "shard": "reproduce shard", "run": "reproduce run",
    "kernel": "ipykernel_launcher",
}  # fmt: skip
KILLS = [
    ("controller", signal.SIGINT), ("controller", signal.SIGTERM), ("controller", signal.SIGKILL), ("snakemake", signal.SIGTERM),
    ("snakemake", signal.SIGKILL), ("training", signal.SIGKILL), ("training", signal.SIGTERM), ("shard", signal.SIGKILL),
    ("shard", signal.SIGTERM), ("kernel", signal.SIGKILL), ("run", signal.SIGKILL), ("run", signal.SIGINT),
]  # fmt: skip


def start(folder: Path) -> subprocess.Popen[str]:
    """A batch in that folder; its output goes to batch.log."""
    command = [sys.executable, "-m", "reproduce", "batch", "--profile", "tiny", "--cores", "2"]
    with (folder / "batch.log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=log, stderr=log, text=True)


def environment(folder: Path) -> dict[str, str]:
    """In which processes take the code of ``folder``."""
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def target(folder: Path, batch: subprocess.Popen[str], who: str) -> int | None:
    """The pid of what is to be killed, waited for while the batch runs; None if it never comes."""
    while batch.poll() is None:
        if who == "controller":
            return batch.pid
        for process in processes.marked(str(folder / "runs")):
            if processes.told([process]).split("(", 1)[1].startswith(WHO[who]):
                return int(process.pid)
        time.sleep(0.05)
    return None


def left(folder: Path, patience: float = 60) -> list[str]:
    """What of the batch still lives after that many seconds."""
    deadline = time.monotonic() + patience
    while (alive := processes.marked(str(folder / "runs"))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [processes.told([process]) for process in alive]


def numbers(folder: Path) -> dict[str, bytes]:
    """The tables of all runs, by path."""
    found = itertools.chain(*(folder.glob(f"runs/tiny/*/*/{name}.csv") for name in ("metrics", "differences")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def project(folder: Path, shards: int = 1) -> Path:
    """A folder with all that a batch needs; the code is a copy, so that its trainings are kept there."""
    for name in ("cam_core", "training", "reproduce", "data_scripts"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), *map(new_code_cell, WORK.strip().splitlines())]
    (folder / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), folder / "notebooks/increment_cam.ipynb")
    (folder / "profiles").mkdir()
    (folder / "profiles/tiny.yaml").write_text(PROFILE.replace("SHARDS", str(shards)))
    draw(folder / "data/drawn", small=True, progress=False)
    return folder


def main(seed: int = 0) -> None:
    """Run both batches and compare."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        calm, rough = (project(Path(place).resolve(), shards) for place, shards in ((first, 1), (second, 3)))
        begun = time.monotonic()
        if start(calm).wait():
            sys.exit(f"error: the undisturbed batch failed:\n{(calm / 'batch.log').read_text()}")
        print(f"undisturbed: {time.monotonic() - begun:.0f} s", flush=True)
        for who, number in KILLS:
            batch = start(rough)
            pid = target(rough, batch, who)
            time.sleep(chance.uniform(0, 30 if who in ("controller", "snakemake") else 8))
            if pid:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pid = None
            code, stayed = batch.wait(), left(rough)
            status = [sys.executable, "-m", "reproduce", "status", "--profile", "tiny"]
            told = subprocess.run(status, cwd=rough, env=environment(rough), capture_output=True, text=True, check=True).stdout
            print(
                f"{who} {signal.Signals(number).name}{'' if pid else ' (it had ended)'}: exit code {code}; left {stayed}\n{told}",
                flush=True,
            )
            if stayed:
                sys.exit("error: processes were left")
            word = "killed" if number == signal.SIGKILL else "interrupted"
            if pid and code and who not in ("controller", "snakemake") and f"  {word}" not in told:
                sys.exit(f"error: no run is told to be {word}")
            for folder in (rough / "runs/tiny").glob("*/*"):  # what is done starts anew, so that each kill has something to hit
                if chance.random() < 0.5 and who != KILLS[-1][0]:
                    shutil.rmtree(folder)
        code = start(rough).wait()
        same = numbers(calm) == numbers(rough)
        print(f"at the end: exit code {code}, {len(numbers(calm))} tables, {'byte-identical' if same else 'NOT the same'}")
        if code or not same or len(numbers(calm)) != 4:
            sys.exit((rough / "batch.log").read_text())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
