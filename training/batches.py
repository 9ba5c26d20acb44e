"""Batches of a training set in memory or on disk: their order and augmentation.

A training set is a mapping of tensors of equal length: ``images`` uint8 [N,3,H,W], ``labels`` int64 [N], ``targets`` float [N,C] if images
have several classes, ``activations`` [N,K,h,w] if they are cached; or a `cam_core.data.Dataset`, read image by image. All randomness of a
batch follows from (seed, epoch, number of the batch), so that a resumed training sees the same batches.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms.v2 import functional as geometry

from cam_core.data import Dataset, Example
from cam_core.progress import Bar
from training.recipes import Recipe

Tensors = Mapping[str, Tensor]


def in_memory(dataset: Dataset, *, progress: bool = True) -> dict[str, Tensor]:
    """Decode a data set once: ``images`` uint8 [N,3,H,W], ``labels`` int64 [N], and ``targets`` float [N,C] where labels are -1."""
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda index: _tensors([dataset[index]], len(dataset.classes)), range(len(dataset)))
        rows = list(Bar(read, "decoding", len(dataset), unit="image", disable=not progress, leave=False))
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}


def _tensors(examples: list[Example], num_classes: int) -> dict[str, Tensor]:
    images = torch.stack([example.image for example in examples])
    labels = torch.tensor([example.label for example in examples])
    tensors = {"images": images.mul(255).round().to(torch.uint8), "labels": labels}
    return {**tensors, "targets": multi_hot(examples, num_classes)} if bool((labels < 0).any()) else tensors


def multi_hot(examples: Iterable[Example], num_classes: int) -> Tensor:
    """Targets float [B,num_classes]: 1 where the view holds an object of the class, `difficult` ones included."""
    rows = []
    for example in examples:
        labels = torch.tensor([example.label]) if example.box_labels is None or example.label >= 0 else example.box_labels
        rows.append(torch.zeros(num_classes).index_fill(0, labels, 1.0))
    return torch.stack(rows)


def size(data: Tensors | Dataset) -> int:
    """How many examples a training set has."""
    return len(next(iter(data.values()))) if isinstance(data, Mapping) else len(data)


def apart(data: Tensors | Dataset, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """(indices trained on, indices held out) of a training set, drawn by ``seed``; all and none for a ``share`` of 0."""
    if share == 0:
        return torch.arange(size(data)), torch.empty(0, dtype=torch.int64)
    order, count = torch.randperm(size(data), generator=_generator(seed, 0, 0, 2)), round(share * size(data))
    if not 0 < count < size(data):
        raise ValueError(f"held_out = {share:g} of {size(data)} images holds out {count}: take a share that leaves some on either side")
    return order[count:].sort().values, order[:count].sort().values


def batches(
    data: Tensors | Dataset,
    recipe: Recipe,
    seed: int,
    epoch: int,
    *,
    among: Tensor | None = None,
    first: int = 0,
    still: bool = False,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """(indices, batch) from batch number ``first`` of an epoch on, over the examples ``among`` (indices; all for None).

    ``still``: the `middle` of each image instead of the recipe's random view. Each of ``world`` processes takes every ``world``-th example
    of a batch; the indices are those of the whole batch.
    """
    if isinstance(data, Mapping) and "activations" in data and recipe.augments:
        raise ValueError("cached activations belong to one view: turn flip, pad and crop off in the recipe, or do not cache")
    count = size(data) if among is None else len(among)
    if 0 < count % recipe.batch < world:
        raise ValueError(f"the last batch has {count % recipe.batch} examples for {world} processes: take another batch size")
    drawn = torch.randperm(count, generator=_generator(seed, epoch))
    order = (drawn if among is None else among[drawn]).split(recipe.batch)
    numbers = 3 if recipe.resized is None else 3 + 2 * TRIES

    def share(number: int) -> tuple[list[int], Tensor]:
        draws = torch.rand(len(order[number]), numbers, generator=_generator(seed, epoch, number))
        return order[number][rank::world].tolist(), draws[rank::world]

    shares = (share(number) for number in range(first, len(order)))
    see = partial(_view, recipe=recipe, still=still)
    read = _taken(data, shares, see) if isinstance(data, Mapping) else _streamed(data, shares, see)
    for number, batch in enumerate(read, start=first):
        yield order[number].tolist(), batch


See = Callable[[Tensor, Tensor], Tensor]  # images and their draws [B,3 or 23] -> the view of them that a batch holds


def _taken(data: Tensors, shares: Iterable[tuple[list[int], Tensor]], see: See) -> Iterator[dict[str, Tensor]]:
    for part, draws in shares:
        batch = {key: values[part] for key, values in data.items()}
        if "images" in batch:
            batch["images"] = see(batch["images"], draws)
        yield batch


def _view(images: Tensor, draws: Tensor, recipe: Recipe, still: bool) -> Tensor:
    if still:
        return middle(images, recipe)
    if not recipe.augments:
        return images
    return augment(images, draws, flip=recipe.flip, pad=recipe.pad, crop=recipe.crop, resized=recipe.resized)


class _Seen(TorchDataset[dict[str, Tensor]]):
    """(index, draws) -> one example as tensors, augmented by its worker, because images may differ in size until they are cropped."""

    def __init__(self, data: Dataset, see: See | None) -> None:
        self.data, self.see = data, see

    def __getitem__(self, asked: tuple[int, list[float]]) -> dict[str, Tensor]:
        index, draws = asked
        one = _tensors([self.data[index]], len(self.data.classes))
        if self.see is not None:
            one["images"] = self.see(one["images"], torch.tensor([draws]))
        return one


def _streamed(data: Dataset, shares: Iterable[tuple[list[int], Tensor]], see: See | None) -> Iterator[dict[str, Tensor]]:
    workers = min(8, (os.cpu_count() or 1) - 1)
    asked: Any = (list(zip(part, draws.tolist(), strict=True)) for part, draws in shares)
    # The workers' seeds come from a generator of their own, so that training does not depend on how often an iterator was made.
    yield from DataLoader(
        _Seen(data, see), batch_sampler=asked, num_workers=workers, generator=torch.Generator(), collate_fn=_joined,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def _joined(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    sizes = sorted({tuple(row["images"].shape[2:]) for row in rows})
    if len(sizes) > 1:
        raise ValueError(
            f"images of {sizes[0]} and {sizes[-1]} pixels in one batch: take a recipe that cuts windows, or a view of one size"
        )
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}


def in_order(data: Dataset, count: int = 64) -> Iterator[dict[str, Tensor]]:
    """The tensors of `in_memory`, ``count`` examples at a time, decoded by workers; for data sets that do not fit into memory."""
    return _streamed(data, ((part.tolist(), torch.empty(len(part), 0)) for part in torch.arange(len(data)).split(count)), None)


def derived_seed(*numbers: int) -> int:
    """One seed from several numbers; close numbers give unrelated streams. Zeros at the end are ignored: (3,) and (3, 0) give the same."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(*numbers))


