"""Every number in the prose of CALM's page is that of the CSV files."""

from functools import cache
from pathlib import Path

import experiments
import numpy as np
import pandas as pd
import pytest
import yaml

from reproduce import results

HOME = Path(__file__).resolve().parents[2]
PAGE = " ".join((HOME / "book/calm.md").read_text(encoding="utf-8").split())


@cache
def rows(profile, backbone, file=results.METRICS):
    found = results.load(HOME / "results" / profile, file)
    return found[(found["paper"] == "calm") & (found["backbone"] == backbone)]


def drawn(*of):
    return values("drawn", "resnet8", *of)


def cub(*of):
    return values("subset", "resnet18", *of)


def values(profile, backbone, metric, method, setting="", network=None):
    """A number by seed; ``network``: which of the run's networks was explained, where several were."""
    found = rows(profile, backbone)
    found = found[(found["metric"] == metric) & (found["method"] == method) & (found["setting"] == setting)]
    if network:
        found = found[found["weights"].str.endswith(f"{network} network")]
    return found.set_index("seed")["value"]


def drawn_cue(method):
    return drawn("cue_localization", method, "all pairs")


@cache
def em_ml():
    return experiments.read(HOME / "results/studies/em_ml.csv")


def spread(way):
    own = em_ml()
    return own[(own["part"] == "spread") & (own["metric"] == "accuracy") & (own["way"] == way)]["value"].item()


def lost(of):
    return of("accuracy", "plain") - of("accuracy", "calm_em")


def released(method, form):
    return [f"{value:.0f}" for value in cub("cue_localization_box", method, f"all pairs, released{form}")]


def lifts():
    """What logarithmic thresholds add to CALM's maps after min-max, zeros kept."""
    found = []
    for file in ("cub-resnet18", "drawn_cub-resnet8"):
        own = experiments.read(HOME / f"results/studies/calibration-{file}.csv")
        own = own[(own["variant"] == "zeros kept") & (own["calibration"] == "min_max") & own["method"].isin(["calm_em", "calm_ml"])]
        wide = own.pivot_table(index="method", columns="thresholds", values="value")
        found += list(wide["log"] - wide["even"])
    return min(found), max(found)


def published():
    entries = yaml.safe_load((HOME / "book/published.yaml").read_text(encoding="utf-8"))
    accuracy = next(one for one in entries if one["title"] == "CALM, top-1 accuracy")["backbones"]["not stated"]
    return accuracy["calm_em"][0], accuracy["calm_ml"][0]


@pytest.mark.parametrize(
    ("fragment", "numbers"),
    [
        ("under one of ten drawn seeds: {:.0f} % right", lambda: [drawn("accuracy", "calm_em").min()]),
        ("it moves CALM-EM by {:.0f} points on CUB", lambda: [np.ptp(cub("cue_localization_box", "calm_em", "all pairs"))]),
        ("CALM-EM stands at {}, {} and {} against CAM's {}, {} and {}",
         lambda: [*released("calm_em", ", log, clipping"), *released("cam", "")]),
        ("on drawn birds by {:.0f} points on the mean for EM (by {:.0f} without the seed that failed) and by {:.0f} for ML",
         lambda: (lost(drawn).mean(), lost(drawn).drop(drawn("accuracy", "calm_em").idxmin()).mean(),
                  (drawn("accuracy", "plain") - drawn("accuracy", "calm_ml")).mean())),
        ("on CUB by {:.0f} to {:.0f} points", lambda: (lost(cub).min(), (cub("accuracy", "plain") - cub("accuracy", "calm_ml")).max())),
        ("costs {:.0f} points on the mean of ten seeds", lambda: [spread("calm_em") - spread("calm_em[lag=100]")]),
        ("classifies {:.0f} (EM) to {:.0f} (ML) points worse",
         lambda: [spread(of) - spread(f"{of}[detached]") for of in ("calm_em", "calm_ml")]),
        ("({} against {} %)", published),
        ("add {:.1f} to {:.1f} points after min-max", lifts),
    ],
)  # fmt: skip
def test_numbers_of_the_page(fragment, numbers):
    assert fragment.format(*numbers()) in PAGE


