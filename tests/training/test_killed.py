"""A process that is really killed: what it leaves on the disk is enough to end with the bits of one that was not."""

import os
import subprocess
import sys
import types
from pathlib import Path

import torch

from cam_core.learned import Abn, LfiCam, lfi_backbone
from training.loop import CHECKPOINT, fit
from training.recipes import PLAIN

# For each kind a child that trains as `training` below does and kills itself in the middle of the second epoch: no handler runs, nothing is
# flushed. They are forked before anything is trained, because a process of their own would spend its time on importing torch.
SCRIPT = """
import os, signal
from pathlib import Path
from tests.training.test_killed import KINDS, training
for kind in KINDS:
    child = os.fork()
    if child == 0:
        training(kind, Path(kind), kill_at=5, kill=lambda: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""
KINDS = {"abn": "32-true", "abn, bf16": "bf16-mixed", "lfi_cam, bf16": "bf16-mixed"}


def training(kind, out=None, kill_at=None, kill=None):
    """Three epochs of three batches; before batch ``kill_at`` of all, ``kill`` is called."""
    generator = torch.Generator().manual_seed(0)
    data = {"images": torch.randint(0, 256, (20, 3, 16, 16), generator=generator, dtype=torch.uint8), "labels": torch.arange(20) % 2}
    torch.manual_seed(1)
    backbone = lfi_backbone("resnet8", 2)
    model = Abn(backbone) if kind.startswith("abn") else LfiCam(backbone)
    loss, seen = model.loss, []

    def counting(_, batch):
        seen.append(len(batch["labels"]))
        if len(seen) == kill_at:
            kill()
        return loss(batch)

    model.loss = types.MethodType(counting, model)
    recipe = PLAIN.shortened(3, batch=8, lr=0.05, pad=2, precision=KINDS[kind])
    summary = fit(model, recipe, data, out=out, every=0, seed=3, device="cpu", progress=False)
    return model, summary, len(seen)


def test_a_process_killed_outright_ends_with_the_same_bits(tmp_path):
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False, env=here, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in KINDS:
        whole, expected, count = training(kind)
        assert (tmp_path / kind / CHECKPOINT).exists()
        resumed, summary, rest = training(kind, tmp_path / kind)
        assert (count, rest) == (9, 5)  # the fifth batch was begun and not ended
        for key, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[key]), key
        assert summary["history"] == expected["history"]
