"""Which masks and learning rate L-CAM gets when a thousand images have to do; chosen on held-out images that nothing is reported on.

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.l_cam_recipe mobilenet_v2 resnet50

Every try trains L-CAM-Fm for 50 epochs on cached centre views. The choice is the one of least mean Average Drop at 50 % over the
networks (at 100 % a map wins by hiding little, so that value does not choose). L-CAM-Img, whose epochs cost forty times as much, takes
the same choice. Rows of maps that learn nothing stand beside the tries.
"""

import argparse
import itertools
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from cam_core import load_classifier, metrics
from cam_core.evaluate import evaluate
from cam_core.learned import LCam, jobs
from cam_core.learned.batches import in_memory
from cam_core.learned.recipes import L_CAM
from cam_core.learned.training import fit
from cam_core.methods import Method, method
from cam_core.results import write_table

OUT = jobs.HOME / "results/studies/l_cam_recipe.csv"
MASKS = {"batch": 0.01, "own": 0.64, "own as printed": 0.01}  # weight of the variation: as released; the same for N = 64; as printed
RATES = (0.01, 0.03, 0.1, 0.3)
EPOCHS = 50
CONTROLS = ("grad_cam", "cam", "mean_activation", "random_map", "grad_cam[power=0.5]")


def tries(network: str, root: Path) -> pd.DataFrame:
    """Average Drop, Increase in Confidence and mean of the map on the held-out images, one row a try, setting and metric."""
    classifier = load_classifier(network)
    short = L_CAM.shortened(EPOCHS, flip=False, crop=None)
    train = in_memory(jobs.images("imagenet", root, "train")("crop"))
    data = LCam(classifier).prepare(train, short)
    learned = {}
    for masks, rate in tqdm(list(itertools.product(MASKS, RATES)), desc=network, unit="try"):
        torch.manual_seed(0)
        model = LCam(classifier, masks=masks.split()[0], variation=MASKS[masks])
        fit(model, short.shortened(EPOCHS, lr=rate), data, progress=False)
        learned[masks, rate] = Method(f"{masks}, {rate:g}", model.explain, "Gkartzonika et al., ECCVW", 2022, "1")
    measured = [m(keep) for keep in (1.0, 0.5, 0.15) for m in (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.MapMean)]
    methods = [*learned.values(), *map(method, CONTROLS)]
    records = evaluate(classifier, jobs.images("imagenet", root, "held_out"), methods, measured).records()
    names = {m.name: key for key, m in learned.items()}
    records["masks"] = [names.get(name, ("", None))[0] for name in records.method]
    records["rate"] = [names.get(name, ("", None))[1] for name in records.method]
    return records[records.metric != "empty_maps"].assign(backbone=network, weights=classifier.weights, epochs=EPOCHS)


def choice(frame: pd.DataFrame) -> tuple[str, float]:
    """(masks, rate) of the least mean Average Drop at 50 % over the networks."""
    drop = frame[(frame.metric == "average_drop") & (frame.setting == "50%") & (frame.masks != "")]
    means = drop.groupby(["masks", "rate"]).value.mean()
    masks, rate = means.idxmin()
    return str(masks), float(rate)


def main() -> None:
    """Run the tries for the networks named on the command line and write them to results/studies/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="torchvision networks, for example mobilenet_v2 resnet50")
    root = jobs.find_root("imagenet")
    frame = pd.concat([tries(network, root) for network in parser.parse_args().networks], ignore_index=True)
    write_table(OUT, frame)
    print("chosen: masks {}, learning rate {:g}".format(*choice(frame)))


if __name__ == "__main__":
    main()
