"""Comparing two folders of runs: hand-made numbers whose verdict is plain."""

import numpy as np
import pandas as pd
import pytest

from cam_core import files
from reproduce import compare, results
from reproduce.__main__ import main
from reproduce.files import write_table

NAMES = ("paper", "dataset", "split", "backbone", "weights", "recipe", "protocol", "metric", "setting")
COMMON = dict.fromkeys(NAMES, "x") | {"ci_low": 10.0, "ci_high": 20.0, "n": 8, "seed": 0}


def write(root, *rows, key="d-r-s0"):
    folder = root / "subset" / "l_cam" / key
    write_table(folder / "metrics.csv", pd.DataFrame([COMMON | row for row in rows])[list(results.COLUMNS)])
    files.write_json(folder / "provenance.json", {})
    return root / "subset"


def test_verdicts(tmp_path):
    published = write(
        tmp_path / "results",
        {"method": "same", "value": 15.0},
        {"method": "last_bit", "value": 15.0},
        {"method": "edge", "value": 15.0},
        {"method": "beyond", "value": 15.0},
        {"method": "no_interval", "value": 15.0, "ci_low": None, "ci_high": None},
        {"method": "other_n", "value": 15.0, "n": 9},
        {"method": "theirs", "value": 15.0},
    )
    ours = write(
        tmp_path / "runs",
        {"method": "same", "value": 15.0},
        {"method": "last_bit", "value": 15.000000000000002},
        {"method": "edge", "value": 20.0, "ci_low": 12.0, "ci_high": 25.0},
        {"method": "beyond", "value": 20.5},
        {"method": "no_interval", "value": 15.1},
        {"method": "other_n", "value": 15.0},
        {"method": "ours", "value": 15.0},
    )
    joined = compare.compare(results.load(ours), results.load(published)).set_index("method").verdict.to_dict()
    assert joined == {
        "same": "identical",
        "last_bit": "within",
        "edge": "within",
        "beyond": "outside",
        "no_interval": "outside",
        "other_n": "within",
        "ours": "only ours",
        "theirs": "only published",
    }
    text, agree = compare.report(ours, published)
    assert not agree
    head, *rest = text.split("\n\n")
    assert [line.split()[0] for line in head.splitlines()] == ["6", "1", "3", "2"]
    assert "beyond" in rest[0]
    assert "20.5" in rest[0]
    assert "last_bit" not in text


def test_exit_code_says_whether_they_agree(tmp_path, capsys):
    published = write(tmp_path / "results", {"method": "cam", "value": 15.0})
    assert main(["compare", str(write(tmp_path / "runs", {"method": "cam", "value": 11.0})), str(published)]) == 0
    assert main(["compare", str(write(tmp_path / "far", {"method": "cam", "value": 9.0})), str(published)]) == 1
    assert "1 outside of it" in capsys.readouterr().out


def test_nothing_shared_is_said_and_other_weights_are_recognised(tmp_path, capsys):
    ours = write(tmp_path / "runs", {"method": "cam", "value": 15.0, "weights": "mine"})
    published = write(tmp_path / "results", {"method": "cam", "value": 15.0, "weights": "theirs"})
    assert main(["compare", str(ours), str(published)]) == 1
    text = capsys.readouterr().out
    assert "share no records" in text
    assert "1 records differ in nothing but the weights" in text
    assert main(["compare", str(tmp_path / "empty"), str(published)]) == 1
    assert "holds no complete run" in capsys.readouterr().out


def test_profiles_are_told_apart_where_a_folder_holds_several(tmp_path):
    row = {"method": "cam", "value": 15.0}
    ours = results.load(write(tmp_path / "runs", row))
    theirs = results.load(write(tmp_path / "results", row))
    assert compare.compare(ours, theirs.assign(profile="paper")).verdict.tolist() == ["identical"]
    both = pd.concat([theirs.assign(profile="paper"), theirs], ignore_index=True)
    verdicts = compare.compare(ours, both).set_index("profile").verdict.to_dict()
    assert verdicts == {"paper": "only published", "subset": "identical"}


TESTED = {"method": "cam", "than": "grad_cam", "value": 15.0, "p": 0.01, "p_holm": 0.02, "same_as": ""}
HERE = {"data_digest": "d" * 64, "weights_digest": "w" * 64, "parameters": {"dataset": "imagenet"}}


def whole(root, *, runs=("a-s0", "b-s0"), facts=HERE, value=15.0, difference=None, ids=("1", "2")):
    """A folder of runs with everything that is published."""
    for key in runs:
        folder = write(root, {"method": "cam", "value": value}, key=key) / "l_cam" / key
        if difference is not None:
            write_table(folder / "differences.csv", pd.DataFrame([COMMON | TESTED | difference])[list(results.DIFFERENCE)])
        results.write_maps(folder / "maps.npz", (ids, {"l_cam_fm": np.zeros((len(ids), 2, 2))}))
        files.write_json(folder / "provenance.json", facts)
    return root / "subset"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("published"), difference={})


@pytest.mark.parametrize(
    ("change", "agree", "told"),
    [
        ({}, True, "1 identical bit for bit"),
        ({"runs": ["a-s0"]}, False, "l_cam/b-s0: missing"),
        ({"runs": ["a-s0", "b-s0", "c-s0"]}, True, "l_cam/c-s0: not published"),
        ({"difference": None}, False, "l_cam/a-s0: differences.csv is missing"),
        ({"difference": {"value": 21.0}}, False, "1 outside of it"),
        ({"difference": {"value": 15.5}}, True, "1 within the published interval"),
        ({"difference": {"p": 0.001}}, False, "1 outside of it"),  # of the very same numbers
        ({"difference": {"value": 15.5, "p": 0.02, "p_holm": 0.04}}, True, "1 within the published interval"),
        ({"difference": {"value": 15.5, "p": 0.03, "p_holm": 0.06}}, False, "1 outside of it"),  # no finding any more
        ({"difference": {"p": None, "p_holm": None, "same_as": "grad_cam"}}, False, "1 outside of it"),
        ({"difference": {"method": "cam[2]"}}, False, "only in"),
        ({"facts": HERE | {"data_digest": "e" * 64}}, False, "l_cam/a-s0: other data (eeeeeeeeeeee, published dddddddddddd)"),
        ({"facts": HERE | {"weights_digest": "v" * 64}}, False, "l_cam/a-s0: other weights (vvvvvvvvvvvv, published wwwwwwwwwwww)"),
        ({"facts": HERE | {"weights_digest": "v" * 64, "parameters": {"dataset": "cub"}}}, True, "l_cam/b-s0: other weights"),
        ({"facts": HERE | {"engine": "onnxruntime"}}, True, "another engine, compared within the interval (onnxruntime, published torch)"),
        ({"facts": HERE | {"engine": "onnxruntime"}, "value": 15.5}, True, "within the published interval"),
        ({"facts": HERE | {"engine": "onnxruntime"}, "value": 25.0}, False, "outside of it"),
        ({"ids": ("1", "3")}, False, "l_cam/a-s0: maps.npz holds other images or methods"),
    ],
)
def test_agreement_is_of_everything_published_and_what_is_not_the_same_is_named(tmp_path, capsys, published, change, agree, told):
    ours = whole(tmp_path / "runs", **{"difference": {}, **change})
    assert main(["compare", str(ours), str(published)]) == (0 if agree else 1)
    text = capsys.readouterr().out.replace(" 2 ", " 1 ")  # both runs alike
    assert told in text
    if change == {}:
        assert ":" not in text  # nothing is named where all is the same