TRIES = 10  # of area and aspect, as in torchvision's RandomResizedCrop


def augment(
    images: Tensor,
    draws: Tensor,
    *,
    flip: bool = False,
    pad: int = 0,
    crop: int | None = None,
    resized: tuple[float, float] | None = None,
) -> Tensor:
    """Images [B,3,H,W] -> [B,3,h,w]: padded, cropped at random, flipped.

    ``draws`` [B,3] in [0, 1): mirror, row, column; with ``resized`` [B,23], followed by ten tries of area and ten of aspect.
    """
    # The operations are torchvision's, the random numbers are not: its transforms use the global generator, but resumed trainings, several
    # processes and the published trainings need those of (seed, epoch, batch).
    images = geometry.pad(images, [pad]) if pad else images
    height, width = (crop, crop) if crop else (images.shape[2] - 2 * pad, images.shape[3] - 2 * pad)
    if resized is not None:
        windows = [window(images.shape[-2:], draw, resized) for draw in draws.double()]
    else:
        room = torch.tensor([images.shape[2] - height, images.shape[3] - width])
        if bool((room < 0).any()):
            raise ValueError(f"a window of {height} x {width} does not fit into images of {tuple(images.shape[-2:])}: read them larger")
        windows = [(top, left, height, width) for top, left in (draws[:, 1:3] * (room + 1)).long().tolist()]
    views = [geometry.resized_crop(image, *at, [height, width], antialias=True) for image, at in zip(images, windows, strict=True)]
    mirrored = (draws[:, 0] < 0.5).tolist()
    return torch.stack([geometry.horizontal_flip(view) if flip and m else view for view, m in zip(views, mirrored, strict=True)])


def window(sides: Sequence[int], draw: Tensor, shares: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, left, height, width of RandomResizedCrop's window in an image of ``sides`` (H, W), from 23 numbers in [0, 1).

    Area uniform in ``shares`` of the image, logarithm of width / height uniform between 3/4 and 4/3; the first try that fits, else the
    largest centred window of an allowed aspect.
    """
    height, width = sides
    areas = height * width * (shares[0] + (shares[1] - shares[0]) * draw[3 : 3 + TRIES])
    aspects = ((2 * draw[3 + TRIES :] - 1) * math.log(4 / 3)).exp()
    for area, aspect in zip(areas.tolist(), aspects.tolist(), strict=True):
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(draw[1] * (height - h + 1)), int(draw[2] * (width - w + 1)), h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def middle(images: Tensor, recipe: Recipe) -> Tensor:
    """The view of images [B,3,H,W] for measuring a recipe: a centre crop of its ``crop``.

    If the recipe's windows are ``resized``, the image is first resized to a short side of 256/224 ``crop``, as the papers test.
    """
    if recipe.resized is not None and recipe.crop is not None:
        images = geometry.resize(images, [round(recipe.crop * 256 / 224)], antialias=True)
    return center(images, recipe.crop)


def center(images: Tensor, side: int | None) -> Tensor:
    """Centre crop of ``side`` x ``side`` pixels of images [N,3,H,W]; the whole image for None."""
    return images if side is None else geometry.center_crop(images, [side, side])


def as_float(images: Tensor) -> Tensor:
    """Pixels 0..255 -> [0, 1]; floating images stay what they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images
