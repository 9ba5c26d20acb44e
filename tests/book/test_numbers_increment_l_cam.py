"""What the pages of Increment-CAM and L-CAM say in words follows from the CSV files, and from the network itself."""

from pathlib import Path

import assemble
import cells
import experiments
import plot_increment_cam
import plot_l_cam
import pytest
import torch

from cam_core.data.example import read_image
from cam_core.data.transforms import view
from cam_core.methods.increment import phases
from cam_core.pretrained import LITE, load_classifier
from cam_core.probe import Probe
from data_scripts.photographs import PHOTOGRAPHS

HOME = Path(__file__).resolve().parents[2]
PAGES = {page: " ".join((HOME / f"book/{page}.md").read_text(encoding="utf-8").split()) for page in ("increment_cam", "l_cam")}
STATEMENTS = {entry["id"]: entry for entry in assemble.statements()}


def read(what, folder="studies"):
    return experiments.read(HOME / "results" / folder / f"{what}.csv")


@pytest.fixture(scope="module")
def options():
    given = assemble._parser().parse_args(["--results", str(HOME / "results")])
    given.read = []
    return given


@pytest.fixture(scope="module")
def found(options):
    return assemble.judged(options)


def test_words_of_studied_statements_follow_from_the_files():
    word, times = plot_increment_cam.speed(read("methods", "benchmarks"))
    assert STATEMENTS["increment-speed"]["studied"] == {"photographs": word}
    assert times > 200
    assert "more than two hundred times" in STATEMENTS["increment-speed"]["answer"]
    assert STATEMENTS["l-cam-pass"]["studied"] == {"photographs": plot_l_cam.one_pass(read("training", "benchmarks"))}
    rows = read("shortcut")
    assert STATEMENTS["l-cam-bias"]["studied"] == {"drawn": plot_l_cam.bias(rows)}
    fm, img, grad = (len(plot_l_cam.tells(rows, method)) for method in ("l_cam_fm", "l_cam_img", "grad_cam"))
    assert f"under {fm} of {rows['seed'].nunique()} seeds, L-CAM-Img's under {img};" in STATEMENTS["l-cam-bias"]["answer"]
    assert f"under {grad}." in STATEMENTS["l-cam-bias"]["answer"]


def test_increment_cam_is_nowhere_ahead_and_squared_grad_cam_everywhere(found):
    of = {key: [one for one in found if one.entry["id"] == key] for key in ("increment-localizes", "increment-beats-sharpening")}
    assert all(one.verdict != "holds" for one in of["increment-localizes"])
    differ = [one for one in of["increment-localizes"] if not all(seed.same_as == "grad_cam" for seed in one.seeds)]
    assert all(one.mean < 0 for one in differ), "where they differ, Grad-CAM is ahead"
    alike = {(one.dataset, one.backbone) for one in of["increment-localizes"] if one not in differ}
    assert alike == {("voc07", LITE)}
    apart = {one.dataset: abs(one.mean) for one in differ if one.backbone == LITE}
    assert apart["imagenet"] < 0.1 < apart["cub"], apart
    assert {one.verdict for one in of["increment-beats-sharpening"]} == {"does not hold"}


def test_on_one_pair_is_a_reading_ahead_of_grad_cams_best_try(options):
    found = {
        (rows["dataset"].iloc[0], rows["backbone"].iloc[0]): plot_increment_cam.paired(rows) for rows in plot_increment_cam.studies(options)
    }
    ahead = {place: pairs for place, pairs in found.items() if pairs["increment_cam_tuned", "grad_cam_tuned"]["ci_low"] > 0}
    assert set(ahead) == {("voc07", "resnet18")}
    pairs = ahead["voc07", "resnet18"]
    by = "by {value:.1f} points [{ci_low:.1f}, {ci_high:.1f}]".format(**pairs["increment_cam_tuned", "grad_cam_tuned"])
    page = " ".join((HOME / "book/increment_cam.md").read_text(encoding="utf-8").split())
    assert f"on {len(ahead)} of {len(found)} pairs of data and network: on VOC2007, {by}. With all its weights" in page
    equal = pairs["increment_cam_tuned", "increment_cam_tuned, weights equal"]
    assert equal["ci_low"] < 0 < equal["ci_high"]


@pytest.mark.parametrize("photograph", ["chelsea", "camera"])
def test_phase_two_of_the_main_network_is_empty(photograph):
    classifier = load_classifier(LITE)
    seen = view("squash", classifier.size, interpolation=classifier.interpolation)(read_image(PHOTOGRAPHS[photograph].path))
    found = phases(Probe(classifier, seen[None].as_subclass(torch.Tensor)))
    assert found.low_resolution_score_cam.max() == 0
    assert found.increments.nan_to_num(0).abs().max() == 0


def paired(options, method, than, **where):
    rows = assemble.evidence(options, assemble.results.DIFFERENCES)
    rows = rows[(rows["paper"] == "l_cam") & (rows["method"] == method) & (rows["than"] == than) & (rows["metric"] == "average_drop")]
    rows = rows[~rows["dataset"].str.startswith("drawn")]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows)
    return rows


def test_what_the_page_of_l_cam_says_of_photographs(options):
    assert (paired(options, "l_cam_fm", "grad_cam", setting="50%")["ci_low"] > 0).all()
    assert (paired(options, "l_cam_fm", "grad_cam", setting="15%")["ci_high"] > 0).all()
    metrics = assemble.evidence(options, assemble.results.METRICS)
    runs = metrics[(metrics["paper"] == "l_cam") & (metrics["setting"] == "100%") & ~metrics["dataset"].str.startswith("drawn")]
    untrained = []
    for _, own in runs.groupby("key"):
        wide = own.pivot_table(index="method", columns="metric", values="value")
        fm, grad, root = (wide.loc[method] for method in ("l_cam_fm", "grad_cam", "grad_cam[power=0.5]"))
        if fm["average_drop"] < grad["average_drop"]:
            assert fm["map_mean"] > grad["map_mean"]
            assert root["average_drop"] < fm["average_drop"]
        untrained.append(wide.loc["random_l_cam", "average_drop"] - wide.loc["l_cam_img", "average_drop"])
    assert (sum(one > 0 for one in untrained), len(untrained)) == (1, 3)
    assert max(map(abs, untrained)) < 5


def test_what_the_page_says_l_cam_fm_has_learned(options):
    assert (paired(options, "l_cam_fm", "random_l_cam", setting="50%")["ci_high"] < 0).all()
    other = paired(options, "l_cam_fm", "other_l_cam_fm", setting="50%")
    assert (other["ci_high"] < 0).all()
    assert set(other[other["p_holm"] <= 0.05]["backbone"]) == {LITE, "resnet50"}
    mean = paired(options, "l_cam_fm", "mean_activation")
    beaten = mean[(mean["ci_high"] < 0) & (mean["p_holm"] <= 0.05)]
    assert sorted(beaten["setting"]) == ["100%", "15%"]
    drawn = assemble.evidence(options, assemble.results.DIFFERENCES)
    drawn = drawn[(drawn["profile"] == "drawn") & (drawn["method"] == "l_cam_fm") & (drawn["than"] == "other_l_cam_fm")]
    drawn = drawn[(drawn["metric"] == "average_drop") & (drawn["setting"] == "50%")]
    assert cells.seed_interval(list(drawn["value"]))[2] < 0
    alone = paired(options, "l_cam_fm", "l_cam_fm[ce]")
    assert alone["value"].abs().max() < 2
