"""How jobs are started: GPUs by count, Slurm's processes; what they ask for."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from reproduce import batch, costs, start
from reproduce.sources import SOURCES
from training.loop import launched
from training.recipes import ABN_IMAGENET, L_CAM, L_CAM_VGG, LFI_CAM_IMAGENET, PLAIN_IMAGENET

ROOT = Path(__file__).resolve().parents[2]

# Stands for `python -m reproduce run`: meets another job, which runs at the same time, and notes how many there are, and its GPU.
MEETING = """
import os, sys, time
from pathlib import Path
words = sys.argv[1:]
out = Path(words[words.index("--out") + 1])
here = Path("running", out.name)
here.touch()
most, until = 0, time.monotonic() + 60
while most < 2 and time.monotonic() < until:
    most = max(most, len(list(Path("running").iterdir())))
    time.sleep(0.05)
time.sleep(0.5)  # so that the other sees this one, and a third one would be seen
most = max(most, len(list(Path("running").iterdir())))
here.unlink()
out.mkdir(parents=True, exist_ok=True)
for name in ("notebook.ipynb", "metrics.csv", "provenance.json"):
    (out / name).write_text(f'{{"most": {most}, "gpu": "{os.environ["CUDA_VISIBLE_DEVICES"]}"}}')
"""


@pytest.mark.slow
def test_two_gpus_run_two_of_four_jobs_at_once(tmp_path):
    """There are cores for all four, and no GPU here: jobs are counted, and each is told another one."""
    shutil.copy(ROOT / "Snakefile", tmp_path)
    shutil.copytree(ROOT / "reproduce", tmp_path / "reproduce")
    (tmp_path / "reproduce/__main__.py").write_text(MEETING)
    for name in ("running", "profiles", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "notebooks/l_cam.ipynb").write_text("{}")
    profile = "threads: 1\njobs: [{paper: l_cam, dataset: d, backbone: r, seed: [0, 1, 2, 3], parameters: {device: cuda}}]"
    (tmp_path / "profiles/tiny.yaml").write_text(profile)
    here = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "3,5", "TMPDIR": str(tmp_path)}
    here.pop("SLURM_JOB_ID", None)
    command = [sys.executable, "-m", "snakemake", "--cores", "4", "--resources", "gpu=2", "--config", "profile=tiny", "--quiet", "all"]
    done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(path.read_text()) for path in tmp_path.glob("runs/tiny/l_cam/*/provenance.json")]
    assert [one["most"] for one in told] == [2, 2, 2, 2]
    assert sorted(one["gpu"] for one in told) == ["3", "3", "5", "5"]


def test_a_batch_tells_snakemake_how_many_gpus_there_are(monkeypatch):
    """Where the jobs run here, and want one; a cluster has its own."""
    job = batch.Job("p", "calm", "cub", "resnet18", 0, 10, True, extra={"device": "cuda"})
    on_gpu, on_cpu = batch.Profile("p", [job]), batch.Profile("p", [batch.Job("p", "calm", "cub", "resnet18", 0, 10, True)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert batch.gpus_here(on_gpu, []) == ["--resources", "gpu=2"]
    assert batch.gpus_here(on_cpu, []) == batch.gpus_here(on_gpu, ["--profile", "profiles/slurm"]) == []
    assert batch.gpus_here(on_gpu, ["--executor", "slurm"]) == batch.gpus_here(on_gpu, ["--resources", "gpu=1"]) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert batch.gpus_here(on_gpu, []) == []


def test_a_gpu_is_held_by_one_job(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr(start.tempfile, "gettempdir", lambda: str(tmp_path))
    assert (start.hold(2), start.hold(1)) == (["0", "1"], ["2"])
    with pytest.raises(RuntimeError, match="1 GPUs were asked for, and 0 of 3 are free here"):
        start.hold(1)


def test_several_processes_are_started_by_slurm_where_it_runs():
    options = Namespace(tasks=4, nodes=2, threads=8, command=["python", "-m", "x"])
    srun = ["srun", "--kill-on-bad-exit=1", "--ntasks=4", "--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=8"]
    assert start.command(options, {"SLURM_JOB_ID": "7"}) == [*srun, "python", "-m", "x"]
    assert start.command(options, {}) == ["python", "-m", "x"]
    assert start.command(Namespace(**{**vars(options), "tasks": 1}), {"SLURM_JOB_ID": "7"}) == ["python", "-m", "x"]


def test_devices_that_slurm_was_not_asked_for_are_refused(monkeypatch):
    """`srun` has started one process, and Fabric would train with it alone."""
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "a", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError, match=r"2 devices of 1 machines are 2 processes, and 1 were started: take srun --ntasks=2 --nodes=1 --ntasks-per-node=2"
    ):
        launched.__wrapped__("cpu", 2, 1, "32-true")


def test_a_job_asks_for_twice_the_measured_time_and_no_more_than_the_hours():
    """90 of 100 minutes train. Those of a GPU don't depend on the cores, others are of two."""
    job = batch.Job("p", "calm", "cub", "resnet18", 0, 100, True, extra={"device": "cuda"}, processes={"devices": 2, "nodes": 3},
                    train_minutes=90, memory=3000)  # fmt: skip
    asked = costs.ask(job, "train", 4)
    assert asked == {
        "runtime": 180, "mem_mb": 7500, "gpu": 6, "gres": "gpu:2", "nodes": 3, "tasks": 6, "tasks_per_gpu": 0, "mpi": "srun",
    }  # fmt: skip
    assert (costs.ask(job, "train", 4, 1.25)["runtime"], costs.ask(job, "notebook", 4, 1.25)["runtime"]) == (75, 20)
    on_cpu = batch.Job("p", "calm", "cub", "resnet18", 0, 100, True, train_minutes=90)
    assert [costs.ask(on_cpu, stage, 4)["runtime"] for stage in ("train", "notebook")] == [90, 10]
    assert {name: costs.ask(job, "notebook", 4)[name] for name in ("gpu", "nodes", "tasks", "mpi")} == {
        "gpu": 1,
        "nodes": 1,
        "tasks": 1,
        "mpi": "",
    }
    cut = replace(job, shards=4, minutes=490)  # a shard has a quarter of the 400 minutes beside the training
    assert [costs.ask(cut, stage, 4)["runtime"] for stage in ("train", "shard", "notebook")] == [180, 200, 800]
    assert (costs.alone(job), costs.alone(cut)) == (1, pytest.approx(190 / 490))
    profile = batch.Profile("p", [job], hours=0.5)
    assert [costs.retries(profile, stage, 4) for stage in ("train", "notebook")] == [6, 1]
    assert costs.retries(batch.Profile("p", [job]), "train", 4) == 0
    assert costs.on_gpus([job, on_cpu]) == "2 GPU hours, reckoned for an A100; about 1 GB of disk"
    assert costs.on_gpus([on_cpu]) == ""


