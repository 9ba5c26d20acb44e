"""Published numbers are complete and marked, statements can be tested, differences come from complete runs."""

import tables

from reproduce import results

from .conftest import BOOK, frame, paired, rows, write_run


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
        wanted = {"tested": ["check"], "studied": ["seen"], "untested": []}[entry["status"]]
        if entry["status"] == "tested" and "studied" in entry:  # a kind of data without a run is answered by a study, which is named
            wanted = ["check", "seen"]
        assert [key for key in ("check", "seen") if key in entry] == wanted
        assert entry.get("check", {"direction": "higher"})["direction"] in {"higher", "lower"}
        assert entry.get("check", {}).get("margin", 1) > 0
