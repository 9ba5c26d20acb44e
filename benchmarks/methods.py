"""Cost of every method beside a bare forward pass and beside grad-cam and TorchCAM: `python -m benchmarks.methods`, on an idle machine.

The same eight images, the same network and targets for all; maps are compared before anything is timed. Weights come from CAM_WEIGHTS and
images from CAM_DATA where they are set, else both are random: costs hardly depend on it, but for the channels that are dead. The
contenders of a group live side by side, each with the pages that its first call asked for: the sixteen of ResNet-50 take 20 GB.
"""

import argparse
import copy
import os
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F

from benchmarks.race import race, write
from benchmarks.training import multiply_adds
from cam_core import METHODS, Probe, load_classifier, maps
from cam_core.methods.perturbation import rise, rise_masks
from cam_core.pretrained import LITE
from reproduce import sources

Call = Callable[[], Any]
BATCH = 8
MASKS = 500  # of RISE: enough to tell its cost
HEAD_ONLY = ("cam", "grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam", "mean_activation")
PEERS = {  # raced contender -> our name of what it computes
    "grad-cam: GradCAM": "grad_cam", "grad-cam: GradCAMPlusPlus": "grad_cam_pp", "grad-cam: XGradCAM": "xgrad_cam",
    "grad-cam: HiResCAM": "hires_cam", "grad-cam: LayerCAM": "layer_cam", "grad-cam: ScoreCAM": "score_cam[softmax]",
    "torchcam: ScoreCAM": "score_cam[softmax]", "grad-cam: AblationCAM": "ablation_cam",
}  # fmt: skip
ALIKE, ROUNDING = 0.999, 1e-6  # correlation below which two that compute the same do not; what rounding alone takes from 1


