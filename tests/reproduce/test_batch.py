"""Profiles and batches: Snakemake on notebooks that take no time, in a folder of their own."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from reproduce import batch, parameters, processes
from reproduce.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = """
profile = ""  # profile
dataset = ""  # data
backbone = ""  # network
seed = 0  # seed
limit = None  # images
out_dir = None  # where to write
"""
SAVE = """
from reproduce import results
if seed == 7:
    raise ValueError("seven is refused")
text = dict.fromkeys(results.TEXT, dataset)
results.save(out_dir, [text | dict(value=limit, ci_low=None, ci_high=None, n=4, seed=seed)])
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with the repository's Snakefile, one notebook and one profile."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    Path("notebooks").mkdir()
    Path("profiles").mkdir()
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(SAVE)]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), "notebooks/l_cam.ipynb")
    write_profile(f"jobs: [{{{JOB}, seed: [0, 7], minutes: 3, parameters: {{limit: 2}}}}]")
    return tmp_path


def write_profile(text):
    Path("profiles/tiny.yaml").write_text(text)


def test_lists_in_a_profile_stand_for_their_entries(project):
    write_profile("""
parameters: {device: cpu, limit: 5, data_root: elsewhere}
jobs:
  - {paper: l_cam, dataset: [drawn_imagenet, drawn_cub], backbone: resnet8, seed: [0, 1], parameters: {limit: 9}}
  - {paper: calm, dataset: drawn_cub, backbone: [resnet8, resnet14], epochs: 9, best: [null, true], train: true, devices: 4, nodes: 2}
""")
    jobs = batch.read_profile("tiny").jobs
    assert [job.folder.removeprefix("runs/tiny/") for job in jobs] == [
        "l_cam/drawn_imagenet-resnet8-s0",
        "l_cam/drawn_imagenet-resnet8-s1",
        "l_cam/drawn_cub-resnet8-s0",
        "l_cam/drawn_cub-resnet8-s1",
        "calm/drawn_cub-resnet8-e9-s0",
        "calm/drawn_cub-resnet8-e9-best-s0",
        "calm/drawn_cub-resnet14-e9-s0",
        "calm/drawn_cub-resnet14-e9-best-s0",
    ]
    named = {"profile": "tiny", "dataset": "drawn_cub", "backbone": "resnet8", "seed": 1}
    where = {"device": "cpu", "data_root": "elsewhere"}
    assert jobs[3].parameters == named | where | {"limit": 9}
    assert jobs[4].training == {**named, **where, "seed": 0, "epochs": 9}
    for job in jobs:  # the training job and the notebook ask for the same model
        asked = [parameters.read(job.paper, given, here=False) for given in (job.training, job.parameters)]
        model = [(of.dataset, of.backbone, of.seed, of.device, str(of.data_root), of.training) for of in asked]
        assert model[0] == model[1]
    assert jobs[5].training == {**jobs[4].training, "best": True}
    assert jobs[4].parameters["limit"] == 5
    assert "devices" not in jobs[4].parameters  # the notebook only loads
    assert (jobs[3].processes, jobs[4].processes) == ({}, {"devices": 4, "nodes": 2})
    assert jobs[4].marker == "runs/models/tiny-calm-drawn_cub-resnet8-e9-s0.json"


JOB = "paper: l_cam, dataset: drawn_imagenet, backbone: resnet8"


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("jobs: []", r"jobs is \[\], expected a list of jobs"),
        (f"needs: CAM_DATA\njobs: [{{{JOB}}}]", "needs is 'CAM_DATA', expected a list"),
        ("jobs: [{", "while parsing a flow node expected the node content"),
        ("just text", "found 'just text', expected names with values"),
        ("jobs: [text]", "the job text: found 'text', expected names with values"),
        ("jobs: [{paper: l_cam, dataset: drawn_cub}]", "lacks backbone"),
        ("jobs: [{paper: x_cam, dataset: drawn_cub, backbone: resnet8}]", "paper is 'x_cam'.*; did you mean l_cam"),
        ("jobs: [{paper: calm, dataset: drawn_cub, backbones: resnet8}]", "unknown key 'backbones'"),
        (
            "jobs: [{paper: calm, dataset: [drawn_cub, drawn_cub], backbone: resnet8}]",
            "two jobs would write runs/tiny/calm/drawn_cub-resnet8-s0",
        ),
        (f"jobs: [{{{JOB}, minutes: soon}}]", "the job .*: minutes is 'soon', expected a number above 0"),
        (f"jobs: [{{{JOB}, minutes: -1}}]", "minutes is -1, expected a number above 0"),
        (f"jobs: [{{{JOB}, train: maybe}}]", "train is 'maybe', expected true or false"),
        (f"jobs: [{{{JOB}, devices: some}}]", "devices is 'some', expected a whole number of at least 1"),
        (f"threads: many\njobs: [{{{JOB}}}]", "threads is 'many', expected a whole number of at least 1"),
        (f"jobs: [{{{JOB}, parameters: {{limits: 3}}}}]", "parameter is 'limits', expected one of .*; did you mean limit"),
        (f"jobs: [{{{JOB}, parameters: {{seed: 3}}}}]", "parameter is 'seed', expected one of"),
        (f"jobs: [{{{JOB}, seed: abc}}]", "seed is 'abc', expected a whole number of at least 0"),
        (f"jobs: [{{{JOB}, recipe: e5-2}}]", "is 'e5-2', expected one of paper"),
        (f"jobs: [{{{JOB}, setting: 2}}]", "l_cam has no parameter setting; leave it out"),
        (f"jobs: [{{{JOB}, parameters: {{epochs: 3}}}}]", "parameter is 'epochs', expected one of"),
        ("jobs: [{paper: increment_cam, dataset: voc07, backbone: resnet18, train: true}]", "trains nothing; leave `train` out"),
    ],
)
def test_a_wrong_profile_is_refused(project, text, sentence):
    write_profile(text)
    with pytest.raises(ValueError, match=f"profiles/tiny.yaml: .*{sentence}") as caught:
        batch.read_profile("tiny")
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_lists_the_known(project):
    with pytest.raises(FileNotFoundError, match="there are: tiny"):
        batch.read_profile("tinny")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")))
