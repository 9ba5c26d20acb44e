"""Every number in the prose of LFI-CAM's page and of its statements is that of the CSV files."""

from functools import cache
from pathlib import Path

import experiments
import pandas as pd
import pytest
import yaml
from cells import seed_interval

from reproduce import results

HOME = Path(__file__).resolve().parents[2]
PAGE = " ".join((HOME / "book/lfi_cam.md").read_text(encoding="utf-8").split())
STATEMENTS = {entry["id"]: entry for entry in yaml.safe_load((HOME / "book/claims.yaml").read_text(encoding="utf-8"))}
REAL = ("cifar10-resnet20", "cifar10-resnet20-seeds", "cifar10-resnet20-e36", "cat_dog-resnet18")


@cache
def study(what):
    return experiments.read(HOME / f"results/studies/{what}.csv")


@cache
def drawn(file=results.METRICS):
    rows = results.load(HOME / "results/drawn", file)
    return rows[rows["paper"] == "lfi_cam"]


def accuracies(what):
    rows = study(f"scratch-{what}")
    rows = rows[(rows["role"] == "training") & (rows["metric"] == "accuracy")]
    return rows.pivot_table(index=["setting", "seed"], columns="model", values="value")


@cache
def lost():
    return pd.concat([wide["plain"] - wide["lfi_cam"] for wide in map(accuracies, REAL)]).round(6)


def channels(*studies):
    found = pd.concat([study(f"scratch-{what}") for what in studies])
    values = found[(found["metric"] == "effective_channels") & (found["model"] == "lfi_cam")]["value"]
    return f"{values.min():.0f} to {values.max():.0f}"


def mean(network, method, metric, setting=""):
    rows = drawn()
    own = rows[(rows["weights"] == f"{network} network") & (rows["method"] == method)]
    own = own[(own["metric"] == metric) & (own["setting"] == setting)]
    assert len(own) == 10
    return own["value"].mean()


def difference(metric, than, setting=""):
    rows = drawn(results.DIFFERENCES)
    own = rows[(rows["method"] == "lfi_cam") & (rows["than"] == than) & (rows["metric"] == metric) & (rows["setting"] == setting)]
    return seed_interval(list(own["value"]))


def iou(method, of):
    rows = study("scratch-cat_dog-resnet18")
    own = rows[(rows["role"] == "pair") & (rows["metric"] == "stability_iou_script") & (rows["method"] == method) & (rows["of"] == of)]
    return own[(own["setting"].astype(float) == 0) & (own["other_setting"].astype(float) == 1)]["value"].item()


def ablated(model):
    return accuracies("drawn_imagenet-resnet8-ablations")[model].mean()


def adds(network, model, stem=1):
    rows = study_of_speed().set_index(["group", "contender"])["multiply_adds"]
    group = f"multiply-adds, {network}, stem of stride {stem}"
    return rows[group, f"{model}, what it adds"] / rows[group, "plain"]


@cache
def study_of_speed():
    return pd.read_csv(HOME / "results/benchmarks/training.csv")


@pytest.mark.parametrize(
    ("fragment", "numbers"),
    [
        ("below the plain network in {} of {} trainings", lambda: (sum(lost() > 0), len(lost()))),
        ("below the plain one in {} of {} trainings, by more than the margin of two points in {}",
         lambda: (sum(lost() > 0), len(lost()), sum(lost() > 2))),
        ("attention helps: {:.1f} points on the mean of ten seeds", lambda: difference("accuracy", "plain")[:1]),
        ("shares its weight among {} of 64 channels on CIFAR-10 and among {} of 512",
         lambda: (channels(*REAL[:3]), channels(REAL[3]))),
        ("LFI-CAM's IoU is {:.0f} against ABN's {:.0f}", lambda: (iou("lfi_cam", "pair"), iou("abn", "pair"))),
        ("maps of different images reach {:.0f}", lambda: [iou("lfi_cam", "shuffled")]),
        ("energy in the box ({:.1f} %) than a centre Gaussian ({:.1f} %)",
         lambda: [mean("abn", of, "energy_pointing_game") for of in ("abn", "center_gaussian")]),
        ("MaxBoxAccV2 {:.1f} against {:.1f} %", lambda: [mean("abn", of, "max_box_acc_v2") for of in ("abn", "center_gaussian")]),
        ("is {:.0f} % with an importance network of either size, {:.0f} % with equal weights, {:.0f} % for the widened network and {:.0f}",
         lambda: [ablated(of) for of in ("lfi_cam", "lfi_cam[uniform]", "plain[widened]", "lfi_cam[learned]")]),
    ],
)  # fmt: skip
def test_numbers_of_the_page(fragment, numbers):
    assert fragment.format(*numbers()) in PAGE


