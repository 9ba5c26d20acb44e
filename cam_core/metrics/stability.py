"""Does a map stay when it should, and change when it should: between two trainings, and while the network's weights are thrown away."""

import copy
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from cam_core import maps as map_ops
from cam_core.classifier import Classifier
from cam_core.metrics.metric import Metric
from cam_core.metrics.statistics import Array, mean, ratio
from cam_core.probe import Probe

# ---------------------------------------------------------------- two trainings


def mask_iou(first: ArrayLike, second: ArrayLike) -> Array:
    """Intersection over union [...] of masks bool [...,h,w]; 0 where both are empty, for maps that say nothing do not agree."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    return ratio((a & b).sum((-2, -1)), (a | b).sum((-2, -1)))


def script_iou(first: ArrayLike, second: ArrayLike, threshold: int = 100) -> Array:
    """LFI-CAM's released "IoU" [...] of maps [...,h,w] in [0, 1], quirks kept; beside the published figures, and nowhere else.

    Maps become 256 times their value in uint8, so that 1 wraps round to 0 and the brightest pixel drops out; what lies above ``threshold``
    is compared row by row, over three equal channels, smoothed by 1e-6, and averaged: a row that is empty in both scores 1.
    """
    a, b = (((np.asarray(m) * 256).astype(np.int64) % 256 > threshold) for m in (first, second))
    both, either = (3 * pixels.sum(-1) for pixels in (a & b, a | b))
    return np.asarray(((both + 1e-6) / (either + 1e-6)).mean(-1))


def top_area(maps: ArrayLike, area: float) -> NDArray[np.bool_]:
    """Bool [...,h,w]: the round(area · pixels) highest pixels of each map [...,h,w], the first in scan order among equals."""
    heat = np.asarray(maps)
    flat = heat.reshape(*heat.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")[..., : round(area * flat.shape[-1])]
    chosen = np.zeros(flat.shape, bool)
    np.put_along_axis(chosen, order, True, -1)
    return chosen.reshape(heat.shape)


def correlation(first: ArrayLike, second: ArrayLike) -> Array:
    """Pearson's correlation [...] of maps [...,h,w], in [-1, 1]; 0 where one of them is constant."""
    a, b = (np.asarray(m, np.float64) for m in (first, second))
    still = (np.ptp(a, (-2, -1)) == 0) | (np.ptp(b, (-2, -1)) == 0)
    a, b = (m - m.mean((-2, -1), keepdims=True) for m in (a, b))
    found = ratio((a * b).sum((-2, -1)), np.sqrt((a**2).sum((-2, -1)) * (b**2).sum((-2, -1))))
    return np.where(still, 0.0, found.clip(-1, 1))