def test_the_profiles_of_the_project_are_sound(name):
    profile = batch.read_profile(name, ROOT / "profiles")
    assert all(job.minutes > 0 for job in profile.jobs)
    assert profile.watch == (name == "smoke")
    if name == "paper":  # 32 images, the notebooks' default, are too few beside 50,000
        assert {(job.paper, job.extra.get("first"), job.extra.get("first_rise")) for job in profile.jobs} == {
            ("l_cam", 2000, 1000), ("lfi_cam", 2000, None), ("increment_cam", 2000, None), ("calm", None, None),
        }  # fmt: skip
    assert ("CAM_DATA" in profile.needs) == (not any(job.dataset.startswith("drawn") for job in profile.jobs))


@pytest.mark.parametrize(
    "threads, cores, total, each",
    [
        ("all", 2, "about 1:20 h", "40:00 min"),
        ("all", 4, "about 40:00 min", "20:00 min"),  # one after the other, each twice as fast
        (1, 4, "about 1:20 h", "1:20 h"),  # both at once, each on one core
        (1, 1, "about 2:40 h", "1:20 h"),
    ],
)
def test_the_announcement_scales_to_the_cores(project, threads, cores, total, each):
    write_profile(f"threads: {threads}\njobs: [{{paper: calm, dataset: drawn_cub, backbone: [resnet8, resnet14], minutes: 40}}]")
    profile = batch.read_profile("tiny")
    text = batch.announce(profile, {f"{job.folder}/provenance.json" for job in profile.jobs}, cores).splitlines()
    assert total in text[0]
    assert [line.split("  runs")[0].strip() for line in text[1:]] == [each, each]
    assert "all 2 runs are up to date" in batch.announce(profile, set(), cores)


