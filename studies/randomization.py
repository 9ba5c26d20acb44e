"""Does a map change when the weights are randomised? Cascading parameter randomization, with the class held fixed.

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.randomization resnet18 --images 20 --seeds 3

The blocks of a pretrained network are randomised from the logits downwards; after each block every method explains the same images for the
class that the intact network predicted, and is compared with its map of the intact network: rank correlation of the raw maps and of their
absolute values at native resolution, SSIM and rank correlation of HOG descriptors of the finished maps. A map that hardly changes does not
depend on the randomised weights. The mean activation and the edges of the picture, which explain nothing, are the reference. Results:
results/studies/randomization-<backbone>.csv, one row per method, measure, depth and seed: mean over the images, and how many maps were
empty.
"""

import argparse
from collections.abc import Sequence

import pandas as pd
import torch

from cam_core import load_classifier, metrics
from cam_core.methods import method
from reproduce import sources
from reproduce.files import write_table

NAMES = ("cam", "grad_cam", "hires_cam", "grad_cam_pp", "layer_cam", "eigen_cam", "saliency", "guided_backprop", "mean_activation", "edges")
BATCH = 10


def study(backbone: str, count: int, seeds: Sequence[int]) -> pd.DataFrame:
    """All rows; ``empty``: how many of the ``n`` images had an empty map, whose similarity counts 0."""
    classifier = load_classifier(backbone)
    data = sources.images("imagenet", sources.find_root("imagenet"), limit=count)("crop")
    frames = []
    for first in range(0, count, BATCH):
        images = torch.stack([data[index].image for index in range(first, min(count, first + BATCH))])
        found = metrics.cascading_randomization(classifier, images, [method(name) for name in NAMES], seeds=seeds)
        frames.append(found.assign(image=found.image + first))
    keys = ["seed", "depth", "block", "method", "measure"]
    both = pd.concat(frames, ignore_index=True).groupby(keys, sort=False)
    rows = both.agg(value=("value", "mean"), empty=("empty", "sum"), n=("value", "size")).reset_index()
    return rows.assign(backbone=backbone, weights=classifier.weights)


def main() -> None:
    """Run it for one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    frame = study(given.backbone, given.images, range(given.seeds))
    write_table(sources.HOME / f"results/studies/randomization-{given.backbone}.csv", frame)
    shown = frame[frame.measure == "spearman"]
    print(shown.pivot_table(index="method", columns="depth", values="value", sort=False).round(2).to_string())


if __name__ == "__main__":
    main()
