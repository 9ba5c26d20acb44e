"""Tables say what the files say, mark what is missing, and warn where a stand-in was used."""

import re
import statistics

import pytest
import tables
from names import name
from scipy import stats

from reproduce import results

from .conftest import BOOK, frame, paired, rows, write_run


def told(rows, differences=()):
    return tables.results(frame(rows), frame(differences, results.DIFFERENCE), "l_cam")


def test_a_table_gives_value_interval_and_n():
    text = told(rows(("grad_cam", "41.26", "40.04", "42.55")))
    assert "  - 41.3 [40.0,\N{NO-BREAK SPACE}42.5]" in text  # 42.55 as a float lies below the tie
    assert "  - 40\n" in text


def test_seeds_of_one_configuration_share_a_table_and_have_no_common_interval():
    one = rows(("cam", "41", "40", "42"), ("grad_cam", "20", "19", "21"), key="x-s0")
    two = rows(("cam", "45", "44", "46"), key="x-s1", seed="1")
    text = told(one + two)
    assert "seeds 0, 1. Runs `x-s0`, `x-s1`." in text
    assert "one value a seed [95 % interval over the images of that seed], 2 seeds" in text
    assert "  - 41.0 [40.0, 42.0]\\\n    45.0 [44.0, 46.0]\n" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "  - 20.0 [19.0, 21.0]\\\n    not run\n" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "mean" not in text
    assert text.count("list-table") == 1


def test_seeds_of_several_networks_share_one_table_for_each_network():
    """A run of CALM holds three networks, so the rows of one network do not follow one another."""
    runs = [rows(("cam", f"4{seed}", "40", "49"), key=f"x-s{seed}", seed=str(seed), weights=w) for seed in range(3) for w in ("one", "two")]
    text = told([row for run in runs for row in run])
    assert text.count("list-table") == 2
    assert text.count("seeds 0, 1, 2.") == 2
    assert text.count("  - 40.0\N{NO-BREAK SPACE}[40.0,\N{NO-BREAK SPACE}49.0]\\\n    41.0\N{NO-BREAK SPACE}[") == 2


def test_empty_maps_are_counted_in_whole_numbers():
    empty = [r | {"metric": "empty_maps", "value": "0.0", "ci_low": "", "ci_high": ""} for r in rows(("cam", "1", "0", "2"))]
    assert "  - 0\n" in told(empty)


def test_ten_seeds_have_an_interval_and_nine_do_not():
    values = [40, 41, 43, 40, 42, 45, 39, 41, 44, 42]
    runs = [rows(("cam", str(v), "40", "42"), key=f"x-s{i}", seed=str(i))[0] for i, v in enumerate(values)]
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean = f"41.7 [{found.low:.1f},\N{NO-BREAK SPACE}{found.high:.1f}]"
    text = told(runs)
    assert f"- CAM\n  - {mean}\n" in text
    assert "mean of 10 seeds [its 95 % interval over the seeds]" in text
    assert "mean" not in told(runs[:9])
    fewer = [row | {"metric": "average_drop", "n": str(30 + i)} for i, row in enumerate(runs)]
    assert f"  - {mean} (n 30–39)\n" in told(runs + runs + fewer)


def test_a_cell_without_a_row_says_so_and_another_n_is_shown():
    base = rows(("grad_cam", "41", "40", "42"), ("score_cam", "30", "29", "31"))
    extra = [r | {"metric": "average_drop", "n": "7"} for r in base[:1]]
    text = told(base + extra)
    assert "  - not run" in text
    assert "(n 7)" in text


def test_controls_stand_below():
    text = told(rows(("random_map", "1", "0", "2"), ("grad_cam[power=2]", "2", "1", "3"), ("cam", "3", "2", "4")))
    assert re.findall(r"^\* - (.*)$", text, re.M) == ["method", "CAM", "control: random map", "control: Grad-CAM, squared"]


def test_nothing_ran():
    assert "Not run" in told([])


@pytest.mark.parametrize(
    ("weights", "said"), [("resnet50_pqf_large", "quantized stand-in"), ("IMAGENET1K_V1", "`IMAGENET1K_V1`, seed 0. Run `r`.\n")]
)
def test_quantized_weights_are_named_as_such(weights, said):
    text = told(rows(("cam", "1", "0", "2"), weights=weights))
    assert said in text