class Stability(Metric):
    """Agreement of the maps that two trainings give the same image (LFI-CAM's stability), mean over images.

    ``kind``: "iou", of the pixels strictly above ``threshold`` (LFI-CAM: 100 of 255); "iou_script", the value of its released script
    (`script_iou`); "iou_area", of each map's highest ``area`` of the pixels, which a larger spot does not improve; "correlation". IoUs are
    percentages, the correlation lies in [-1, 1]. Higher is better.

    An IoU depends on the spots' area and on where objects use to lie, so each value stands beside that of maps of different images:
    ``of`` "pair", "shuffled" or "excess" (pair minus shuffled), which share one measure. ``update(maps, others, strangers)``: maps
    [B,H,W] in [0, 1] of one training, of another one for the same images, and of the other one for other images (`partners`).
    Rows [B,2]: agreement with the other, with the stranger.
    """

    needs = "maps of another training, the same of other images"
    higher_is_better = True

    def __init__(
        self, kind: str = "iou", of: str = "pair", *, threshold: float = 100 / 255, area: float = 0.2, protocol: str = "energy"
    ) -> None:
        super().__init__()
        if kind not in ("iou", "iou_script", "iou_area", "correlation") or of not in ("pair", "shuffled", "excess"):
            raise ValueError(
                f"stability is the iou, iou_script, iou_area or correlation of a pair, shuffled or its excess; got {kind}, {of}"
            )
        self.kind, self.of, self.threshold, self.area, self.protocol = kind, of, threshold, area, protocol
        self.name = f"stability_{kind}"
        detail = {"iou": f"> {threshold:.3g}", "iou_area": f"{100 * area:g}% area"}.get(kind, "")
        self.setting = ", ".join(part for part in (detail, "" if of == "pair" else of) if part)

    @property
    def shares(self) -> Hashable:
        """The pair, the shuffled and the excess come from one comparison."""
        return self.kind, self.threshold, self.area, self.protocol

    def _measure(self, maps: Tensor, others: Tensor, strangers: Tensor) -> Tensor:
        for other in (others, strangers):
            if maps.ndim != 3 or other.shape != maps.shape:
                raise ValueError(f"{self.name}: both trainings' maps must be [B,H,W] alike, got {tuple(maps.shape)}, {tuple(other.shape)}")
            if not torch.isfinite(other).all():
                raise ValueError(f"{self.name}: a map of the other training contains NaN or infinity; pass it through maps.min_max")
        if (
            maps.numel()
            and not 0 <= min(m.amin() for m in (maps, others, strangers)) <= max(m.amax() for m in (maps, others, strangers)) <= 1
        ):
            raise ValueError(f"{self.name}: maps must lie in [0, 1]; use maps.min_max")
        own = maps.detach().cpu().numpy()
        return torch.from_numpy(np.stack([self._compare(own, other.detach().cpu().numpy()) for other in (others, strangers)], 1))

    def _compare(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> Array:
        if self.kind == "iou":
            return 100 * mask_iou(first > self.threshold, second > self.threshold)
        if self.kind == "iou_script":
            return 100 * script_iou(first, second)
        if self.kind == "iou_area":
            return 100 * mask_iou(top_area(first, self.area), top_area(second, self.area))
        return correlation(first, second)

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """Mean of the agreement with the same image's map, with a stranger's, or of the first minus the second."""
        column = {"pair": rows[:, 0], "shuffled": rows[:, 1], "excess": rows[:, 0] - rows[:, 1]}[self.of]
        return mean(column, weights)


def partners(count: int, seed: int = 0) -> NDArray[np.int64]:
    """For each of ``count`` images another one, each image once: neighbours on a shuffled ring, so that none meets itself. [count]"""
    if count < 2:
        raise ValueError(f"shuffling needs at least two images, got {count}")
    ring = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, np.int64)
    other[ring] = np.roll(ring, -1)
    return other


def map_stability(
    first: Tensor, second: Tensor, size: tuple[int, int] | None = None, *, seed: int = 0, batch: int = 64, ids: Sequence[int] | None = None
) -> list[Stability]:
    """All kinds of `Stability`, recorded: raw maps [N,h,w] of two trainings for the same N images, min-maxed and brought to ``size``.

    LFI-CAM's order: min-max at native resolution, then bilinear (``size`` None: not resized).
    """
    if first.ndim != 3 or first.shape[0] != second.shape[0]:
        raise ValueError(f"both trainings must explain the same images, [N,h,w] each; got {tuple(first.shape)} and {tuple(second.shape)}")
    kinds = ("iou", "iou_script", "iou_area", "correlation")
    metrics = {kind: [Stability(kind, of) for of in ("pair", "shuffled", "excess")] for kind in kinds}
    other = torch.from_numpy(partners(len(first), seed))
    numbers = torch.arange(len(first)) if ids is None else torch.as_tensor(ids)

    def finish(raw: Tensor) -> Tensor:
        return map_ops.min_max(raw) if size is None else map_ops.upsample(map_ops.min_max(raw), size)

    for part in torch.arange(len(first)).split(batch):
        compared = finish(first[part]), finish(second[part]), finish(second[other[part]])
        for same in metrics.values():
            rows = same[0].measure(*compared)
            for metric in same:
                metric.record(rows, numbers[part])
    return [metric for same in metrics.values() for metric in same]


# ---------------------------------------------------------------- weights thrown away


class Explains(Protocol):
    """What is randomized against: a `Method`, or anything with a name that turns a probe into maps."""

    @property
    def name(self) -> str:
        """The name in the results."""
        ...

    def __call__(self, probe: Probe) -> Tensor:
        """Raw maps [B,h,w]."""
        ...