@cache
def images() -> torch.Tensor:
    """[8,3,224,224] in [0, 1]."""
    if os.environ.get("CAM_DATA"):
        data = sources.images("imagenet", os.environ["CAM_DATA"], limit=BATCH)("crop")
        return torch.stack([data[i].image for i in range(BATCH)])
    return torch.rand(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@cache
def network(name: str) -> Any:
    """Our classifier, as loaded."""
    torch.manual_seed(0)
    return load_classifier(name, "imagenet" if os.environ.get("CAM_WEIGHTS") else None)


def ours(backbone: str, *names: str) -> Call:
    """All ``names`` on one probe, in "bfloat16" or by PyTorch alone ("torch") if that comes last; without a name the bare pass."""
    frozen, batch = network(backbone).frozen("torch" if "torch" in names else None), images()
    autocast = torch.bfloat16 if "bfloat16" in names else None
    names = tuple(name for name in names if name in METHODS)

    def call() -> Any:
        if not names:
            with torch.inference_mode():
                return frozen(batch)
        probe = Probe(frozen, batch, autocast=autocast)
        return [METHODS[name](probe) for name in names]

    return call


def grad_cam_package(backbone: str, kind: str, count: int = BATCH) -> Call:
    """A method of pytorch-grad-cam as its documentation calls it, on the stock network and the first ``count`` images."""
    import pytorch_grad_cam

    stock = copy.deepcopy(network(backbone)._network[0])  # its hooks stay with it
    method = getattr(pytorch_grad_cam, kind)(model=stock, target_layers=[stock.get_submodule(network(backbone).layer)])
    batch = network(backbone).normalize(images()[:count])
    return lambda: method(batch, None)  # None: the prediction


def torchcam_package(backbone: str, kind: str, count: int = BATCH) -> Call:
    """A method of TorchCAM as its documentation calls it, on the stock network and the first ``count`` images."""
    import torchcam.methods

    stock = copy.deepcopy(network(backbone)._network[0])
    method = getattr(torchcam.methods, kind)(stock, network(backbone).layer)
    batch = network(backbone).normalize(images()[:count])

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


def our_rise(backbone: str, engine: str = "") -> Call:
    """RISE with `MASKS` masks."""
    frozen, batch = network(backbone).frozen(engine or None), images()
    return lambda: rise(Probe(frozen, batch), samples=MASKS)


def plain_rise(backbone: str) -> Call:
    """The same on the stock network as one writes it down: a hundred masks at a time, one image after the other. No peer here has RISE."""
    stock, classifier, batch = network(backbone)._network[0], network(backbone), images()
    inputs = classifier.normalize(batch)

    def call() -> torch.Tensor:
        total = torch.zeros_like(batch[:, 0])
        with torch.inference_mode():
            targets = stock(inputs).argmax(1)
            for masks in rise_masks(batch.shape[-2:], MASKS):
                for heat, image, target in zip(total, inputs, targets, strict=True):
                    heat += torch.einsum("m,mhw->hw", stock(masks[:, None] * image).softmax(1)[:, target], masks)
        return total / (MASKS * 0.5)

    return call


# --- the floor: what the hardware multiplies at most -------------------------------------------------------------------------------------

SIDE, CHANNELS, CELLS, REPEATED = 4096, 256, 14, 64  # about a second of work each; ResNet-18 has such convolutions in layer3
CONVOLVED = REPEATED * BATCH * CELLS**2 * 9 * CHANNELS**2 / 1e9
FLOORS = {  # contender -> what prepares it, 10⁹ multiply-adds of a call
    "floor: its multiply-adds as one matrix product": ("product:", SIDE**3 / 1e9),
    "floor: its multiply-adds as one 3 x 3 convolution": ("convolution:", CONVOLVED),
    "bfloat16 floor: the same as one 3 x 3 convolution": ("convolution:bfloat16", CONVOLVED),
}


def product() -> Call:
    """One product of two float32 matrices [SIDE,SIDE]; called once beforehand, as the first call starts the threads."""
    a, b = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    out = a @ b
    return lambda: torch.mm(a, b, out=out)


def convolution(precision: str = "float32") -> Call:
    """One 3 x 3 convolution of [8,CHANNELS,CELLS,CELLS], channels last, as often as ``REPEATED`` says; likewise called beforehand."""
    drawn = torch.Generator().manual_seed(0)
    shapes = (BATCH, CHANNELS, CELLS, CELLS), (CHANNELS, CHANNELS, 3, 3)
    made = (torch.rand(shape, generator=drawn).to(getattr(torch, precision)) for shape in shapes)
    x, weight = (one.contiguous(memory_format=torch.channels_last) for one in made)

    def call() -> None:
        with torch.inference_mode():
            for _ in range(REPEATED):
                F.conv2d(x, weight, padding=1)

    call()
    return call


def score_cam_multiply_adds(backbone: str) -> float:
    """10⁹ multiply-adds of Score-CAM on all images: the bare pass of each, and a pass for every channel of it that is not constant."""
    probe = Probe(network(backbone).frozen(), images())
    passes = len(probe.images) + int((~maps.is_empty(probe.activations)).sum())
    return passes * multiply_adds(probe.classifier, probe.images[:1])


def scaled(raced: pd.DataFrame, total: float) -> pd.DataFrame:
    """A race in which a floor's work stands for ``total`` 10⁹ multiply-adds, a column of their own; its memory is that of no method."""
    done = raced.contender.map({name: count for name, (_, count) in FLOORS.items()})  # NaN for what is no floor
    times = raced[["seconds", "cpu_seconds", "median_seconds"]].mul((total / done).fillna(1), axis=0)
    return raced.assign(**times, extra_mb=raced.extra_mb.where(done.isna()), multiply_adds=(0 * done + total))


def agreement(raced: Collection[tuple[str, str]], count: int = 2) -> pd.DataFrame:
    """Least correlation over ``count`` images of finished maps, ours and each peer's that is ``raced`` (contender, network).

    A peer that computes something else has a second row, of our method changed to what it does; and bfloat16 one beside float32.
    RuntimeError if two that compute the same do not agree: then there is nothing to race.
    """
    from studies.peers import OTHERWISE, otherwise  # not above: studies change the allocator, also of a contender's process

    rows = []
    for contender, backbone in raced:
        of = "" if backbone.startswith("resnet") else f", {backbone}"
        probe, name = Probe(network(backbone).frozen(), images()[:count]), PEERS[contender]
        package, _, kind = contender.partition(": ")
        theirs = _finished({"grad-cam": grad_cam_package, "torchcam": torchcam_package}[package](backbone, kind, count)())
        rows.append((f"{name} beside {contender}{of}", _least_correlation(_finished(METHODS[name](probe)), theirs)))
        if contender in OTHERWISE and rows[-1][1] < 1 - ROUNDING:
            rows.append((f"the same with {otherwise(contender)}{of}", _least_correlation(_finished(OTHERWISE[contender](probe)), theirs)))
        if rows[-1][1] < ALIKE:
            raise RuntimeError(f"{rows[-1][0]}: the maps correlate at {rows[-1][1]:.4f} only, so their times do not compare")
    if ("grad-cam: ScoreCAM", "resnet18") in raced:
        exact, fast = (Probe(network("resnet18").frozen(), images()[:count], autocast=dtype) for dtype in (None, torch.bfloat16))
        name = "score_cam[softmax]"
        rows.append((f"{name} in bfloat16 beside float32", _least_correlation(METHODS[name](exact), METHODS[name](fast))))
    return pd.DataFrame(rows, columns=["contender", "correlation"]).assign(group=f"agreement, {count} images")


def _finished(found: Any) -> torch.Tensor:
    """Rectified, rescaled maps at image size, of our raw maps, an array or a list of one tensor."""
    heat = found[0] if isinstance(found, list) else torch.as_tensor(found)
    return maps.upsample(maps.min_max(heat.relu()), images().shape[-2:])


def _least_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return min(float(torch.corrcoef(torch.stack([x.flatten().double(), y.flatten().double()]))[0, 1]) for x, y in zip(a, b, strict=True))


def _score_cam(backbone: str) -> dict[str, tuple[str, bool]]:
    here = "benchmarks.methods:"
    return {
        "score_cam[softmax]": (f"{here}ours:{backbone},score_cam[softmax]", True),
        "score_cam[softmax], PyTorch alone": (f"{here}ours:{backbone},score_cam[softmax],torch", True),
        "grad-cam: ScoreCAM": (f"{here}grad_cam_package:{backbone},ScoreCAM", False),
        "torchcam: ScoreCAM": (f"{here}torchcam_package:{backbone},ScoreCAM", False),
    }


def groups() -> dict[str, tuple[dict[str, tuple[str, bool]], bool]]:
    """Name -> contenders (name -> (what prepares it, whether it is ours)) and whether a round takes minutes."""
    here = "benchmarks.methods:"
    cheap = {"forward": (here + "ours:resnet50", True), "forward, as loaded": (here + "stock:resnet50", False)}
    cheap |= {name: (f"{here}ours:resnet50,{name}", True) for name in HEAD_ONLY}
    cheap |= {"all eight on one probe": (f"{here}ours:resnet50,{','.join(HEAD_ONLY)}", True)}
    gradient = [contender for contender, name in PEERS.items() if name in HEAD_ONLY]
    cheap |= {peer: (f"{here}grad_cam_package:resnet50,{peer.partition(': ')[2]}", False) for peer in gradient}
    score = {
        **_score_cam("resnet18"),
        "score_cam[softmax], bfloat16": (here + "ours:resnet18,score_cam[softmax],bfloat16", True),
        **{floor: (f"{here}{prepare}", True) for floor, (prepare, _) in FLOORS.items()},
    }
    ablation = {
        "ablation_cam": (here + "ours:resnet18,ablation_cam", True),
        "grad-cam: AblationCAM": (here + "grad_cam_package:resnet18,AblationCAM", False),
    }
    by_rise = {
        "rise": (here + "our_rise:resnet18", True),
        "rise, PyTorch alone": (here + "our_rise:resnet18,torch", True),
        "rise, as one writes it": (here + "plain_rise:resnet18", True),
    }
    merged = ("grad_cam", "increment_cam", "increment_cam[mid]", "increment_cam[full]", "score_cam[budget=64]", "score_cam")
    return {
        "ResNet-50, batch 8, head only": (cheap, False),
        "ResNet-18, batch 8, Score-CAM": (score, True),
        "MobileNetV2, batch 8, Score-CAM": (_score_cam("mobilenet_v2"), True),
        "EfficientNet-Lite0, batch 8, Score-CAM": (_score_cam(LITE), True),
        f"ResNet-18, batch 8, RISE, {MASKS} masks": (by_rise, True),
        "ResNet-18, batch 8, Ablation-CAM": (ablation, True),
        "ResNet-18, batch 8, Increment-CAM": ({name: (f"{here}ours:resnet18,{name}", True) for name in merged}, True),
    }


def wanted(part: str) -> dict[str, tuple[dict[str, tuple[str, bool]], bool]]:
    """Groups whose name holds ``part``, whole; if there is none, of every group the contenders whose name holds it."""
    whole = {name: group for name, group in groups().items() if part in name}
    if whole:
        return whole
    found = {name: ({c: how for c, how in contenders.items() if part in c}, long) for name, (contenders, long) in groups().items()}
    return {name: group for name, group in found.items() if group[0]}


def main() -> None:
    """Compare, race, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of the cheap methods")
    parser.add_argument("--long-rounds", type=int, default=2, help="of Score-CAM, Ablation-CAM and Increment-CAM")
    parser.add_argument(
        "--only",
        default="",
        help="race only groups, or else contenders, whose name holds this (`--only floor`); the others keep what was measured before",
    )
    given = parser.parse_args()
    if min(given.rounds, given.long_rounds) < 2:
        parser.error("one round is the slow first call alone: take two or more")
    chosen = wanted(given.only)
    if not chosen:
        parser.error(f"no group and no contender holds {given.only!r}: the groups are {'; '.join(groups())}")
    entered = [(name, prepare.rpartition(":")[2]) for contenders, _ in chosen.values() for name, (prepare, _) in contenders.items()]
    peers = {(name, words.partition(",")[0]): None for name, words in entered if name in PEERS}
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # its gigabytes are gone when the race begins
        agreed = apart.submit(agreement, list(peers)).result()
    if len(agreed):
        print(agreed.to_string())
    frames = [race(name, contenders, given.long_rounds if long else given.rounds) for name, (contenders, long) in chosen.items()]
    if FLOORS.keys() & {name for name, _ in entered}:
        total = score_cam_multiply_adds("resnet18")
        frames = [scaled(frame, total) if frame.contender.isin(FLOORS).any() else frame for frame in frames]
    replaced = "file" if not given.only else "group" if any(given.only in name for name in groups()) else "contender"
    write(frames if given.only else [*frames, agreed], "methods", replace=replaced)


if __name__ == "__main__":
    main()
