"""The captions of Increment-CAM's and L-CAM's figures, and what the page of the readings says, recounted from the CSV files."""

import ast
import re
from pathlib import Path

import assemble
import pandas as pd
import plot_increment_cam
import plot_l_cam
import pytest

HOME = Path(__file__).resolve().parents[2]
STUDIES = HOME / "results/studies"
PAGE = " ".join((HOME / "book/readings.md").read_text(encoding="utf-8").split())


@pytest.fixture
def options(tmp_path):
    given = assemble._parser().parse_args(["--results", str(HOME / "results"), "--out", str(tmp_path), "--runs", str(tmp_path)])
    given.read = []
    return given


def caption(made):
    return re.search(r"<figcaption>(.*?)</figcaption>", made, re.S).group(1)


def files():
    return [pd.read_csv(path).fillna({"setting": "", "than": ""}) for path in sorted(STUDIES.glob("increment_cam-*.csv"))]


def difference(rows, method, than, metric="pixel_precision", setting=""):
    of = rows[(rows.role == "difference") & (rows.method == method) & (rows.than == than) & (rows.metric == metric)]
    return of[of.setting == setting].iloc[0]


def test_the_caption_of_the_readings_counts_what_the_files_hold(options):
    text, better, count, literal, chosen = caption(plot_increment_cam.readings(options)), 0, 0, 0, 0
    for rows in files():
        tried = rows[rows.role == "tried"]
        plain = tried[tried.method.str.fullmatch(r"grad_cam\[last, mean, 1(, 1)?\]")].value.iloc[0]
        own = tried[tried.method.str.startswith("increment_cam")]
        better, count = better + (own.value > plain).sum(), count + len(own)
        assert own.value.max() == rows[(rows.role == "chosen") & (rows.method == "increment_cam_tuned")].value.iloc[0]
        assert own.method.iloc[0].endswith("increment, sum]"), "the first try is the literal reading"
        literal += difference(rows, "increment_cam", "grad_cam").ci_low > 0
        chosen += difference(rows, "increment_cam_tuned", "grad_cam").ci_low > 0
    assert f"{better:,} of {count:,} readings" in text
    assert f"literal reading is ahead of Grad-CAM on {literal} of" in text
    assert f"ahead on {chosen} and behind" in text


def test_what_the_page_of_the_readings_says():
    worse = {}
    gaps, near, better, means, bumps, ahead, behind, more, less, more_chosen, less_chosen = [], [], [], 0, 0, 0, 0, 0, 0, 0, 0
    for rows in files():
        value = rows[(rows.role == "reported") & (rows.metric == "pixel_precision")].set_index("method").value
        gaps.append(value["grad_cam"] - value["phase 2 alone"])
        assert difference(rows, "increment_cam", "grad_cam").ci_low <= 0
        if difference(rows, "increment_cam_tuned", "grad_cam").ci_low > 0:
            ahead += 1
            near += [max(value["increment_cam_tuned"] - value[other] for other in ("layer_cam", "grad_cam_pp"))]
        behind += difference(rows, "increment_cam_tuned", "grad_cam").ci_high < 0
        shuffled, equal = (difference(rows, "increment_cam_tuned", f"increment_cam_tuned, weights {how}") for how in ("permuted", "equal"))
        worse |= {rows.dataset.iloc[0]: shuffled.value} if shuffled.ci_low > 0 else {}
        assert equal.ci_low <= 0
        better += [-equal.value] if equal.ci_high < 0 else []
        means += value["mean_activation"] > value["increment_cam_tuned"]
        bumps += value["center_gaussian"] > value["increment_cam_tuned"]
        literal, chosen = (difference(rows, of, "grad_cam", "false_activation", "20%") for of in ("increment_cam", "increment_cam_tuned"))
        more, less = more + (literal.ci_low > 0), less + (literal.ci_high < 0)
        more_chosen, less_chosen = more_chosen + (chosen.ci_low > 0), less_chosen + (chosen.ci_high < 0)
    assert f"phase 2 alone stands {min(gaps):.0f} to {max(gaps):.0f} points below" in PAGE
    assert f"ahead of plain Grad-CAM on {ahead} of {len(gaps)} pairs** of data and network, and behind on {behind}" in PAGE
    assert f"on VOC2007 too, and better on {len(better)} pairs, by {min(better):.1f} to {max(better):.1f} points" in PAGE
    assert [one < 1 for one in sorted(near)] == [True, True, True, False]
    assert f"worse on VOC2007 alone, by {worse['voc07']:.1f} points." in PAGE
    assert set(worse) == {"voc07"}
    voc = next(rows for rows in files() if rows.dataset.iloc[0] == "voc07")
    value = voc[(voc.role == "reported") & (voc.metric == "pixel_precision")].set_index("method").value
    assert min(value["increment_cam_tuned"] - value[other] for other in ("layer_cam", "grad_cam_pp")) > 2
    best = difference(voc, "increment_cam_tuned", "grad_cam_tuned")
    of = voc[voc.role == "chosen"].set_index("method").value
    chosen = of["increment_cam_tuned"] - of["grad_cam_tuned"]
    assert f"of Grad-CAM's best try by {best.value:.1f} [{best.ci_low:.1f}, {best.ci_high:.1f}]" in PAGE
    assert f"on the half that chose, it was {chosen:.1f} ahead of that try" in PAGE
    assert f"better than the chosen reading on {means} of {len(gaps)} pairs, and a Gaussian at the centre on {bumps}." in PAGE
    assert f"adds area outside the boxes on {more} of {len(gaps)} pairs and takes none" in PAGE
    assert less == 0
    assert f"takes some away on {less_chosen} and adds some on {more_chosen}." in PAGE


