"""Cost of every method beside a bare forward pass and beside grad-cam and TorchCAM: `python -m benchmarks.methods`, on an idle machine.

The same images, the same network and targets for all: eight, or one where each takes hundreds of passes. Maps are compared before anything
is timed. Weights come from CAM_WEIGHTS and images from CAM_DATA where they are set, else both are random: costs hardly depend on it, but
for the channels that are dead. Masked images pass through ONNX Runtime, which the extra "fast" installs; "PyTorch alone" does without.
The contenders of a group live side by side, each with the pages that its first call asked for: the sixteen of ResNet-50 take 20 GB.
"""

import argparse
import copy
import importlib.util
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
Chosen = dict[str, tuple[dict[str, tuple[str, bool]], bool]]  # group -> contenders, and whether a round takes minutes
BATCH, ONE = 8, 1
SIDE_OF_IMAGE = 224
MASKS = 500  # of RISE: enough to tell its cost
HEAD_ONLY = ("cam", "grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam", "mean_activation")
PEERS = {  # raced contender -> our name of what it computes
    "grad-cam: GradCAM": "grad_cam", "grad-cam: GradCAMPlusPlus": "grad_cam_pp", "grad-cam: XGradCAM": "xgrad_cam",
    "grad-cam: HiResCAM": "hires_cam", "grad-cam: LayerCAM": "layer_cam", "grad-cam: ScoreCAM": "score_cam[softmax]",
    "torchcam: ScoreCAM": "score_cam[softmax]", "grad-cam: AblationCAM": "ablation_cam",
}  # fmt: skip
ALIKE, ROUNDING = 0.999, 1e-6  # correlation below which two that compute the same do not; what rounding alone takes from 1


@cache
def images(side: int = SIDE_OF_IMAGE) -> torch.Tensor:
    """[8,3,side,side] in [0, 1]."""
    if side != SIDE_OF_IMAGE:
        return F.interpolate(images(), (side, side), mode="area")
    if os.environ.get("CAM_DATA"):
        data = sources.images("imagenet", os.environ["CAM_DATA"], limit=BATCH)("crop")
        return torch.stack([data[i].image for i in range(BATCH)])
    return torch.rand(BATCH, 3, side, side, generator=torch.Generator().manual_seed(0))


@cache
def network(name: str) -> Any:
    """Our classifier, as loaded."""
    torch.manual_seed(0)
    return load_classifier(name, "imagenet" if os.environ.get("CAM_WEIGHTS") else None)


def ours(backbone: str, *words: str) -> Call:
    """All methods among ``words`` on one probe; without a method the bare pass.

    Other words: "one" image, not eight; masked images by PyTorch alone ("torch"), which "bfloat16" implies.
    """
    frozen, batch = network(backbone).frozen("torch" if "torch" in words else "onnxruntime"), images()[: ONE if "one" in words else BATCH]
    autocast = torch.bfloat16 if "bfloat16" in words else None
    names = [word for word in words if word in METHODS]

    def call() -> Any:
        if not names:
            with torch.inference_mode():
                return frozen(batch)
        probe = Probe(frozen, batch, autocast=autocast)
        return [METHODS[name](probe) for name in names]

    return call


def grad_cam_package(backbone: str, kind: str, count: int | str = BATCH, side: int = SIDE_OF_IMAGE) -> Call:
    """A method of pytorch-grad-cam as its documentation calls it, on the stock network and the first ``count`` images."""
    import pytorch_grad_cam

    stock = copy.deepcopy(network(backbone)._network[0])  # its hooks stay with it
    method = getattr(pytorch_grad_cam, kind)(model=stock, target_layers=[stock.get_submodule(network(backbone).layer)])
    batch = network(backbone).normalize(images(side)[: int(count)])
    return lambda: method(batch, None)  # None: the prediction


def torchcam_package(backbone: str, kind: str, count: int | str = BATCH, side: int = SIDE_OF_IMAGE) -> Call:
    """A method of TorchCAM as its documentation calls it, on the stock network and the first ``count`` images."""
    import torchcam.methods

    stock = copy.deepcopy(network(backbone)._network[0])
    method = getattr(torchcam.methods, kind)(stock, network(backbone).layer)
    batch = network(backbone).normalize(images(side)[: int(count)])

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


