"""The command for one's own images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file, save_file

from cam_core import METHODS, Classifier, Probe, load_classifier, maps
from cam_core.__main__ import main
from cam_core.cutting import split
from cam_core.data import transforms
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
    fixed = ["--out", str(own / "out"), "--model", "resnet18", "--weights", str(weights), "--classes", str(classes)]
    return main(["explain", *fixed, *more])


def test_pictures_and_facts_come_out(own, capsys):
    assert call(own, str(own / "a.png"), str(own / "b.jpg"), "--method", "grad_cam,eigen_cam,edges", "--target", "old owl") == 0
    assert "6 pictures" in capsys.readouterr().out
    facts = json.loads((own / "out/explained.json").read_text())
    assert (facts["model"], facts["layer"], facts["weights"]) == ("resnet18", "layer4", "mine")
    assert [entry["image"] for entry in facts["images"]] == ["a.png", "b.jpg"]
    assert facts["images"][0]["target"]["name"] == "old owl"
    assert facts["images"][0]["prediction"]["name"] in ("cat", "dog", "old owl")
    assert "torch" in facts["versions"]
    assert (facts["view"], facts["images"][0]["input"]) == ("keep", [224, 224 + 32 * 4])  # 90 x 60: 336, to the next whole step of 32
    with Image.open(own / "out/a-grad_cam.png") as picture:
        assert picture.width > 1.2 * picture.height
    assert not list((own / "out").glob(".*"))


def test_a_damaged_image_is_named_and_the_others_are_explained(own, capsys):
    (own / "broken.jpg").write_bytes((own / "b.jpg").read_bytes()[:300])
    assert call(own, str(own / "broken.jpg"), str(own / "a.png")) == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert (own / "out/a-grad_cam.png").exists()


def facts_of(own):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads((own / "out/explained.json").read_text(), parse_constant=refuse)


def test_the_map_lies_on_the_picture_in_its_own_shape(monkeypatch, own):
    drawn = []
    monkeypatch.setattr("cam_core.figures.explained", lambda picture, heat, title: drawn.append((picture, heat, title)) or Figure())
    Image.new("RGB", (60, 30), "white").resize((1200, 600)).save(own / "wide.png")
    assert call(own, str(own / "wide.png"), "--target", "dog", "--save-maps", "--method", "grad_cam,saliency") == 0
    entry = facts_of(own)["images"][0]
    assert entry["input"] == [224, 448]
    raw = np.load(own / "out/wide.npz")
    assert {name: (heat.shape, heat.dtype) for name, heat in raw.items()} == {
        "grad_cam": ((7, 14), np.float32),
        "saliency": ((224, 448), np.float32),
    }
    for (picture, heat, title), (name, written) in zip(drawn, (("grad_cam", "Grad-CAM"), ("saliency", "saliency")), strict=True):
        assert picture.shape == (3, 450, 900)
        assert torch.equal(heat, maps.upsample(maps.min_max(torch.from_numpy(raw[name])), (450, 900)))
        assert title[0] == f"dog, {100 * entry['target']['probability']:.1f} % · {written}"
    classifier = load_classifier("resnet18", own / "mine.safetensors", num_classes=3)
    white = METHODS["grad_cam"](Probe(classifier, torch.ones(1, 3, 224, 448), 1))[0]
    assert np.allclose(raw["grad_cam"], white, atol=1e-5)


@pytest.mark.parametrize(("view", "shape", "shown"), [("squash", [96, 96], (90, 60)), ("crop", [96, 96], (52, 52))])
def test_the_other_views_and_ones_own_preprocessing(own, monkeypatch, view, shape, shown):
    seen, drawn = [], []
    monkeypatch.setattr("cam_core.explain.Probe", lambda *given: seen.append(given) or Probe(*given))
    monkeypatch.setattr("cam_core.figures.explained", lambda picture, heat, title: drawn.append(tuple(picture.shape[:0:-1])) or Figure())
    more = ("--view", view, "--size", "96", "--mean", "0.5", "0.4", "0.3", "--std", "0.5", "0.25", "1")
    assert call(own, str(own / "a.png"), *more) == 0
    facts = facts_of(own)
    assert (facts["view"], facts["size"], facts["mean"], facts["std"]) == (view, 96, [0.5, 0.4, 0.3], [0.5, 0.25, 1])
    assert facts["images"][0]["input"] == shape
    assert drawn == [shown]
    classifier, image, _ = seen[-1]
    expected = transforms.view(view, 96)(Image.open(own / "a.png"))
    assert torch.equal(image[0], expected)
    assert torch.allclose(classifier.normalize(image)[0, 1], (expected[1] - 0.4) / 0.25)
    assert call(own, str(own / "a.png"), "--mean", "123", "117", "104") == 1


def test_a_photograph_is_turned_upright(own):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(own / "b.jpg").save(own / "turned.jpg", exif=exif)
    assert call(own, str(own / "turned.jpg")) == 0
    assert facts_of(own)["images"][0]["input"] == [224 + 32 * 4, 224]


def test_a_network_that_takes_squares_only_says_so(own, capsys, monkeypatch):
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).eval()
    layer = "encoder.layers.encoder_layer_0"
    small = Classifier(*split(network, layer), name="small", layer=layer, network=network).eval()
    monkeypatch.setattr("cam_core.explain.load_classifier", lambda *_: small)
    assert call(own, str(own / "a.png"), "--size", "32") == 0
    assert "resnet18 takes squares only: the images are squashed to 32 x 32" in capsys.readouterr().err
    assert (facts_of(own)["view"], facts_of(own)["images"][0]["input"]) == ("squash", [32, 32])
    assert call(own, str(own / "a.png"), "--size", "40") == 1
    assert "small does not take images of 40 x 40: give the --size that it was made for" in capsys.readouterr().err


def test_an_impossible_method_does_not_lose_the_others(own, capsys, monkeypatch):
    def broken(probe):
        raise RuntimeError("no such thing\nand much more")

    monkeypatch.setitem(METHODS, "cam", replace(METHODS["cam"], function=broken))
    monkeypatch.setitem(METHODS, "edges", replace(METHODS["edges"], function=lambda probe: torch.full((1, 7, 7), torch.nan)))
    assert call(own, str(own / "a.png"), str(own / "b.jpg"), "--method", "cam, grad_cam ,edges") == 1
    said = capsys.readouterr()
    assert said.err.count("cam: no such thing") == 1
    assert "and much more" not in said.err
    assert f"{own / 'a.png'}: the map of edges holds NaN or infinity" in said.err
    assert "2 pictures" in said.out
    assert [entry["maps"] for entry in facts_of(own)["images"]] == [{"grad_cam": "a-grad_cam.png"}, {"grad_cam": "b-grad_cam.png"}]
    assert len(facts_of(own)["failed"]) == 3


def test_an_empty_map_is_said_on_the_picture_and_on_stderr(own, capsys, monkeypatch):
    titles = []
    monkeypatch.setattr("cam_core.figures.explained", lambda picture, heat, title: titles.append(title) or Figure())
    monkeypatch.setitem(METHODS, "edges", replace(METHODS["edges"], function=lambda probe: torch.ones(1, 7, 7)))
    assert call(own, str(own / "a.png"), "--method", "edges,all_ones") == 0
    assert titles[0][-1] == "the map is empty: it says nothing"
    assert len(titles[1]) == 1
    assert "a.png: the map of edges is empty" in capsys.readouterr().err
    assert facts_of(own)["images"][0]["empty"] == ["edges"]


def test_damaged_weights_are_one_sentence_and_valid_json(own, capsys):
    state = load_file(own / "mine.safetensors")
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, own / "mine.safetensors")
    assert call(own, str(own / "a.png"), str(own / "b.jpg")) == 1
    assert capsys.readouterr().err.count("not explained: resnet18 answers a grey image with NaN or infinity: the weights mine are") == 1
    assert facts_of(own)["images"] == []


def test_ctrl_c_keeps_what_is_done(own, capsys, monkeypatch):
    calls = []

    def slow(probe):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return probe.activations.mean(1)

    monkeypatch.setitem(METHODS, "edges", replace(METHODS["edges"], function=slow))
    assert call(own, str(own / "a.png"), str(own / "b.jpg"), "--method", "edges") == 130
    assert "stopped: 1 of 2 images are explained" in capsys.readouterr().err
    assert (facts_of(own)["asked"], [entry["image"] for entry in facts_of(own)["images"]]) == (2, ["a.png"])
    assert (own / "out/a-edges.png").exists()
    assert not list((own / "out").glob(".*"))


def test_the_json_is_written_while_the_work_goes_on(own, monkeypatch):
    monkeypatch.setattr("cam_core.explain.EVERY", 1)
    done = []

    def look(probe):
        done.append(len(facts_of(own)["images"]) if (own / "out/explained.json").exists() else 0)
        return probe.activations.mean(1)

    monkeypatch.setitem(METHODS, "edges", replace(METHODS["edges"], function=look))
    assert call(own, str(own / "a.png"), str(own / "b.jpg"), "--method", "edges") == 0
    assert done == [0, 1]


def test_cost_and_progress_are_shown_for_one_image(own, capsys):
    assert call(own, str(own / "a.png"), "--method", "score_cam[budget=32],grad_cam") == 0
    said = capsys.readouterr().err
    assert "forward passes an image, about: Score-CAM (budget=32) 33, Grad-CAM 1; 33 in all" in said
    assert "33/33" in said


def test_a_folder_stands_for_its_images_and_two_of_one_name_are_kept_apart(own, capsys):
    (own / "more").mkdir()
    for name in ("a.png", "notes.txt", ".hidden.png"):
        (own / "more" / name).write_bytes((own / "a.png").read_bytes())
    assert call(own, str(own / "more"), str(own / "a.png"), str(own / "out2")) == 1
    said = capsys.readouterr().err
    assert "skips notes.txt, no image by its name" in said
    assert f"{own / 'a.png'}: another image is called a, so its pictures are called a-2" in said
    assert "out2: no such file" in said
    assert [(entry["path"], entry["maps"]["grad_cam"]) for entry in facts_of(own)["images"]] == [
        (str(own / "more/a.png"), "a-grad_cam.png"),
        (str(own / "a.png"), "a-2-grad_cam.png"),
    ]
    (own / "none").mkdir()
    assert call(own, str(own / "none")) == 1
    assert "none: no image is in this folder" in capsys.readouterr().err


def test_a_class_that_does_not_exist_is_refused_with_those_that_sound_like_it(own, capsys):
    assert call(own, str(own / "a.png"), "--target", "owl") == 1
    assert "no class is called 'owl': did you mean old owl?" in capsys.readouterr().err


def test_a_class_by_name_or_number(own, capsys):
    (own / "classes.txt").write_text("1\n10\n2\n")
    for wanted, index in (("1", 0), ("10", 1), ("2", 2), ("0", 0)):
        assert call(own, str(own / "a.png"), "--target", wanted) == 0
        assert facts_of(own)["images"][0]["target"]["class"] == index
        both = "1 is taken for the class of that name, which is number 0; number 1 is '10'"
        assert (both in capsys.readouterr().err) == (wanted == "1")
    for wanted in ("3", "-1"):
        assert call(own, str(own / "a.png"), "--target", wanted) == 1
        assert f"class {wanted} is out of range: the network has 3 classes (0..2)" in capsys.readouterr().err
    (own / "classes.txt").write_text("Cardigan\ncoat\ncardigan\n")
    assert call(own, str(own / "a.png"), "--target", "cardigan") == 1
    assert "2 classes are called 'cardigan': give the number of the one you mean, 0 (Cardigan), 2 (cardigan)" in capsys.readouterr().err


def test_what_cannot_be_is_refused_in_one_sentence(own, capsys):
    def refused(*more):
        assert call(own, str(own / "a.png"), *more) == 1
        return capsys.readouterr().err

    assert refused("--method", "gradcam") == "error: unknown method 'gradcam': did you mean grad_cam?\n"
    assert refused("--method", ",") == "error: no method is named: --method takes one or several, grad_cam,increment_cam\n"
    assert refused("--model", "fcn_resnet50").startswith("error: fcn_resnet50 is a segmentation network")
    assert refused("--model", "quantized_mobilenet_v2").startswith("error: quantized_mobilenet_v2 is a quantization network")
    (own / "classes.txt").write_bytes("cat\nlöwe\nowl\n".encode("latin-1"))
    assert "classes.txt: line 2 is not UTF-8 (b'\\xf6'): save the file as UTF-8" in refused()
    (own / "out").write_text("")
    assert "out is a file: --out takes the folder for the pictures" in refused()
