"""How far is our Grad-CAM from the one in L-CAM's tables, and does leaving out the ReLU explain it? On all networks with weights.

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.published_gap resnet50 resnet18 mobilenet_v2 squeezenet1_1 --images 200

L-CAM's protocol: centre crop, predicted class, black fill, the whole map, its top 50 % and its top 15 %. Methods: Grad-CAM, the same sum
without the ReLU, Grad-CAM++ as in L-CAM's tables, and the controls. Results: results/studies/published_gap.csv, one row per number.
"""

import argparse

import pandas as pd
import torch
from torch import Tensor

from cam_core import Probe, load_classifier, metrics
from cam_core.evaluate import evaluate
from cam_core.methods import Method, method
from reproduce import sources
from reproduce.files import write_table

OUT = sources.HOME / "results/studies/published_gap.csv"
NAMES = ("grad_cam_pp[l_cam]", "grad_cam[power=0.5]", "mean_activation", "random_map")
SHOWN = (1.0, 0.5, 0.15)
WANTED = (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.MapMean)


def signed(probe: Probe) -> Tensor:
    """Grad-CAM's weighted sum as it is, without the ReLU, [B,h,w]."""
    return torch.einsum("bk,bkhw->bhw", probe.gradients().mean((2, 3)), probe.activations)


def study(backbone: str, count: int) -> pd.DataFrame:
    """One row per method, metric and share of the map that is shown."""
    classifier, data = load_classifier(backbone), sources.images("imagenet", sources.find_root("imagenet"), limit=count)
    without = Method("grad_cam[no relu]", signed, "Selvaraju et al., ICCV", 2017, "1 + head")
    frame = evaluate(
        classifier, data, [method("grad_cam"), without, *map(method, NAMES)], [metric(keep) for keep in SHOWN for metric in WANTED]
    ).records()
    return frame[frame.metric != "empty_maps"].assign(backbone=backbone, weights=classifier.weights)


def main() -> None:
    """Run the study for the networks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    frame = pd.concat([study(network, given.images) for network in given.networks], ignore_index=True)
    write_table(OUT, frame)
    print(frame.pivot_table(index=["backbone", "method"], columns=["setting", "metric"], values="value", sort=False).round(1).to_string())


if __name__ == "__main__":
    main()