def test_phase_two_is_empty_through_the_main_network():
    rows = pd.read_csv(STUDIES / "increment_cam-imagenet-efficientnet_lite0.csv")
    empty = rows[(rows.method == "phase 2 alone") & (rows.metric == "empty_maps") & (rows.protocol == "energy")].iloc[0]
    paper = " ".join((HOME / "book/increment_cam.md").read_text(encoding="utf-8").split())
    assert f"phase 2 is empty, as on {empty.value:.0f} of {empty.n:.0f} photographs of the [study](readings.md)" in paper
    assert f"EfficientNet-Lite0 phase 2 alone is empty on {empty.value:.0f} of {empty.n:.0f} photographs" in PAGE


def test_what_the_page_says_of_the_channels_that_are_scored():
    def chosen(file):
        rows = pd.read_csv(STUDIES / f"{file}.csv").fillna({"setting": "", "than": ""})
        return rows, ast.literal_eval(rows[(rows.role == "chosen") & (rows.method == "increment_cam_tuned")].setting.iloc[0])

    before, after = chosen("increment_cam-imagenet-resnet18")[1], chosen("increment_cam_selections-imagenet-resnet18")[1]
    assert before.items() <= after.items()
    assert (after["masks"], after["select"]) == ("channel", "positive"), "as in the study without a choice of channels"
    rows, after = chosen("increment_cam_selections-imagenet-mobilenet_v2")
    ahead = difference(rows, "increment_cam_tuned", "grad_cam")
    assert after["select"] == "strongest"
    assert ahead.ci_low > 0
    assert f"ahead of Grad-CAM by {ahead.value:.1f} points" in PAGE


def test_captions_of_cost_are_ratios_of_the_benchmarks(options):
    race = pd.read_csv(HOME / "results/benchmarks/methods.csv")
    seconds = race[race.group == plot_increment_cam.GROUP].set_index("contender").seconds
    assert f"Score-CAM {seconds['score_cam'] / seconds['increment_cam']:.0f} times" in caption(plot_increment_cam.cost(options))
    race = pd.read_csv(HOME / "results/benchmarks/training.csv")
    at = race.dropna(subset=["seconds"]).groupby(["group", "contender"]).seconds.first()
    slow, quick = at["one explanation, many passes, batch 1"], at["one explanation, l_cam_fm, batch 1"]
    said = caption(plot_l_cam.cost(options))
    assert f"RISE {slow['rise'] / slow['forward']:,.0f} times" in said
    assert f"Grad-CAM {quick['grad_cam'] / quick['forward']:.2f}" in said


def test_the_captions_of_the_mark_and_of_the_recipe_are_recounted(options):
    rows = pd.read_csv(STUDIES / "shortcut.csv")
    taught = rows[(rows.trained == "with") & (rows.shown == "with") & (rows.metric == "energy_pointing_game")]
    own = taught[taught.method == "grad_cam"].value
    assert f"{own.min():.0f} to {own.max():.0f} % of Grad-CAM's map" in caption(plot_l_cam.planted_mark(options))
    count, below = 0, 0
    for what in plot_l_cam.TRIES:
        rows = pd.read_csv(STUDIES / f"{what}.csv")
        drop = rows[(rows.metric == "average_drop") & (rows.setting == "50%")]
        tried = drop[drop.method.str.match(r"batch|own|\d")]
        plain = drop[drop.method == "mean_activation"].set_index("backbone").value
        count, below = count + len(tried), below + (tried.value.to_numpy() < plain[tried.backbone].to_numpy()).sum()
    assert f"Of {count} tries" in caption(plot_l_cam.recipe(options))
    assert f"and {below} less than the mean activation" in caption(plot_l_cam.recipe(options))


@pytest.mark.parametrize(
    ("own", "twin", "difference", "told"),
    [((93, 100), (0, 7), 93, True), ((93, 100), (90, 100), 93, False), ((0, 7), (0, 7), 0, False)],
)
def test_a_map_tells_the_mark_only_for_its_own_label(own, twin, difference, told):
    base = {"shown": "with", "metric": "maximum_in_box", "seed": 0, "value": 0.0}
    rows = []
    for method in ("l_cam_fm", "l_cam_img"):
        rows += [
            base | {"method": method, "trained": "with", "ci_low": own[0], "ci_high": own[1]},
            base | {"method": method, "trained": "difference", "ci_low": difference, "ci_high": difference},
            base | {"method": f"other_{method}", "trained": "with", "ci_low": twin[0], "ci_high": twin[1]},
        ]
    assert plot_l_cam.bias(pd.DataFrame(rows)) == ("holds" if told else "does not hold")
