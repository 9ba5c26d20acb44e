"""The simulation of coverage itself: truths, rows, and a run so small that it proves only that it runs."""

import numpy as np
import pandas as pd
import pytest

from cam_core.metrics import RemoveAndClassify
from reproduce.files import write_table
from studies import coverage as page
from studies.coverage import CASES, Case, coverage, study, truth


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_truth_is_what_many_images_give(case):
    rows = case.draw(np.random.default_rng(1), 3000)
    assert np.isfinite(rows).all()
    found = 100 * rows.mean() if case.value is None else float(case.value(rows, None))
    small = case._replace(population=3000)
    assert found == pytest.approx(truth(small), rel=0.25, abs=2 if case.value is None else 0)


def test_every_case_gives_a_row_and_the_sides_add_up():
    frame = study(images=[30], repetitions=3, resamples=60, cases=[case._replace(population=2000) for case in CASES])
    assert frame["case"].tolist() == [case.name for case in CASES]
    assert (frame.coverage + frame.interval_above + frame.interval_below).tolist() == pytest.approx([100] * len(CASES))
    assert (frame.width >= 0).all()
    assert frame.notna().all(axis=None)


def test_an_interval_that_cannot_miss_and_one_that_must():
    sure = Case("constant", lambda rng, n: np.full(n, 7.0), lambda rows, w: np.full(1 if w is None else len(w), 7.0).squeeze(), 7.0)
    assert coverage(sure, 10, 4, 20)["coverage"] == 100
    wrong = coverage(sure._replace(truth=8.0), 10, 4, 20)
    assert (wrong["coverage"], wrong["interval_below"]) == (0, 100)


def test_the_ratio_is_the_metrics_own():
    """Where no image is right after random erasing: both counts one higher."""
    rows = np.array([[1.0, 0], [1, 0], [0, 0]])
    ratios = [case for case in CASES if case.name.startswith("R_k")]
    assert [float(case.value(rows, None)) for case in ratios] == [3.0] * 3
    assert all(isinstance(case.value.__self__, RemoveAndClassify) for case in ratios)


def test_chosen_cases_replace_their_own_rows_alone(tmp_path, monkeypatch):
    table = tmp_path / "coverage.csv"
    before = pd.DataFrame([{"case": case.name, "n": n, "coverage": 1 / 3} for case in CASES for n in (30, 128)])
    write_table(table, before)
    monkeypatch.setattr(page, "OUT", table)
    rows = [{"case": case.name, "n": 30, "coverage": 2 / 3, "width": 0.1} for case in CASES]
    monkeypatch.setattr(page, "study", lambda cases, **_: pd.DataFrame([row for row in rows if row["case"] in {c.name for c in cases}]))
    monkeypatch.setattr("sys.argv", ["coverage", "--only", "Wilson"])
    page.main()
    after = pd.read_csv(table, float_precision="round_trip")
    chosen = after.case.str.contains("Wilson")
    assert after[chosen].coverage.tolist() == [2 / 3] * 3
    kept = before[~before.case.str.contains("Wilson")]
    assert after[~chosen][before.columns].to_dict("records") == kept.to_dict("records")
    assert list(dict.fromkeys(after.case)) == [case.name for case in CASES]
    monkeypatch.setattr("sys.argv", ["coverage", "--only", "nothing"])
    with pytest.raises(SystemExit):
        page.main()
