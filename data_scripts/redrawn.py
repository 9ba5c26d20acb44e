"""What a network trained on drawn data really uses: redraw test images with one thing changed and see whether its answer moves."""

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision import tv_tensors

from cam_core.classifier import Classifier
from cam_core.data import VOC2007, Dataset
from cam_core.metrics.parts import Removal
from cam_core.metrics.statistics import wilson
from data_scripts import birds
from data_scripts.draw import redraw, scene

_drawn = cache(redraw)  # every network of a page is asked about the same pictures


@torch.no_grad()
def follows_cue(classifier: Classifier, dataset: Dataset, name: str, count: int = 64, seed: int = 0) -> pd.DataFrame:
    """Two shares in percent with Wilson's interval, over ``count`` images of a drawn data set ("drawn_imagenet", "drawn_voc", "drawn_cub").

    ``follows_cue``: with another class's cue drawn in and all else equal, the answer becomes that class (several classes: the new one is
    found and the old one no more). ``keeps_class``: with everything but the cue drawn anew, the answer stays (the old one is still found).
    A cue that the network does not use is no ground truth for its explanations.
    """
    frozen, random, several = classifier.frozen(), np.random.default_rng(seed), isinstance(dataset, VOC2007)
    followed, kept = [], []
    for index in range(min(count, len(dataset))):
        image_id = dataset.ids[index]
        here = dataset.present(index) if isinstance(dataset, VOC2007) else [dataset.annotations[index].label]
        if not here:
            continue
        source = here[0]
        absent = [c for c in range(len(dataset.classes)) if c not in here]
        target = int(random.choice(absent)) if absent else source
        variants = [
            _drawn(name, image_id, None),
            _drawn(name, image_id, "cue", target, source if several else None),
            _drawn(name, image_id, "rest"),
        ]
        before, other, moved = frozen(torch.stack([dataset.transform(v, None, None, None)[0] for v in variants]))
        if several:
            if before[source] > 0:  # only what was found can be lost or kept
                followed.append(bool(other[target] > 0 and other[source] < 0))
                kept.append(bool(moved[source] > 0))
        elif int(before.argmax()) == source:
            followed.append(int(other.argmax()) == target)
            kept.append(int(moved.argmax()) == source)
    rows = []
    for metric, hits in (("follows_cue", followed), ("keeps_class", kept)):
        low, high = wilson(sum(hits), len(hits)) if hits else (0.0, 100.0)
        share = 100 * sum(hits) / max(1, len(hits))
        rows.append(
            {"protocol": "redrawn", "metric": metric, "setting": "", "value": share, "ci_low": low, "ci_high": high, "n": max(1, len(hits))}
        )
    return pd.DataFrame(rows)


@torch.no_grad()
def removals(classifiers: Sequence[Classifier], dataset: Dataset, index: int, name: str = "drawn_cub", batch: int = 64) -> list[Removal]:
    """What each network answers to a drawn bird without every combination of its regions, and without each thing behind it.

    Each picture is drawn once for all networks: 128 and some, about 20 ms each.
    """
    image_id, regions = dataset.ids[index], birds.REGIONS
    drawing = scene(name, image_id)
    subsets = ([region for place, region in enumerate(regions) if number >> place & 1] for number in range(2 ** len(regions)))
    frozen = [classifier.frozen() for classifier in classifiers]
    answers = [list[Tensor]() for _ in frozen]
    for pictures in _batches(dataset, image_id, name, chain(subsets, ([thing] for thing in drawing.around)), batch):
        for network, kept in zip(frozen, answers, strict=True):
            kept.append(network(pictures))
    parts, around = (
        torch.stack([dataset.transform(tv_tensors.Mask(torch.from_numpy(masks[one]))).as_subclass(Tensor).bool() for one in masks])
        for masks in ({region: drawing.regions[region] for region in regions}, drawing.around)
    )
    sufficient = [tuple(map(regions.index, one)) for one in birds.sufficient_regions(drawing.label)]
    found = (torch.cat(kept).double().numpy() for kept in answers)
    return [Removal(parts, one[: 2 ** len(regions)], around, one[2 ** len(regions) :], sufficient) for one in found]


def _batches(dataset: Dataset, image_id: str, name: str, left_out: Iterator[Collection[str]], batch: int) -> Iterator[Tensor]:
    pictures: list[Tensor] = []
    for without in left_out:
        pictures.append(dataset.transform(redraw(name, image_id, without=without), None, None, None)[0])
        if len(pictures) == batch:
            yield torch.stack(pictures)
            pictures = []
    if pictures:
        yield torch.stack(pictures)
