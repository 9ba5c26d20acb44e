"""What came after: does a newer method improve on the one it comes from, and on the controls that settled that one?

    python -m studies.lineage drawn_imagenet resnet8 --images 100 --road 20
    CAM_DATA=... python -m studies.lineage imagenet efficientnet_lite0 --images 40 --slow 0

Average Drop (mean-colour fill), energy in the boxes and the mean of the map, of every map as it is and of the same map at mean 0.3, image
by image, so that hiding little gains nothing; ROAD on the first ``--road`` images. Each newcomer has its paired difference from its
ancestor and from the controls. Methods that pass the network once a channel see the first ``--slow`` images. On drawn data TAME is trained
with two of T-TAME's masking modes, beside L-CAM-Img and an untrained TAME. Results: results/studies/lineage-<dataset>-<backbone>.csv, a row
for each method, metric and setting, and one for each difference (``than``: the method that is subtracted); ``ancestor``: what the method
comes from.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
import torch

from cam_core import metrics
from cam_core.classifier import Classifier
from cam_core.evaluate import Data, evaluate
from cam_core.learned import Tame
from cam_core.methods import METHODS, Method, method
from cam_core.table import Table
from reproduce import jobs, sources
from reproduce.files import write_table

ANCESTORS = {  # newcomer: the method that it comes from
    "grad_cam_elementwise": "hires_cam", "eigen_grad_cam": "eigen_cam[centred]", "seg_eigen_cam": "eigen_cam[centred]",
    "kpca_cam": "eigen_cam[centred]", "fem": "mean_activation", "fem[activations]": "mean_activation", "finer_cam": "grad_cam",
    "finer_cam[softmax]": "grad_cam", "shapley_cam": "grad_cam", "expected_grad_cam": "grad_cam", "refine_cam": "grad_cam_pp",
    "recipro_cam": "grad_cam", "poly_cam": "score_cam", "grad_pp_score_cam": "increment_cam", "fusion_cam": "increment_cam",
    "tame[diagonal]": "l_cam_img", "tame[random]": "l_cam_img",
}  # fmt: skip
CONTROLS = ("mean_activation", "grad_cam[power=2]", "grad_cam[power=0.5]", "center_gaussian", "random_tame")
SLOW = ("score_cam", "poly_cam", "grad_pp_score_cam", "fusion_cam", "increment_cam")
MEAN = 0.3
EPOCHS, L_CAM_EPOCHS = 1, (50, 5)  # of a TAME, a minute on one core; of L-CAM-Fm and Img, as in the profile smoke


def asked() -> list[metrics.Metric]:
    """One view and one target for all, so that each map is made once."""
    return [metrics.AverageDrop(protocol="score_cam"), metrics.MapMean(protocol="score_cam"), metrics.EnergyPointingGame()]


def remembered(one: Method) -> Method:
    """The method, its map made once per probe."""
    return replace(one, function=lambda probe: probe.once(("lineage", one.name), lambda: one(probe)))


def learned(dataset: str, classifier: Classifier, progress: bool = True) -> dict[str, Method]:
    """L-CAM-Img, TAME under two masking modes, and TAME untrained."""
    root = sources.find_root(dataset)
    models = {"l_cam_img": jobs.l_cam(dataset, classifier, root, epochs=L_CAM_EPOCHS, progress=progress)["l_cam_img"][0]}
    for masking in ("diagonal", "random"):
        models[f"tame[{masking}]"] = jobs.tame(dataset, classifier, root, epochs=EPOCHS, masking=masking, progress=progress)[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models["random_tame"] = Tame(classifier).eval()
    return {name: Method(name, model.explain, "learned", 0, "1", control=name == "random_tame") for name, model in models.items()}


def measured(
    classifier: Classifier, data: Data, methods: Sequence[Method], slow: int, road: int, progress: bool = True
) -> Iterator[tuple[str, Table]]:
    """Setting and table: maps as they are and at one mean, and ROAD on the first ``road`` images (0: not at all)."""
    plain = [remembered(one) for one in methods if slow or one.name not in SLOW]
    both = [*plain, *(one.at_mean(MEAN) for one in plain)]
    limits = {one.name: slow for one in both if one.name.partition("[mean=")[0] in SLOW}
    found = evaluate(classifier, data, both, asked(), limits=limits, progress=progress)
    equal = Table({(name.partition("[mean=")[0], *key): metric for (name, *key), metric in found.metrics.items() if "[mean=" in name})
    yield "as it is", Table({key: metric for key, metric in found.metrics.items() if "[mean=" not in key[0]})
    yield f"mean {MEAN:g}", equal
    if road:
        few = evaluate(classifier, lambda view: data(view).part(slice(road)), plain, [metrics.RoadCombined()], progress=progress)
        yield "as it is", few


def rows(setting: str, table: Table) -> list[dict[str, object]]:
    """The values of every method, and every newcomer minus its ancestor and minus each control."""
    out: list[dict[str, object]] = []
    for (name, metric, key), one in table.metrics.items():
        low, high = one.interval()
        facts = {"method": name, "metric": metric, "setting": setting}
        out.append({**facts, "than": "", "value": one.compute(), "ci_low": low, "ci_high": high, "n": len(one.per_image()[0])})
        for than in dict.fromkeys((ANCESTORS.get(name, ""), *CONTROLS)):
            if name in ANCESTORS and (than, metric, key) in table.metrics:
                found = table.difference(name, than, metric, key)
                out.append({**facts, "than": than, **dict(zip(("value", "ci_low", "ci_high", "n"), found, strict=True))})
    return out


def chosen(dataset: str, classifier: Classifier, progress: bool = True) -> list[Method]:
    """Newcomers, ancestors and controls, as many as there are for this data."""
    of_data = learned(dataset, classifier, progress) if dataset.startswith("drawn_") else {}
    names = dict.fromkeys([*ANCESTORS.values(), *ANCESTORS, "score_cam", *CONTROLS])
    return [of_data[name] if name in of_data else method(name) for name in names if name in of_data or _exists(name)]


def _exists(name: str) -> bool:
    return name in METHODS or "[power=" in name


def study(dataset: str, backbone: str, count: int | None, slow: int, road: int, progress: bool = True) -> pd.DataFrame:
    """All rows of one data set and network."""
    root = sources.find_root(dataset)
    classifier, _ = jobs.network(dataset, backbone, root)
    data, methods = sources.images(dataset, root, limit=count), chosen(dataset, classifier, progress)
    found = [row for setting, table in measured(classifier, data, methods, slow, road, progress) for row in rows(setting, table)]
    frame = pd.DataFrame(found)
    return frame.assign(ancestor=frame.method.map(ANCESTORS), dataset=dataset, backbone=backbone, weights=classifier.weights)


def main() -> None:
    """Run the study on one data set and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("drawn_imagenet", "imagenet"))
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--slow", type=int, default=200, help="images for methods that pass the network once a channel")
    parser.add_argument("--road", type=int, default=0, help="images for ROAD")
    given = parser.parse_args()
    frame = study(given.dataset, given.backbone, given.images, given.slow, given.road)
    write_table(sources.HOME / f"results/studies/lineage-{given.dataset}-{given.backbone}.csv", frame)
    values = frame[frame.than == ""]
    print(values.pivot_table(index="method", columns=["metric", "setting"], values="value", sort=False).round(1).to_string())


if __name__ == "__main__":
    main()
