"""How does Average Drop order the methods if all maps hide the same amount?

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.equal_mean resnet18 --images 100

Grad-CAM, its square root, its square, LayerCAM and the mean activation, each unchanged and with the map of every image raised to the power
that gives it a mean of 0.3: Average Drop, Increase in Confidence, Average Gain and the mean of the map, with the whole map and black fill.
The square root and the square of Grad-CAM are then almost the same map. Results: results/studies/equal_mean-<backbone>.csv.
"""

import argparse

import pandas as pd

from cam_core import load_classifier, metrics
from cam_core.evaluate import evaluate
from cam_core.methods import method
from reproduce import sources
from reproduce.files import write_table

METHODS = ("grad_cam[power=0.5]", "grad_cam", "grad_cam[power=2]", "layer_cam", "mean_activation", "random_map")
MEAN = 0.3
WANTED = (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.AverageGain, metrics.MapMean)


def study(backbone: str, count: int) -> pd.DataFrame:
    """One row per method, mean ("" or "0.3") and metric; ``base`` is the method's name without the mean."""
    classifier, data = load_classifier(backbone), sources.images("imagenet", sources.find_root("imagenet"), limit=count)
    plain = [method(name) for name in METHODS]
    frames = []
    for mean, methods in (("", plain), (f"{MEAN:g}", [one.at_mean(MEAN) for one in plain])):
        frame = evaluate(classifier, data, methods, [metric() for metric in WANTED]).records()
        names = {one.name: base for one, base in zip(methods, METHODS, strict=True)}
        frames.append(frame.assign(mean=mean, base=frame.method.map(names)))
    both = pd.concat(frames, ignore_index=True)
    return both[both.metric != "empty_maps"].assign(backbone=backbone, weights=classifier.weights)


def main() -> None:
    """Run the study for one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    frame = study(given.backbone, given.images)
    write_table(sources.HOME / f"results/studies/equal_mean-{given.backbone}.csv", frame)
    print(frame.pivot_table(index="base", columns=["metric", "mean"], values="value", sort=False).round(1).to_string())


if __name__ == "__main__":
    main()