def test_a_second_batch_waits_and_is_told_what_a_killed_one_left(project, capsys):
    Path("runs").mkdir()
    with Path("runs/.batch.lock").open("w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("pid 1, profile other")
        lock.flush()
        assert main(["batch", "--profile", "tiny"]) == 1
        assert "already (pid 1, profile other)" in capsys.readouterr().err
        gone = subprocess.Popen(["true"])
        gone.wait()
        lock.seek(0)
        lock.write(f"pid {gone.pid}, profile other")
        lock.flush()
        mark = {**os.environ, processes.MARK: str(project / "runs")}
        with subprocess.Popen(["sleep", "60"], env=mark) as left:
            assert main(["batch", "--profile", "tiny"]) == 1
            left.kill()
    told = f"the batch that ran here (pid {gone.pid}, profile other) is dead, and these of its processes still run: {left.pid} (sleep)"
    assert told in (said := capsys.readouterr().err)
    assert f"or end them (kill {left.pid})" in said


def test_a_dry_run_takes_no_lock_and_writes_nothing(project, capsys):
    before = sorted(path for path in Path().rglob("*") if ".snakemake" not in path.parts)
    assert main(["batch", "--profile", "tiny", "--dry-run"]) == 0
    assert "2 runs to make" in capsys.readouterr().out
    assert sorted(path for path in Path().rglob("*") if ".snakemake" not in path.parts) == before


def test_a_dry_run_plans_where_runs_is_read_only_and_a_batch_says_what_to_do(project):
    Path("runs").mkdir(mode=0o555)
    as_anybody = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []  # root may write everywhere, but for this
    command = [*as_anybody, sys.executable, "-m", "reproduce", "batch", "--profile", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    plan = subprocess.run([*command, "--dry-run"], env=environment, capture_output=True, text=True, check=False)
    assert (plan.returncode, "2 runs to make" in plan.stdout) == (0, True), plan.stderr
    assert f"{project / 'runs'} cannot be written (Permission denied): make it writable" in plan.stderr
    begun = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert begun.returncode == 1
    assert re.fullmatch(r".*runs/\.batch\.lock cannot be written \(Permission denied\): make runs/ writable, or make room\n", begun.stderr)
    assert not list(Path("runs").iterdir())


def test_all_that_stands_in_the_way_is_told_before_the_first_job(project, monkeypatch, capsys):
    monkeypatch.setenv("CAM_DATA", "/nonexistent")
    monkeypatch.setenv("CAM_WEIGHTS", "/nowhere")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Namespace(free=3e6))
    monkeypatch.setattr("reproduce.processes.attend", lambda *_: pytest.fail("a job was started"))
    job = "paper: increment_cam, dataset: imagenet, backbone: resnet50, seed: [0, 1], parameters: {device: cuda, engine: onnxruntime}"
    monkeypatch.setattr("cam_core.engine.NEEDED", ("no_such_package",))
    write_profile(f"needs: [CAM_NOWHERE]\njobs: [{{{job}}}]")
    monkeypatch.setattr(batch, "_pending", lambda profile, _cores: {f"{job.folder}/provenance.json" for job in profile.jobs})
    Path("runs/tiny").mkdir(parents=True)
    Path("runs/tiny/increment_cam").touch()
    assert main(["batch", "--profile", "tiny"]) == 1
    told = capsys.readouterr().err.splitlines()
    sentences = [
        "this stands in the way:",
        "  profile tiny needs CAM_NOWHERE in the environment",
        "  device is cuda, and PyTorch finds 0 CUDA devices here",
        "  the engine onnxruntime needs no_such_package",
        "  /nonexistent is no folder: point data_root, or CAM_DATA, at the folder that holds imagenet",
        "  CAM_WEIGHTS names /nowhere, which is no folder",
        f"  {project / 'runs/tiny/increment_cam'} is no folder",
        "  runs/ has 0.0 GB free, and these runs need about 2.5 GB",
    ]
    assert [line.startswith(sentence) for line, sentence in zip(told, sentences, strict=True)] == [True] * 8, told
    for executor in ([], ["--", "--executor", "slurm"]):  # the machine that asks may have no GPU, and a plan is none the worse
        assert main(["batch", "--profile", "tiny", "--dry-run", *executor]) == 0
        assert ("device is cuda" in capsys.readouterr().err) == (not executor)


@pytest.mark.parametrize(
    "done, ended, left, code, told",
    [
        ((0, 7), (0, None), set(), 0, "2 done"),
        ((0, 7), (1, None), set(), 0, "finished elsewhere"),  # a job failed, as another process had its run
        ((0, 7), (1, None), {"runs/tiny/x"}, 1, "2 done"),  # complete, and yet to be made anew
        ((0,), (0, None), set(), 1, "1 done, 1 left"),
        ((0,), (1, None), set(), 1, "Snakemake ended with exit code 1; its log is the newest of .snakemake/log"),
        ((0,), (-9, None), set(), 1, "Snakemake was killed (signal 9; out of memory?), and what it ran has been ended"),
        ((0,), (1, 15), set(), 143, "interrupted: start the same batch again"),
        ((0, 7), (1, 2), set(), 130, "interrupted: start the same batch again"),
    ],
)
def test_the_exit_code_is_honest(project, monkeypatch, capsys, done, ended, left, code, told):
    def attend(*_args):
        for seed in done:
            folder = Path(f"runs/tiny/l_cam/drawn_imagenet-resnet8-s{seed}")
            folder.mkdir(parents=True)
            (folder / "notebook.ipynb").touch()
            (folder / "provenance.json").write_text('{"started": "2020-01-01T00:00:00+00:00"}')
            os.utime(folder / "provenance.json", (4e9, 4e9))
        return ended

    plans = iter([{f"runs/tiny/l_cam/drawn_imagenet-resnet8-s{seed}/provenance.json" for seed in (0, 7)}, left])
    monkeypatch.setattr(batch, "_pending", lambda *_: next(plans))
    monkeypatch.setattr(processes, "attend", attend)
    assert main(["batch", "--profile", "tiny"]) == code
    assert told in "".join(capsys.readouterr())


def test_the_longest_chain_begins_first(project):
    """A job's priority is the minutes that its run still needs, so that no core waits at the end for a long run that began last."""
    write_profile(f"""
jobs:
  - {{{JOB}, minutes: 3, seed: 0}}
  - {{{JOB}, minutes: 9, train_minutes: 7.5, train: true, seed: 1}}
""")
    command = batch._snakemake(batch.read_profile("tiny"), 1, "--dry-run")
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"rule (\w+):.*?wildcards: .*?-s(\d)\n.*?priority: ([\d.]+)", told, re.DOTALL)
    assert set(found) == {("train", "1", "9.0"), ("notebook", "1", "1.5"), ("notebook", "0", "3.0")}


