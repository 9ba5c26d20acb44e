"""Cost of every method beside a bare forward pass and beside grad-cam and TorchCAM: `python -m benchmarks.methods`, on an idle machine.

The same eight images, the same network and targets for all; maps are compared before anything is timed. Weights come from CAM_WEIGHTS and
images from CAM_DATA where they are set, else both are random: costs hardly depend on it, but for the channels that are dead.
"""

import argparse
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
import torch

from benchmarks.race import race, write
from cam_core import METHODS, Probe, load_classifier, maps
from cam_core.learned import jobs

Call = Callable[[], Any]
BATCH = 8
HEAD_ONLY = ("cam", "grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam", "mean_activation")
PEERS = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM")
SAME = {"grad_cam": "GradCAM", "layer_cam": "LayerCAM", "score_cam[softmax]": "ScoreCAM", "ablation_cam": "AblationCAM"}


@cache
def images() -> torch.Tensor:
    """[8,3,224,224] in [0, 1]."""
    if os.environ.get("CAM_DATA"):
        data = jobs.images("imagenet", os.environ["CAM_DATA"], limit=BATCH)("crop")
        return torch.stack([data[i].image for i in range(BATCH)])
    return torch.rand(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@cache
def network(name: str) -> Any:
    """Our classifier, as loaded."""
    torch.manual_seed(0)
    return load_classifier(name, "imagenet" if os.environ.get("CAM_WEIGHTS") else None)


def ours(backbone: str, *names: str) -> Call:
    """All ``names`` on one probe, in bfloat16 if that is the last of them; without a name the bare pass."""
    frozen, batch = network(backbone).frozen(), images()
    autocast = torch.bfloat16 if "bfloat16" in names else None
    names = tuple(name for name in names if name in METHODS)

    def call() -> Any:
        if not names:
            with torch.inference_mode():
                return frozen(batch)
        probe = Probe(frozen, batch, autocast=autocast)
        return [METHODS[name](probe) for name in names]

    return call


def grad_cam_package(backbone: str, kind: str) -> Call:
    """A method of pytorch-grad-cam as its documentation calls it, on the stock network."""
    import pytorch_grad_cam

    stock = network(backbone)._network[0]
    method = getattr(pytorch_grad_cam, kind)(model=stock, target_layers=[stock.layer4[-1]])
    batch = network(backbone).normalize(images())
    return lambda: method(batch, None)  # None: the prediction


def torchcam_package(backbone: str, kind: str) -> Call:
    """A method of TorchCAM as its documentation calls it, on the stock network."""
    import torchcam.methods

    stock = network(backbone)._network[0]
    method = getattr(torchcam.methods, kind)(stock, "layer4")
    batch = network(backbone).normalize(images())

    def call() -> Any:
        with torch.set_grad_enabled(kind != "ScoreCAM"):
            scores = stock(batch)
            return method(scores.argmax(1).tolist(), scores)

    return call


def stock(backbone: str) -> Call:
    """The network as torchvision gives it, one pass."""
    plain, batch = network(backbone)._network[0], network(backbone).normalize(images())

    def call() -> Any:
        with torch.inference_mode():
            return plain(batch)

    return call


def agreement() -> pd.DataFrame:
    """Least correlation over two images of finished maps, ours and theirs, where both compute the same; and of bfloat16 with float32."""
    import pytorch_grad_cam

    classifier, batch = network("resnet18"), images()[:2]
    frozen, plain = classifier.frozen(), classifier._network[0]
    rows = []
    for name, kind in SAME.items():
        with getattr(pytorch_grad_cam, kind)(model=plain, target_layers=[plain.layer4[-1]]) as method:
            theirs = torch.from_numpy(method(classifier.normalize(batch), None))
        finished = maps.upsample(maps.min_max(METHODS[name](Probe(frozen, batch))), batch.shape[-2:])
        rows.append((f"{name} beside grad-cam: {kind}", _least_correlation(finished, theirs)))
    exact, fast = (METHODS["score_cam[softmax]"](Probe(frozen, batch, autocast=dtype)) for dtype in (None, torch.bfloat16))
    rows.append(("score_cam[softmax] in bfloat16 beside float32", _least_correlation(exact, fast)))
    return pd.DataFrame(rows, columns=["contender", "correlation"]).assign(group="agreement, ResNet-18, two images")


def _least_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return min(float(torch.corrcoef(torch.stack([x.flatten().double(), y.flatten().double()]))[0, 1]) for x, y in zip(a, b, strict=True))


def groups() -> dict[str, tuple[dict[str, tuple[str, bool]], bool]]:
    """Name -> contenders (name -> (what prepares it, whether it is ours)) and whether a round takes minutes."""
    here = "benchmarks.methods:"
    cheap = {"forward": (here + "ours:resnet50", True), "forward, as loaded": (here + "stock:resnet50", False)}
    cheap |= {name: (f"{here}ours:resnet50,{name}", True) for name in HEAD_ONLY}
    cheap |= {"all eight on one probe": (f"{here}ours:resnet50,{','.join(HEAD_ONLY)}", True)}
    cheap |= {f"grad-cam: {kind}": (f"{here}grad_cam_package:resnet50,{kind}", False) for kind in PEERS}
    score = {
        "score_cam[softmax]": (here + "ours:resnet18,score_cam[softmax]", True),
        "score_cam[softmax], bfloat16": (here + "ours:resnet18,score_cam[softmax],bfloat16", True),
        "grad-cam: ScoreCAM": (here + "grad_cam_package:resnet18,ScoreCAM", False),
        "torchcam: ScoreCAM": (here + "torchcam_package:resnet18,ScoreCAM", False),
    }
    ablation = {
        "ablation_cam": (here + "ours:resnet18,ablation_cam", True),
        "grad-cam: AblationCAM": (here + "grad_cam_package:resnet18,AblationCAM", False),
    }
    merged = ("grad_cam", "increment_cam", "increment_cam[mid]", "increment_cam[full]", "score_cam[budget=64]", "score_cam")
    return {
        "ResNet-50, batch 8, head only": (cheap, False),
        "ResNet-18, batch 8, Score-CAM": (score, True),
        "ResNet-18, batch 8, Ablation-CAM": (ablation, True),
        "ResNet-18, batch 8, Increment-CAM": ({name: (f"{here}ours:resnet18,{name}", True) for name in merged}, True),
    }


def main() -> None:
    """Compare, race, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of the cheap methods")
    parser.add_argument("--long-rounds", type=int, default=2, help="of Score-CAM and Ablation-CAM")
    parser.add_argument("--only", default="", help="race only groups whose name holds this; the others keep what was measured before")
    given = parser.parse_args()
    frames = [
        race(name, contenders, given.long_rounds if long else given.rounds)
        for name, (contenders, long) in groups().items()
        if given.only in name
    ]
    if not given.only:
        frames.append(agreement())
        print(frames[-1].to_string())
    write(frames, "methods", keep=bool(given.only))


if __name__ == "__main__":
    main()
