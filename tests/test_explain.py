"""The command for one's own images."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cam_core.__main__ import main
from cam_core.pretrained import load_network


@pytest.fixture
def own(tmp_path):
    """A network of one's own: weights, class names, two images."""
    torch.manual_seed(0)
    network, _ = load_network("resnet18", None, 3)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "mine.safetensors")
    (tmp_path / "classes.txt").write_text("cat\ndog\nold owl\n")
    for name, colour in (("a.png", (200, 10, 10)), ("b.jpg", (10, 10, 200))):
        picture = Image.new("RGB", (90, 60), colour)
        picture.paste((240, 240, 240), (20, 20, 60, 50))
        picture.save(tmp_path / name)
    return tmp_path


def call(own, *more):
    weights, classes = own / "mine.safetensors", own / "classes.txt"
    return main(["explain", *more, "--out", str(own / "out"), "--model", "resnet18", "--weights", str(weights), "--classes", str(classes)])


def test_pictures_and_facts_come_out(own, capsys):
    assert call(own, str(own / "a.png"), str(own / "b.jpg"), "--method", "grad_cam,eigen_cam,edges", "--target", "old owl") == 0
    assert "6 pictures" in capsys.readouterr().out
    facts = json.loads((own / "out/explained.json").read_text())
    assert (facts["model"], facts["layer"], facts["weights"]) == ("resnet18", "layer4", "mine")
    assert [entry["image"] for entry in facts["images"]] == ["a.png", "b.jpg"]
    assert facts["images"][0]["target"]["name"] == "old owl"
    assert facts["images"][0]["prediction"]["name"] in ("cat", "dog", "old owl")
    assert "torch" in facts["versions"]
    with Image.open(own / "out/a-grad_cam.png") as picture:
        assert picture.size == (448, 448)
    assert not list((own / "out").glob(".*"))


def test_a_damaged_image_is_named_and_the_others_are_explained(own, capsys):
    (own / "broken.jpg").write_bytes((own / "b.jpg").read_bytes()[:300])
    assert call(own, str(own / "broken.jpg"), str(own / "a.png")) == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert (own / "out/a-grad_cam.png").exists()


def test_a_class_that_does_not_exist_is_refused_with_those_that_sound_like_it(own, capsys):
    assert call(own, str(own / "a.png"), "--target", "owl") == 1
    assert "no class is called 'owl': did you mean old owl?" in capsys.readouterr().err


def test_two_images_of_one_name_are_refused(own, capsys):
    (own / "a.jpg").write_bytes((own / "b.jpg").read_bytes())
    assert call(own, str(own / "a.png"), str(own / "a.jpg")) == 1
    assert "two images are called a" in capsys.readouterr().err