def our_rise(backbone: str, engine: str = "onnxruntime", count: int = MASKS) -> Call:
    """RISE with ``count`` masks, of one image."""
    frozen, batch = network(backbone).frozen(engine), images()[:ONE]
    return lambda: rise(Probe(frozen, batch), samples=count)


def torchray_rise(backbone: str, count: int = MASKS) -> Call:
    """TorchRay's RISE with our masks, which it then need not draw; its sigmoid is that of a number which gives the probability."""
    from torchray.attribution.rise import rise_class

    stock, inputs = network(backbone)._network[0], network(backbone).normalize(images()[:ONE])
    masks = torch.cat([*rise_masks(inputs.shape[-2:], count)])[:, None]

    def call() -> torch.Tensor:
        with torch.inference_mode():
            target = stock(inputs).argmax(1)
            found: torch.Tensor = rise_class(
                lambda x: stock(x).softmax(1).logit(), inputs, num_masks=len(masks), filter_masks=masks, target=target
            )
        return found[:, 0] / 0.5

    return call


def plain_rise(backbone: str, count: int = MASKS) -> Call:
    """The same on the stock network as one writes it down: a hundred masks at a time, one image after the other."""
    stock, classifier, batch = network(backbone)._network[0], network(backbone), images()[:ONE]
    inputs = classifier.normalize(batch)

    def call() -> torch.Tensor:
        total = torch.zeros_like(batch[:, 0])
        with torch.inference_mode():
            targets = stock(inputs).argmax(1)
            for masks in rise_masks(batch.shape[-2:], count):
                for heat, image, target in zip(total, inputs, targets, strict=True):
                    heat += torch.einsum("m,mhw->hw", stock(masks[:, None] * image).softmax(1)[:, target], masks)
        return total / (count * 0.5)

    return call


def same_rise(backbone: str, count: int = 8) -> None:
    """RuntimeError unless all that are raced give the same map, of ``count`` masks."""
    others = [plain_rise, *([torchray_rise] if TORCHRAY else [])]
    found = our_rise(backbone, "torch", count)()
    for other in others:
        if not torch.allclose(other(backbone, count)(), found, rtol=1e-3, atol=1e-6):
            raise RuntimeError(f"{other.__name__} and our RISE give other maps: nothing is timed")


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


def masked_pass(backbone: str, precision: str, most: str = "") -> Call:
    """A pass of eight masked images in PyTorch; ``most``: the instructions that oneDNN may take at the most, as if there were no others."""
    if most:
        os.environ["ONEDNN_MAX_CPU_ISA"] = most  # read at the first convolution
    frozen, batch = network(backbone).frozen("torch"), images()

    def call() -> None:
        with torch.inference_mode(), torch.autocast("cpu", getattr(torch, precision), enabled=precision != "float32"):
            frozen(batch)

    return call


def score_cam_multiply_adds(backbone: str) -> float:
    """10⁹ multiply-adds of Score-CAM on one image: the bare pass, and a pass for every channel that is not constant."""
    probe = Probe(network(backbone).frozen(), images()[:ONE])
    passes = len(probe.images) + int((~maps.is_empty(probe.activations)).sum())
    return passes * multiply_adds(probe.classifier, probe.images[:1])


def scaled(raced: pd.DataFrame, total: float) -> pd.DataFrame:
    """A race in which a floor's work stands for ``total`` 10⁹ multiply-adds, a column of their own; its memory is that of no method."""
    done = raced.contender.map({name: count for name, (_, count) in FLOORS.items()})  # NaN for what is no floor
    times = raced[["seconds", "cpu_seconds", "median_seconds"]].mul((total / done).fillna(1), axis=0)
    return raced.assign(**times, extra_mb=raced.extra_mb.where(done.isna()), multiply_adds=(0 * done + total))