def test_cue_localization_in_words():
    cam, em = drawn_cue("cam"), drawn_cue("calm_em")
    assert cam.mean() / em.mean() == pytest.approx(2, abs=0.15)  # "twice the score on the mean of ten drawn seeds"
    own = rows("subset", "resnet18", results.DIFFERENCES)
    own = own[(own["metric"] == "cue_localization_box") & (own["setting"] == "all pairs")]
    own = own[(own["method"] == "calm_em") & (own["than"] == "cam")].set_index("seed")
    assert list(own.index[own["value"] < 0]) == [1, 2]
    assert list(own.index[(own["p_holm"] <= 0.05) & (own["ci_high"] < 0)]) == [2]  # "decided under seed 2 alone"
    behind = {of: drawn("accuracy", "plain") - drawn("accuracy", of) for of in ("calm_em", "calm_ml")}
    better = [(seed, of) for of, points in behind.items() for seed in points.index[points <= 0]]
    assert len(better) == 4
    assert all(drawn_cue("cam")[seed] > drawn_cue(of)[seed] for seed, of in better)
    follows = {of: drawn("follows_cue", of, setting_of("follows_cue")).mean() for of in ("plain", "calm_em", "calm_ml")}
    assert follows["plain"] > max(follows["calm_em"], follows["calm_ml"])


def setting_of(metric):
    found = rows("drawn", "resnet8")
    return found[found["metric"] == metric]["setting"].iloc[0]


def test_energy_and_boxes_in_words():
    def interval(method, network):
        own = rows("subset", "resnet18")
        own = own[(own["metric"] == "energy_pointing_game") & (own["method"] == method) & own["weights"].str.endswith(f"{network} network")]
        return own.set_index("seed")[["ci_low", "ci_high"]]

    em, cam = interval("calm_em", "calm_em"), interval("grad_cam", "plain")
    assert sum(em["ci_low"] > cam["ci_high"]) == 1  # "clearly ahead under one CUB seed of three only"
    for of, seeds in ((drawn, 10), (cub, 3)):
        boxes = of("max_box_acc_v2", "calm_em")
        centre = of("max_box_acc_v2", "center_gaussian", "", "calm_em")
        assert len(boxes) == len(centre) == seeds
        assert (boxes < centre).all()
    assert (drawn("max_box_acc_v2", "calm_em") < drawn("max_box_acc_v2", "random_map", "", "calm_em")).all()
    mean = cub("max_box_acc_v2", "mean_activation", "", "plain")
    assert (mean > cub("max_box_acc_v2", "cam")).all()
    assert (mean > cub("max_box_acc_v2", "calm_em")).all()


def test_removal_in_words():
    own = rows("subset", "resnet18", results.DIFFERENCES)
    own = own[(own["metric"] == "remove_and_classify") & (own["method"] == "calm_em") & (own["than"] == "cam")]
    assert len(own) == 27
    assert (own["p_holm"] > 0.05).all()  # "on CUB nothing is decided after correction"


def test_em_and_ml_in_words():
    steps = em_ml()
    steps = steps[(steps["part"] == "steps") & (steps["way"] == "EM, without epsilon")]
    assert (steps["value"] == 0).all()  # "EM in log space is ML to the last bit"
    own = experiments.read(HOME / "results/studies/calibration-cub-resnet18.csv")
    cam = own[(own["method"] == "cam") & (own["variant"] == "zeros kept") & (own["thresholds"] == "even")].set_index("calibration")["value"]
    assert abs(cam["min_max"] - cam["max"]) < 0.5


def test_costs_in_words():
    seconds = pd.read_csv(HOME / "results/benchmarks/training.csv").set_index(["group", "contender"])["seconds"]
    for batch in (1, 8):
        group = f"one explanation, calm, batch {batch}"
        assert seconds[group, "calm"] / seconds[group, "forward"] < 1.1
    update = seconds["one update, ResNet-18 at 14x14, 200 classes, batch 8"]
    assert max(update["calm_em"], update["calm_ml"]) / update["cam"] < 1.03


def test_efficientnet_lite0_loses_no_accuracy():
    own = rows("subset", "efficientnet_lite0").query("metric == 'accuracy'").set_index("method")
    em, plain, n = own.loc["calm_em", "value"], own.loc["plain", "value"], own.loc["plain", "n"]
    assert f"EfficientNet-Lite0 at 14×14 loses none: {em:.1f} % against {plain:.1f} % (one seed, {n} images)" in PAGE
