"""What the notebooks do alike: the images that are asked for, the deviations, and a run's files with every column filled."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cam_core.methods import method
from reproduce import jobs, notebook, results, sources
from reproduce.parameters import read


@pytest.fixture
def wanted(drawn, tmp_path):
    own = {"epochs": 25, "epochs_img": 3, "terms": "ce", "seed": 4, "limit": None, "shown": 2}
    return read("l_cam", {"dataset": "drawn_imagenet", "backbone": "resnet8", "data_root": drawn, "out_dir": tmp_path / "run", **own})


def test_no_limit_means_all_images_and_so_many_are_shown(wanted, capsys):
    images, examples, batch = notebook.open_images(wanted)
    everything = sources.images("drawn_imagenet", wanted.data_root)("squash")
    assert images("squash").ids == everything.ids
    assert len(examples) == 2
    assert batch.tolist() == [everything[i].image.tolist() for i in range(2)]
    assert (
        capsys.readouterr().out == f"{len(everything)} of {len(everything)} images of drawn_imagenet, {len(everything.classes)} classes\n"
    )


def test_networks_that_are_trained_on_crops_are_measured_on_crops(tmp_path):
    for label in ("cats", "dogs"):
        folder = tmp_path / "Cat-Dog-128/val" / label
        folder.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 180, 3), np.uint8)).save(folder / "0.png")
    wanted = read("lfi_cam", {"dataset": "cat_dog", "backbone": "resnet18", "data_root": tmp_path, "shown": 1})
    images, _, batch = notebook.open_images(wanted)
    cropped = sources.images("cat_dog", tmp_path)("crop")[0].image
    assert torch.equal(images("squash")[0].image, cropped)
    assert torch.equal(batch[0], cropped)


def test_a_deviation_stands_once_with_all_models_that_have_it():
    table = notebook.deviations({"plain": {"deviations": ["lr"]}, "em": {"deviations": ["lr", "maps"]}, "ml": {"deviations": ["maps"]}})
    assert table["deviates from the paper"].to_dict() == {"lr": "plain, em", "maps": "em, ml"}


def test_a_run_is_saved_with_every_column_and_what_it_came_from(wanted, tmp_path):
    data = sources.images("drawn_imagenet", wanted.data_root, limit=4)
    classifier = jobs.scratch_backbone("drawn_imagenet", "resnet8", len(data("squash").classes)).eval()
    trained = {"best_on_test": {"accuracy": 50.0, "n": 4}, "digest": "abc", "recipe": {"lr": 1}, "updates": 7, "deviations": ["lr"]}
    known, facts = notebook.worth(wanted, data, {"plain": classifier}, {"plain": trained})
    assert facts[["metric", "setting"]].agg(" ".join, axis=1).tolist() == [
        "accuracy ",
        "accuracy best on test",
        "follows_cue ",
        "keeps_class ",
    ]
    assert facts.value[0] == known["plain"].metrics["plain", "accuracy", ""].compute()
    measured = ["protocol", "method", "metric", "setting", "value", "ci_low", "ci_high", "n"]
    difference = facts[measured][:1].assign(than="cam", p=0.5, p_holm=0.5, same_as="")
    other = facts[measured].assign(weights="another network")
    explain = {"cam": (classifier, method("cam"))}
    card = notebook.save(wanted, data("squash"), classifier, [other, facts], [], difference, {"plain": trained}, explain, spent="1 s")
    out = tmp_path / "run"
    written = results.read_records(out / "metrics.csv")
    assert written.weights.tolist() == ["another network"] * 4 + ["trained here"] * 4  # what an untrained one's is read as
    for frame in (written, results.read_differences(out / "differences.csv")):
        same = frame[["paper", "dataset", "split", "backbone", "recipe", "seed"]].drop_duplicates()
        assert same.to_numpy().tolist() == [["l_cam", "drawn_imagenet", "val", "resnet8", "e25-3-ce", 4]]
    ids, maps = results.read_maps(out / "maps.npz")
    assert (ids, list(maps), len(maps["cam"])) == (data("squash").ids, ["cam"], 4)
    told = json.loads((out / "run_facts.json").read_text())
    assert told["models"] == {"plain": {key: trained[key] for key in ("digest", "recipe", "updates", "deviations")}}
    every = len(sources.images("drawn_imagenet", wanted.data_root)("squash"))
    assert told["images"] == {"used": 4, "present": every, "list": "val", "of": every}
    assert (told["data_digest"], told["weights_digest"]) == (data("squash").digest(), classifier.digest())
    shown = pd.Series(card[""])
    assert shown[["images", "seed", "spent"]].tolist() == [f"4 of {every}", "4", "1 s"]
    assert np.isfinite(maps["cam"]).all()
    said, sure = results.read_answers(out / "maps.npz")["cam"]
    seen = torch.stack([data("squash")[n].image for n in range(4)])
    with torch.no_grad():
        expected = classifier.scores(classifier.normalize(seen)).softmax(1)
    assert said.tolist() == expected.argmax(1).tolist()
    assert np.abs(sure - expected.amax(1).numpy()).max() < 1e-5


def test_a_run_on_a_part_of_a_list_says_so_in_its_card_its_files_and_its_split(drawn, tmp_path, capsys):
    ids = sources.images("drawn_imagenet", drawn)("squash").ids
    (tmp_path / "few.txt").write_text("\n".join([*ids[:3], "ILSVRC2012_val_00049999"]))
    own = {"dataset": "drawn_imagenet", "backbone": "resnet8", "data_root": drawn, "out_dir": tmp_path / "run", "limit": None}
    wanted = read("increment_cam", {**own, "subset": str(tmp_path / "few.txt"), "allow_partial": True})
    images, *_ = notebook.open_images(wanted)
    assert capsys.readouterr().out.startswith("3 of 3, of the 4 of few images of drawn_imagenet")
    data = images("squash")
    classifier = jobs.scratch_backbone("drawn_imagenet", "resnet8", len(data.classes)).eval()
    _, facts = notebook.worth(wanted, images, {"plain": classifier}, {})
    measured = ["protocol", "method", "metric", "setting", "value", "ci_low", "ci_high", "n"]
    difference = facts[measured][:1].assign(than="cam", p=0.5, p_holm=0.5, same_as="")
    card = notebook.save(wanted, data, classifier, [facts], [], difference, {})
    assert card[""]["images"] == "3 of 3, of the 4 of few"
    assert results.read_records(tmp_path / "run/metrics.csv").split.unique().tolist() == ["val few"]
    told = json.loads((tmp_path / "run/run_facts.json").read_text())
    assert told["images"] == {"used": 3, "present": 3, "list": "few", "of": 4}


@pytest.mark.parametrize("paper", ["lfi_cam", "l_cam", "calm"])
def test_notebooks_that_train_publish_their_maps(paper):
    cells = json.loads((sources.HOME / f"notebooks/{paper}.ipynb").read_text())["cells"]
    (saving,) = ["".join(cell["source"]) for cell in cells if any(line.startswith("notebook.save(") for line in cell["source"])]
    assert "own_maps = {" in saving
    assert ", summaries, own_maps)" in saving
