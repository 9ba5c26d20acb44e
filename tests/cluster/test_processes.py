"""`python -m reproduce train` in two gloo processes, started by torchrun and by the command itself: the model of one process."""

import json
import os
import subprocess
import sys

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from tests.kills import project

GIVEN = {"dataset": "cub", "backbone": "resnet18", "epochs": "1", "data_root": "data/drawn"}
TRAIN = ["-m", "reproduce", "train", "increment_cam", *(word for pair in GIVEN.items() for word in ("-p", *pair)), "--marker"]
WAYS = {
    "alone": [*TRAIN, "alone.json"],
    "itself": [*TRAIN, "itself.json", "--devices", "2"],
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *TRAIN, "torchrun.json"],
}


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(tmp_path):
    """The drawn birds, which lie as CUB's do, with CUB's recipe, whose BatchNorm is frozen; the pretrained weights are random ones."""
    folder = project(tmp_path)
    torch.manual_seed(0)
    (tmp_path / "weights").mkdir()
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "weights/resnet18.safetensors")
    here = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_JOB_ID")}
    here |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "CAM_WEIGHTS": str(tmp_path / "weights")}
    found = {}
    for way, words in WAYS.items():
        done = subprocess.run([sys.executable, *words], cwd=folder, env=here, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (done.stdout + done.stderr).count(f"{way}.json: model") == 1  # the first process says it for all
        found[way] = json.loads((folder / f"{way}.json").read_text())["model"]
        (folder / f"runs/models/{found[way]}").rename(folder / way)
    assert len(set(found.values())) == 1
    begun = {f"classifier.trunk.{name}": value for name, value in load_file(tmp_path / "weights/resnet18.safetensors").items()}
    alone, itself, torchrun = (load_file(folder / way / "model.safetensors") for way in WAYS)
    assert all(torch.equal(itself[name], torchrun[name]) for name in alone)
    moved = {name: (value - begun[name]).norm() for name, value in alone.items() if name in begun and name.endswith("conv1.weight")}
    assert len(moved) == 9
    for name, way in moved.items():  # sums in another order, and no more
        assert 0 < (itself[name] - alone[name]).norm() < 1e-3 * way
