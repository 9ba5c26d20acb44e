"""The names of profiles and notebooks, and that a job trains what its notebook then loads."""

import json
import types
from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

from cam_core.engine import VARIABLE
from cam_core.probe import Probe
from data_scripts.draw import draw
from reproduce import jobs, notebook, sources
from reproduce.batch import read_profile
from reproduce.parameters import read, recipe_name
from tests import nets

HOME = sources.HOME
DRAWN = {"dataset": "drawn_imagenet", "backbone": "resnet8"}


def test_a_job_trains_what_the_notebook_loads(monkeypatch, tmp_path):
    root = draw(tmp_path / "drawn", small=True, progress=False)
    monkeypatch.setattr(jobs, "STORE", tmp_path / "models")
    folder = jobs.train("l_cam", {**DRAWN, "data_root": root, "epochs": 1, "epochs_img": 1})
    assert folder.parent == tmp_path / "models"
    kept = {path.name for path in folder.parent.iterdir()}
    assert len(kept) == 3  # the network, Fm and Img
    classifier, _ = jobs.network("drawn_imagenet", "resnet8", root, store=jobs.STORE)
    learned = jobs.l_cam("drawn_imagenet", classifier, root, epochs=(1, 1), store=jobs.STORE)
    assert {path.name for path in folder.parent.iterdir()} == kept
    assert folder.name == learned["l_cam_img"][1]["digest"][:20]
    assert learned["l_cam_fm"][1]["deviations"]
    assert classifier.weights == "trained here"
    ablated = jobs.l_cam("drawn_imagenet", classifier, root, epochs=(1, 1), ablated=True, store=jobs.STORE)
    assert {name: summary["digest"] for name, (_, summary) in ablated.items()}.items() > {
        n: s["digest"] for n, (_, s) in learned.items()
    }.items()
    for name in ("l_cam_fm", "l_cam_img"):
        (whole, full), (alone, told) = ablated[name], ablated[f"{name}[ce]"]
        assert alone.name == f"{name}[ce]"
        assert not torch.equal(alone.attention.weight, whole.attention.weight)
        seen = {"input of the attention's features: normalised instead of not normalised"}
        assert set(told["deviations"]) - set(full["deviations"]) == (seen if name == "l_cam_img" else set())
        assert told["recipe"] == full["recipe"]
    raw = jobs.l_cam("drawn_imagenet", classifier, root, epochs=(1, 1), raw=True, store=jobs.STORE)
    assert {name: model.raw for name, (model, _) in raw.items()} == {"l_cam_fm": False, "l_cam_img": False, "l_cam_img[ce,raw]": True}
    assert not any(line.startswith("input of") for line in raw["l_cam_img[ce,raw]"][1]["deviations"])
    with pytest.raises(ValueError, match="increment_cam on imagenet trains nothing: leave `train` out of its entry in the profile 'test'"):
        jobs.train("increment_cam", {"dataset": "imagenet", "backbone": "resnet50", "data_root": root, "profile": "test"})
    with pytest.raises(ValueError, match="did you mean epochs_img"):
        jobs.train("l_cam", {**DRAWN, "data_root": root, "epochs_im": 1})


def test_all_that_a_run_freezes_is_scored_by_its_engine_and_rows_of_another_are_not_found(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "compile")
    monkeypatch.setattr(jobs, "network", lambda *_given, **_more: (nets.gap(), {}))
    found = {}
    for engine in (None, "torch", None):
        wanted = read("increment_cam", {**DRAWN, "engine": engine, "rows_dir": tmp_path}, here=False)
        classifier, _, summaries = jobs.models(wanted)
        found.setdefault(notebook.kept(replace(wanted, engine=None), summaries).folder, classifier.frozen().engine.name)
    assert list(found.values()) == ["compile", "torch"]  # the environment's goes on until a run names another


def pets(root, name, size, splits=("train", "test")):
    """A folder of tiny images of two classes, told apart by their colour."""
    for split in splits:
        for label, kind in enumerate(("cats", "dogs")):
            folder = root / name / split / kind
            folder.mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", size, (60 + 10 * number, 200 * label, 40)).save(folder / f"{number}.png")
    return root


def test_cifar_folder_trains_plain_lfi_cam_and_abn(monkeypatch, tmp_path):
    root = pets(tmp_path / "data", "CIFAR-10-subset", (32, 32))
    monkeypatch.setattr(jobs, "STORE", tmp_path / "models")
    folder = jobs.train("lfi_cam", {"dataset": "cifar10", "backbone": "resnet8", "data_root": root, "epochs": 1, "setting": 2})
    assert len(list(folder.parent.iterdir())) == 3
    model, summary = jobs.abn("cifar10", "resnet8", root, epochs=1, setting=2, store=jobs.STORE)
    assert folder.name == summary["digest"][:20]
    assert summary["recipe"]["batch"] == 64
    assert summary["deviations"][:3] == ["epochs: 1 instead of 300", "batch: 64 instead of 128", "milestones: 1 1 instead of 150 225"]
    assert "JPEG" in summary["deviations"][-2]
    assert summary["deviations"][-1] == "network: resnet8 instead of resnet110_bottleneck"
    assert "accuracy" in summary
    assert model.classifier.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    plain, _ = jobs.network("cifar10", "resnet8", root, epochs=1, setting=2, store=jobs.STORE)
    assert plain.trunk.conv1.stride == (1, 1)
    assert torch.equal(plain.mean, model.classifier.mean)


