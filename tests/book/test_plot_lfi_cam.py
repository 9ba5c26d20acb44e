"""What LFI-CAM's figures say below themselves follows from the CSV files, and so do the words of its statements."""

import re
from pathlib import Path
from types import SimpleNamespace

import assemble
import experiments
import pandas as pd
import plot_lfi_cam
import pytest
import yaml
from PIL import Image

HOME = Path(__file__).resolve().parents[2]
STUDIES = HOME / "results/studies"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return SimpleNamespace(results=HOME / "results", runs=HOME / "runs", profile="smoke", out=tmp_path_factory.mktemp("site"), read=[])


def caption(text):
    return re.search(r"<figcaption>(.*?)</figcaption>", text, re.DOTALL)[1]


def pairs(what):
    """Every pair of trainings by brute force: (IoU by the script, its excess) of LFI-CAM minus ABN."""
    rows = experiments.read(STUDIES / f"{what}.csv")
    values = {}
    for one in rows[(rows["role"] == "pair") & (rows["metric"] == "stability_iou_script")].itertuples():
        values[one.setting, one.seed, one.other_setting, one.other_seed, one.method, one.of] = one.value
    keys = sorted({key[:4] for key in values})
    return [tuple(values[(*key, "lfi_cam", of)] - values[(*key, "abn", of)] for of in ("pair", "excess")) for key in keys]


def test_stability_counts_pairs(options):
    said = caption(plot_lfi_cam.stability(options))
    cifar, cats = pairs("scratch-cifar10-resnet20"), pairs("scratch-cat_dog-resnet18")
    longer = [sum(excess > 0 for _, excess in of) for of in (cifar, cats)]
    higher = [sum(iou > 0 for iou, _ in of) for of in (cifar, cats)]
    assert f"in {longer[0]} of {len(cifar)} pairs on CIFAR-10 and in {longer[1]} of {len(cats)} on cats and dogs" in said
    assert f"higher in {higher[0]} and {higher[1]}." in said
    assert options.read[0] == "results/studies/scratch-cifar10-resnet20.csv"


def test_the_authors_marks_are_those_of_their_figure():
    marks = plot_lfi_cam.authors()
    assert marks["scratch-cat_dog-resnet18", "lfi_cam"] == pytest.approx(73)
    assert marks["scratch-cifar10-resnet20", "abn"] == pytest.approx(29)
    assert len(marks) == 4


def test_accuracy_counts_trainings(options):
    rows = assemble.evidence(options, assemble.results.METRICS)
    said = caption(plot_lfi_cam.accuracy(options, rows))
    below = total = 0
    for file in STUDIES.glob("scratch-c*.csv"):
        study = experiments.read(file)
        study = study[(study["role"] == "training") & (study["metric"] == "accuracy")]
        by = {(one.setting, one.seed, one.model): one.value for one in study.itertuples()}
        for setting, seed, model in by:
            if model == "lfi_cam":
                total += 1
                below += round(by[setting, seed, "lfi_cam"] - by[setting, seed, "plain"], 6) < 0
    assert f"{below} of {total} on real images" in said


def test_words_of_the_statements_follow_from_the_studies(options):
    told = {entry["id"]: entry for entry in yaml.safe_load((HOME / "book/claims.yaml").read_text(encoding="utf-8"))}
    words = {what: plot_lfi_cam.stability_word(experiments.read(STUDIES / f"{what}.csv")) for what in plot_lfi_cam.STABILITY}
    asked = [SimpleNamespace(verdict=word) for word in words.values() if word != "not run"]
    assert {what for what, word in words.items() if word != "not run"} == {"scratch-cifar10-resnet20", "scratch-cat_dog-resnet18"}
    assert told["lfi-stability"]["studied"] == {"photographs": plot_lfi_cam.overall(asked)}, "on drawn objects only the seeds differ"
    all_better = [min(of) > 0 for of in pairs("scratch-drawn_imagenet-resnet8")]
    assert f"{sum(all_better)} of {len(all_better)} pairs" in told["lfi-stability"]["answer"].replace("\n", " ")
    alike = plot_lfi_cam.alike(experiments.read(STUDIES / "scratch-drawn_imagenet-resnet8.csv"))
    alike = alike[alike["metric"] == plot_lfi_cam.SCRIPT].set_index("method")[["pair", "excess"]]
    assert (alike.loc["plain: mean_activation"] > alike.loc["abn"]).all(), "so does the mean activation of a plain network"
    assert told["lfi-features"]["studied"] == {"drawn": plot_lfi_cam.features_word(experiments.read(STUDIES / "lfi_features.csv"))}
    assert told["lfi-parameters"]["studied"] == {"photographs": plot_lfi_cam.parameters_word(experiments.read(STUDIES / "parameters.csv"))}
    found = plot_lfi_cam.accuracies(options, assemble.evidence(options, assemble.results.METRICS))
    margin = told["lfi-accuracy"]["check"]["margin"]
    assert told["lfi-accuracy"]["studied"] == {"photographs": plot_lfi_cam.accuracy_word(found, margin)}


