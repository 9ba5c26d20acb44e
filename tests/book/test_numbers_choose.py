"""What the pages *Choose a method* and *Choose a metric* say of the studies is what the files say."""

from types import SimpleNamespace

import experiments
import pandas as pd
import plot_choose_method
import plot_choose_metric
import pytest
from names import name

from cam_core import metrics
from cam_core.methods import METHODS
from reproduce import results
from studies import judging

from .conftest import BOOK

RESULTS = BOOK.parent / "results"
STUDIES = RESULTS / "studies"
PAGE, METHODS_PAGE, HOME = (
    " ".join((BOOK / f"{page}.md").read_text(encoding="utf-8").split()) for page in ("choose_metric", "choose_method", "index")
)


@pytest.fixture(scope="module")
def trust():
    return experiments.read(STUDIES / "trust.csv")


def test_the_first_card_says_what_grad_cam_has_over_its_controls():
    rows = pd.concat([results.load(RESULTS / profile) for profile in ("subset", "drawn")], ignore_index=True)
    kept = {what: plot_choose_method.held(rows, what, "photographs") for what in ("faithfulness", "localization")}
    ahead = kept["faithfulness"].groupby("method")["ahead"].agg(["sum", "count"])
    most, of = ahead.loc["grad_cam"]
    assert f"loses less of the class than every control on {most} of {of} networks, more than any other method" in METHODS_PAGE
    assert ahead["sum"].drop("grad_cam").max() < most
    assert not kept["localization"]["ahead"].any()


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
        ("energy_pointing_game", ""): [], ("max_box_acc", ""): [], ("pxap", ""): [], ("max_box_acc_v2", ""): ["cue_mask_inverse"],
        ("average_drop", "100%"): ["fake_cam"], ("average_drop", "15%"): [], ("win", "100%"): ["fake_cam"], ("adcc", ""): [],
        ("road_lerf", "20%"): ["center_gaussian", "fake_cam"], ("road_combined", "20%"): [], ("insertion", "step 448"): [],
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


def test_at_equal_mean_the_powers_of_grad_cam_are_alike_on_both_networks(tmp_path):
    """And the caption says by how much, and how the other maps then stand to Grad-CAM, as the files have it."""
    caption = plot_choose_metric.equal_mean(SimpleNamespace(out=tmp_path, results=RESULTS, read=[])).split("<figcaption>")[1]
    for backbone in ("efficientnet_lite0", "resnet18"):
        rows = pd.read_csv(STUDIES / f"equal_mean-{backbone}.csv")
        drop = rows[rows["metric"] == "average_drop"].set_index(["base", "mean"])["value"]
        for mean, least, most in ((float("nan"), 20, 100), (0.3, 0, 1)):
            values = [value for (base, at), value in drop.items() if base.startswith("grad_cam") and str(at) == str(mean)]
            assert len(values) == 3
            assert least < max(values) - min(values) < most
            assert f"{max(values) - min(values):.{0 if least else 1}f}" in caption.split(name(backbone))[1]
        behind = drop["layer_cam", 0.3] - drop["grad_cam", 0.3]
        assert f"and {behind:.1f} points worse at equal mean" in caption.split(name(backbone))[1]


def test_calibration_moves_what_the_page_says():
    for data in ("cub-resnet18", "drawn_cub-resnet8"):
        found = plot_choose_metric.ways(experiments.read(STUDIES / f"calibration-{data}.csv"))
        for method, most in (("cam", 0.5), ("calm_em", 0.05), ("calm_ml", 0.05)):
            moved = found[method, "even", "min_max", "zeros kept"] - found[method, "even", "max", "zeros kept"]
            assert abs(moved) < most


@pytest.fixture(scope="module")
def times():
    """Of ResNet-18, over a forward pass."""
    return plot_choose_method.measured(*(experiments.read(RESULTS / f"benchmarks/{what}.csv") for what in ("methods", "training")))


