"""Grey images, and other numbers of channels: a grey network is one that reads the same picture from three equal channels."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam_core import METHODS, figures, metrics
from cam_core.__main__ import main
from cam_core.classifier import Classifier
from cam_core.learned.plain import shapes
from cam_core.methods import perturbation
from cam_core.metrics.removal import FILLS, filling
from cam_core.pretrained import load_classifier
from cam_core.probe import Probe
from tests import nets


def both():
    """A network of colour images, and the one of grey images that adds up its first weights over the colours; float64."""
    colour = nets.gap().network
    grey = nets.Gap()
    grey.conv1 = nn.Conv2d(1, 8, 3, stride=2, padding=1)
    weights = colour.state_dict()
    grey.double().load_state_dict({**weights, "conv1.weight": weights["conv1.weight"].sum(1, keepdim=True)})
    return (Classifier.of(of, "relu2", mean=(0.4,) * n, std=(0.3,) * n) for of, n in ((colour, 3), (grey, 1)))


ALIKE = {
    **{name: METHODS[name] for name in ("grad_cam", "score_cam", "increment_cam", "group_cam", "fusion_cam", "cam")},
    **{name: METHODS[name] for name in ("integrated_gradients", "edges", "center_gaussian", "fake_cam")},
    "rise": partial(perturbation.rise, samples=50),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_grey_network_is_explained_as_one_of_three_equal_channels(name):
    (colour, grey), x = both(), nets.images(2)[:, :1]
    want = ALIKE[name](Probe(colour, x.expand(-1, 3, -1, -1), [1, 2]))
    assert float(want.abs().max()) > 0
    torch.testing.assert_close(ALIKE[name](Probe(grey, x, [1, 2])), want, rtol=1e-9, atol=1e-12)


MEASURED = [
    metrics.AverageDrop(),
    metrics.AverageDrop(0.5, "mean"),
    metrics.Insertion(64),
    metrics.Deletion(64),
    metrics.RemoveAndClassify(),
]


@pytest.mark.parametrize("metric", MEASURED, ids=lambda metric: f"{metric.name} {metric.setting}")
def test_it_is_measured_alike(metric):
    (colour, grey), x = both(), nets.images(2)[:, :1]
    heat = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    want = metric.measure(heat, Probe(colour, x.expand(-1, 3, -1, -1), 1))
    torch.testing.assert_close(metric.measure(heat, Probe(grey, x, 1)), want)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels):
    network = nets.Gap()
    network.conv1 = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
    classifier = Classifier.of(network.double(), "relu2", mean=[0.5] * channels, std=[0.25] * channels)
    assert shapes(classifier) == (6, 5)
    x = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    probe, heat = Probe(classifier, x), torch.rand(2, 16, 16).double()
    for name in ("expected_grad_cam", "smooth_grad", "saliency", "random_map"):
        assert METHODS[name](probe).isfinite().all()
    assert metrics.RoadMorf().measure(heat, probe).isfinite().all()
    for fill in FILLS:
        assert probe.score_masked(heat[:, None], filling(probe, fill)).isfinite().all()
    assert figures.blend(x[0]).shape == figures.blend(x[0], heat[0]).shape == (16, 16, 3)
    assert np.array_equal(figures.blend(x[0])[..., 0], x[0].mean(0).numpy())
    with pytest.raises(ValueError, match=f"images have 3 channels, the classifier has mean and std of {channels}: give both"):
        Probe(classifier, nets.images(2))


def test_mean_and_std_are_of_the_same_channels():
    with pytest.raises(ValueError, match="mean has 1 values and std 3: give each one for every channel of the images"):
        Classifier.of(nets.Gap(), "relu2", mean=(0.5,))


@pytest.mark.parametrize("name", ["resnet8", "timm/test_resnet.r160_in1k"])
def test_a_network_by_name_takes_as_many_channels_as_its_normalisation(name):
    classifier = load_classifier(name, weights=None, mean=(0.5,), std=(0.25,))
    assert METHODS["grad_cam"](Probe(classifier, torch.rand(1, 1, 160, 160))).isfinite().all()
    assert next(m for m in classifier.modules() if isinstance(m, nn.Conv2d)).in_channels == 1


def test_explain_shows_a_grey_network_photographs_in_grey(tmp_path):
    torch.manual_seed(0)
    classifier = load_classifier("resnet8", weights=None, mean=(0.5,), std=(0.25,))
    torch.save(classifier.network.state_dict(), tmp_path / "mine.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    own = ["--model", "resnet8", "--weights", str(tmp_path / "mine.pth"), "--size", "32", "--mean", "0.5", "--std", "0.25"]
    assert main(["explain", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *own]) == 0
    facts = json.loads((tmp_path / "out/explained.json").read_text())
    luma = torch.from_numpy(pixels @ np.array([0.299, 0.587, 0.114]) / 255)[None, None].float()
    p = classifier.network(classifier.normalize(luma)).softmax(1)[0].detach()
    assert facts["images"][0]["prediction"]["class"] == int(p.argmax())
    assert facts["images"][0]["prediction"]["probability"] == pytest.approx(float(p.max()), abs=1e-3)
    assert (facts["mean"], facts["std"]) == ([0.5], [0.25])


def test_explain_refuses_what_no_photograph_has(tmp_path, capsys):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert main(["explain", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--mean", "0.5", "0.5", "--std", "1", "1"]) == 1
    assert "mean has 2 values: a photograph has 3 channels, or 1 in grey; make other maps by a Probe" in capsys.readouterr().err
