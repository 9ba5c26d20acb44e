"""The documented command on a real Slurm of one node: what jobs ask for, two processes that train one model, a job out of time, shards.

The Snakefile, the Slurm profile, the batch and the executor plugin are the project's; only the work of a job is a small one.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import kills
from tests.cluster.one_node import missing, one_node

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("metrics.csv", "differences.csv")
pytestmark = pytest.mark.slow

TRAINING = """
import torch
from cam_core.learned import Plain, lfi_backbone
from training import trained
from training.recipes import PLAIN

generator = torch.Generator().manual_seed(0)
data = {"images": torch.randint(0, 256, (12, 3, 16, 16), generator=generator, dtype=torch.uint8), "labels": torch.arange(12) % 3}
recipe = PLAIN.shortened(2, batch=6, lr=0.02, frozen_batchnorm=True)
model = trained(lambda: Plain(lfi_backbone("resnet8", 3)), recipe, data, store=store, device="cpu", **count)[0]
"""
# Stands for `python -m reproduce run` and `train`: says what its job was granted, and trains with as many processes as asked.
SMALL = """
TRAINING = __TRAINING__
import json, os, subprocess, sys
from pathlib import Path

def main():
    words = sys.argv[1:]
    if words[0] == "batch":
        from reproduce.command_line import main
        return main(words)
    told = subprocess.run(["scontrol", "-o", "show", "job", os.environ["SLURM_JOB_ID"]], capture_output=True, text=True, check=True)
    granted = dict(word.split("=", 1) for word in told.stdout.split() if "=" in word)
    if words[0] == "run":
        out = Path(words[words.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        for name in ("notebook.ipynb", "metrics.csv", "provenance.json"):
            (out / name).write_text(json.dumps({"notebook": "", "granted": granted}))
        return 0
    count = {name: int(words[words.index(f"--{name}") + 1]) for name in ("devices", "nodes") if f"--{name}" in words}
    marker = Path(words[words.index("--marker") + 1])
    made = {"store": marker.with_suffix(""), "count": count}
    exec(TRAINING, made)
    model, torch = made["model"], made["torch"]
    if os.environ.get("SLURM_PROCID", "0") == "0":
        weights = [float(p.double().sum()) for p in model.parameters()]
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        marker.write_text(json.dumps({"granted": granted, "weights": weights, "world": world}))
    return 0

sys.exit(main())
""".replace("__TRAINING__", repr(TRAINING))
PROFILE = """
hours: 1
threads: 1
jobs:
  - {paper: l_cam, dataset: drawn_imagenet, backbone: resnet8, minutes: 40, memory: 400, parameters: {device: cuda}}
  - {paper: calm, dataset: drawn_cub, backbone: resnet8, train: true, minutes: 2, train_minutes: 1, memory: 600, devices: 2}
"""


@pytest.fixture
def project(tmp_path, drawn):
    """A project whose jobs are small."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/drawn").symlink_to(drawn)
    for name in ("Snakefile", "profiles/slurm/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "reproduce", tmp_path / "reproduce")
    (tmp_path / "reproduce/__main__.py").rename(tmp_path / "reproduce/command_line.py")
    (tmp_path / "reproduce/__main__.py").write_text(SMALL)
    (tmp_path / "notebooks").mkdir()
    for paper in ("l_cam", "calm"):
        (tmp_path / f"notebooks/{paper}.ipynb").write_text("{}")
    (tmp_path / "profiles/tiny.yaml").write_text(PROFILE)
    return tmp_path


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm, as the environment in which its commands reach it."""
    if missing():
        pytest.skip(f"no Slurm: {missing()} is not installed")
    with ExitStack() as stack:
        try:
            yield stack.enter_context(one_node(tmp_path_factory.mktemp("slurm") / "one"))
        except RuntimeError as error:
            pytest.skip(f"no Slurm: {error}")


# The project's own command. A training keeps a checkpoint after every batch; its first attempt stays in the second one; that a later one
# found a checkpoint is noted.
SLEEPY = """
import sys, time
from pathlib import Path
from reproduce.command_line import main

if sys.argv[1] == "train":
    from functools import partial
    from training import loop, store

    kept = [*Path("runs/models").glob("*.part/checkpoint.safetensors")]
    store.fit = partial(store.fit, every=0.0)
    if sys.argv[sys.argv.index("--attempt") + 1] == "1":
        step, seen = loop._step, []
        loop._step = lambda *given: (seen.append(1), time.sleep(600 * (len(seen) > 1)), step(*given))[-1]
    elif kept:
        Path("resumed").touch()
sys.exit(main())
"""


@pytest.fixture(scope="module")
def out_of_time(slurm, tmp_path_factory):
    """A batch in three shards, begun: its folder, its process. Slurm gives the first training a minute, the least there is."""
    folder = kills.project(tmp_path_factory.mktemp("sleepy"), shards=3)
    (folder / "reproduce/__main__.py").rename(folder / "reproduce/command_line.py")
    (folder / "reproduce/__main__.py").write_text(SLEEPY)
    (folder / "profiles/tiny.yaml").write_text(ONE.replace("SHARDS", "3"))
    (folder / "profiles/slurm").mkdir()
    shutil.copy(ROOT / "profiles/slurm/config.yaml", folder / "profiles/slurm")
    with begun_batch(
        folder, {**slurm, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}, "--set-resources", "train:runtime=10 * attempt - 9"
    ) as batch:
        yield folder, batch


ONE = """
threads: 1
hours: 1
parameters: {data_root: data/drawn, limit: 16}
jobs: [{ paper: increment_cam, dataset: drawn_imagenet, backbone: resnet8, epochs: 2, train: true, minutes: 61, train_minutes: 60,
         memory: 900, shards: SHARDS }]
"""
RUN = "runs/tiny/increment_cam/drawn_imagenet-resnet8-e2-s0"


@pytest.fixture(scope="module")
def by_make(tmp_path_factory):
    """The folder of the same run by `make reproduce`, in one pass, undisturbed; what make would set up is there."""
    folder = kills.project(tmp_path_factory.mktemp("make"))
    (folder / "profiles/tiny.yaml").write_text(ONE.replace("SHARDS", "1"))
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    there = ["-o", ".venv/.ready", "-o", "data"]
    done = subprocess.run(
        ["make", *there, "reproduce", "PROFILE=tiny"],
        cwd=folder,
        env=kills.environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_jobs_ask_slurm_for_what_they_need_and_two_processes_train_one_model(project, tmp_path_factory, slurm, out_of_time):
    """GPU, memory, time and tasks as Slurm has granted them; the weights of two gloo processes are those of one."""
    with begun_batch(project, {**slurm, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}) as batch:
        assert batch.wait(420) == 0, (project / "batch.log").read_text()
    on_gpu = json.loads((project / "runs/tiny/l_cam/drawn_imagenet-resnet8-s0/provenance.json").read_text())["granted"]
    trained = json.loads((project / "runs/models/tiny-calm-drawn_cub-resnet8-s0.json").read_text())
    together = trained["granted"]
    assert (project / "runs/tiny/calm/drawn_cub-resnet8-s0/provenance.json").exists()
    assert (on_gpu["TresPerNode"], "TresPerNode" in together) == ("gres:gpu:1", False)
    assert (on_gpu["TimeLimit"], together["TimeLimit"]) == ("01:00:00", "00:10:00")  # of 80 minutes the profile allows an hour
    assert (on_gpu["MinMemoryNode"], together["MinMemoryNode"]) == ("500M", "1500M")
    assert (on_gpu["NumTasks"], together["NumTasks"], trained["world"]) == ("1", "2", 2)
    alone = {"store": tmp_path_factory.mktemp("alone"), "count": {}}
    exec(TRAINING, alone)
    weights = [float(p.double().sum()) for p in alone["model"].parameters()]
    assert trained["weights"] == pytest.approx(weights, rel=1e-4, abs=1e-4)


def test_a_notebook_in_jupyter_gives_the_bytes_of_make(by_make, monkeypatch):
    """Opened and run to its end, with the parameters of the run written into its first cell."""
    for name, value in kills.environment(by_make).items():
        monkeypatch.setenv(name, value)
    opened = nbformat.read(by_make / "notebooks/increment_cam.ipynb", 4)
    given = {"profile": "tiny", "dataset": "drawn_imagenet", "backbone": "resnet8", "seed": 0, "epochs": 2, "limit": 16}
    given |= {"data_root": "data/drawn", "out_dir": "by_hand", "rows_dir": None}
    opened.cells[0].source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    NotebookClient(opened, kernel_name="python3", resources={"metadata": {"path": str(by_make)}}).execute()
    for name in TABLES:
        assert (by_make / "by_hand" / name).read_bytes() == (by_make / RUN / name).read_bytes()


def test_a_job_out_of_time_goes_on_and_three_shards_on_slurm_give_the_bytes_of_make(slurm, out_of_time, by_make):
    """Slurm ends the training after a minute; it is started again from its checkpoint, and the run is that of an undisturbed one."""
    folder, batch = out_of_time
    assert batch.wait(420) == 0, (folder / "batch.log").read_text()
    told = subprocess.run(["scontrol", "-o", "show", "jobs"], env=slurm, capture_output=True, text=True, check=True).stdout.splitlines()
    jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in told if str(folder) in line]
    rules = Counter((job["Comment"].split("_")[1], job["JobState"], job["TimeLimit"]) for job in jobs)
    once = [("train", "TIMEOUT", "00:01:00"), ("train", "COMPLETED", "00:11:00"), ("notebook", "COMPLETED", "00:10:00")]
    assert rules == {**dict.fromkeys(once, 1), ("shard", "COMPLETED", "00:10:00"): 3}
    assert (folder / "resumed").exists()
    logs = [path.read_text() for path in (folder / ".snakemake/slurm_logs").rglob("*.log")]
    assert [log for log in logs if "out of time: Slurm's job" in log and "it resumes" in log], logs
    for name in TABLES:
        assert (folder / RUN / name).read_bytes() == (by_make / RUN / name).read_bytes()
    assert len(json.loads((folder / RUN / "provenance.json").read_text())["shards"]) == 3


@contextmanager
def begun_batch(project, environment, *more):
    """A batch on Slurm, whose output goes to batch.log; it is ended with what it started if it has not ended."""
    command = [sys.executable, "-m", "reproduce", "batch", "--profile", "tiny", "--", "--profile", "profiles/slurm"]
    soon = ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1", "--latency-wait", "5"]
    with (project / "batch.log").open("w") as log:
        started = subprocess.Popen(  # it ends with this process, even if that is killed
            ["setpriv", "--pdeathsig", "TERM", *command, *soon, "--slurm-no-account", *more],
            cwd=project,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
        started.wait()
