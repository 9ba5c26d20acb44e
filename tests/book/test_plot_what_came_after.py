"""The captions of *What came after* say what the study's files say, and its table of the peers has every class."""

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import plot_what_came_after as page
import pytest
from names import name

from .conftest import BOOK, RESULTS
from .test_plot_lfi_cam import caption

RUNS = (("imagenet", "efficientnet_lite0"), ("drawn_imagenet", "resnet8"))


@pytest.fixture
def options(tmp_path):
    return SimpleNamespace(results=RESULTS, out=tmp_path, read=[])


def on_both(rows, than):
    """Names of the newcomers that are better, and those that are worse, on both metrics, line by line."""
    found = {}
    for one in rows.itertuples():
        wanted = one.ancestor if than == "ancestor" else than
        if one.setting == "mean 0.3" and one.than and one.than == wanted and one.metric != "map_mean":
            low, high = (one.ci_low, one.ci_high) if one.metric == "energy_pointing_game" else (-one.ci_high, -one.ci_low)
            found.setdefault(name(one.method), []).append("better" if low > 0 else "worse" if high < 0 else "open")
    return [[method for method, sides in found.items() if sides == [side] * 2] for side in ("better", "worse")]


@pytest.mark.parametrize(("dataset", "backbone"), RUNS)
def test_the_caption_names_who_is_better_and_worse_on_both_metrics(options, dataset, backbone):
    rows = pd.read_csv(RESULTS / f"studies/lineage-{dataset}-{backbone}.csv", keep_default_na=False)
    said = caption(page.forest(options, dataset, backbone))
    for than, words in (("ancestor", "its ancestor"), ("mean_activation", "the mean activation")):
        better, worse = on_both(rows, than)
        assert f"Better than {words}: {page.listed(better)}; worse: {page.listed(worse)}." in said
    assert f"Maps of {rows['n'].max()} images" in said
    assert options.read == [f"results/studies/lineage-{dataset}-{backbone}.csv"]


def test_a_list_of_names():
    assert [page.listed(names) for names in ([], ["A"], ["A", "B", "C"])] == ["none", "A", "A, B and C"]


@pytest.mark.parametrize(("dataset", "backbone"), RUNS)
def test_the_table_has_every_method_with_its_values(options, dataset, backbone):
    rows = pd.read_csv(RESULTS / f"studies/lineage-{dataset}-{backbone}.csv", keep_default_na=False)
    own, text = rows[rows["than"] == ""], page.values(options, dataset, backbone)
    assert text.count("\n* - ") == 1 + own["method"].nunique()
    one = own[(own["method"] == "finer_cam") & (own["metric"] == "average_drop") & (own["setting"] == "mean 0.3")].iloc[0]
    assert f"{one['value']:.1f} [{one['ci_low']:.1f}, {one['ci_high']:.1f}]" in text
    assert "* - *mean activation*" in text


def test_every_class_of_the_peers_stands_in_the_table():
    text = page.peers(None)
    assert all(f"`{theirs}`" in text for of in page.load_yaml(page.PEERS).values() for theirs in {**of["same"], **of["missing"]})


def test_the_page_says_of_every_method_how_it_was_read():
    text = (Path(BOOK) / "what_came_after.md").read_text(encoding="utf-8")
    told = re.findall(r"^\*\*(.+?)\*\* \{cite", text, re.MULTILINE)
    parts = re.split(r"^\*\*.+?\*\* \{cite", text, flags=re.MULTILINE)[1:]
    assert len(told) == 13
    assert [one for one, part in zip(told, parts, strict=True) if "*Read:*" not in part] == []


def test_what_the_page_says_of_photographs(options):
    rows = page.lineage(options, "imagenet", "efficientnet_lite0")
    sides = {(one.method, one.kind, metric): one.side for metric, _ in page.PANELS for one in page.differences(rows, metric).itertuples()}
    drop, energy = (metric for metric, _ in page.PANELS)
    heirs = set(rows[rows["ancestor"] == "grad_cam"]["method"])
    assert heirs == {"finer_cam", "finer_cam[softmax]", "shapley_cam", "expected_grad_cam", "recipro_cam"}
    assert not any(sides[one, "ancestor", metric] == 1 for one in heirs for metric in (drop, energy))
    found = rows[(rows["metric"] == energy) & (rows["than"] == "")].set_index(["setting", "method"])["value"]
    assert found["as it is"].idxmax() == found[page.EQUAL].idxmin() == "refine_cam"
    assert not any(sides[one, "mean_activation", drop] == 1 for one in ("fem", "fem[activations]", "kpca_cam"))
    assert all(sides[one, "ancestor", energy] == 1 for one in ("kpca_cam", "eigen_grad_cam", "seg_eigen_cam"))


def test_what_the_page_says_of_drawn_objects(options):
    rows = page.lineage(options, "drawn_imagenet", "resnet8")
    sides = {(one.method, one.kind, metric): one.side for metric, _ in page.PANELS for one in page.differences(rows, metric).itertuples()}
    drop, energy = (metric for metric, _ in page.PANELS)
    both = {(method, of): {sides[method, of, metric] for metric in (drop, energy)} for method, of, _ in sides}
    better, worse = ({key for key, own in both.items() if own == {sign}} for sign in (1, -1))
    assert {(one, "mean_activation") for one in ("fem", "kpca_cam")} | {("tame[diagonal]", "ancestor")} <= better
    assert {("recipro_cam", "ancestor"), ("poly_cam", "ancestor"), ("poly_cam", "mean_activation")} <= worse
    assert not any(sides["fusion_cam", "ancestor", metric] == 1 for metric in (drop, energy))
    assert sides["grad_pp_score_cam", "ancestor", drop] == -1