def agreement(raced: Collection[tuple[str, str]], count: int = 2, side: int = SIDE_OF_IMAGE) -> pd.DataFrame:
    """Least correlation over ``count`` images of finished maps, ours and each peer's that is ``raced`` (contender, network).

    A peer that computes something else has a second row, of our method changed to what it does; and bfloat16 one beside float32.
    RuntimeError if two that compute the same do not agree: then there is nothing to race.
    """
    from studies.peers import OTHERWISE, otherwise  # not above: studies change the allocator, also of a contender's process

    rows = []
    for contender, backbone in raced:
        of = "" if backbone.startswith("resnet") else f", {backbone}"
        probe, name = Probe(network(backbone).frozen(), images(side)[:count]), PEERS[contender]
        package, _, kind = contender.partition(": ")
        theirs = _finished({"grad-cam": grad_cam_package, "torchcam": torchcam_package}[package](backbone, kind, count, side)())
        rows.append((f"{name} beside {contender}{of}", _least_correlation(_finished(METHODS[name](probe)), theirs)))
        if contender in OTHERWISE and rows[-1][1] < 1 - ROUNDING:
            rows.append((f"the same with {otherwise(contender)}{of}", _least_correlation(_finished(OTHERWISE[contender](probe)), theirs)))
        if rows[-1][1] < ALIKE:
            raise RuntimeError(f"{rows[-1][0]}: the maps correlate at {rows[-1][1]:.4f} only, so their times do not compare")
    if ("grad-cam: ScoreCAM", "resnet18") in raced:
        exact, fast = (Probe(network("resnet18").frozen(), images(side)[:count], autocast=dtype) for dtype in (None, torch.bfloat16))
        name = "score_cam[softmax]"
        rows.append((f"{name} in bfloat16 beside float32", _least_correlation(METHODS[name](exact), METHODS[name](fast))))
    return pd.DataFrame(rows, columns=["contender", "correlation"]).assign(group=AGREEMENT)


def _finished(found: Any) -> torch.Tensor:
    """Rectified, rescaled maps at image size, of our raw maps, an array or a list of one tensor."""
    heat = found[0] if isinstance(found, list) else torch.as_tensor(found)
    return maps.upsample(maps.min_max(heat.relu()), images().shape[-2:])


def _least_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return min(float(torch.corrcoef(torch.stack([x.flatten().double(), y.flatten().double()]))[0, 1]) for x, y in zip(a, b, strict=True))


HERE = "benchmarks.methods:"
SCORE_CAM = {"resnet18": "Score-CAM, ResNet-18, one image", "mobilenet_v2": "Score-CAM, MobileNetV2, one image",
             LITE: "Score-CAM, EfficientNet-Lite0, one image"}  # fmt: skip
TORCHRAY = importlib.util.find_spec("torchray") is not None  # by hand (pip install --no-deps torchray): no wheel, not for commercial use
AGREEMENT = "agreement, 2 images"
BFLOAT16 = "bfloat16, ResNet-18, batch 8, masked pass"
WITHOUT = ", as if the processor had no instructions for it"
RISE = {"resnet18": f"RISE, ResNet-18, one image, {MASKS} masks", LITE: f"RISE, EfficientNet-Lite0, one image, {MASKS} masks"}


def _score_cam(backbone: str) -> dict[str, tuple[str, bool]]:
    return {
        "score_cam[softmax]": (f"{HERE}ours:{backbone},score_cam[softmax],one", True),
        "score_cam[softmax], PyTorch alone": (f"{HERE}ours:{backbone},score_cam[softmax],one,torch", True),
        "grad-cam: ScoreCAM": (f"{HERE}grad_cam_package:{backbone},ScoreCAM,{ONE}", False),
        "torchcam: ScoreCAM": (f"{HERE}torchcam_package:{backbone},ScoreCAM,{ONE}", False),
    }


def _rise(backbone: str) -> dict[str, tuple[str, bool]]:
    return {
        "rise": (f"{HERE}our_rise:{backbone}", True),
        "rise, PyTorch alone": (f"{HERE}our_rise:{backbone},torch", True),
        "rise, as one writes it": (f"{HERE}plain_rise:{backbone}", True),
        **({"torchray: rise": (f"{HERE}torchray_rise:{backbone}", False)} if TORCHRAY else {}),
    }


