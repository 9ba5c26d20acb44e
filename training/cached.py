"""Outputs of a frozen network on a training set, computed once: activations and predicted classes."""

import copy
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, distributed
from torchvision.transforms import v2

from cam_core.classifier import Classifier
from cam_core.data import Dataset, transforms
from cam_core.files import mapped
from cam_core.learned.lcam import LCam
from cam_core.progress import Bar
from training.batches import Tensors, as_float, center, in_order
from training.recipes import L_CAM, Recipe

Read = Callable[[Classifier, Tensor], Tensor]  # classifier, images [N,3,H,W] in [0, 1] -> activations [N,K,h,w]


def features(
    classifier: Classifier, images: Tensor, *, pool: bool = False, batch: int = 32, progress: bool = True
) -> tuple[Tensor, Tensor]:
    """Activations [N,K,h,w] (``pool``: their averages [N,K]) and predicted classes [N] of images [N,3,H,W], on the CPU."""
    kept, predicted = [], []
    for activations, classes in _passed(classifier, images, batch, progress):
        kept.append((activations.mean((2, 3)) if pool else activations).cpu().contiguous())
        predicted.append(classes)
    return torch.cat(kept), torch.cat(predicted)


def features_in_file(
    classifier: Classifier, images: Tensor, read: Read | None = None, *, progress: bool = True
) -> tuple[Tensor, Tensor] | None:
    """`features` in float16, mapped from a temporary file; None, with a warning, if there is not enough disk space.

    ``read`` computes the activations to keep, if they differ from those used for the predicted classes.
    """
    with torch.no_grad():
        shape = (len(images), *classifier.activations(as_float(images[:1].to(classifier.mean.device))).shape[1:])
    processes = distributed.get_world_size() if distributed.is_initialized() else 1  # assuming one machine; each process has its file
    needed, folder = 2 * math.prod(shape) * processes, tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        warnings.warn(
            f"the activations of {len(images)} views take {needed / 1e9:.3g} GB, {folder} has {free / 1e9:.3g} GB: they pass through "
            "the trunk in every epoch, which is slow (TMPDIR names another folder)",
            stacklevel=3,
        )
        return None
    predicted = []

    def blocks() -> Iterator[Tensor]:
        for activations, classes in _passed(classifier, images, 32, progress, read):
            predicted.append(classes)
            yield activations.half().cpu()

    return mapped(blocks(), shape), torch.cat(predicted)


@torch.no_grad()
def _passed(
    classifier: Classifier, images: Tensor, batch: int, progress: bool, read: Read | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    frozen, device = classifier.frozen(), classifier.mean.device
    for part in Bar(images.split(batch), "activations", unit="batch", disable=not progress, leave=False):
        seen = as_float(part.to(device))
        activations = frozen.activations(seen)
        yield read(frozen, seen) if read else activations, frozen.classify(activations).argmax(1).cpu()


@torch.no_grad()
def relabelled(data: Dataset, classifier: Classifier, view: v2.Transform, *, progress: bool = True) -> Dataset:
    """The data set with the classes that ``classifier`` predicts on ``view`` as labels."""
    seen, labelled = copy.copy(data), copy.copy(data)
    seen.transform = view
    frozen, device = classifier.frozen(), classifier.mean.device
    parts = Bar(in_order(seen), "predicted classes", len(data) // 64 + 1, unit="batch", disable=not progress, leave=False)
    predicted = [frozen(as_float(part["images"].to(device))).argmax(1).cpu() for part in parts]
    both = zip(data.annotations, torch.cat(predicted).tolist(), strict=True)
    labelled.annotations = [replace(item, label=label) for item, label in both]
    return labelled


def l_cam_data(model: LCam, data: Tensors | Dataset, recipe: Recipe, *, progress: bool = True) -> dict[str, Tensor] | Dataset:
    """L-CAM's training set: as labels the classes that its classifier predicts on centre views and, if ``cached``, float16 activations.

    Where the temporary folder has no room for these, the views are kept instead and pass through the trunk in every epoch. A data set that
    is read from disk only gets the labels.
    """
    if isinstance(data, Dataset):
        if model.cached:
            raise ValueError("activations are cached of images in memory: decode the data set, or take cached=False")
        return relabelled(data, model.classifier, transforms.view("crop", L_CAM.crop or 224), progress=progress)
    views = center(data["images"], recipe.crop)
    kept = None
    if model.cached:
        kept = features_in_file(model.classifier, views, model.read if model.raw else None, progress=progress)
    if kept is None:
        _, labels = features(model.classifier, views, pool=True, progress=progress)
        return {"images": views if model.cached else data["images"], "labels": labels}
    return {"activations": kept[0], "labels": kept[1], **({"images": views} if model.variant == "img" else {})}