def spearman(first: ArrayLike, second: ArrayLike) -> Array:
    """Spearman's rank correlation [B] of maps or descriptors [B,...], tied values at their mean rank; 0 where one is constant."""
    a, b = (stats.rankdata(np.asarray(m).reshape(len(np.asarray(m)), -1), axis=1)[:, None] for m in (first, second))
    return correlation(a, b)


def hog(maps: ArrayLike, cell: int = 16, bins: int = 9, block: int = 3) -> Array:
    """Histograms of oriented gradients of maps [B,H,W] -> [B,D] (Dalal & Triggs 2005), as scikit-image's `hog` with L2-Hys blocks.

    Central differences (0 at the border), unsigned direction in ``bins`` equal sectors, mean magnitude over cells of ``cell`` x ``cell``
    pixels; blocks of ``block`` x ``block`` cells, one step apart, each normalised, cut off at 0.2, and normalised again. Fewer cells make
    smaller blocks.
    """
    heat = np.asarray(maps, np.float64)
    dy, dx = np.zeros_like(heat), np.zeros_like(heat)
    dy[:, 1:-1], dx[:, :, 1:-1] = heat[:, 2:] - heat[:, :-2], heat[:, :, 2:] - heat[:, :, :-2]
    sector = np.floor(np.rad2deg(np.arctan2(dy, dx)) % 180 / (180 / bins)).astype(int) % bins
    rows, columns = heat.shape[1] // cell, heat.shape[2] // cell
    if not rows or not columns:
        raise ValueError(f"maps of {heat.shape[1]} x {heat.shape[2]} have no cell of {cell} x {cell} pixels; bring them to image size")
    magnitude = np.hypot(dy, dx)[..., None] * (sector[..., None] == np.arange(bins))
    cells = magnitude[:, : rows * cell, : columns * cell].reshape(len(heat), rows, cell, columns, cell, bins).mean((2, 4))
    window = (min(block, rows), min(block, columns))
    blocks = np.lib.stride_tricks.sliding_window_view(cells, window, (1, 2))
    flat = blocks.reshape(*blocks.shape[:3], -1)
    for limit in (0.2, np.inf):
        flat = np.minimum(flat / np.sqrt((flat**2).sum(-1, keepdims=True) + 1e-10), limit)
    return flat.reshape(len(heat), -1)


def ssim(first: Tensor, second: Tensor) -> Array:
    """Structural similarity [B] of maps [B,H,W] in [0, 1]: Gaussian window (sigma 1.5, 11 x 11), mean where it fits wholly inside.

    torchmetrics also counts reflected borders; scikit-image, which the authors used, does not.
    """
    if min(first.shape[-2:]) < 11:
        raise ValueError(f"structural similarity looks through 11 x 11 pixels, the maps have {first.shape[-2]} x {first.shape[-1]}")
    found = structural_similarity_index_measure(
        first[:, None].double(), second[:, None].double(), data_range=1.0, reduction="none", return_full_image=True
    )
    return np.asarray(found[1][:, 0, 5:-5, 5:-5].mean((-2, -1)).cpu().numpy(), np.float64)


def stages(classifier: Classifier, image: Tensor) -> list[tuple[str, list[nn.Module]]]:
    """The network's blocks that hold weights, last first: name and modules, in the order in which ``image`` [1,3,H,W] reaches them.

    A block is what shares the first two parts of its name (layer4.2, features.28, fc): one step of the cascade. Modules that are never
    called, because their owner reads their weights itself (attention), go with their block; a block without any call comes last.
    """
    named = [each for half in (classifier.trunk, classifier.head) for each in half.named_modules()]
    reached: dict[str, int] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(*_: object) -> None:
            reached.setdefault(_block(name), len(reached))

        return note

    hooks = [module.register_forward_hook(noting(name)) for name, module in named]
    try:
        with torch.no_grad():
            classifier(image)
    finally:
        for hook in hooks:
            hook.remove()
    blocks: dict[str, list[nn.Module]] = {}
    for name, module in named:
        if next(module.parameters(recurse=False), None) is not None:
            blocks.setdefault(_block(name), []).append(module)
    return sorted(blocks.items(), key=lambda block: -reached.get(block[0], -1))


def _block(name: str) -> str:
    return ".".join(name.split(".")[:2]) or "network"