def test_ten_seeds_have_their_paired_differences_and_nine_do_not():
    """Those of the run's file; of maps at one mean and of the map of another class, which it lacks, value minus value on as many images."""
    runs, differences = [], []
    for seed in range(10):
        where = {"key": f"x-s{seed}", "seed": str(seed)}
        of = {"l_cam_img": 50 + seed, "grad_cam": 40, "other_l_cam_img": 49 + 2 * seed}
        for setting in ("100%", "mean 30%"):
            runs += [row | {"setting": setting} for row in rows(*((m, str(v), "", "") for m, v in of.items()), **where)]
        runs += [row | {"metric": "average_drop", "n": str(40 - (row["method"] == "grad_cam"))} for row in runs[-3:]]
        differences.append(paired(str(seed), str(seed + 2), **where) | {"setting": "100%"})
    text = told(runs, differences).split("Paired differences, ImageNet validation, ResNet-50")[1]

    def mean(values):
        found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        return f"{statistics.fmean(values):+.1f} [{found.low:.1f},\N{NO-BREAK SPACE}{found.high:.1f}]"

    file, taken, other = ([start + sign * s for s in range(10)] for start, sign in ((1, 1), (10, 1), (1, -1)))
    assert f"- L-CAM-Img − Grad-CAM\n  - {mean(file)}\n  - {mean(taken)}\n  - –\n" in text
    assert f"- L-CAM-Img − control: {name('other_l_cam_img')}\n  - {mean(other)}\n  - {mean(other)}\n  - {mean(other)}\n" in text
    nine = [[row for row in table if row["seed"] != "9"] for table in (runs, differences)]
    assert "Paired differences" not in told(nine[0], nine[1])


def test_differences_are_read_from_complete_runs(tmp_path):
    for run, lacks in (("a", "notebook.ipynb"), ("b", "differences.csv"), ("c", "provenance.json")):
        folder = tmp_path / "subset/l_cam" / run
        write_run(folder, rows(("l_cam_img", "2", "1", "3"), weights="w"))
        frame([paired("1", "3", weights="random")], results.DIFFERENCE)[list(results.DIFFERENCE)].to_csv(
            folder / "differences.csv", index=False
        )
        (folder / lacks).unlink(missing_ok=True)
    (one,) = results.load(tmp_path, results.DIFFERENCES).to_dict("records")
    assert [one[key] for key in ("profile", "key", "method", "than", "value", "n")] == ["subset", "a", "l_cam_img", "grad_cam", 2.0, 40]
    assert one["weights"] == "trained here"  # as such a network's weights are called now
    assert set(results.load(tmp_path / "subset")["key"]) == {"a", "b"}


def test_published_numbers_are_complete_and_marked():
    entries = tables.load_yaml(BOOK / "published.yaml")
    for entry in entries:
        assert all(len(v) == len(entry["columns"]) for methods in entry["backbones"].values() for v in methods.values())
        assert entry["mark"] in tables.published([entry], entry["paper"])


def test_recalled_increases_are_whole_images():
    """Every recalled Increase in Confidence is a whole number of 2000 images; weighted means of CALM's table add up."""
    l_cam, _, cue, *_ = tables.load_yaml(BOOK / "published.yaml")
    increases = [v for methods in l_cam["backbones"].values() for values in methods.values() for v in values[1::2]]
    assert all(abs(v * 20 - round(v * 20)) < 1e-9 for v in increases)
    for one, two, three, mean in cue["backbones"]["not stated"].values():
        assert abs((31 * one + 64 * two + 96 * three) / 191 - mean) < 0.06


def test_every_claim_can_be_tested_or_says_that_it_is_not():
    entries = tables.load_yaml(BOOK / "claims.yaml")
    assert len({e["id"] for e in entries}) == len(entries)
    for entry in entries:
        assert entry["paper"] in tables.PAPERS
        assert {"tested": "check", "studied": "seen", "untested": "status"}[entry["status"]] in entry
        assert entry.get("check", {"direction": "higher"})["direction"] in {"higher", "lower"}
        assert entry.get("check", {}).get("margin", 1) > 0