@pytest.mark.parametrize(
    ("differs", "iou", "excess", "word"),
    [
        ("settings", (1, 2), (1, 1), "holds"),
        ("settings", (1, 2), (1, -1), "not decided"),
        ("settings", (-1, -2), (1, 2), "not decided"),  # the two measures contradict each other
        ("settings", (-1, -2), (-1, -2), "does not hold"),
        ("seeds", (1, 2), (1, 1), "not run"),
    ],
)
def test_stability_is_about_trainings_under_other_settings(differs, iou, excess, word):
    base = {"role": "pair", "metric": plot_lfi_cam.SCRIPT, "differs": differs, "setting": 0, "seed": 0, "other_seed": 0}
    rows = [
        base | {"other_setting": n, "of": of, "method": method, "value": value if method == "lfi_cam" else 0}
        for of, values in (("pair", iou), ("excess", excess))
        for n, value in enumerate(values)
        for method in ("lfi_cam", "abn")
    ]
    assert plot_lfi_cam.stability_word(pd.DataFrame(rows)) == word


@pytest.mark.parametrize(
    ("three", "one", "abn", "word"),
    [(5, 2, 4, "does not hold"), (3, 2, 4, "holds")],
)
def test_parameters_decide(three, one, abn, word):
    parts = {"fin_3x3": three, "fin_1x1": one, "abn_branch": abn}
    rows = pd.DataFrame([{"backbone": "x", "classes": 2, "part": part, "value": value} for part, value in parts.items()])
    assert plot_lfi_cam.parameters_word(rows) == word


@pytest.mark.parametrize(
    ("lows", "highs", "word"),
    [((1, 2), (3, 4), "holds"), ((-2, -3), (-1, -1), "does not hold"), ((1, -1), (3, 1), "not decided")],
)
def test_features_decide_by_every_seed(lows, highs, word):
    base = {"than": "plain", "head": "probe", "trunk": "lfi_cam", "metric": "accuracy"}
    rows = [base | {"ci_low": low, "ci_high": high} for low, high in zip(lows, highs, strict=True)]
    assert plot_lfi_cam.features_word(pd.DataFrame(rows)) == word


@pytest.mark.parametrize(
    ("loss", "count", "word"),
    [(0, 10, "holds"), (5, 10, "does not hold"), (0, 9, "not decided")],
)
def test_accuracy_needs_ten_trainings_of_a_kind(loss, count, word):
    own = pd.DataFrame({"plain": [90.0] * count, "lfi_cam": [90.0 - loss + 0.1 * (n % 2) for n in range(count)]})
    assert plot_lfi_cam.accuracy_word({"CIFAR-10": own}, 2) == word


def test_every_figure_is_drawn_in_both_themes(options):
    for draw in (plot_lfi_cam.network, plot_lfi_cam.features, plot_lfi_cam.parameters):
        slug = re.search(r'id="plot-([a-z-]+)"', draw(options))[1]
        for theme in ("light", "dark"):
            assert (options.out / f"src/_static/plots/{slug}-{theme}.svg").stat().st_size > 2000
    assert "by its CAM" in caption(plot_lfi_cam.stability(options, plot_lfi_cam.ABLATIONS, "ablations"))


def test_drawn_maps_are_the_first_image_of_the_first_classes(options, tmp_path):
    import drawn_maps
    import numpy as np

    from reproduce import results, sources

    images = sources.images("drawn_imagenet", sources.find_root("drawn_imagenet"), limit=12)("squash")
    run = tmp_path / "runs/smoke/lfi_cam/drawn_imagenet-resnet8-s0"
    run.mkdir(parents=True)
    heat = np.linspace(0, 1, 12 * 49, dtype=np.float32).reshape(12, 7, 7)
    results.write_maps(run / "maps.npz", (images.ids, {"lfi_cam": heat, "abn": heat}))
    own = SimpleNamespace(runs=tmp_path / "runs", profile="smoke", out=tmp_path / "site", read=[])
    text = drawn_maps.drawn_maps(own, "lfi_cam", "2")
    assert text.count('class="tiles"') == 2
    assert text.count("<figure>") == 6
    labels = [images.classes[0], images.classes[1]]
    assert [label in text for label in labels] == [True, True]
    assert images.classes[2] not in text
    assert Image.open(tmp_path / "site/src/_static/drawn/lfi_cam-0-1.webp").size[0] >= drawn_maps.SIDE
    assert "not been computed" in drawn_maps.drawn_maps(own, "calm")


def test_the_lines_for_your_own_data_work(tmp_path, monkeypatch):
    run_own_data("lfi_cam", tmp_path, monkeypatch, ("shortened(30)", "shortened(1)"))


def run_own_data(page, folder, monkeypatch, shorter):
    """Execute the page's lines on a folder of eight small images, in one epoch."""
    import numpy as np

    draw = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (folder / f"photos/train/{kind}").mkdir(parents=True)
        for number in range(4):
            pixels = draw.integers(0, 255, (120, 150, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"photos/train/{kind}/{number}.jpg")
    text = (HOME / f"book/{page}.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(from cam_core import Probe.*?)```", text, re.DOTALL)[1]
    assert shorter[0] in code
    monkeypatch.chdir(folder)
    names = {}
    exec(code.replace(*shorter), names)
    assert names["heat"].ndim == 3
    assert 0 <= float(names["heat"].min()) <= float(names["heat"].max()) <= 1
