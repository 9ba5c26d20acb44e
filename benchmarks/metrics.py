"""Cost of the metrics beside the plain way to compute them: `python -m benchmarks.metrics`, on an idle machine.

Every pair of contenders is compared before it is timed: their numbers must agree. Weights and images as in `benchmarks.methods`; the maps
are drawn: smooth ones, as CAM gives, and noise of single pixels, as gradients give. What is a count (passes, megabytes) is counted once.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from benchmarks.methods import images, network
from benchmarks.race import Peak, race, write
from benchmarks.training import multiply_adds
from cam_core import METHODS, Probe, metrics
from cam_core.data import CUB200, ImageNet
from cam_core.evaluate import evaluate
from cam_core.learned import lfi_backbone
from cam_core.metrics.boxes import best_iou, quantize
from cam_core.metrics.components import LEVELS
from cam_core.metrics.pixels import BINS
from cam_core.metrics.road import impute
from cam_core.metrics.statistics import paired_difference, randomization
from cam_core.pretrained import LITE
from cam_core.table import Table
from data_scripts.draw import draw
from reproduce.files import write_parts

Call = Callable[[], Any]
HERE = "benchmarks.metrics:"
SIDE = 224
THRESHOLDS = np.arange(0, 1, 0.001)
EDGES = np.array([*THRESHOLDS, 1.0, 2.0, 3.0])
STEPS = 20  # of insertion and deletion: TorchCAM's default
CURVE_RACE = {
    "resnet18": f"insertion and deletion, ResNet-18, 8 images, {STEPS} steps",
    LITE: f"insertion and deletion, EfficientNet-Lite0, 8 images, {STEPS} steps",
}
SHOWN = 100  # times are told for so many maps, however many a contender was given


# ---------------------------------------------------------------- boxes


@cache
def drawn_maps(kind: str, count: int) -> torch.Tensor:
    """[count,224,224], float64: "smooth" ones enlarged from grids of 7, 14 and 28 cells, or "noise" of single pixels."""
    generator = torch.Generator().manual_seed(0)
    if kind == "noise":
        return torch.rand(count, SIDE, SIDE, generator=generator, dtype=torch.float64)
    coarse = [
        torch.rand(1, 1, cells, cells, generator=generator, dtype=torch.float64) for cells in (7, 14, 28) for _ in range(-(-count // 3))
    ]
    fine = torch.cat([F.interpolate(one, (SIDE, SIDE), mode="bicubic") for one in coarse[::-1]])[:, 0]
    return fine[torch.randperm(len(fine), generator=generator)][:count].clone()


def boxes(count: int) -> list[torch.Tensor]:
    """One box for each map, [1,4]."""
    corners = np.sort(np.random.default_rng(0).integers(0, SIDE, (count, 2, 2)), axis=1)
    return [torch.from_numpy(one.reshape(1, 4)) for one in corners]


def component_trees(kind: str, count: str) -> Call:
    """Our measure of MaxBoxAcc V2."""
    maps, truths = drawn_maps(kind, int(count)), boxes(int(count))
    metrics.MaxBoxAccV2().measure(maps[:1], truths[:1])  # compiled now, or loaded from where it was kept
    return lambda: metrics.MaxBoxAccV2().measure(maps, truths)


def contours(kind: str, count: str) -> Call:
    """The plain evaluator: at each of the thousand thresholds OpenCV's contours, their boxes, the best of them."""
    maps, truths = drawn_maps(kind, int(count)), boxes(int(count))
    return lambda: [plain_overlaps(image, truth[0].numpy()) for image, truth in zip(quantize(maps), truths, strict=True)]


def plain_overlaps(image: np.ndarray, truth: np.ndarray) -> list[float]:
    """Best intersection over union at each threshold, of inclusive boxes that end one pixel too far except at the border."""
    import cv2

    found = []
    for threshold in THRESHOLDS:
        _, shown = cv2.threshold(image, int(threshold * image.max()), 255, cv2.THRESH_BINARY)
        rects = np.array([cv2.boundingRect(one) for one in cv2.findContours(shown, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]])
        rects = rects if len(rects) else np.zeros((1, 4), int)
        low, high = rects[:, :2], np.minimum(rects[:, :2] + rects[:, 2:], SIDE - 1)
        overlap = np.clip(np.minimum(high, truth[2:]) - np.maximum(low, truth[:2]) + 1, 0, None).prod(1)
        union = (high - low + 1).prod(1) + (truth[2:] - truth[:2] + 1).prod() - overlap
        found.append(float((overlap / union).max()))
    return found