def groups() -> Chosen:
    """Name -> contenders (name -> (what prepares it, whether it is ours)) and whether a round takes minutes."""
    cheap = {"forward": (HERE + "ours:resnet50,torch", True), "forward, as loaded": (HERE + "stock:resnet50", False)}
    cheap |= {name: (f"{HERE}ours:resnet50,{name}", True) for name in HEAD_ONLY}
    cheap |= {"all eight on one probe": (f"{HERE}ours:resnet50,{','.join(HEAD_ONLY)}", True)}
    gradient = [contender for contender, name in PEERS.items() if name in HEAD_ONLY]
    cheap |= {peer: (f"{HERE}grad_cam_package:resnet50,{peer.partition(': ')[2]}", False) for peer in gradient}
    score = {
        **_score_cam("resnet18"),
        "score_cam[softmax], bfloat16": (HERE + "ours:resnet18,score_cam[softmax],one,bfloat16", True),
        **{floor: (f"{HERE}{prepare}", True) for floor, (prepare, _) in FLOORS.items()},
    }
    ablation = {
        "ablation_cam": (HERE + "ours:resnet18,ablation_cam", True),
        "grad-cam: AblationCAM": (HERE + "grad_cam_package:resnet18,AblationCAM", False),
    }
    halved = {
        precision + told: (f"{HERE}masked_pass:resnet18,{precision},{most}", True)
        for told, most in (("", ""), (WITHOUT, "AVX512_CORE"))
        for precision in ("float32", "bfloat16")
    }
    merged = ("grad_cam", "increment_cam", "increment_cam[mid]", "increment_cam[full]", "score_cam[budget=64]", "score_cam")
    return {
        "ResNet-50, batch 8, head only": (cheap, False),
        **{SCORE_CAM[name]: (score if name == "resnet18" else _score_cam(name), True) for name in SCORE_CAM},
        **{RISE[name]: (_rise(name), True) for name in RISE},
        BFLOAT16: (halved, False),
        "ResNet-18, batch 8, Ablation-CAM": (ablation, True),
        "ResNet-18, batch 8, Increment-CAM": ({name: (f"{HERE}ours:resnet18,{name}", True) for name in merged}, True),
    }


def wanted(*parts: str) -> Chosen:
    """Groups whose name holds one of ``parts``, whole; if there is none, of every group the contenders whose name holds one."""
    whole = {name: group for name, group in groups().items() if any(part in name for part in parts)}
    if whole:
        return whole
    found = {
        name: ({c: how for c, how in contenders.items() if any(part in c for part in parts)}, long)
        for name, (contenders, long) in groups().items()
    }
    return {name: group for name, group in found.items() if group[0]}


def measured(chosen: Chosen, rounds: int, long_rounds: int, **compared: int) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """A race a group, and how far the maps agree, which comes first; ``compared``: on how many images of which side."""
    entered = [(name, prepare.rpartition(":")[2]) for contenders, _ in chosen.values() for name, (prepare, _) in contenders.items()]
    peers = {(name, words.partition(",")[0]): None for name, words in entered if name in PEERS}
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # its gigabytes are gone when the race begins
        agreed = apart.submit(agreement, list(peers), **compared).result()
    if len(agreed):
        print(agreed.to_string())
    for backbone, group in RISE.items():
        if group in chosen:
            same_rise(backbone)
    frames = [race(name, contenders, long_rounds if long else rounds) for name, (contenders, long) in chosen.items()]
    if FLOORS.keys() & {name for name, _ in entered}:
        total = score_cam_multiply_adds("resnet18")
        frames = [scaled(frame, total) if frame.contender.isin(FLOORS).any() else frame for frame in frames]
    return frames, agreed


def main() -> None:
    """Compare, race, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of the cheap methods")
    parser.add_argument("--long-rounds", type=int, default=3, help="of the others")
    parser.add_argument(
        *("--groups", "--only"),
        nargs="+",
        metavar="PART",
        help="race only groups, or else contenders, whose name holds one of these (`--groups floor`); the others keep their rows",
    )
    given = parser.parse_args()
    if min(given.rounds, given.long_rounds) < 2:
        parser.error("one round is the slow first call alone: take two or more")
    chosen = wanted(*given.groups) if given.groups else groups()
    if not chosen:
        parser.error(f"no group and no contender holds {' or '.join(given.groups)}: the groups are {'; '.join(groups())}")
    frames, agreed = measured(chosen, given.rounds, given.long_rounds)
    if given.groups:
        keep(frames, chosen)
    else:
        write([*frames, agreed], "methods")


def keep(frames: list[pd.DataFrame], chosen: Chosen) -> None:
    """Write the races of a part; groups that there are no more go."""
    whole = all(contenders.keys() == groups()[name][0].keys() for name, (contenders, _) in chosen.items())
    write(frames, "methods", replace="group" if whole else "contender", known=[*groups(), AGREEMENT])


if __name__ == "__main__":
    main()