def test_what_a_map_costs_in_words(times):
    cheap = [times[method] for method in ("cam", "grad_cam", "grad_cam_pp", "l_cam_fm", "l_cam_img", "lfi_cam", "abn", "calm")]
    assert 1 <= min(cheap) <= max(cheap) < 2
    assert "CAM, the class activation maps by gradient and the trained maps cost one to two forward passes" in METHODS_PAGE
    assert max(times[method] for method in ("cam", "grad_cam", "grad_cam_pp")) < 1.1
    assert "Gradient methods cost about one forward pass, Score-CAM one for each channel" in HOME
    assert all(1.95 < times[method] < 3 for method in ("increment_cam", "ablation_cam"))
    assert times["score_cam"] / plot_choose_method.CHANNELS == pytest.approx(1, abs=0.1)
    assert METHODS["score_cam"].cost(2048) == 1 + 2048
    assert METHODS["rise"].cost(1) >= 2000


def test_strengths_and_limits_that_state_an_order_follow_from_the_times(times):
    assert times["grad_cam"] < 1.05, "hardly slower than the forward pass"
    assert times["ablation_cam"] > 2 * times["grad_cam"]
    assert times["increment_cam"] == pytest.approx(2, abs=0.1)
    assert times["score_cam"] > 200
    assert min(times["lfi_cam"], times["abn"]) > 1.2, "slower than the plain network"
    one, steps, noise = (plot_choose_method.passes(METHODS[method].passes, 0) for method in ("score_cam", "is_cam", "ss_cam"))
    assert f"*Against:* {noise / one:.0f} and {steps / one:.0f} times its cost" in METHODS_PAGE
    assert max(plot_choose_method.passes(METHODS[method].passes, 0.003) for method in ("fd_cam", "group_cam")) < one
    assert [METHODS[method].passes for method in ("saliency", "smooth_grad", "var_grad")] == [f"{n} with gradient" for n in (1, 25, 25)]
    assert "1 gradient, or 25" in METHODS_PAGE


def test_strengths_and_limits_that_state_an_order_follow_from_the_runs():
    rows = results.load(RESULTS / "subset", results.METRICS)
    wide = rows[rows["metric"].isin(["average_drop", "map_mean"])].pivot_table(
        index=["paper", "dataset", "backbone", "seed", "setting"], columns=["metric", "method"], values="value"
    )
    assert wide["average_drop", "saliency"].xs(("imagenet", "50%"), level=("dataset", "setting")).dropna().min() > 95
    bright = wide["map_mean"].xs(("imagenet", "100%"), level=("dataset", "setting"))[["grad_cam_pp", "grad_cam"]].dropna()
    assert (bright["grad_cam_pp"] > bright["grad_cam"]).all()
    accuracy = (
        rows[rows["metric"] == "accuracy"]
        .pivot_table(index=["key", "seed"], columns="method", values="value")[["calm_em", "plain"]]
        .dropna()
    )
    accuracy = accuracy[accuracy.index.get_level_values("key").str.contains("-resnet18-")]
    assert (accuracy["calm_em"] < accuracy["plain"]).all()
    assert "was less accurate on ResNet-18" in METHODS_PAGE
    for profile in ("subset", "drawn"):
        differences = results.load(RESULTS / profile, results.DIFFERENCES)
        pair = (differences["method"] == "increment_cam") & (differences["than"] == "grad_cam")
        own = differences[pair & (differences["metric"] == "energy_pointing_game")]
        assert not ((own["ci_low"] > 0) & (own["p_holm"] <= 0.05)).any(), "Grad-CAM lies on the object as well or better"


def test_which_maps_hardly_notice_lost_logits():
    rows = experiments.read(STUDIES / "randomization-resnet18.csv")
    first = rows[(rows["measure"] == "spearman") & (rows["depth"] == 1)].groupby("method")["value"].mean()
    assert first[["grad_cam_pp", "layer_cam", "guided_backprop"]].min() > 0.9
    assert first[["cam", "grad_cam", "hires_cam"]].max() < 0.2