MULTIPLY_ADDS = {"l_cam": {"resnet50": 4.09e9, "vgg16": 15.47e9}, "lfi_cam": {"resnet50": 4.09e9}}  # of an image of 224 pixels


def test_the_hours_of_the_papers_trainings_follow_from_their_multiply_adds():
    """Those on ImageNet: epochs of all models of a run times images; the network's multiply-adds, counted."""
    with torch.device("meta"):
        network, image = torchvision.models.resnet50().eval(), torch.empty(1, 3, 224, 224)
        with FlopCounterMode(display=False) as counted:
            network(image)
    assert counted.get_total_flops() / 2 == pytest.approx(MULTIPLY_ADDS["lfi_cam"]["resnet50"], rel=0.01)
    profile = batch.read_profile("paper", ROOT / "profiles", check=False)
    jobs = {(job.paper, job.backbone): job for job in profile.jobs if job.dataset == "imagenet" and job.train}
    epochs = {
        ("l_cam", "resnet50"): 2 * L_CAM.epochs,
        ("l_cam", "vgg16"): 2 * L_CAM_VGG.epochs,
        ("lfi_cam", "resnet50"): PLAIN_IMAGENET.epochs + LFI_CAM_IMAGENET.epochs + ABN_IMAGENET.epochs,
    }
    assert set(jobs) == set(epochs)
    for (paper, network), count in epochs.items():
        reckoned = costs.trained_minutes(MULTIPLY_ADDS[paper][network], SOURCES["imagenet"].published, count)
        assert jobs[paper, network].train_minutes == pytest.approx(reckoned, rel=0.05)
        longest = min(2 * reckoned, 60 * profile.hours)
        assert costs.ask(jobs[paper, network], "train", 8, profile.hours)["runtime"] == pytest.approx(longest, rel=0.05)
    assert all(costs.minutes(job, "notebook", 8) <= 60 * profile.hours for job in profile.jobs)  # it has no checkpoint
