"""Parameters: what is read of them, and the one sentence by which each wrong one is refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from papermill.inspection import inspect_notebook

from reproduce import batch
from reproduce.parameters import DATASETS, names, read

ROOT = Path(__file__).resolve().parents[2]
DRAWN = {"dataset": "drawn_imagenet", "backbone": "resnet8"}


def asked(paper, recipe, **more):
    of = {"dataset": "cub" if paper == "calm" else "imagenet", "backbone": "resnet50"} if "paper" in str(recipe) else DRAWN
    of = of | ({"dataset": "drawn_cub"} if paper == "calm" and of is DRAWN else {})
    options = read(paper, {**of, "recipe": recipe, **more}, here=False).training
    assert (options.pop("seed"), options.pop("device")) == (0, "cpu")
    return options


def test_a_recipe_s_name_says_epochs_setting_and_more():
    assert asked("calm", "e12", epochs=3) == {"epochs": 3}
    assert asked("calm", None) == asked("calm", "") == {"epochs": None}
    assert asked("lfi_cam", "paper") == {"epochs": None, "paper": "paper"}
    assert asked("lfi_cam", "e12-0-best-test") == {"epochs": 12, "setting": 0, "held_out": 0.1, "best_on_test": True}
    assert asked("l_cam", "e50-2") == {"epochs": (50, 2)}
    assert asked("l_cam", "e50") == {"epochs": (50, None)}
    assert asked("l_cam", "e50-2", epochs=1) == {"epochs": (1, 1)}
    assert asked("l_cam", "paper") == {"epochs": (None, None), "paper": "paper"}
    assert asked("l_cam", "e50-2-ce") == {"epochs": (50, 2), "ablated": True}
    cifar = read("lfi_cam", {"dataset": "cifar10", "backbone": "densenet100_12", "recipe": "e12-2"}, here=False).training
    assert (cifar["epochs"], cifar["setting"]) == (12, 2)


WHOLE = "expected a whole number of at least"
REFUSED = [
    ("calmm", {}, "paper is 'calmm', expected one of increment_cam, l_cam, calm, lfi_cam; did you mean calm?"),
    ("l_cam", {"limit": -3}, f"limit is -3, {WHOLE} 1, or None for all images"),
    ("l_cam", {"limit": 0}, f"limit is 0, {WHOLE} 1"),
    ("l_cam", {"limit": 8.5}, f"limit is 8.5, {WHOLE} 1"),
    ("l_cam", {"limit": True}, f"limit is True, {WHOLE} 1"),
    ("l_cam", {"first": -1}, f"first is -1, {WHOLE} 0"),
    ("l_cam", {"first_rise": None}, f"first_rise is None, {WHOLE} 0"),
    ("l_cam", {"shown": 0}, f"shown is 0, {WHOLE} 1"),
    ("l_cam", {"epochs": -1}, f"epochs is -1, {WHOLE} 1, or None for the recipe's"),
    ("l_cam", {"epochs": "abc"}, f"epochs is 'abc', {WHOLE} 1"),
    ("l_cam", {"seed": "abc"}, f"seed is 'abc', {WHOLE} 0"),
    ("l_cam", {"recipe": 12}, "recipe is 12, expected a name"),
    ("l_cam", {"data_root": 3}, "data_root is 3, expected the path of a folder"),
    ("lfi_cam", {"recipe": "huge"}, "a part of lfi_cam's recipe 'huge' is 'huge', expected one of e<epochs>, paper, best, test"),
    ("increment_cam", {"recipe": "huge"}, "a part of increment_cam's recipe 'huge' is 'huge'"),
    ("l_cam", {"recipe": "e12-tset"}, "is 'tset', expected one of e<epochs>, paper, best, test, ce, raw; did you mean test?"),
    ("lfi_cam", {"recipe": "e12-ce"}, "is 'ce', expected one of"),
    ("l_cam", {"recipe": "wsol"}, "is 'wsol', expected one of"),
    ("l_cam", {"recipe": "e12.5"}, "is 'e12.5', expected one of"),
    ("l_cam", {"recipe": "e0"}, "recipe 'e0' has an epoch count of 0, expected at least 1"),
    ("l_cam", {"recipe": "e5-0"}, "recipe 'e5-0' has an epoch count of 0"),
    ("lfi_cam", {"recipe": "e5-2"}, "drawn_imagenet has settings 0 to 0, got 2"),
    ("lfi_cam", {"dataset": "cifar10", "recipe": "e5-9"}, "cifar10 has settings 0 to 4, got 9"),
    ("calm", {"dataset": "drawn_cub", "recipe": "e5-2"}, "recipe 'e5-2' has a second number, which only l_cam"),
    ("l_cam", {"recipe": "paper"}, "no paper trains on drawn_imagenet; leave out 'paper'"),
    ("l_cam", {"dataset": "drawn_imagnet"}, "expected one of drawn_imagenet, drawn_cub, imagenet, cub; did you mean drawn_imagenet?"),
    ("lfi_cam", {"dataset": "cub"}, "dataset of lfi_cam is 'cub', expected one of drawn_imagenet, drawn_cub, cifar10, cifar100,"),
    ("lfi_cam", {"dataset": "imagenet", "backbone": "resnet50"}, 'no reduced recipe for imagenet; take the recipe "paper"'),
    ("lfi_cam", {"dataset": "cifar10", "backbone": "vgg16"}, "backbone on cifar10 is 'vgg16', expected one of resnet8, resnet14,"),
    ("l_cam", {"dataset": "imagenet"}, "backbone on imagenet is 'resnet8', expected one of efficientnet_lite0, mobilenet_v2, resnet18,"),
    ("l_cam", {"dataset": "imagenet", "backbone": "resnet05"}, "did you mean resnet50?"),
    ("calm", {"dataset": "cub", "backbone": "mobilenet_v2"}, "no recipe for mobilenet_v2: it trains resnet, vgg, inception"),
    ("increment_cam", {"dataset": "cub", "backbone": "mobilenet_v2"}, "no recipe for mobilenet_v2"),
    ("increment_cam", {"dataset": "voc07", "backbone": "resnet18", "recipe": "e5"}, "on voc07 trains nothing; leave both out"),
    ("l_cam", {"device": "gpu"}, "device is 'gpu', expected cpu or cuda"),
]  # fmt: skip


@pytest.mark.parametrize("paper, given, sentence", REFUSED, ids=lambda v: str(v)[:40])
def test_a_wrong_parameter_is_refused_in_one_sentence_wherever_it_is_read(paper, given, sentence, tmp_path):
    given = DRAWN | given
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        read(paper, given, here=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(sentence)):  # a notebook's globals hold more
        read(paper, {**given, "torch": torch})
    job = {name: given.pop(name) for name in batch.AXES if name in given}
    (tmp_path / "tiny.yaml").write_text(json.dumps({"jobs": [{"paper": paper, **job, "parameters": given}]}))
    with pytest.raises(ValueError, match="tiny.yaml: the job .*" + re.escape(sentence)):  # at a dry run
        batch.read_profile("tiny", tmp_path)


def test_what_this_machine_lacks_is_said_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device is cuda, and PyTorch finds 0 CUDA devices here; take cpu"):
        read("l_cam", {**DRAWN, "device": "cuda"})
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"out_dir .*file/out cannot be written \(Not a directory\)"):
        read("l_cam", {**DRAWN, "out_dir": tmp_path / "file" / "out"})
    real = {"dataset": "imagenet", "backbone": "resnet50"}
    with pytest.raises(FileNotFoundError, match="none is no folder: point data_root, or CAM_DATA, at the folder that holds imagenet"):
        read("l_cam", {**real, "data_root": tmp_path / "none"})
    read("l_cam", {**DRAWN, "data_root": tmp_path / "none"})  # is drawn there
    read("l_cam", {**real, "device": "cuda", "data_root": tmp_path / "none"}, here=False)  # a job for another machine


def test_the_card_says_how_many_images_were_run():
    assert read("l_cam", {**DRAWN, "limit": 96}).ran(96) == "96"
    assert read("l_cam", {**DRAWN, "limit": 500}).ran(200) == "200 of 200"
    assert read("l_cam", {**DRAWN, "limit": None}).ran(200) == "200 of 200"


@pytest.mark.parametrize("paper", DATASETS)
def test_a_notebook_has_these_parameters_lists_these_data_and_reads_them_first(paper):
    path = ROOT / f"notebooks/{paper}.ipynb"
    cell = inspect_notebook(path)
    assert set(cell) == set(names(paper))
    listed = re.findall(r"\w+", cell["dataset"]["help"])
    known = {name for of in DATASETS.values() for name in of}
    assert [word for word in listed if word in known] == list(DATASETS[paper])
    code = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert f'wanted = parameters.read("{paper}", globals())' in code[1]
    assert '"images": wanted.ran(' in code[-1]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")))
def test_every_job_of_every_profile_is_read(name):
    for job in batch.read_profile(name, ROOT / "profiles").jobs:
        wanted = read(job.paper, job.parameters, here=False)
        assert wanted.trains >= job.train
        assert (wanted.dataset, wanted.backbone, wanted.seed) == (job.dataset, job.backbone, job.seed)