@pytest.fixture(scope="module")
def of_parts():
    rows = experiments.read(STUDIES / "parts.csv")
    return plot_choose_metric.by_map(rows[rows["network"].str.startswith("resnet")], "metric")


def test_what_the_sizes_of_the_parts_tell_and_maps_of_pixels_ahead(of_parts):
    single = of_parts["single_deletion"]
    ones, grad, mean = (f"{single[one]:.0f} %" for one in ("all_ones", "grad_cam", "mean_activation"))
    assert f"all ones reach {ones} in single deletion. Grad-CAM has {grad}, and so has the mean activation" in PAGE
    assert grad == mean
    assert set(single.nlargest(2).index) == {"saliency", "guided_backprop"}


def test_whether_arcc_survives_fake_cam_is_answered_in_numbers():
    told = plot_choose_metric.survival(SimpleNamespace(results=STUDIES.parent, read=[]))
    rows = experiments.read(STUDIES / "judged-values.csv")
    arcc = rows[rows["metric"] == "arcc"]
    fake = arcc.loc[arcc["method"] == "fake_cam", "value"]
    behind = [(own["value"] > own.loc[own["method"] == "fake_cam", "value"].item()).sum() for _, own in arcc.groupby("network")]
    maps = arcc["method"].nunique()
    assert told.startswith(f"**Would ARCC survive Fake-CAM?** {'Yes' if min(behind) >= maps - 2 else 'Not everywhere'}.")  # all ones tie
    grad = arcc.loc[arcc["method"] == "grad_cam", "value"]
    assert fake.max() < 0.5
    assert "Fake-CAM's ARCC is 0 %," in told
    assert f"Grad-CAM's is {grad.min():.0f} to {grad.max():.0f} %" in told
    drop = rows[(rows["metric"] == "average_drop") & (rows["setting"] == "100%")]
    first = [(own["value"] <= own.loc[own["method"] == "fake_cam", "value"].item()).sum() for _, own in drop.groupby("network")]
    assert f"Average Drop 100% at place {plot_choose_metric._span(first)}," in told


def test_a_step_of_a_grid_is_that_of_an_image_with_a_fourth_of_its_pixels():
    options = SimpleNamespace(results=STUDIES.parent, read=[])
    found = plot_choose_metric.agreements(*(plot_choose_metric.study(options, file) for file in ("judged-parts", "judged-grids")))
    on_grids = experiments.read(STUDIES / "judged-grids.csv")
    own = on_grids[(on_grids["network"] == "all") & (on_grids["metric"] == "deletion")]
    assert own["setting"].item() == f"step {4 * 896}"
    truth = (set(found) - {"single_deletion", "completeness"}).pop()
    assert found[truth].loc[("deletion", "step 896"), "kendall"] == own["kendall"].item()


def test_grids_judge_every_metric_that_asks_the_network():
    parts, on_grids = (experiments.read(STUDIES / f"judged-{what}.csv") for what in ("parts", "grids"))
    keys = [set(zip(rows["metric"], rows["setting"].replace(plot_choose_metric.SAME_STEP), strict=True)) for rows in (parts, on_grids)]
    assert keys[1] == {key for key in keys[0] if key[0] not in plot_choose_metric.OF_PLACE}


def test_no_power_darkens_fake_cam():
    assert "At equal mean Average Drop still puts Fake-CAM first" in PAGE
    values = experiments.read(STUDIES / "judged-values.csv")
    assert set(plot_choose_metric.place_of(values, ("average_drop", "equal mean"), "fake_cam")[0]) == {1}


def test_agreement_is_read_from_the_rows_of_all_networks():
    rows = experiments.read(STUDIES / "judged-parts.csv")
    found = plot_choose_metric.agreements(rows)
    own = rows[(rows["network"] == "all") & (rows["truth"] == "completeness") & (rows["metric"] == "deletion")]
    assert found["completeness"].loc[("deletion", "step 896"), "kendall"] == own["kendall"].item()
    assert found["single_deletion"]["kendall"].is_monotonic_decreasing
    for sign in (1, -1):
        decided = plot_choose_metric.decided(found["single_deletion"], sign)
        sure = rows[
            (rows["network"] == "all") & (rows["truth"] == "single_deletion") & (rows["ci_low" if sign > 0 else "ci_high"] * sign >= 0.005)
        ]
        assert set(decided) == set(zip(sure["metric"], sure["setting"], strict=True))


