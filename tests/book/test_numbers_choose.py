"""What the pages *Choose a method* and *Choose a metric* say of the studies is what the files say."""

import experiments
import plot_choose_method
import plot_choose_metric
import pytest

from .conftest import BOOK

STUDIES = BOOK.parent / "results/studies"
PAGE = " ".join((BOOK / "choose_metric.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def trust():
    return experiments.read(STUDIES / "trust.csv")


def value(trust, method, metric, setting):
    own = plot_choose_metric.known(trust, metric, setting)
    return own.loc[method, "value"]


def test_the_fill_matters_as_much_as_the_page_says(trust):
    black, mean = (value(trust, "cue_mask", "average_drop", setting) for setting in ("100%", "100% mean fill"))
    assert f"loses {black:.1f} % of its confidence; on the mean colour, {mean:.1f} %" in PAGE


def test_no_wrong_map_is_ahead_under_the_blind_network(trust):
    wrong = trust[(trust["network"] == "wired") & trust["method"].isin(plot_choose_metric.WRONG)]
    places = ("coherency", "complexity", "max_sensitivity")  # which do not ask for the truth
    assert wrong[(wrong["against_cue"] == "better") & ~wrong["metric"].isin(places)].empty


def test_who_is_fooled(trust):
    fooled = {
        ("energy_pointing_game", ""): "–", ("max_box_acc", ""): "–", ("pxap", ""): "–", ("max_box_acc_v2", ""): "inverse (tie)",
        ("average_drop", "100%"): "Fake-CAM", ("average_drop", "15%"): "–", ("win", "100%"): "Fake-CAM", ("adcc", ""): "–",
        ("road_lerf", "20%"): "centre (tie), Fake-CAM (tie)", ("road_combined", "20%"): "–", ("insertion", "step 448"): "–",
    }  # fmt: skip
    for (metric, setting), told in fooled.items():
        assert plot_choose_metric.fooled(plot_choose_metric.known(trust, metric, setting)) == told


def test_every_metric_of_the_second_group_but_road_lerf_prefers_grad_cam(trust):
    for metric, setting in (("insertion", "step 448"), ("deletion", "step 448"), ("road_morf", "20%"), ("road_combined", "20%"),
                            ("sensitivity_n", "20% 50 sets"), ("infidelity", "scaled sides 2")):  # fmt: skip
        assert plot_choose_metric.known(trust, metric, setting).loc["grad_cam", "beats"]
    assert not plot_choose_metric.known(trust, "road_lerf", "20%").loc["grad_cam", "beats"]


def test_the_cost_of_a_method_is_read_from_its_words():
    assert plot_choose_method.passes("1 + K", 0.003) == 513
    assert plot_choose_method.passes("1 + 2 K heads", 0.003) == pytest.approx(1 + 1024 * 0.003)
    assert plot_choose_method.passes("25 with gradient", 0.003) == 75
    with pytest.raises(ValueError, match="is not known to the figure"):
        plot_choose_method.passes("a miracle", 0)


def test_calibration_moves_what_the_page_says():
    for data in ("cub-resnet18", "drawn_cub-resnet8"):
        found = plot_choose_metric.ways(experiments.read(STUDIES / f"calibration-{data}.csv"))
        for method, most in (("cam", 0.5), ("calm_em", 0.05), ("calm_ml", 0.05)):
            moved = found[method, "even", "min_max", "zeros kept"] - found[method, "even", "max", "zeros kept"]
            assert abs(moved) < most
