"""The explorer's page: every row can be put together again from the packed data, and the CSVs lie beside it."""

import base64
import gzip
import html
import json
import re
from argparse import Namespace
from urllib.parse import parse_qsl

import assemble
import explorer
import pandas as pd
import pytest

from reproduce import results

from .conftest import BOOK, RESULTS, frame, paired, rows

VALUES = [
    *rows(("grad_cam", "12.345", "10.04", "15.06"), ("random_map", "40.5", "", ""), metric="average_drop", setting="50%"),
    *rows(("l_cam_fm", "0.51234", "0.5", "0.6"), metric="remove_and_classify", dataset="cub"),
]


@pytest.fixture
def page(tmp_path):
    (tmp_path / "results/studies").mkdir(parents=True)
    (tmp_path / "results/studies/trust.csv").write_text("a\n1\n")
    (tmp_path / "results/studies/forest.csv").write_text(
        "role,method,than,metric,setting,value,ci_low,ci_high,n,images\n"
        "reported,grad_cam,,average_drop,50%,30.04,20,40,9,\ndifference,cam,grad_cam,average_drop,50%,-1.06,,,9,50\n"
    )
    (tmp_path / "results/subset/l_cam/r").mkdir(parents=True)
    (tmp_path / "results/subset/l_cam/r/provenance.json").write_text('{"commit": "c"}')
    given = frame(VALUES), frame([paired("-2.0", "-1.0")], results.DIFFERENCE)
    return explorer.explorer(Namespace(out=tmp_path, results=tmp_path / "results"), *given), tmp_path / "src/_static"


def unpacked(data, kind):
    """The rows again, words as identifiers."""
    columns = data["kinds"][kind]
    found = pd.DataFrame({key: values for key, values in columns.items() if key not in ("at", "digits")})
    for index, column in enumerate(data["conditions"]):
        found[column] = [data["shared"][at][index] for at in columns["at"]]
    for column, words in data["words"].items():
        found[column] = [words[place][0] for place in found[column]]
    return found


def opened(path, variable):
    """The text that a script of the page holds."""
    squeezed = path.read_text().removeprefix(f'window.{variable} = "').removesuffix('";\n')
    return gzip.decompress(base64.b64decode(squeezed, validate=True)).decode()


def test_rows_come_back_rounded_as_the_book_prints_them(page):
    data = json.loads(opened(page[1] / "explorer.data.js", "EXPLORER"))
    values = unpacked(data, "values")
    assert values["method"].tolist() == ["grad_cam", "random_map", "l_cam_fm"]
    assert values["dataset"].tolist() == ["imagenet", "imagenet", "cub"]
    assert values["value"].tolist() == [12.3, 40.5, 0.512]
    assert [data["kinds"]["values"]["digits"][str(place)] for place in data["kinds"]["values"]["metric"]] == [1, 1, 3]
    assert values["ci_low"].fillna(-1).tolist() == [10.0, -1, 0.5]
    assert values["run"].unique().tolist() == ["subset/l_cam/r"]
    assert json.loads((page[1].parent / data["told"]["subset/l_cam/r"]).read_text()) == {"commit": "c"}
    difference = unpacked(data, "differences").iloc[0]
    assert (difference["method"], difference["than"], difference["value"], difference["p_holm"]) == ("l_cam_img", "grad_cam", -1.5, 0.034)
    assert ["grad_cam", "Grad-CAM"] in data["words"]["method"]
    assert [data["words"]["method"][place][0] for place in data["controls"]] == ["random_map"]


def test_rows_of_a_study_stand_beside_those_of_the_runs(page):
    data = json.loads(opened(page[1] / "explorer.data.js", "EXPLORER"))
    found = unpacked(data, "studies")
    assert found[["method", "than", "value", "n", "recipe"]].to_numpy().tolist() == [
        ["grad_cam", "", 30.0, 9, "role reported"],
        ["cam", "grad_cam", -1.1, 9, "role difference, images 50"],
    ]
    assert found["run"].unique().tolist() == ["studies/forest"]
    assert (page[1].parent / data["told"]["studies/forest"]).is_file()


def test_every_study_with_a_method_and_an_interval_is_in_the_table():
    folder = RESULTS / "studies"
    wanted = {path.stem for path in folder.glob("*.csv") if {"method", "ci_low", "n", "value"} <= set(pd.read_csv(path, nrows=0))}
    assert len(wanted) > 20
    assert set(explorer.studies(folder)["run"]) == {f"studies/{key}" for key in wanted}


def test_the_files_are_complete_and_linked(page):
    text, static = page
    kept = pd.read_csv(static / "csv/values.csv", dtype=str, keep_default_na=False)
    assert kept["value"].tolist() == ["12.345", "40.5", "0.51234"]
    assert list(pd.read_csv(static / "csv/differences.csv").columns) == ["profile", "key", *results.DIFFERENCE]
    for file in ("values.csv", "differences.csv", "studies-trust.csv"):
        assert f'href="_static/csv/{file}"' in text
        assert (static / "csv" / file).is_file()
    assert "<noscript>" in text


def test_datatables_comes_along_as_a_script_that_asks_nobody(page):
    assert "DataTable" in opened(page[1] / "explorer.tables.js", "TABLES")
    assert (page[1] / "explorer.tables.css").stat().st_size > 10_000


def test_every_published_run_has_its_provenance():
    assert {path.parent for path in RESULTS.glob("*/*/*/metrics.csv")} == {path.parent for path in RESULTS.glob("*/*/*/provenance.json")}


def test_every_link_to_rows_finds_some():
    options = Namespace(profile="none", results=RESULTS, read=[])
    values, differences = (explorer.in_runs(assemble.evidence(options, file)) for file in assemble.FILES)
    published = {"values": values, "differences": differences, "studies": explorer.studies(RESULTS / "studies")}
    wanted = [(page.name, link) for page in BOOK.glob("*.md") for link in re.findall(r'href="explorer\.html#([^"]+)"', page.read_text())]
    assert len(wanted) > 12
    for page, link in wanted:
        asked = dict(parse_qsl(html.unescape(link)))
        rows = published[asked.pop("kind")]
        for column, words in asked.items():
            assert set(words.split("|")) <= {"", *rows[column].astype(str)}, f"{page}: {column} {words}"
            rows = rows[rows[column].astype(str).isin(words.split("|"))]
        assert len(rows), f"{page}: no row for {link}"