def test_in_difull_only_maps_that_multiply_in_place_stay_in_their_cell():
    assert "only HiResCAM, LayerCAM and the maps of pixels stay in their cell" in PAGE
    rows = experiments.read(STUDIES / "grids.csv")
    found = rows[(rows["setting"] == "DiFull")].groupby("method")["value"]
    stays = {"hires_cam", "layer_cam", "saliency", "guided_backprop"}
    assert found.min()[list(stays)].min() > 95
    assert found.max().drop(list(stays)).max() < 60


def test_how_small_a_map_is_agrees_better_than_most_metrics_that_ask_the_network():
    assert "before every metric that asks the network but sensitivity-n and infidelity" in PAGE
    found = plot_choose_metric.agreements(experiments.read(STUDIES / "judged-parts.csv"))["single_deletion"]
    ahead = {metric for metric, _ in found.index[: found.index.get_loc(("complexity", ""))]}
    assert ahead - {*plot_choose_metric.OF_PLACE} == {"sensitivity_n", "infidelity"}
    brightest = [found.loc[("average_drop", setting), "kendall"] for setting in ("100%", "100% mean fill")]
    assert max(brightest) < 0  # Average Drop at 100 % orders the maps the wrong way round


def test_the_place_of_a_map_under_a_metric_counts_ties_as_the_worse():
    rows = [("a", "x", 3.0), ("a", "y", 3.0), ("a", "z", 1.0), ("b", "x", 1.0), ("b", "y", 2.0), ("b", "z", 3.0)]
    values = pd.DataFrame(rows, columns=["network", "method", "value"]).assign(metric="m", setting="", better="higher")
    values = pd.concat([values, values.assign(setting="50%", value=0.0)])
    assert plot_choose_metric.place_of(values, ("m", ""), "x") == ([2, 3], 3)
    assert plot_choose_metric.place_of(values.assign(better="lower"), ("m", ""), "x") == ([3, 1], 3)


def test_the_table_of_judged_metrics_says_what_the_files_say():
    told = plot_choose_metric.judged(SimpleNamespace(results=STUDIES.parent, read=[]))
    rows = experiments.read(STUDIES / "judged-parts.csv")
    every = rows[(rows["network"] == "all") & (rows["truth"] == "single_deletion")]
    assert told.count('<tr><th scope="row">') == len(every)
    one = every[every["metric"] == "insertion"].iloc[0]
    printed = f"{one['kendall']:.2f} [{one['ci_low']:.2f}, {one['ci_high']:.2f}]".replace("-0.00", "0.00").replace("-", "−")
    assert printed in told
    assert f"order of {rows['maps'].iloc[0]} maps" in told
    above, below = (every["ci_low"].round(2) > 0).sum(), (every["ci_high"].round(2) < 0).sum()
    grids = experiments.read(STUDIES / "judged-grids.csv")
    of_all = pd.concat([rows, grids]).query("network == 'all'")
    apart = sum((of_all[end] * sign).round(2).gt(0).sum() for end, sign in (("ci_low", 1), ("ci_high", -1)))
    assert told.count('aria-label="apart from zero"') == apart
    assert f"{above} of {len(every)} metrics order the maps better than chance, and {below} worse" in told


def test_arcc_agrees_with_both_truths_better_than_adcc():
    assert "ARCC: it agrees with the truth below better than ADCC" in PAGE
    for found in plot_choose_metric.agreements(experiments.read(STUDIES / "judged-parts.csv")).values():
        kendall = found["kendall"].groupby(level="metric").max()
        assert kendall["arcc"] > kendall["adcc"]


