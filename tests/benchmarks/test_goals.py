"""What was asked of the speed of masked images: goals name what is raced, and the published table is that of the races."""

import pandas as pd
import pytest

from benchmarks import goals, methods, metrics, whole
from reproduce import __main__ as command_line
from reproduce.batch import read_profile


def test_every_goal_names_contenders_that_are_raced(monkeypatch):
    monkeypatch.setattr(methods, "TORCHRAY", True)
    raced = {name: set(contenders) for name, (contenders, _) in methods.groups().items()}
    raced |= {group: {*metrics.CURVES, metrics.PRODUCTS} for group in metrics.CURVE_RACE.values()} | {whole.TOGETHER: set(whole.ENGINES)}
    for goal in goals.GOALS:
        assert goal.ours in raced[goal.group]
        assert all(any(one.startswith(beside) for one in raced[goal.group]) for beside in goal.beside)


def test_a_ratio_is_that_of_the_faster_peer_and_at_most_that_of_the_floor(tmp_path):
    times = {"ours": (4, 8), "grad-cam: X": (6, 20), "torchcam: X": (7, 7), "floor: product": (5, 9), "floor: convolution": (3, 5)}
    rows = [{"group": "g", "contender": name, "seconds": s, "cpu_seconds": cpu} for name, (s, cpu) in times.items()]
    goal = goals.Goal("what", "races", "g", "ours", goals.LIBRARIES, "at least 1.9")
    assert goal.found(tmp_path) == {"group": "goals", "contender": "what", "asked": "at least 1.9"}
    pd.DataFrame(rows).to_csv(tmp_path / "races.csv")
    assert goal.found(tmp_path).items() >= {"found": 1.5, "cpu": 2.5, "most": 2.0, "beside": "grad-cam: X"}.items()
    at_most = goals.Goal("what", "races", "g", "ours", ("floor: product",), "at most 1.3").found(tmp_path)
    assert (at_most["found"], at_most["cpu"]) == (0.8, pytest.approx(8 / 9))


def test_the_published_table_is_that_of_the_races():
    published = pd.read_csv(goals.FOLDER / "goals.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(published[goals.table().columns], goals.table(), check_dtype=False, rtol=1e-12)


def test_what_the_goals_race_keeps_the_other_rows(monkeypatch):
    written, raced = [], []
    monkeypatch.setattr("sys.argv", ["goals", "--rounds", "2"])
    monkeypatch.setattr(methods, "measured", lambda chosen, *_rounds, **_compared: (raced.append(chosen) or [], None))
    monkeypatch.setattr(metrics, "same_curves", lambda _backbone: None)
    monkeypatch.setattr(metrics, "race", lambda name, entered, rounds: raced.append((name, list(entered), rounds)) or pd.DataFrame())
    for module in (goals, methods):
        monkeypatch.setattr(module, "write", lambda _frames, name, *, replace="file", **_more: written.append((name, replace)))
    goals.main()
    assert written == [("methods", "contender"), ("metrics", "contender"), ("goals", "file")]
    chosen, *curves = raced
    assert [*chosen] == [*methods.SCORE_CAM.values(), *methods.RISE.values(), methods.BFLOAT16]
    assert not any(goals.ALONE in contender for contenders, _ in chosen.values() for contender in contenders)
    contenders = ["cam_core", "torchcam: DeletionInsertionMetric", metrics.PRODUCTS]
    assert curves == [(group, contenders, 2) for group in metrics.CURVE_RACE.values()]


def test_a_run_in_small_is_a_job_of_the_profile_on_a_share_of_its_images():
    jobs = {job.key: job for job in read_profile("subset", check=False).jobs if job.paper == "increment_cam"}
    for key in whole.JOBS:
        small, job = whole.part(jobs[key], 0.1, "torch"), jobs[key].parameters
        assert small == job | {"limit": round(0.1 * job["limit"]), "first": max(1, round(0.1 * job["first"])), "engine": "torch"}


def test_a_run_is_asked_for_as_the_command_line_takes_it(monkeypatch):
    asked = []
    monkeypatch.setattr(whole.subprocess, "run", lambda command, **_options: asked.append(command))
    job = next(job for job in read_profile("subset", check=False).jobs if job.paper == "increment_cam")
    parameters = whole.part(job, 0.1, None)
    assert set(whole.took(job, parameters)) == {"seconds", "cpu_seconds"}
    options = command_line._parser().parse_args(asked[0][3:])
    assert command_line._parameters(options) == parameters
    assert (whole.HOME / options.notebook).exists()


def test_the_least_of_the_rounds_is_summed_over_the_runs():
    rows = [("a", "x", 0, 5.0, 9.0), ("a", "x", 1, 4.0, 8.0), ("a", "y", 0, 9.0, 9.0), ("b", "x", 0, 1.0, 2.0), ("b", "y", 0, 3.0, 4.0)]
    found = whole.summed(pd.DataFrame(rows, columns=["group", "contender", "round", "seconds", "cpu_seconds"]))
    together = found[found.group == whole.TOGETHER].set_index("contender")
    assert together.seconds.to_dict() == {"x": 5.0, "y": 12.0}
    assert together.cpu_seconds.to_dict() == {"x": 10.0, "y": 13.0}
    assert set(found.rounds) == {2}