def test_published_maps_are_those_of_images_spread_over_the_list(tmp_path):
    """Both classes, though the list goes class by class; each map is that of its image alone."""
    root = pets(tmp_path / "data", "CIFAR-10-subset", (32, 32))
    everything = sources.images("cifar10", root)("squash")
    few = jobs.spread(everything, 5)
    assert few.ids == ["cats_0", "cats_3", "dogs_0", "dogs_3"]  # every third, for every second would be six
    assert jobs.spread(everything, 12).ids == jobs.spread(everything).ids == everything.ids
    model, _ = jobs.lfi_cam("cifar10", "resnet8", root, epochs=1, store=tmp_path / "models", progress=False)
    found = jobs.explained(model.classifier, model.explain, few, batch=3)
    assert found.shape == (4, 8, 8)
    for heat, example in zip(found, (few[i] for i in range(4)), strict=True):
        torch.testing.assert_close(heat, model.explain(Probe(model.classifier, example.image[None]))[0], rtol=1e-4, atol=1e-4)


JOBS = [(job.paper, job) for path in sorted(HOME.glob("profiles/*.yaml")) for job in read_profile(path.stem, check=False).jobs]


@pytest.fixture
def asked(monkeypatch, drawn, tmp_path):
    """What a training depends on, for each that is asked for; nothing is trained and no network loaded."""
    trainings = []

    def carried_out(plan, build, dataset, root, means):
        form = [[getattr(one, "name", one) for one in build.args], build.keywords] if isinstance(build, partial) else []
        trainings.append((dataset, str(root), repr(plan), form, means))
        model = types.SimpleNamespace(name=f"model {len(trainings)}", classifier=types.SimpleNamespace(name="resnet50"))
        return model, {"digest": f"digest {len(trainings)}", "deviations": []}

    monkeypatch.setattr(jobs, "_carried_out", carried_out)
    monkeypatch.setattr(jobs, "load_classifier", lambda name, **_: types.SimpleNamespace(name=name))
    monkeypatch.setattr("reproduce.parameters.machine_faults", lambda wanted: iter(()))
    monkeypatch.setitem(sources.SOURCES, "imagenet", replace(sources.SOURCES["imagenet"], held_out=0))  # drawn images are too few
    pets(tmp_path, "CIFAR-10-subset", (32, 32))
    pets(tmp_path, "Cat-Dog-128", (140, 128), ("train", "val"))
    monkeypatch.setattr(jobs, "find_root", lambda dataset, *_: tmp_path if dataset in ("cifar10", "cat_dog") else drawn)
    return trainings


@pytest.mark.parametrize(("paper", "job"), JOBS, ids=[f"{job.profile}-{paper}-{job.key}" for paper, job in JOBS])
def test_a_notebook_means_the_models_of_its_training_job(paper, job, asked):
    """The notebook's own cells, up to the one that asks for the models, under the parameters of every job of every profile."""
    code = ["".join(c["source"]) for c in json.loads((HOME / f"notebooks/{paper}.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    reading = next(cell for cell in code if "parameters.read(" in cell)
    (making,) = [line for cell in code for line in cell.split("\n") if "jobs.models(" in line]
    scope = {}
    exec(code[0], scope)
    exec("\n".join([*(f"{name} = {value!r}" for name, value in job.parameters.items()), reading]), scope)
    assert scope["wanted"].recipe_name == recipe_name(**job.recipe)
    if not job.train:
        return
    exec(making, scope)
    by_notebook = asked[:]
    asked.clear()
    jobs.train(paper, job.training, **job.processes)
    assert [(*rest, {**how, "threads": torch.get_num_threads(), **job.processes}) for *rest, how in by_notebook] == asked
    assert len(asked) >= {"increment_cam": 1, "l_cam": 2, "calm": 3, "lfi_cam": 3}[paper]
    assert all(how["seed"] == job.seed for *_, how in asked)


def test_of_several_classes_an_image_the_best_weights_have_the_least_loss(tmp_path):
    """There is no accuracy to choose by."""
    root = draw(tmp_path / "drawn", small=True, progress=False)
    _, summary = jobs.plain("drawn_voc", "resnet8", root, epochs=1, held_out=0.2, store=tmp_path / "models", progress=False)
    assert set(summary["best"]) == {"epoch", "loss"}
    assert "held_out: 0.2 instead of 0" in summary["deviations"]
