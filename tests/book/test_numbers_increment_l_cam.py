"""What the pages of Increment-CAM and L-CAM say in words follows from the CSV files, and from the network itself."""

from pathlib import Path

import assemble
import experiments
import plot_increment_cam
import plot_l_cam
import pytest
import torch
import verdicts

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
    assert all(one.mean < 0 for one in of["increment-localizes"]), "where they differ, Grad-CAM is ahead"
    assert {one.verdict for one in of["increment-beats-sharpening"]} == {"does not hold"}


def test_on_few_pairs_is_a_reading_ahead_of_grad_cams_best_try(options):
    pairs = [plot_increment_cam.paired(rows)["increment_cam_tuned", "grad_cam_tuned"] for rows in plot_increment_cam.studies(options)]
    assert 2 * sum(one["ci_low"] > 0 for one in pairs) < len(pairs)


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


def test_what_the_page_of_l_cam_says_of_photographs(options, found):
    for share in ("50%", "15%"):
        own = paired(options, "l_cam_fm", "grad_cam", setting=share)
        assert (own["ci_low"] > 0).all(), share
    full = paired(options, "l_cam_fm", "grad_cam", setting="100%")
    metrics = assemble.evidence(options, assemble.results.METRICS)
    for one in full[full["value"] < 0].itertuples():
        own = metrics[(metrics["key"] == one.key) & (metrics["paper"] == "l_cam") & (metrics["setting"] == "100%")]
        wide = own.pivot_table(index="method", columns="metric", values="value")
        assert wide.loc["l_cam_fm", "map_mean"] > wide.loc["grad_cam", "map_mean"]
        assert wide.loc["grad_cam[power=0.5]", "average_drop"] < wide.loc["l_cam_fm", "average_drop"]
    losses = [one for one in found if one.entry["id"] == "l-cam-losses"]
    assert {one.verdict for one in losses} == {"not decided"}
    assert any("untrained L-CAM" in words for one in found if one.entry["id"] == "l-cam-img-drop" for words in one.flags)
    assert verdicts.overall(losses) == "not decided"