def test_numbers_of_the_statements():
    accuracy = f"in {sum(lost() > 0)} of {len(lost())} trainings, by {lost().mean():.1f} points on the mean"
    assert accuracy in STATEMENTS["lfi-accuracy"]["answer"]
    rows = study("lfi_features")
    probe = rows[(rows["than"] == "plain") & (rows["head"] == "probe") & (rows["metric"] == "accuracy") & (rows["trunk"] == "lfi_cam")]
    assert f"under {sum(probe['ci_low'] > 0)} of {len(probe)} seeds" in STATEMENTS["lfi-features"]["answer"]
    parts = study("parameters").pivot_table(index="backbone", columns="part", values="value")
    told = STATEMENTS["lfi-parameters"]["answer"]
    assert f"on {sum(parts['fin_3x3'] > parts['abn_branch'])} of {len(parts)} networks" in told
    assert f"fewer on {sum(parts['fin_1x1'] < parts['abn_branch'])}." in told


def test_what_the_page_says_without_numbers():
    assert ablated("lfi_cam[kernel=1]") == pytest.approx(ablated("lfi_cam"), abs=0.5)  # "of either size"
    rows = study("scratch-drawn_imagenet-resnet8-ablations")
    empty = rows[(rows["metric"] == "empty_maps") & (rows["model"] == "lfi_cam[learned]")]["value"]
    assert list(empty == rows["images"].iloc[0]).count(True) == 2  # "empty under two of three seeds"
    assert len(empty) == 3
    for metric, setting in (("energy_pointing_game", ""), ("average_drop", "100%"), ("average_drop", "50%"), ("average_drop", "15%")):
        _, low, high = difference(metric, "mean_features", setting)
        assert low < 0 < high  # "neither energy nor Average Drop tells the two apart"
    assert difference("max_box_acc_v2", "mean_features")[2] < 0  # "the boxes of the mean are half a point better"
    assert difference("max_box_acc_v2", "mean_features")[0] == pytest.approx(-0.5, abs=0.05)
    assert difference("energy_pointing_game", "grad_cam")[2] < 0
    assert difference("map_mean", "grad_cam", "100%")[1] > 0
    drops = [mean("lfi_cam", of, "average_drop", "mean 30%") for of in ("lfi_cam", "grad_cam")]
    assert drops[0] > drops[1]  # "at one mean of 30 % it drops more than Grad-CAM"
    gained = drawn(results.DIFFERENCES).query("method == 'lfi_cam' and metric == 'accuracy'").sort_values("value")["value"]
    assert gained.tail(2).sum() == pytest.approx(gained.sum() / 2, rel=0.1)  # "half of which comes from two seeds"
    worst = drawn().query("metric == 'accuracy' and method == 'plain'").nsmallest(2, "value")["seed"]
    most = drawn(results.DIFFERENCES).query("method == 'lfi_cam' and metric == 'accuracy'").nlargest(2, "value")["seed"]
    assert set(worst) == set(most)


def test_what_the_page_says_of_features():
    rows = study("lfi_features")
    rows = rows[rows["than"] == "plain"]
    energy = rows[(rows["metric"] == "energy_pointing_game") & (rows["trunk"] == "lfi_cam")]
    means = energy[(energy["head"] == "probe") & (energy["method"] == "mean_activation")]
    assert len(means) == 3
    assert (means["ci_high"] < 0).all()
    attended = rows[(rows["metric"] == "energy_pointing_game") & (rows["head"] == "attended") & (rows["method"] == "grad_cam")]
    assert (attended.set_index("trunk")["ci_low"] > 0).all()  # of both trunks
    assert set(attended["trunk"]) == {"lfi_cam", "lfi_cam[uniform]"}


def test_costs_of_the_page():
    assert adds("resnet18", "lfi_cam") == pytest.approx(1 / 4, abs=0.03)
    assert 1.7 < adds("resnet50", "lfi_cam") < 2  # "nearly twice"
    assert adds("resnet18", "abn") == pytest.approx(0.9, abs=0.05)
    assert adds("resnet50", "abn") == pytest.approx(0.75, abs=0.03)
    assert adds("resnet50", "lfi_cam_1x1") == pytest.approx(0.2, abs=0.01)
    seconds = study_of_speed().set_index(["group", "contender"])["seconds"]
    for batch in (1, 8):
        group = f"one explanation, lfi_cam, batch {batch}"
        assert seconds[group, "lfi_cam"] / seconds[group, "forward"] == pytest.approx(1, abs=0.05)  # "a map is one forward pass"


def test_epochs_of_the_page():
    epochs = [int(study(f"scratch-{what}")["epochs"].iloc[0]) for what in REAL]
    assert f"ours take {min(epochs)} to {max(epochs)} epochs instead of 300" in PAGE


