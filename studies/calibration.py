"""How much cue localization changes with the calibration of the map alone.

    python -m studies.calibration drawn_cub resnet8
    CAM_DATA=... CAM_WEIGHTS=... python -m studies.calibration cub resnet18 --epochs 5

CALM's authors object to CAM that its values have no unit, so that a map must be calibrated before it can be read, while CALM's values are
probabilities. Therefore each method's map difference is brought into [0, 1] in each of the three ways, read at even and at log thresholds,
and in each of the three variants of the metric (`CueLocalization`). Each network has its own methods. Without segmentations the parts'
cells are limited by the box. Results: results/studies/calibration-<dataset>-<backbone>.csv, one row per network, method and way.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd

from cam_core import metrics
from cam_core.classifier import Classifier
from cam_core.evaluate import Data, evaluate
from cam_core.learned import Calm
from cam_core.methods import Method, method
from cam_core.metrics.cues import CALIBRATIONS, THRESHOLDS, VARIANTS, ClassPair
from reproduce import jobs, sources
from reproduce.files import write_table

RESAMPLES = 500
PLAIN = ("cam", "grad_cam", "grad_cam[power=2]", "grad_cam[power=0.5]", "random_map")
BESIDE = ("grad_cam", "random_map")  # further methods on CALM's networks


def joint_and_posterior(name: str, model: Calm) -> list[Method]:
    """CALM's map p(y,z|x), and p(z|x,y), which is the same up to a factor for each image and class."""
    joint = Method(name, model.explain, "Kim et al., ICCV", 2021, "1", all_classes=model.class_maps)
    posterior = Method(
        f"{name}, posterior",
        lambda probe: model.explain(probe, "posterior"),
        "Kim et al., ICCV",
        2021,
        "1",
        all_classes=lambda probe: model.class_maps(probe, "posterior"),
    )
    return [joint, posterior]


def ways(pairs: Sequence[ClassPair], inside: str) -> list[metrics.CueLocalization]:
    """One metric for each calibration, kind of thresholds and variant; the variants share a measure."""
    return [
        metrics.CueLocalization(pairs, inside=inside, thresholds=thresholds, calibration=calibration, variant=variant)
        for calibration, thresholds, variant in product(CALIBRATIONS, THRESHOLDS, VARIANTS)
    ]


def calibrated(network: str, classifier: Classifier, data: Data, methods: Sequence[Method], progress: bool = True) -> pd.DataFrame:
    """Rows of one network: every method in every way, over all pairs of classes that differ in one to three parts."""
    birds: Any = data("squash")
    labelled = {item.label for item in birds.annotations}
    pairs = [p for p in metrics.class_pairs(birds.class_attributes, birds.attribute_names) if labelled.intersection((p.first, p.second))]
    wanted = ways(pairs, "box" if birds.annotations[0].segmentation is None else "segmentation")
    table = evaluate(classifier, data, methods, wanted, progress=progress)
    rows = []
    for (name, metric, _), found in table.metrics.items():
        assert isinstance(found, metrics.CueLocalization)
        low, high = found.interval(resamples=RESAMPLES)
        ids, measured = found.per_image()
        images, answered = len(set(found.groups(ids).tolist())), sum(positive.any() for _, _, positive in found.counts(measured))
        rows.append({"network": network, "method": name, "metric": metric, "calibration": found.calibration,
                     "thresholds": found.thresholds, "variant": found.variant, "value": found.compute(), "ci_low": low, "ci_high": high,
                     "n": images, "pairs": answered})  # fmt: skip
    return pd.DataFrame(rows)


def study(dataset: str, backbone: str, count: int | None = None, **training: Any) -> pd.DataFrame:
    """All rows of a data set of birds and a network: the plain network, and CALM trained by EM and by ML."""
    root = sources.find_root(dataset)
    data = sources.images(dataset, root, limit=count)
    plain, summary = jobs.network(dataset, backbone, root, **training)
    frames = [calibrated("plain", plain, data, [method(name) for name in PLAIN]).assign(accuracy=summary["accuracy"])]
    for name, (model, summary) in jobs.calm(dataset, backbone, root, **training).items():
        methods = [*joint_and_posterior(name, model), *map(method, BESIDE)]
        frames.append(calibrated(name, model.classifier, data, methods).assign(accuracy=summary["accuracy"]))
    return pd.concat(frames, ignore_index=True).assign(dataset=dataset, backbone=backbone, weights=plain.weights)


def main() -> None:
    """Run the study on one data set and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("drawn_cub", "cub"))
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, help="from the start of the test list; default: all")
    parser.add_argument("--epochs", type=int, help="of the trainings; default: the data set's")
    given = parser.parse_args()
    frame = study(given.dataset, given.backbone, given.images, epochs=given.epochs)
    write_table(sources.HOME / f"results/studies/calibration-{given.dataset}-{given.backbone}.csv", frame)
    way = ["variant", "thresholds", "calibration"]
    print(frame.pivot_table(index=["network", "method"], columns=way, values="value").round(1).to_string())


if __name__ == "__main__":
    main()