def same_boxes(kind: str, count: int) -> None:
    """RuntimeError unless both find the same at every threshold."""
    for image, truth in zip(quantize(drawn_maps(kind, count)), boxes(count), strict=True):
        ours = best_iou(image, truth)[[int(threshold * 255) for threshold in THRESHOLDS]]
        if not np.array_equal(ours, plain_overlaps(image, truth[0].numpy())):
            raise RuntimeError(f"the plain evaluator and ours disagree on a {kind} map: nothing is timed")


# ---------------------------------------------------------------- pixels


def truths(count: int) -> torch.Tensor:
    """Masks [count,224,224] with a disc in each."""
    y, x = np.ogrid[:SIDE, :SIDE]
    centres = np.random.default_rng(1).integers(60, 160, (count, 2))
    return torch.from_numpy(np.stack([(x - a) ** 2 + (y - b) ** 2 < 50**2 for a, b in centres]))


def unit_maps(count: int) -> torch.Tensor:
    """Smooth maps in [0, 1]."""
    maps = drawn_maps("smooth", count)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def counted_bins(count: str) -> Call:
    """Our measure of PxAP."""
    maps, masks = unit_maps(int(count)), truths(int(count))
    metrics.PxAP().measure(maps[:1], masks[:1])
    return lambda: metrics.PxAP().measure(maps, masks)


def explicit_edges(count: str) -> Call:
    """numpy's histogram of positive and of negative pixels with the official edges."""
    maps, masks = unit_maps(int(count)).numpy(), truths(int(count)).numpy()
    return lambda: [[np.histogram(heat[mask == value], EDGES)[0] for value in (0, 1)] for heat, mask in zip(maps, masks, strict=True)]


def same_histograms(count: int) -> None:
    """RuntimeError unless both count the same in every bin."""
    ours = counted_bins(str(count))().numpy().reshape(count, 2, BINS)
    if not np.array_equal(ours, np.array(explicit_edges(str(count))())[..., :BINS]):
        raise RuntimeError("numpy's histograms and ours disagree: nothing is timed")


# ---------------------------------------------------------------- insertion and deletion


def heat() -> torch.Tensor:
    """Smooth maps without ties for the eight images."""
    return unit_maps(len(images())).float()


def _step() -> int:
    return -(-SIDE * SIDE // STEPS)


def our_curves(backbone: str, engine: str = "onnxruntime") -> Call:
    """Deletion and insertion on one probe; insertion starts from RISE's blur."""
    frozen, maps = network(backbone).frozen(engine), heat()

    def call() -> Any:
        probe = Probe(frozen, images())
        return metrics.Deletion(_step()).curve(maps, probe), metrics.Insertion(_step()).curve(maps, probe)

    return call


def torchcam_curves(backbone: str) -> Call:
    """TorchCAM's curves on the stock network, given the same maps; both of them use the mean colour."""
    from torchcam.metrics import DeletionInsertionMetric

    stock, inputs = network(backbone)._network[0].eval(), network(backbone).normalize(images())
    peer = DeletionInsertionMetric(SimpleNamespace(_hooks_off=_nothing, model=stock), lambda logits: logits.softmax(1), steps=STEPS)

    maps = heat()

    def call() -> Any:
        with torch.inference_mode():
            scores = stock(inputs).softmax(1)
        ranks = maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1)
        before, target = scores.max(1)
        return peer._compute_curves(inputs, torch.zeros_like(inputs), ranks, target, before)[1:]

    return call


def quantus_curves(backbone: str) -> Call:
    """Quantus' pixel flipping, most and least salient first (it has no insertion): 21 passes each, as its step must divide the pixels."""
    import quantus

    stock, inputs = network(backbone)._network[0].eval(), network(backbone).normalize(images())
    target = stock(inputs).argmax(1).numpy()
    flipping = quantus.PixelFlipping(
        features_in_step=SIDE * SIDE // 7, perturb_baseline=0.0, normalise=False, disable_warnings=True, display_progressbar=False
    )

    maps = heat().numpy()[:, None]

    def call() -> Any:
        return [flipping(stock, inputs.numpy(), target, a_batch=one, softmax=True) for one in (maps, -maps)]

    return call


@contextmanager
def _nothing() -> Iterator[None]:
    yield


CURVES: dict[str, Callable[[str], Call]] = {
    "cam_core": our_curves, "torchcam: DeletionInsertionMetric": torchcam_curves, "quantus: PixelFlipping, twice": quantus_curves
}  # fmt: skip