@pytest.mark.slow
def test_a_batch_goes_on_past_a_failure_and_makes_only_what_is_missing(project, capfd):
    def start(*options):
        code = main(["batch", "--profile", "tiny", "--cores", "2", *options])
        return code, capfd.readouterr().out

    Path(".snakemake/locks").mkdir(parents=True)  # as left by a hard kill
    Path(".snakemake/locks/0.output.lock").write_text("runs/tiny/l_cam/drawn_imagenet-resnet8-s0/provenance.json\n")
    code, text = start()
    assert code == 1
    assert "2 runs to make, 0 up to date, about 6:00 min on 2 cores" in text
    assert "1 done, 1 failed" in text
    made = json.loads(Path("runs/tiny/l_cam/drawn_imagenet-resnet8-s0/provenance.json").read_text())
    assert set(made["depends"]) == {"code", "notebook", "data"}
    reason = "l_cam.ipynb: cell 3 of 3 stopped with ValueError: seven is refused; runs/tiny/l_cam/drawn_imagenet-resnet8-s7.failed/run.log"
    assert reason in text
    assert sorted(path.name for path in Path("runs/tiny/l_cam").iterdir()) == [
        "drawn_imagenet-resnet8-s0",
        "drawn_imagenet-resnet8-s7.failed",
    ]
    write_profile(f"jobs: [{{{JOB}, parameters: {{limit: 2}}}}]")
    assert start() == (0, "profile tiny: all 1 runs are up to date\n")
    Path("runs/tiny/l_cam/drawn_imagenet-resnet8-s0/notebook.ipynb").unlink()
    assert "1 runs to make, 0 up to date" in start("--dry-run")[1]
    assert start("--", "runs/tiny/l_cam/drawn_imagenet-resnet8-s0/notebook.ipynb")[0] == 0  # one of the profile's runs alone


def test_a_batch_of_one_run_asks_for_that_run_alone(project, capfd):
    """Run 7 would fail; it isn't asked for, so the batch is complete."""
    assert batch.batch("tiny", cores=1, passed_on=["--show-failed-logs", "runs/tiny/l_cam/drawn_imagenet-resnet8-s0/notebook.ipynb"]) == 0
    told = capfd.readouterr().out
    assert "1 runs to make" in told
    assert "s7" not in told
    assert Path("runs/tiny/l_cam/drawn_imagenet-resnet8-s0/provenance.json").exists()
    assert not list(Path("runs/tiny/l_cam").glob("drawn_imagenet-resnet8-s7*"))


def test_training_leaves_a_marker_or_its_traceback(project, monkeypatch, capsys):
    asked = []

    def train(paper, given, **how):
        asked.append((paper, given, how))
        if given["seed"] == 7:
            raise ValueError("seven is refused")
        return Path("/somewhere/runs/models") / f"{paper}-digest.safetensors"

    monkeypatch.setattr("reproduce.jobs.train", train)
    command = ["train", "calm", "-p", "dataset", "d", "-p", "best", "True", "--marker", "runs/models/m.json", "-p", "seed"]
    assert main([*command, "7"]) == 1
    assert "seven is refused" in capsys.readouterr().err
    assert Path("runs/models/m.log").read_text().endswith("ValueError: seven is refused\n")
    assert not Path("runs/models/m.progress").exists()
    assert main([*command, "7", "--attempt", "2"]) == 1  # no second time, unless it was killed or ran out of time
    assert "attempt 2: not begun, as the one before has failed (ValueError: seven is refused); runs/models/m.log" in capsys.readouterr().err
    assert len(asked) == 1
    Path("runs/models/m.log").write_text("Traceback\nout of time: Slurm's job 7 reached its time limit\n")
    assert main([*command, "7", "--attempt", "2"]) == 1
    assert len(asked) == 2
    assert main([*command, "3", "--devices", "4"]) == 0
    assert asked[2] == ("calm", {"dataset": "d", "best": True, "seed": 3}, {"devices": 4, "nodes": None})
    assert sorted(path.name for path in Path("runs/models").iterdir()) == ["m.json"]
    written = json.loads(Path("runs/models/m.json").read_text())
    assert [0 < written[name] < 1e5 for name in ("wall_seconds", "cpu_seconds", "peak_memory_mib")][1:] == [True, True]
    assert (written["paper"], written["seed"], written["digest"], written["model"]) == ("calm", 3, "calm-digest", "calm-digest.safetensors")
