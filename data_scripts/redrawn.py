"""What a network trained on drawn data really uses: redraw test images with one thing changed and see whether its answer moves."""

from functools import cache

import numpy as np
import pandas as pd
import torch

from cam_core.classifier import Classifier
from cam_core.data import VOC2007, Dataset
from cam_core.metrics.statistics import wilson
from data_scripts.draw import redraw

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