def test_on_cifar_lfi_cam_and_the_mean_of_its_features_drop_alike():
    rows = results.load(HOME / "results/subset", results.DIFFERENCES)
    rows = rows[(rows["paper"] == "lfi_cam") & (rows["dataset"] == "cifar10") & (rows["metric"] == "average_drop")]
    rows = rows[(rows["method"] == "lfi_cam") & rows["setting"].isin(["100%", "50%", "15%"])]
    assert set(rows["n"]) == {2000}
    assert rows.loc[rows["than"] == "mean_features", "value"].abs().max() < 1
    less = rows[rows["than"] == "cam"].set_index("setting")
    assert (less.loc[["50%", "15%"], "ci_low"] > 0).all()
    assert f"CAM on the same network drops {less['value']['50%']:.1f} points less at half of the map" in PAGE
    assert f"and {less['value']['15%']:.1f} less at 15 %" in PAGE


def test_on_cats_and_dogs_they_drop_alike_too():
    rows = [results.load(HOME / "results/subset", file) for file in (results.METRICS, results.DIFFERENCES)]
    values, rows = (of[(of["paper"] == "lfi_cam") & (of["dataset"] == "cat_dog")] for of in rows)
    alike = rows[(rows["metric"] == "average_drop") & (rows["method"] == "lfi_cam") & (rows["than"] == "mean_features")]
    alike = alike[alike["setting"].isin(["100%", "50%", "15%"])]
    assert (set(alike["n"]), len(alike)) == ({500}, 3)
    assert alike["value"].abs().max() < 0.01
    right = values[values["metric"] == "accuracy"].set_index("method")["value"]
    told = f"LFI-CAM's network has {right['lfi_cam']:.1f} % right, the plain one {right['plain']:.1f} and ABN's {right['abn']:.1f}."
    assert told in PAGE


def test_on_cub_good_boxes_need_no_learned_importance():
    rows, pairs = (results.load(HOME / "results/subset", file) for file in (results.METRICS, results.DIFFERENCES))
    rows, pairs = (of[(of["paper"] == "lfi_cam") & (of["dataset"] == "cub")] for of in (rows, pairs))
    assert set(rows["n"]) == {128}
    told = {
        "resnet18": (
            "the plain network has {plain:.1f} %, LFI-CAM's {lfi_cam:.1f} % and ABN's {abn:.1f} % of 128 photographs right",
            (
                "their MaxBoxAccV2 is {:.1f} against {:.1f} of CAM on the same network, but it is {:.1f} for the mean of the features "
                "and {:.1f} for the mean activation of the plain network"
            ),
            "({:.1f} and {:.1f} %",
        ),
        "efficientnet_lite0": (
            "they have {plain:.1f}, {lfi_cam:.1f} and {abn:.1f} % right",
            "Through EfficientNet-Lite0 the four are {:.1f}, {:.1f}, {:.1f} and {:.1f}.",
            "and {:.1f} and {:.1f} % through EfficientNet-Lite0)",
        ),
    }
    assert set(told) == set(rows["backbone"])
    right = {}
    for backbone, (accuracies, boxes, energies) in told.items():
        found = rows[rows["backbone"] == backbone]
        right[backbone] = found[found["metric"] == "accuracy"].set_index("method")["value"]
        assert accuracies.format(**right[backbone]) in PAGE
        values = {network: own.set_index(["method", "metric"])["value"].sort_index() for network, own in found.groupby("weights")}
        plain, own, branch = (values[f"{network} network"] for network in ("plain", "lfi_cam", "abn"))
        four = ((own, "lfi_cam"), (own, "cam"), (own, "mean_features"), (plain, "mean_activation"))
        assert boxes.format(*(of[method, "max_box_acc_v2"].item() for of, method in four)) in PAGE
        assert energies.format(*(branch[method, "energy_pointing_game"].item() for method in ("abn", "random_map"))) in PAGE
        energy = found[(found["metric"] == "energy_pointing_game") & (found["weights"] == "abn network")].set_index("method")
        assert energy["ci_low"]["abn"] < energy["value"]["random_map"] < energy["ci_high"]["abn"]
    alike = rows[(rows["backbone"] == "resnet18") & (rows["metric"] == "accuracy")]
    assert alike["ci_low"].max() < alike["value"].min()
    assert right["resnet18"].min() > right["efficientnet_lite0"].max()
    ahead = pairs[(pairs["backbone"] == "efficientnet_lite0") & (pairs["metric"] == "accuracy")].iloc[0]
    assert f"LFI-CAM's is {ahead['value']:.1f} points [{ahead['ci_low']:.1f}, {ahead['ci_high']:.1f}] ahead of the plain one" in PAGE
