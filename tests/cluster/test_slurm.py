"""The documented command on a real Slurm of one node: what jobs ask for, and two processes that train one model.

The Snakefile, the Slurm profile, the batch and the executor plugin are the project's; only the work of a job is a small one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.cluster.one_node import missing, one_node

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"no Slurm: {missing()} is not installed")]

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


def test_jobs_ask_slurm_for_what_they_need_and_two_processes_train_one_model(project, tmp_path_factory):
    """GPU, memory, time and tasks as Slurm has granted them; the weights of two gloo processes are those of one."""
    try:
        slurm = one_node(tmp_path_factory.mktemp("slurm") / "one")
        with slurm as inside:
            done = run_batch(project, {**inside, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    except RuntimeError as error:
        pytest.skip(f"no Slurm: {error}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
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


def run_batch(project, environment):
    command = [sys.executable, "-m", "reproduce", "batch", "--profile", "tiny", "--", "--profile", "profiles/slurm"]
    soon = [
        "--slurm-init-seconds-before-status-checks",
        "1",
        "--seconds-between-status-checks",
        "1",
        "--latency-wait",
        "5",
        "--slurm-no-account",
    ]
    started = subprocess.Popen([*command, *soon], cwd=project, env=environment, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True)
    try:
        out, err = started.communicate(timeout=420)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        out, err = started.communicate()
        err += "\nthe batch did not end within 420 s"
    except KeyboardInterrupt:
        os.killpg(started.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, started.returncode, out, err)
