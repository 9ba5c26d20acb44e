"""Does a map change when it should: while the network's weights are randomised, block by block (Adebayo et al., NeurIPS 2018)."""

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from cam_core import maps as map_ops
from cam_core.classifier import Classifier
from cam_core.methods import Method
from cam_core.metrics.statistics import Array
from cam_core.probe import Probe


def spearman(first: ArrayLike, second: ArrayLike) -> Array:
    """Spearman's rank correlation [B] of maps or descriptors [B,...], tied values at their mean rank; 0 where one is constant."""
    ranks = (torch.from_numpy(stats.rankdata(np.asarray(m).reshape(len(np.asarray(m)), -1), axis=1)) for m in (first, second))
    return map_ops.correlation(*ranks).nan_to_num().numpy()


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

    The mean leaves out the borders, which torchmetrics pads by reflection; scikit-image, which the authors used, leaves them out too.
    """
    if min(first.shape[-2:]) < 11:
        raise ValueError(f"structural similarity looks through 11 x 11 pixels, the maps have {first.shape[-2]} x {first.shape[-1]}")
    found = structural_similarity_index_measure(
        first[:, None].double(), second[:, None].double(), data_range=1.0, reduction="none", return_full_image=True
    )
    return np.asarray(found[1][:, 0, 5:-5, 5:-5].mean((-2, -1)).cpu().numpy(), np.float64)


def stages(classifier: Classifier, image: Tensor) -> list[tuple[str, list[nn.Module]]]:
    """The network's blocks that hold weights, last first: name and modules, in the order in which ``image`` [1,3,H,W] reaches them.

    A block is all modules with the same first two parts of the name (layer4.2, features.28, fc): one step of the cascade. Modules that are
    never called because their parent reads their weights (attention) belong to their block; a block that is never called comes last.
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
    """Initialise modules again: by their own `reset_parameters`, else by a normal distribution of sigma 0.02, truncated at two sigma."""
    for module in modules:
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        else:
            for parameter in module.parameters(recurse=False):
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)


def cascading_randomization(
    classifier: Classifier,
    images: Tensor,
    methods: Sequence[Method],
    *,
    targets: Tensor | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    every: int = 1,
    chunk: int | None = None,
) -> pd.DataFrame:
    """Cascading parameter randomization (Adebayo et al. 2018): do maps change when the weights are randomised?

    On a copy of ``classifier`` the blocks (`stages`) are randomised one after the other from the logits downwards, cumulatively; after
    ``every`` blocks, and after the last, each method explains ``images`` [B,3,H,W] again, for the class that the intact network predicts
    (or ``targets`` [B]). With the same seed all methods explain the same random network. Similarity to the intact network's map:

    - spearman, spearman_absolute: ranks of the raw map, and of its absolute value, at its native resolution (smooth interpolation
      would make 7 x 7 maps look alike)
    - ssim, spearman_hog: of the min-maxed map at image size (16 x 16 pixels a cell)

    One row for each seed, depth (blocks randomized), block (the last of them), method, image and measure: value in [-1, 1], and whether one
    of the two maps was ``empty`` (constant or not finite: value 0). Depth 0 is the intact network: 1 unless a map is empty.
    """
    if classifier.training:
        raise ValueError("the classifier is in train mode, its BatchNorm and dropout would move: call classifier.eval() first")
    if classifier.engine is not None:  # `at` would cut the intact network
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
    """The classifier with more and more blocks randomised; the weights of a block depend only on the seed and its name."""
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
