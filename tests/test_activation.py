"""Networks whose answer is no softmax: a single logit, and heads of several labels, against pairs of logits and against the formulas."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from cam_core import METHODS, metrics
from cam_core.__main__ import main
from cam_core.classifier import Classifier
from cam_core.methods import perturbation
from cam_core.pretrained import load_classifier, load_network
from cam_core.probe import Probe
from tests import nets


def picked(labels, activation="softmax", *, zero=False):
    """`nets.gap` with only these of its five logits, after one that is always 0 if ``zero``."""
    state = dict(nets.gap().network.state_dict())
    for key in ("fc.weight", "fc.bias"):
        state[key] = torch.cat([torch.zeros_like(state[key][:zero]), state[key][labels]])
    network = nets.Gap(classes=len(labels) + zero).double()
    network.load_state_dict(state)
    return Classifier.of(network, "relu2", activation=activation)


# what is computed from probabilities, and what of a single logit is special
ASKED = {
    **{name: METHODS[name] for name in METHODS if name.startswith(("score_cam[l", "score_cam[u", "score_cam[budget=32", "increment_cam"))},
    **{name: METHODS[name] for name in ("score_cam", "shapley_cam", "recipro_cam", "group_cam", "grad_pp_score_cam", "fusion_cam")},
    "grad_cam_pp[l_cam]": METHODS["grad_cam_pp[l_cam]"],
    "rise": partial(perturbation.rise, samples=50),
    "poly_cam": partial(perturbation.poly_cam, layers=["relu1", "relu2"]),
    "cam": METHODS["cam"],
    "score_cam[softmax]": METHODS["score_cam[softmax]"],
}


@pytest.mark.parametrize("name", ASKED)
def test_a_label_among_others_is_explained_as_if_it_were_alone_and_a_single_logit_as_the_pair_with_zero(name):
    ask, x = ASKED[name], nets.images(3)
    want = ask(Probe(picked([3], zero=True), x, 1))
    assert float(want.abs().max()) > 0
    for other, target in ((picked([0, 3, 1], "sigmoid"), 1), (picked([3]), 1), (picked([3], "sigmoid"), 1)):
        torch.testing.assert_close(ask(Probe(other, x, target)), want, rtol=1e-9, atol=1e-12)


def test_a_single_logit_is_two_classes():
    x, alone, pair = nets.images(4), picked([3]), picked([3], zero=True)
    z = pair(x)[:, 1].detach()
    assert torch.equal(alone(x), pair(x))
    assert torch.equal(Probe(alone, x).probabilities, Probe(pair, x).probabilities)
    torch.testing.assert_close(Probe(alone, x).probabilities[:, 1], 1 / (1 + (-z).exp()))
    both = Probe(picked([3], "sigmoid"), x)
    torch.testing.assert_close(both.probabilities, Probe(pair, x).probabilities)
    assert both.targets.tolist() == Probe(pair, x).targets.tolist() == (z > 0).long().tolist()
    torch.testing.assert_close(METHODS["hires_cam"](Probe(both.classifier, x, 0)), -METHODS["hires_cam"](Probe(pair, x, 1)))
    torch.testing.assert_close(METHODS["cam"](Probe(both.classifier, x, 0)), -METHODS["cam"](Probe(pair, x, 1)))
    assert not METHODS["hires_cam"](Probe(alone, x, 0)).any()  # the logit of no is always 0


MEASURED = [
    metrics.AverageDrop(), metrics.AverageGain(0.5), metrics.Insertion(64), metrics.Deletion(64), metrics.RoadCombined(),
]  # fmt: skip


@pytest.mark.parametrize("metric", MEASURED, ids=lambda metric: metric.name)
def test_a_metric_of_probability_reads_a_label_as_the_pair_with_zero(metric):
    x, heat = nets.images(3), torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    want = metric.measure(heat, Probe(picked([3], zero=True), x, 1))
    for other, target in ((picked([0, 3, 1], "sigmoid"), 1), (picked([3]), 1)):
        torch.testing.assert_close(metric.measure(heat, Probe(other, x, target)), want, rtol=1e-9, atol=1e-12)


class Bright(nn.Module):
    """Logits ``slope · brightness + offset``, known by hand."""

    def __init__(self, *lines):
        super().__init__()
        self.lines = lines

    def forward(self, x):
        return torch.stack([slope * x.mean((1, 2, 3)) + offset for slope, offset in self.lines], 1)


def bright(*lines, activation="softmax"):
    return Classifier(nn.Identity(), Bright(*lines), mean=(0, 0, 0), std=(1, 1, 1), activation=activation).double().eval()


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_an_all_black_mask_loses_confidence():
    x, black = torch.full((1, 3, 4, 4), 0.5).double(), torch.zeros(1, 4, 4).double()
    for activation in ("softmax", "sigmoid"):
        metric = metrics.AverageDrop()
        metric.update(black, Probe(bright((6, -1), activation=activation), x))
        assert metric.compute() == pytest.approx(100 * (sigmoid(2) - sigmoid(-1)) / sigmoid(2))


def test_two_labels_of_an_image_do_not_exclude_each_other():
    """Both labels fall together under the mask; a softmax would see no change."""
    x, grey = torch.full((1, 3, 4, 4), 0.5).double(), torch.full((1, 4, 4), 0.5).double()
    labels = bright((6, -1), (6, -1), (-2, 3), activation="sigmoid")
    assert Probe(labels, x).probabilities[0].tolist() == pytest.approx([sigmoid(2), sigmoid(2), sigmoid(2)])
    for target, (before, after) in enumerate([(2, 0.5), (2, 0.5), (2, 2.5)]):
        y, o, mean = metrics.AverageDrop().measure(grey, Probe(labels, x, target))[0].tolist()
        assert (y, o, mean) == pytest.approx((sigmoid(before), sigmoid(after), 0.5))
    y, o, _ = metrics.AverageDrop().measure(grey, Probe(bright((6, -1), (6, -1)), x, 0))[0].tolist()
    assert (y, o) == pytest.approx((0.5, 0.5))


def test_score_cam_of_a_label_by_brute_force():
    classifier, x = picked([0, 3, 1], "sigmoid"), nets.images(1)
    a = classifier.activations(x)[0].detach()
    total = torch.zeros_like(a[0])
    for channel in a:
        if channel.max() > channel.min():
            large = nn.functional.interpolate(channel[None, None], (16, 16), mode="bilinear")[0, 0]
            mask = (large - large.min()) / (large.max() - large.min())
            normalised = (x - classifier.mean) / classifier.std * mask
            total += sigmoid(float(classifier.network(normalised)[0, 2].detach())) * channel
    torch.testing.assert_close(METHODS["score_cam"](Probe(classifier, x, 2))[0], total.relu())


def test_of_a_softmax_nothing_has_changed():
    classifier, logits = nets.gap(), 30 * torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(classifier.probabilities(logits), logits.softmax(-1))
    assert torch.equal(classifier.log_probabilities(logits), logits.log_softmax(-1))


def test_copies_keep_the_activation_and_others_are_refused():
    classifier = picked([0, 3], "sigmoid")
    copies = (classifier, classifier.frozen(), classifier.at("relu1"), classifier.frozen().at("relu1"))
    assert [one.activation for one in copies] == ["sigmoid"] * 4
    assert load_classifier("resnet8", weights=None, activation="sigmoid").activation == "sigmoid"
    assert load_classifier("resnet8", weights=None).activation == "softmax"
    with pytest.raises(ValueError, match="activation is 'softmax' or 'sigmoid', got 'tanh'"):
        picked([0, 3], "tanh")


@pytest.mark.parametrize(("names", "said"), [("crack\n", ["not crack", "crack"]), ("crack\nrust\n", ["crack", "rust"])])
def test_the_command_prints_probabilities_of_labels(tmp_path, names, said):
    torch.manual_seed(0)
    network, _ = load_network("resnet8", None, names.count("\n"))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "mine.safetensors")
    (tmp_path / "names.txt").write_text(names)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    own = ["--model", "resnet8", "--weights", str(tmp_path / "mine.safetensors"), "--classes", str(tmp_path / "names.txt")]
    given = [str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--size", "64", "--target", "crack", "--activation", "sigmoid"]
    assert main(["explain", *given, *own]) == 0
    facts = json.loads((tmp_path / "out/explained.json").read_text())
    classifier = load_classifier("resnet8", tmp_path / "mine.safetensors", num_classes=names.count("\n"))
    image = torch.from_numpy(np.array(Image.open(tmp_path / "a.png"))).permute(2, 0, 1)[None] / 255
    z = classifier.network(classifier.normalize(image))[0].tolist()
    expected = dict(zip(said, [sigmoid(-z[0]), *map(sigmoid, z)] if len(z) == 1 else map(sigmoid, z), strict=True))
    for part in ("prediction", "target"):
        found = facts["images"][0][part]
        assert found["probability"] == pytest.approx(expected[found["name"]], abs=1e-4)
    assert facts["images"][0]["target"]["name"] == "crack"
    assert facts["activation"] == "sigmoid"
