"""Two processes train like one with the same global batch, whoever started them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
FABRIC = [str(Path(sys.executable).with_name("fabric")), "run", "--accelerator", "cpu", "--devices", "2"]

# Run by torchrun (two gloo processes) and by itself: trains, and writes the history and the sum of every weight.
SCRIPT = """
import json, os, sys, torch
from dataclasses import replace
from cam_core.learned.abn import Abn
from cam_core.learned.calm import Calm
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import LfiCam, lfi_backbone
from training.cached import l_cam_data
from training.loop import fit
from training.recipes import PLAIN

generator = torch.Generator().manual_seed(0)
data = {"images": torch.randint(0, 256, (22, 3, 16, 16), generator=generator, dtype=torch.uint8), "labels": torch.arange(22) % 3}
recipe = PLAIN.shortened(2, batch=7, lr=0.02, pad=2, frozen_batchnorm=True, held_out=0.2, criterion="loss")  # 18 images: 7 + 7 + 4
found = {}
for kind in ("lfi", "abn", "calm", "l_cam_img", "l_cam_fm"):
    torch.manual_seed(1)
    backbone = lfi_backbone("resnet8", 3).eval()
    model = {"lfi": lambda: LfiCam(backbone), "abn": lambda: Abn(backbone), "calm": lambda: Calm(backbone, 3, uniform=True),
             "l_cam_img": lambda: LCam(backbone, "img", cached=False), "l_cam_fm": lambda: LCam(backbone, "fm")}[kind]().double()
    given, how = {**data, "images": data["images"].double() / 255}, recipe
    if kind == "l_cam_fm":  # under the data's labels: those of an untrained network may be all alike
        how = replace(recipe, flip=False, pad=0)
        given = {"activations": l_cam_data(model, given, how, progress=False)["activations"], "labels": data["labels"]}
        assert given["activations"].untyped_storage().filename  # mapped
    summary = fit(model, how, given, device="cpu", progress=False)
    found[kind] = {"history": summary["history"], "best": summary["best"],
                   "weights": [float(p.sum()) for p in model.parameters() if p.requires_grad]}
if os.environ.get("RANK", "0") == "0":
    open(sys.argv[1], "w").write(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path):
    """BatchNorm frozen; batches of 7, 7 and 4 leave shares of 4 and 3. L-CAM's masks are those of the whole batch's classes.

    L-CAM-Img passes the network, L-CAM-Fm reads activations from a file.
    """
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    commands = {1: [sys.executable, str(script)], 2: [*TORCHRUN, str(script)]}
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    found = {}
    for count, command in commands.items():
        out = tmp_path / f"{count}.json"
        done = subprocess.run([*command, str(out)], capture_output=True, text=True, timeout=300, check=False, env=here)
        assert done.returncode == 0, done.stderr[-3000:]
        found[count] = json.loads(out.read_text())
    for kind, alone in found[1].items():
        together = found[2][kind]
        assert together["weights"] == pytest.approx(alone["weights"], rel=1e-8, abs=1e-9), kind
        for one, two in zip(alone["history"], together["history"], strict=True):
            assert two == pytest.approx(one, rel=1e-7), kind  # accuracy is logged in single precision
        assert together["best"] == pytest.approx(alone["best"], rel=1e-7)


# Two processes that torchrun started share one training of `trained`; each says what it holds in the end.
TOGETHER = """
import json, os, sys, torch
from dataclasses import replace
from pathlib import Path
from cam_core.learned import Plain, lfi_backbone
from training import trained
from training.recipes import PLAIN

generator = torch.Generator().manual_seed(0)
data = {"images": torch.randint(0, 256, (18, 3, 16, 16), generator=generator, dtype=torch.uint8), "labels": torch.arange(18) % 3}
recipe = PLAIN.shortened(2, batch=6, lr=0.02, pad=2, frozen_batchnorm=True)
for store in sys.argv[2:]:  # a second time it is only loaded
    model, summary = trained(lambda: Plain(lfi_backbone("resnet8", 3)), recipe, data, store=store, test=data, device="cpu", progress=False)
try:
    trained(lambda: Plain(lfi_backbone("resnet8", 3)), replace(recipe, frozen_batchnorm=False), data, store=store, device="cpu")
    refused = ""
except ValueError as error:
    refused = str(error)
found = {"weights": [float(p.double().sum()) for p in model.parameters()], "summary": summary, "refused": refused}
Path(f"{sys.argv[1]}-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found))
"""


def kept(launcher, folder):
    """What the processes of a launcher say, whose models lie in ``folder``/models."""
    script = folder / "train.py"
    script.write_text(TOGETHER)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    given = [str(folder / "said"), *[str(folder / "models")] * 2]
    done = subprocess.run([*launcher, str(script), *given], capture_output=True, text=True, timeout=300, check=False, env=here)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("said-?.json"))]
    model = folder / "models" / found[0]["summary"]["digest"][:20]
    assert sorted(path.name for path in model.iterdir()) == ["model.safetensors", "summary.json"]
    return found


@pytest.mark.slow
def test_processes_keep_one_model_together(tmp_path):
    """The first writes, both end with the weights of one process, and the folder is complete; BatchNorm has to be frozen on a CPU."""
    with socket.socket() as free:  # `fabric run` finds no port itself
        free.bind(("127.0.0.1", 0))
        fabric = [*FABRIC, "--main-port", str(free.getsockname()[1])]
    found = []
    for number, launcher in enumerate(([sys.executable], TORCHRUN, fabric)):
        (tmp_path / str(number)).mkdir()
        found.append(kept(launcher, tmp_path / str(number)))
    (alone,), *both = found
    assert alone["refused"] == ""
    for together in both:
        assert len(together) == 2
        for one in together:
            assert one["weights"] == pytest.approx(alone["weights"], rel=1e-4, abs=1e-4)
            assert one["summary"]["digest"] == alone["summary"]["digest"]
            assert "2 processes on cpu cannot share BatchNorm's statistics" in one["refused"]


ASKED = """
import sys
from training.loop import launched
fabric = launched("cpu", 2, None, "32-true")
print(f"of {fabric.world_size}", file=sys.stderr)
fabric.barrier()
assert launched("cpu", 2, None, "bf16-mixed").world_size == 2  # another precision, when WORLD_SIZE is set already
"""


@pytest.mark.slow
def test_two_devices_are_two_processes_without_torchrun_too(tmp_path):
    """Fabric starts the second itself, and tells it how many there are in all, not how many on this machine."""
    script = tmp_path / "asked.py"
    script.write_text(ASKED)
    here = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    here |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200, check=False, env=here)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("of 2") >= 2