def images_passed(backbone: str, contender: str) -> int:
    """How many images go through the network's first convolution in one call."""
    seen = []

    def note(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            seen.append(len(given[0]))

    call = our_curves(backbone, "torch") if contender == "cam_core" else CURVES[contender](backbone)  # the hook sees PyTorch's passes
    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    call()
    hook.remove()
    return sum(seen)


def matrix_products(backbone: str) -> Call:
    """As many multiply-adds as our passes take, as products of large matrices: what the processor can do at the best."""
    each = multiply_adds(network(backbone).frozen(), images()[:1])
    side = 2048
    count = round(each * 1e9 * images_passed(backbone, "cam_core") / side**3)
    a, b = torch.rand(2, side, side, generator=torch.Generator().manual_seed(0))
    return lambda: [a @ b for _ in range(count)]


def curve_passes(backbone: str) -> list[dict[str, Any]]:
    """Images that each contender of insertion and deletion passes through the network."""
    group = f"{CURVE_RACE[backbone]}: images passed"
    return [_count(group, contender, images_passed(backbone, contender)) for contender in CURVES]


def same_curves(backbone: str) -> None:
    """RuntimeError unless the deletion curves agree; insertion starts from another image here."""
    with torch.no_grad():
        ours, theirs = our_curves(backbone)()[0], torchcam_curves(backbone)()[0]
    if not torch.allclose(ours, theirs.double(), atol=1e-4):
        raise RuntimeError(f"TorchCAM's deletion and ours differ by {float((ours - theirs).abs().max()):.2g}: nothing is timed")


# ---------------------------------------------------------------- ROAD


def removed(kind: str, share: float) -> tuple[np.ndarray, np.ndarray]:
    """An image [3,224,224] and the most salient ``share`` of the pixels of a drawn map, bool [224,224]."""
    image = np.stack([one.numpy() for one in unit_maps(6)[3:]])
    heat = drawn_maps(kind, 1)[0].numpy()
    return image, heat > np.quantile(heat, 1 - share)


def our_imputation(kind: str, share: str) -> Call:
    """One image imputed."""
    image, missing = removed(kind, float(share))
    impute(image, missing)  # the neighbours of all pixels are laid out once for a size
    return lambda: impute(image, missing)


def grad_cam_imputation(kind: str, share: str) -> Call:
    """The same by pytorch-grad-cam, without its noise."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    image, missing = removed(kind, float(share))
    image, mask, imputer = torch.from_numpy(image).float(), torch.from_numpy((~missing).astype(np.float32)), NoisyLinearImputer(noise=0)
    return lambda: imputer(image, mask)


def same_imputation() -> None:
    """RuntimeError unless both fill in the same values."""
    ours, theirs = our_imputation("smooth", "0.3")(), grad_cam_imputation("smooth", "0.3")().numpy()
    if not np.allclose(ours, theirs, atol=1e-5):
        raise RuntimeError(f"the two imputations differ by {np.abs(ours - theirs).max():.2g}: nothing is timed")


# ---------------------------------------------------------------- counts


def passes(classifier: Any, data: Any, methods: list[Any], measured: list[Any]) -> tuple[int, Any]:
    """How many images pass the trunk in an evaluation, and its table."""
    frozen, seen = classifier.frozen(), []
    hook = frozen.trunk.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))
    frozen.frozen = lambda: frozen
    table = evaluate(frozen, data, methods, measured, progress=False)
    hook.remove()
    return sum(seen), table


def cue_passes(root: Path) -> list[dict[str, Any]]:
    """Cue localization on drawn birds: passes an image, beside the two that the released script spends on each image of each pair."""
    data = lambda view: CUB200(root, "test", view, 64)  # noqa: E731
    birds = data("squash")
    torch.manual_seed(0)
    pairs = metrics.class_pairs(birds.class_attributes, birds.attribute_names)
    count, table = passes(lfi_backbone("resnet8", len(birds.classes)), data, [METHODS["cam"]], [metrics.CueLocalization(pairs)])
    rows = len(next(iter(table.metrics.values())).per_image()[1])
    group = f"cue localization, {len(birds)} drawn birds, {len(pairs)} pairs of classes: forward passes"
    return [_count(group, "cam_core", count), _count(group, "one for each class of a pair and image, as released", 2 * rows)]


def masked_passes(root: Path) -> list[dict[str, Any]]:
    """Mask-based metrics for one and for five methods: what does not depend on the map is asked once."""
    data = lambda view: ImageNet(root, "val", view, 64, 8)  # noqa: E731
    measured = [metrics.AverageDrop(share) for share in (1.0, 0.5, 0.15)] + [metrics.IncreaseInConfidence(), metrics.MapMean()]
    methods = [METHODS[name] for name in ("grad_cam", "cam", "random_map", "center_gaussian", "all_ones")]
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", len(data("crop").classes))
    one, five = (passes(classifier, data, methods[:number], measured)[0] for number in (1, 5))
    group = "AD, IC and mean of the map at 100, 50 and 15 %, eight images: forward passes"
    return [
        _count(group, "one method", one),
        _count(group, "five methods", five),
        _count(group, "of these the unmasked images", one - (five - one) // 4),
    ]


MASKED = (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.AverageGain, metrics.MapMean)
ERASED = (metrics.RemoveAndClassify, metrics.CorrectAfterRemoval, metrics.CorrectAfterRandomRemoval)
COLUMNS = {  # of what each measures; 0: one number an image
    **dict.fromkeys(MASKED, 3), **dict.fromkeys(ERASED, 2), metrics.Insertion: 0, metrics.Deletion: 0, metrics.TiedPixels: 0,
    metrics.RoadMorf: 4, metrics.RoadLerf: 4, metrics.RoadCombined: 4, metrics.EnergyPointingGame: 2, metrics.PixelPrecision: 2,
    metrics.MaximumInBox: 2, metrics.FalseActivation: 3, metrics.LocalizationError: LEVELS + 1, metrics.MaxBoxAcc: LEVELS,
    metrics.MaxBoxAccV2: LEVELS, metrics.PxAP: 2 * BINS,
}  # fmt: skip


def every_metric() -> list[metrics.Metric]:
    """What a validation set with boxes and masks is asked, in the settings of the notebooks."""
    settings = dict.fromkeys(MASKED, (1.0, 0.5, 0.15)) | dict.fromkeys(ERASED, tuple(k / 10 for k in range(1, 10)))
    return [*(kind(one) for kind, some in settings.items() for one in some), *(kind() for kind in COLUMNS if kind not in settings)]


def filled(count: int, methods: int) -> Table:
    """A table of invented rows: ``methods`` methods, `every_metric` of each, ``count`` images in batches of 16."""
    table, rng = Table(image_ids=[f"image_{i:08d}" for i in range(count)]), np.random.default_rng(0)
    rows = {kind: torch.from_numpy(rng.random((16, wide) if wide else 16)) for kind, wide in COLUMNS.items()}
    rows[metrics.PxAP] = torch.from_numpy(rng.integers(0, 60, (16, 2 * BINS)))
    for method in range(methods):
        table.metrics |= {(f"method {method}", metric.name, metric.setting): metric for metric in every_metric()}
    for start in range(0, count, 16):
        ids = torch.arange(start, min(start + 16, count))
        for metric in table.metrics.values():
            metric.record(rows[type(metric)][: len(ids)], ids)
    return table


def memory(count: int, methods: int) -> list[dict[str, Any]]:
    """Megabytes of the process's own memory, at the most, while a table is filled, summarised, compared and written image by image."""
    group = f"{len(every_metric())} metrics, {count} images, {methods} methods: MB of memory"
    steps = {}
    with Peak(_own) as steps["the process before"]:
        pass
    with Peak(_own) as steps["while the table is filled, at the most"]:
        table = filled(count, methods)
    with Peak(_own) as steps["while it is summarised, at the most"]:
        for metric in table.metrics.values():
            metric.compute()
        for key, metric in table.metrics.items():
            if key[0] == "method 0":
                metric.interval(resamples=100)
    with Peak(_own) as steps["while methods are compared, at the most"]:
        table.twins("method 0")
        both = [table.metrics[f"method {i}", "pxap", ""] for i in (0, methods - 1)]
        paired_difference(*(one.per_image() for one in both), both[0].value, resamples=100)
        randomization(*(one.per_image()[1] for one in both), both[0].value, resamples=100)
    with Peak(_own) as steps["while rows are written image by image, at the most"], tempfile.TemporaryDirectory() as folder:
        write_parts(Path(folder) / "per_image.parquet", table.per_image())
    held = sum(metric.per_image()[1].nbytes for metric in table.metrics.values()) / 2**20
    return [*(_count(group, what, round(peak.top)) for what, peak in steps.items()), _count(group, "all rows together", round(held))]


def _own() -> float:
    """The process's own memory in megabytes: anonymous, as what is mapped from files can be dropped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def _count(group: str, what: str, count: int) -> dict[str, Any]:
    return {"group": group, "contender": what, "count": count}


# ---------------------------------------------------------------- all of it


def per_maps(frame: pd.DataFrame, given: dict[str, int]) -> pd.DataFrame:
    """Times told for `SHOWN` maps; ``given``: contender -> how many it worked on."""
    times = ["seconds", "cpu_seconds", "median_seconds"]
    frame[times] = frame[times].mul(SHOWN / frame["contender"].map(given), axis=0)
    return frame


def box_race(kind: str, maps: int, plain: int, rounds: int) -> pd.DataFrame:
    """Component trees beside contours on maps of one kind."""
    same_boxes(kind, 1)
    entered = {
        "component trees": (f"{HERE}component_trees:{kind},{maps}", True),
        "contours at 1000 thresholds": (f"{HERE}contours:{kind},{plain}", False),
    }
    found = race(f"MaxBoxAcc V2, {kind} maps, {SHOWN} of 224 x 224", entered, rounds)
    return per_maps(found, {"component trees": maps, "contours at 1000 thresholds": plain})


def box_races(given: argparse.Namespace) -> list[pd.DataFrame]:
    """Boxes, on both kinds of maps."""
    few = max(1, given.maps // 10)
    return [box_race("smooth", given.maps, few, given.rounds), box_race("noise", given.maps, 1, max(1, given.rounds // 2))]


def pixel_race(given: argparse.Namespace) -> list[pd.DataFrame]:
    """PxAP's histograms."""
    same_histograms(2)
    entered = {
        "counted bins": (f"{HERE}counted_bins:{given.maps}", True),
        "numpy's histogram with explicit edges": (f"{HERE}explicit_edges:{given.maps}", False),
    }
    return [per_maps(race(f"PxAP, {SHOWN} maps of 224 x 224", entered, given.rounds), dict.fromkeys(entered, given.maps))]


PRODUCTS = "as many multiply-adds in matrix products"


def curve_race(given: argparse.Namespace) -> list[pd.DataFrame]:
    """Insertion and deletion on each network, beside the arithmetic alone."""
    frames = []
    for backbone, group in CURVE_RACE.items():
        entered = {name: (f"{HERE}{function.__name__}:{backbone}", name == "cam_core") for name, function in CURVES.items()}
        entered["cam_core, PyTorch alone"] = (f"{HERE}our_curves:{backbone},torch", True)
        entered[PRODUCTS] = (f"{HERE}matrix_products:{backbone}", True)
        same_curves(backbone)
        frames.append(race(group, {name: entered[name] for name in getattr(given, "contenders", entered)}, given.rounds))
    return frames


def imputation_race(given: argparse.Namespace) -> list[pd.DataFrame]:
    """ROAD, on both kinds of maps."""
    same_imputation()
    entered = {
        f"{name}, {kind} map": (f"{HERE}{function}:{kind},0.5", ours)
        for kind in ("smooth", "noise")
        for name, function, ours in (("cam_core", "our_imputation", True), ("grad-cam: NoisyLinearImputer", "grad_cam_imputation", False))
    }
    return [race("ROAD, one imputation of half of 224 x 224 pixels", entered, given.rounds)]


def counted_memory(given: argparse.Namespace) -> list[pd.DataFrame]:
    """Megabytes, in a process of its own: what others gave back is there to be used again."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return [pd.DataFrame(fresh.submit(memory, given.images, 10).result())]


def counted_passes(_: argparse.Namespace) -> list[pd.DataFrame]:
    """Images that pass a network."""
    with tempfile.TemporaryDirectory() as folder:
        root = draw(Path(folder) / "drawn", small=True, progress=False)
        curves = [row for backbone in CURVE_RACE for row in curve_passes(backbone)]
        return [pd.DataFrame([*cue_passes(root), *masked_passes(root), *curves])]


PARTS = {
    "boxes": box_races, "pixels": pixel_race, "curves": curve_race, "road": imputation_race, "memory": counted_memory,
    "passes": counted_passes,
}  # fmt: skip


def main() -> None:
    """Compare, count, race, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--maps", type=int, default=60, help="for what is fast")
    parser.add_argument("--images", type=int, default=50_000, help="whose rows are held")
    parser.add_argument("--only", choices=PARTS, help="one part; the others keep their rows")
    given = parser.parse_args()
    frames = [frame for part in ([given.only] if given.only else PARTS) for frame in PARTS[part](given)]
    write(frames, "metrics", replace="file" if given.only is None else "group")
    print(pd.concat(frames).filter(["group", "contender", "seconds", "count"]).to_string())


if __name__ == "__main__":
    main()