def test_the_advice_follows_from_the_table_of_truths(trust):
    """Counted again from the rows: no metric is to be taken that agrees with one truth only, contradicts one, or lets a wrong map win."""
    options = SimpleNamespace(results=STUDIES.parent, read=[])
    studies = [
        plot_choose_metric.study(options, file) for file in ("judged-parts", "judged-grids") if plot_choose_metric.ran(options, file)
    ]
    said = plot_choose_metric.advised(plot_choose_metric.agreements(*studies), trust)
    rows = pd.concat(studies)
    rows = rows[rows["network"] == "all"].assign(above=lambda of: of["ci_low"].round(2) > 0, below=lambda of: of["ci_high"].round(2) < 0)
    for (metric, setting), own in rows.groupby(["metric", "setting"]):
        word = said.get((metric, setting))
        assert (word == plot_choose_metric.ALONE) == bool(not own["above"].any() or own["below"].any())
        if word == plot_choose_metric.TAKE:
            assert (own["ci_low"].round(2) >= 0.2).sum() > 1
    assert "the whole interval is at 0.2 or above (six of ten pairs" in PAGE  # (1 + 0.2) / 2
    assert said["adcc", ""] == plot_choose_metric.BESIDE, "agrees, and hardly"
    assert said["max_box_acc_v2", ""] != plot_choose_metric.TAKE, "the inverse of the mask ties with the mask"
    cards = plot_choose_metric.advice(options)
    take = " ".join(card.split("Beside another")[0] for card in cards.split("grid-item-card")[1:3])
    for (metric, _), word in said.items():
        if word == plot_choose_metric.TAKE:
            assert name(metric).partition("\N{NO-BREAK SPACE}")[0] in take


def test_every_metric_is_judged_or_the_page_says_why_not():
    rows = experiments.read(STUDIES / "judged-parts.csv")
    asked = {type(one).__name__ for one in [*judging.asking_the_network(None), *judging.on_the_object()]} - {"DropAtEqualMean"}
    left_out = [one for of in plot_choose_metric.NOT_JUDGED.values() for one in of]
    kinds = {one: getattr(metrics, one) for one in metrics.__all__}
    every = [one for one, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, metrics.Metric) and one != "Metric"]
    assert sorted(every) == sorted([*asked, *left_out])
    keys = {(one.name, one.setting) for one in [*judging.asking_the_network(None), *judging.on_the_object()]}
    assert set(zip(rows["metric"], rows["setting"], strict=True)) == keys
    told = plot_choose_metric.judged(SimpleNamespace(results=STUDIES.parent, read=[]))
    assert all(why in told for why in plot_choose_metric.NOT_JUDGED)


def test_what_a_budget_reaches():
    found = {}
    for network in ("efficientnet_lite0", "resnet18"):
        rows = experiments.read(STUDIES / f"score_cam_budget-{network}.csv")
        found[network] = rows[rows["metric"] == "correlation"].assign(m=lambda of: pd.to_numeric(of["m"])).set_index(["way", "m"])
    lite, resnet = found.values()
    reached = [lite.loc[(way, 128), "value"] for way in ("predicted, variance", "predicted, chance", "alone, norm")]
    assert "sure reach .997, chance .970, and the largest channels .995" in METHODS_PAGE
    assert [round(one, 3) for one in reached] == [0.997, 0.97, 0.995]
    predicted = [resnet.loc[(f"predicted, {way}", 128), "value"] for way in ("variance", "chance", "spread", "norm")]
    assert max(predicted) - min(predicted) < 0.003
    assert "correlation of .87 and .88, but on the worst image almost none" in METHODS_PAGE
    equal = [of.loc["equal weights"].iloc[0] for of in (lite, resnet)]
    assert [round(one["value"], 2) for one in equal] == [0.87, 0.88]
    assert max(one["worst"] for one in equal) < 0.15
    sizes = [of.loc[("predicted, variance", m), "value"] for of in (lite, resnet) for m in (64, 128)]
    assert min(sizes) > 0.98  # "of 64 to 128 passes it comes close to the exact map"
