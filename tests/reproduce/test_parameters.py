"""Parameters: what is read of them, and the one sentence by which each wrong one is refused."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from papermill.inspection import inspect_notebook

from cam_core import engine
from reproduce import batch
from reproduce.parameters import DATASETS, RECIPE, Parameters, names, read

ROOT = Path(__file__).resolve().parents[2]
DRAWN = {"dataset": "drawn_imagenet", "backbone": "resnet8"}


def asked(paper, **fields):
    of = DRAWN | ({"dataset": "drawn_cub"} if paper == "calm" else {})
    if "recipe" in fields:
        of = {"dataset": "cub" if paper == "calm" else "imagenet", "backbone": "resnet50"}
    return read(paper, {**of, **fields}, here=False)


@pytest.mark.parametrize(
    "paper, fields, name, training",
    [
        ("calm", {}, "", {"epochs": None, "paper": "", "held_out": 0.0, "best_on_test": False}),
        ("calm", {"epochs": 5}, "e5", {"epochs": 5}),
        ("calm", {"recipe": "wsol"}, "wsol", {"paper": "wsol"}),
        ("increment_cam", {"epochs": 5, "best": True}, "e5-best", {"epochs": 5, "held_out": 0.1}),
        (
            "lfi_cam",
            {"epochs": 12, "setting": 0, "best": True, "best_on_test": True},
            "e12-best-test",
            {"setting": 0, "best_on_test": True},
        ),
        ("lfi_cam", {"recipe": "paper", "best_on_test": True}, "paper-test", {"paper": "paper", "best_on_test": True}),
        (
            "lfi_cam",
            {"dataset": "cifar10", "backbone": "densenet100_12", "epochs": 12, "setting": 2},
            "e12-2",
            {"epochs": 12, "setting": 2},
        ),
        ("lfi_cam", {"dataset": "cifar10", "setting": 2}, "setting2", {"epochs": None, "setting": 2}),
        ("l_cam", {"epochs": 25, "epochs_img": 3, "terms": "ce"}, "e25-3-ce", {"epochs": (25, 3), "ablated": True, "raw": False}),
        ("l_cam", {"epochs": 20, "epochs_img": 20}, "e20-20", {"epochs": (20, 20), "ablated": False, "raw": False}),
        ("l_cam", {"epochs_img": 3, "terms": "ce-raw"}, "img3-ce-raw", {"epochs": (None, 3), "ablated": True, "raw": True}),
        ("l_cam", {"recipe": "paper", "terms": "raw"}, "paper-raw", {"paper": "paper", "ablated": False, "raw": True}),
    ],
)
def test_the_fields_of_a_recipe_give_its_name_and_what_is_trained(paper, fields, name, training):
    wanted = asked(paper, **fields)
    assert wanted.recipe_name == name
    assert wanted.training.items() >= training.items()


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
    ("l_cam", {"epochs": -1}, f"epochs is -1, {WHOLE} 1, or None for the usual number"),
    ("l_cam", {"epochs": "abc"}, f"epochs is 'abc', {WHOLE} 1"),
    ("l_cam", {"seed": "abc"}, f"seed is 'abc', {WHOLE} 0"),
    ("l_cam", {"data_root": 3}, "data_root is 3, expected the path of a folder"),
    ("l_cam", {"subset": 3}, "subset is 3, expected the name or the path of a list of images, or None"),
    ("l_cam", {"allow_partial": 1}, "allow_partial is 1, expected true or false"),
    ("l_cam", {"recipe": 12}, "recipe of l_cam (None: the reduced one) is 12, expected one of paper"),
    ("increment_cam", {"recipe": "huge"}, "recipe of increment_cam (None: the reduced one) is 'huge', expected one of paper, wsol"),
    ("l_cam", {"recipe": "e12-2"}, "is 'e12-2', expected one of paper"),
    ("l_cam", {"recipe": "papre"}, "is 'papre', expected one of paper; did you mean paper?"),
    ("l_cam", {"recipe": "wsol"}, "is 'wsol', expected one of paper"),
    ("l_cam", {"recipe": "paper"}, "recipe 'paper' is a published one, and no paper trains on drawn_imagenet; leave it out"),
    ("l_cam", {"epochs": 0}, f"epochs is 0, {WHOLE} 1, or None for the usual number"),
    ("l_cam", {"epochs_img": 0}, f"epochs_img is 0, {WHOLE} 1"),
    ("l_cam", {"terms": "cee"}, "terms is 'cee', expected one of all, ce, raw, ce-raw; did you mean ce?"),
    ("lfi_cam", {"setting": None}, f"setting is None, {WHOLE} 0"),
    ("lfi_cam", {"setting": 2}, "drawn_imagenet has settings 0 to 0, got 2"),
    ("lfi_cam", {"dataset": "cifar10", "setting": 9}, "cifar10 has settings 0 to 4, got 9"),
    ("lfi_cam", {"dataset": "cifar10", "setting": 2, "recipe": "paper"}, "setting is 2, and a published recipe ('paper') has one setting"),
    ("lfi_cam", {"best": "yes"}, "best is 'yes', expected true or false"),
    ("lfi_cam", {"terms": "ce"}, "lfi_cam has no parameter terms; leave it out (l_cam has it)"),
    ("calm", {"dataset": "drawn_cub", "setting": 2}, "calm has no parameter setting; leave it out (lfi_cam has it)"),
    ("l_cam", {"best_on_test": True}, "l_cam has no parameter best_on_test; leave it out (increment_cam, calm, lfi_cam has it)"),
    ("increment_cam", {"dataset": "drawn_voc", "best_on_test": True}, "images of drawn_voc have several classes; leave it out"),
    ("l_cam", {"dataset": "drawn_imagnet"}, "expected one of drawn_imagenet, drawn_cub, imagenet, cub; did you mean drawn_imagenet?"),
    ("lfi_cam", {"dataset": "voc07"}, "dataset of lfi_cam is 'voc07', expected one of drawn_imagenet, drawn_cub, cub, cifar10, cifar100,"),
    ("lfi_cam", {"dataset": "imagenet", "backbone": "resnet50"}, 'no reduced recipe for imagenet; take the recipe "paper"'),
    ("lfi_cam", {"dataset": "stl10", "backbone": "efficientnet_lite0"}, "backbone on stl10 is 'efficientnet_lite0', expected one of"),
    ("lfi_cam", {"dataset": "cifar10", "backbone": "vgg16"}, "backbone on cifar10 is 'vgg16', expected one of resnet8, resnet14,"),
    ("l_cam", {"dataset": "imagenet"}, "backbone on imagenet is 'resnet8', expected one of efficientnet_lite0, mobilenet_v2, resnet18,"),
    ("l_cam", {"dataset": "imagenet", "backbone": "resnet05"}, "did you mean resnet50?"),
    ("calm", {"dataset": "cub", "backbone": "mobilenet_v2"}, "no recipe for mobilenet_v2: it trains resnet, vgg, inception"),
    ("increment_cam", {"dataset": "cub", "backbone": "mobilenet_v2"}, "no recipe for mobilenet_v2"),
    ("increment_cam", {"dataset": "voc07", "backbone": "resnet18", "epochs": 5}, "trains nothing, and the recipe 'e5' was asked for"),
    ("l_cam", {"device": "gpu"}, "device is 'gpu', expected cpu or cuda"),
    ("calm", {"dataset": "drawn_cub", "engine": "onnxruntim"}, "is 'onnxruntim', expected one of torch, onnxruntime, compile; did you"),
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
    if None not in job.values():  # which in a profile is the same as left out
        with pytest.raises(ValueError, match="tiny.yaml: the job .*" + re.escape(sentence)):  # at a dry run
            batch.read_profile("tiny", tmp_path)


def test_what_this_machine_lacks_is_said_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device is cuda, and PyTorch finds 0 CUDA devices here; take cpu"):
        read("l_cam", {**DRAWN, "device": "cuda"})
    monkeypatch.setattr(engine, "NEEDED", ("no_such_package",))
    with pytest.raises(ModuleNotFoundError, match="the engine onnxruntime needs no_such_package: pip install"):
        read("l_cam", {**DRAWN, "engine": "onnxruntime"})
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"out_dir .*file/out cannot be written \(Not a directory\)"):
        read("l_cam", {**DRAWN, "out_dir": tmp_path / "file" / "out"})
    real = {"dataset": "imagenet", "backbone": "resnet50"}
    with pytest.raises(FileNotFoundError, match="none is no folder: point data_root, or CAM_DATA, at the folder that holds imagenet"):
        read("l_cam", {**real, "data_root": tmp_path / "none"})
    read("l_cam", {**DRAWN, "data_root": tmp_path / "none"})  # is drawn there
    read("l_cam", {**real, "device": "cuda", "data_root": tmp_path / "none"}, here=False)  # a job for another machine


@pytest.mark.parametrize("paper", DATASETS)
def test_a_notebook_has_these_parameters_lists_these_data_and_reads_them_first(paper):
    path = ROOT / f"notebooks/{paper}.ipynb"
    cell = inspect_notebook(path)
    assert set(cell) == set(names(paper))
    listed = re.findall(r"\w+", cell["dataset"]["default"] + " " + cell["dataset"]["help"])
    known = {name for of in DATASETS.values() for name in of}
    assert [word for word in listed if word in known] == list(DATASETS[paper])
    code = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert f'wanted = parameters.read("{paper}", globals())' in code[1]
    assigned = {n.id for cell in code[1:] for n in ast.walk(ast.parse(cell)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not assigned & (set(Parameters.__dataclass_fields__) - {"first", "first_rise"})  # so that this cell can be run again
    for name in RECIPE:  # a notebook opened by hand trains the usual recipe
        if name in cell:
            assert ast.literal_eval(cell[name]["default"]) == Parameters.__dataclass_fields__[name].default


def test_parameters_mean_the_same_in_all_notebooks():
    told = [inspect_notebook(ROOT / f"notebooks/{paper}.ipynb") for paper in DATASETS]
    for name in {name for cell in told for name in cell} - {"dataset", "backbone", "epochs", "recipe"}:
        assert len({(cell[name]["default"], cell[name]["help"]) for cell in told if name in cell}) == 1, name
