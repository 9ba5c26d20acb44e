"""What CALM's figures say below themselves follows from the CSV files."""

import re
from pathlib import Path
from types import SimpleNamespace

import assemble
import experiments
import pandas as pd
import plot_calm
import pytest
from scipy import stats

from .test_plot_lfi_cam import caption, run_own_data

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return SimpleNamespace(results=HOME / "results", runs=HOME / "runs", profile="smoke", out=tmp_path_factory.mktemp("site"), read=[])


@pytest.fixture(scope="module")
def evidence(options):
    return [assemble.evidence(options, file) for file in assemble.FILES]


def by_seed(rows, dataset, backbone, metrics, setting=""):
    """(method, seed) -> value, read line by line."""
    found = {}
    for one in rows.itertuples():
        if (one.paper, one.dataset, one.backbone, one.setting) == ("calm", dataset, backbone, setting) and one.metric in metrics:
            found[one.method, one.seed] = one.value
    return found


def test_cues_count_seeds_and_name_failures(options, evidence):
    rows = evidence[0]
    said = caption(plot_calm.cue_localization(options, rows))
    counts = []
    for dataset, backbone in (("drawn_cub", "resnet8"), ("cub", "resnet18")):
        cues = by_seed(rows, dataset, backbone, ("cue_localization", "cue_localization_box"), "all pairs")
        seeds = sorted({seed for _, seed in cues})
        counts += [sum(cues["cam", seed] > cues["calm_em", seed] for seed in seeds), len(seeds)]
    assert "under {} of {} seeds on drawn birds and {} of {} on CUB".format(*counts) in said
    right = by_seed(rows, "drawn_cub", "resnet8", ("accuracy",))
    worst = min((value, key) for key, value in right.items())
    assert f"CALM-EM under seed {worst[1][1]} ({worst[0]:.0f} % right)" in said
    assert worst[1][0] == "calm_em"


def test_a_training_fails_below_half_of_the_median():
    right = pd.DataFrame({"cam": [90.0, 80, 44], "calm_em": [60.0, 29, 60]})
    assert plot_calm.failed(right) == [(1, "calm_em")]
    assert plot_calm.failed(right.replace(44, 39)) == [(2, "cam"), (1, "calm_em")]


def test_removal_says_what_the_counts_and_intervals_say(options, evidence):
    rows, differences = evidence
    said = caption(plot_calm.removal(options, rows, differences))
    shares = []
    for metric in ("correct_after_removal", "correct_after_random_removal"):
        own = rows[(rows["paper"] == "calm") & (rows["dataset"] == "cub") & (rows["metric"] == metric) & (rows["setting"] == "50%")]
        own = own[own["backbone"] == "resnet18"]
        shares.append(own[own["method"] == "calm_em"]["value"].mean())
    assert "CALM-EM: {:.1f} over {:.1f} %".format(*shares) in said
    against = []
    for level in range(10, 100, 10):
        own = differences[(differences["dataset"] == "drawn_cub") & (differences["backbone"] == "resnet8")]
        own = own[
            (own["setting"] == f"{level}%")
            & (own["metric"] == "remove_and_classify")
            & (own["method"] == "calm_em")
            & (own["than"] == "cam")
        ]
        interval = stats.ttest_1samp(own["value"], 0).confidence_interval(0.95)
        against += [f"{level}%"] if interval.low > 0 else []
        assert interval.high > 0  # none in CALM's favour
    assert against == ["10%", "20%", "30%", "40%", "60%"]
    page = (HOME / "book/calm.md").read_text(encoding="utf-8")
    assert f"against CALM at {', '.join(of.rstrip('%') for of in against[:-1])} and {against[-1].rstrip('%')} %" in page
    assert f"goes against CALM-EM at {', '.join(against)} and for it at none." in said


def test_em_beside_ml_says_the_range_of_chance(options, evidence):
    said = caption(plot_calm.em_beside_ml(options, evidence[0]))
    rows = experiments.read(HOME / "results/studies/em_ml.csv")
    seeds = {(one.way, one.seed): one.value for one in rows[(rows["part"] == "seeds") & (rows["metric"] == "accuracy")].itertuples()}
    chance = [value - seeds["calm_ml", seed] for (way, seed), value in seeds.items() if way == "calm_ml[probabilities]"]
    assert len(chance) == 10
    assert f"goes from {min(chance):.1f} to {max(chance):+.1f}" in said
    assert "+12.2, lies within" in said
    assert min(chance) < 71.8 - 59.6 < max(chance)
    spread = rows[(rows["part"] == "spread") & (rows["metric"] == "accuracy") & (rows["way"] == "calm_em minus calm_ml")].iloc[0]
    assert re.search(rf"is {spread['value']:+.1f}\D+{spread['ci_low']:.1f}\D+{spread['ci_high']:.1f}\D", said)


def test_calibration_says_how_far_a_score_moves(options):
    said = caption(plot_calm.calibration(options))
    clipped, lifts = [], {"zeros kept": [], "per pair": []}
    for what in plot_calm.STUDIES:
        rows = experiments.read(HOME / f"results/studies/{what}.csv")
        score = {(one.method, one.calibration, one.thresholds, one.variant): one.value for one in rows.itertuples()}
        clipped.append(score["cam", "min_max", "even", "zeros kept"] - score["cam", "clipping", "even", "zeros kept"])
        for method, way, thresholds, variant in score:
            if method in ("calm_em", "calm_ml") and thresholds == "log" and variant in lifts:
                lifts[variant].append(score[method, way, "log", variant] - score[method, way, "even", variant])
    assert f"loses {min(clipped):.1f} to {max(clipped):.1f} points" in said
    assert f"by {min(lifts['zeros kept']):.1f} to {max(lifts['zeros kept']):.1f} points" in said
    assert f"by {min(lifts['per pair']):.1f} to {max(lifts['per pair']):.1f} where" in said


def test_the_network_is_drawn_in_both_themes(options):
    slug = re.search(r'id="plot-([a-z-]+)"', plot_calm.network(options))[1]
    for theme in ("light", "dark"):
        assert (options.out / f"src/_static/plots/{slug}-{theme}.svg").stat().st_size > 2000


def test_the_lines_for_your_own_data_work(tmp_path, monkeypatch):
    run_own_data("calm", tmp_path, monkeypatch, ("shortened(10,", "shortened(1,"))