@torch.no_grad()
def randomize(modules: Sequence[nn.Module]) -> None:
    """Give modules the weights they would have at birth: their own `reset_parameters`, or else a normal cut off at two sigma of 0.02."""
    for module in modules:
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        else:
            for parameter in module.parameters(recurse=False):
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)


def cascading_randomization(
    classifier: Classifier,
    images: Tensor,
    methods: Sequence[Explains],
    *,
    targets: Tensor | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    every: int = 1,
    chunk: int | None = None,
) -> pd.DataFrame:
    """Cascading parameter randomization (Adebayo et al. 2018): do maps change when the network forgets?

    On a copy of ``classifier`` the blocks (`stages`) lose their weights one after the other from the logits downwards, cumulatively; after
    ``every`` blocks, and after the last, each method explains ``images`` [B,3,H,W] again, for the class that the intact network predicts
    (or ``targets`` [B]). All methods meet the same random network under the same seed. Likeness with the intact network's map:

    - spearman, spearman_absolute: ranks of the raw map, and of its absolute value, at its native resolution (smooth interpolation
      would make 7 x 7 maps look alike)
    - ssim, spearman_hog: of the min-maxed map at image size (16 x 16 pixels a cell)

    One row for each seed, depth (blocks randomized), block (the last of them), method, image and measure: value in [-1, 1], and whether
    one of the two maps was ``empty`` (constant or not finite: value 0). Depth 0 is the intact network: 1 wherever a map says something.
    """
    if classifier.training:
        raise ValueError("the classifier is in train mode, its BatchNorm and dropout would move: call classifier.eval() first")
    if classifier._folded:  # cuts elsewhere would be made of the intact network
        raise ValueError("randomize the classifier itself, not its frozen copy: hand over what frozen() was called on")
    if every < 1:
        raise ValueError(f"the maps are compared after every so many blocks, at least 1, got {every}")
    asked = Probe(classifier, images, targets, chunk=chunk)
    fixed = asked.targets
    before = {method.name: method(asked) for method in methods}
    frames = [_likeness(before, before, images, {"seed": seed, "depth": 0, "block": ""}) for seed in seeds]
    for seed in seeds:
        for depth, block, network in _cascade(classifier, images[:1], seed, every):
            probe = Probe(network, images, fixed, chunk=chunk)
            after = {method.name: method(probe) for method in methods}
            frames.append(_likeness(before, after, images, {"seed": seed, "depth": depth, "block": block}))
    return pd.concat(frames, ignore_index=True)


def _cascade(classifier: Classifier, image: Tensor, seed: int, every: int) -> Iterator[tuple[int, str, Classifier]]:
    """Copies of the classifier that have lost more and more blocks; the weights of a block depend on the seed and its name alone."""
    network = copy.deepcopy(classifier)
    blocks = stages(network, image)
    devices = [image.device] if image.is_cuda else []
    for depth, (name, modules) in enumerate(blocks, 1):
        with torch.random.fork_rng(devices):
            torch.manual_seed(zlib.crc32(name.encode()) + seed)
            randomize(modules)
        if depth % every == 0 or depth == len(blocks):
            yield depth, name, network


def _likeness(before: dict[str, Tensor], after: dict[str, Tensor], images: Tensor, where: dict[str, object]) -> pd.DataFrame:
    size = images.shape[-2:]
    frames = []
    for name, old in before.items():
        new = after[name]
        empty = (map_ops.is_empty(old) | map_ops.is_empty(new)).cpu().numpy()
        old, new = (torch.where(map_ops.is_empty(m)[:, None, None], 0.0, m).detach().cpu() for m in (old, new))
        whole = [map_ops.upsample(map_ops.min_max(m.double()), size) for m in (old, new)]
        likeness = {
            "spearman": spearman(old.numpy(), new.numpy()),
            "spearman_absolute": spearman(old.abs().numpy(), new.abs().numpy()),
            "ssim": ssim(*whole),
            "spearman_hog": spearman(hog(whole[0].numpy()), hog(whole[1].numpy())),
        }
        frames += [
            pd.DataFrame(
                {**where, "method": name, "image": np.arange(len(old)), "measure": measure, "value": np.where(empty, 0, v), "empty": empty}
            )
            for measure, v in likeness.items()
        ]
    return pd.concat(frames, ignore_index=True)
