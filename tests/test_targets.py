"""Targets that are functions of the logits, and heads that return more than logits."""

import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from cam_core import METHODS, metrics
from cam_core.classifier import Classifier
from cam_core.explain import explain
from cam_core.learned import LCam
from cam_core.methods import perturbation
from cam_core.metrics.agreement import losses
from cam_core.probe import Probe
from tests import nets

# asked for logits alone; what is left out asks for a class or for its probability, too
BY_LOGIT = {
    **{name: METHODS[name] for name in ("grad_cam", "grad_cam_pp", "hires_cam", "expected_grad_cam", "score_cam[softmax]", "opti_cam")},
    **{name: METHODS[name] for name in ("ablation_cam", "fd_cam", "saliency", "integrated_gradients", "guided_backprop")},
    "ss_cam": partial(perturbation.ss_cam, samples=2),
}
BY_PROBABILITY = {
    **{name: METHODS[name] for name in ("score_cam", "score_cam[l_cam]", "score_cam[until=0.99]", "recipro_cam", "grad_cam_pp[l_cam]")},
    "rise": partial(perturbation.rise, samples=50),
    "poly_cam": partial(perturbation.poly_cam, layers=["conv", "relu"]),
}


@pytest.mark.parametrize("name", [*BY_LOGIT, *BY_PROBABILITY])
def test_a_function_that_picks_a_class_gives_its_map(name):
    x, classifier = nets.images(3), nets.dense()
    ask, pick = (BY_LOGIT[name], lambda y: y[:, 2]) if name in BY_LOGIT else (BY_PROBABILITY[name], lambda y: y.softmax(1)[:, 2])
    want = ask(Probe(classifier, x, 2, chunk=2))
    assert float(want.abs().max()) > 0
    torch.testing.assert_close(ask(Probe(classifier, x, pick, chunk=2)), want, rtol=1e-9, atol=1e-12)


REFERENCE = torch.tensor([0.5, -1.0, 2.0, 0.1, 0.3], dtype=torch.float64)


def likeness(embedding):
    return F.cosine_similarity(embedding, REFERENCE, dim=1)


def test_a_similarity_is_differentiated_and_scored_as_by_hand():
    classifier, x = nets.dense(), nets.images(2)
    probe = Probe(classifier, x, likeness)
    a = classifier.activations(x).detach().requires_grad_()
    score = (classifier.head(a) * REFERENCE).sum(1) / classifier.head(a).norm(dim=1) / REFERENCE.norm()
    (want,) = torch.autograd.grad(score.sum(), a)
    torch.testing.assert_close(probe.gradients(), want)
    torch.testing.assert_close(METHODS["grad_cam"](probe), (want.mean((2, 3), keepdim=True) * a.detach()).sum(1).relu())
    torch.testing.assert_close(probe.score(probe.logits), score.detach())
    other = probe.at("conv").like(x / 2).pairs(torch.tensor([1, 1, 0]))
    torch.testing.assert_close(other.score(other.logits), likeness(classifier(x / 2)[[1, 1, 0]]).detach())


def test_a_difference_of_two_classes_has_the_difference_of_their_gradients():
    classifier, x = nets.dense(), nets.images(2)
    probe, one, two = (Probe(classifier, x, target) for target in (lambda y: y[:, 3] - y[:, 1], 3, 1))
    torch.testing.assert_close(probe.gradients(), one.gradients() - two.gradients())
    torch.testing.assert_close(METHODS["hires_cam"](probe), METHODS["hires_cam"](one) - METHODS["hires_cam"](two))
    removed = torch.rand(4, *probe.activations.shape[-2:], generator=torch.Generator().manual_seed(0)) > 0.5
    torch.testing.assert_close(losses(probe, removed), losses(one, removed) - losses(two, removed))


@pytest.mark.parametrize("name", ["increment_cam", "group_cam", "fusion_cam", "grad_pp_score_cam", "score_cam[budget=32]", "xgrad_cam"])
def test_methods_of_probability_take_a_similarity_as_it_is(name):
    heat = METHODS[name](Probe(nets.dense(), nets.images(2), likeness))
    assert heat.isfinite().all()
    assert not heat.requires_grad


def test_a_function_may_have_weights():
    torch.manual_seed(0)
    regression = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)).double()
    for name in ("grad_cam", "score_cam"):
        assert not METHODS[name](Probe(nets.dense(), nets.images(2), regression)).requires_grad
    assert regression[0].weight.grad is None


CLASS = "the target is a function of the logits, and this needs a class: give one as targets"


@pytest.mark.parametrize("name", ["cam", "finer_cam", "finer_cam[softmax]", "shapley_cam"])
def test_methods_that_need_a_class_say_so(name):
    with pytest.raises(ValueError, match=CLASS):
        METHODS[name](Probe(nets.gap(), nets.images(2), likeness))


def test_learned_maps_and_metrics_of_probability_say_so_too():
    probe, heat = Probe(nets.gap(), nets.images(2), likeness), torch.rand(2, 16, 16).double()
    with pytest.raises(ValueError, match=CLASS):
        LCam(nets.gap()).explain(probe)
    for metric in (metrics.AverageDrop(), metrics.Insertion(64), metrics.Deletion(64), metrics.RoadMorf(), metrics.RemoveAndClassify()):
        with pytest.raises(ValueError, match=CLASS):
            metric.measure(heat, probe)
    with pytest.raises(ValueError, match=CLASS):
        metrics.ADCC().measure(heat, probe, lambda _: heat)


def test_a_function_of_another_form_is_refused():
    for wrong, told in ((lambda y: y, r"\(2, 5\)"), (lambda y: y.sum(), r"\(\)"), (lambda _: 1.0, "float")):
        with pytest.raises(ValueError, match=rf"the target makes {told} of logits \(2, 5\), expected a score of each row, \[2\]"):
            Probe(nets.gap(), nets.images(2), wrong)


class Wrapped(nn.Module):
    """A network that returns its logits among other things."""

    def __init__(self, give):
        super().__init__()
        self.net, self.give = nets.Gap(), give

    def forward(self, x):
        return self.give(self.net(x))


@pytest.mark.parametrize(
    ("give", "output"),
    [
        (lambda y: {"aux": -y, "logits": y}, "logits"),
        (lambda y: (-y, y), 1),
        (lambda y: {"dense": y[..., None, None].expand(-1, -1, 2, 2)}, lambda found: found["dense"].mean((2, 3))),
        (lambda y: y, None),
    ],
)
def test_the_logits_are_taken_out_of_what_the_head_returns(give, output):
    network, x = Wrapped(give).eval(), nets.images(2).float()
    classifier = Classifier.of(network, "net.relu2", output=output)
    for one in (classifier, classifier.at("net.relu1"), classifier.frozen(), classifier.frozen().at("net.relu1")):
        torch.testing.assert_close(one(x).detach(), network.net(classifier.normalize(x)).detach())
    plain = Classifier.of(network.net, "relu2")
    for name in ("grad_cam", "score_cam"):
        torch.testing.assert_close(METHODS[name](Probe(classifier, x, 1)), METHODS[name](Probe(plain, x, 1)))
    if output != 1 and not callable(output):
        torch.testing.assert_close(METHODS["cam"](Probe(classifier, x, 1)), METHODS["cam"](Probe(plain, x, 1)))


class Layers(nn.Module):
    """The trunk of torchvision's LR-ASPP: its last map, and the finer one that the head reads beside it."""

    def __init__(self, network):
        super().__init__()
        self.backbone = network.backbone

    def forward(self, x):
        found = self.backbone(x)
        return found["high"], found["low"]


class Pixels(nn.Module):
    """Its head."""

    def __init__(self, network):
        super().__init__()
        self.classifier = network.classifier

    def forward(self, high, low):
        return {"out": self.classifier({"low": low, "high": high})}


def test_the_pixels_of_a_mask_are_explained_as_by_a_pass_through_the_whole_segmentation():
    torch.manual_seed(0)
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=4).double().eval()
    x = nets.images(1, 64, 64)
    mask = torch.zeros(64, 64).double()
    mask[10:40, 20:50] = 1

    def summed(found):
        return (F.interpolate(found["out"], (64, 64), mode="bilinear", align_corners=False) * mask).sum((2, 3))

    classifier = Classifier(Layers(network), Pixels(network), output=summed).double().eval()
    kept = []
    hook = network.backbone["16"].register_forward_hook(lambda _m, _given, a: kept.append(a))
    whole = network(classifier.normalize(x))["out"][0, 2][mask > 0].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(whole, kept[0])
    probe = Probe(classifier, x, 2)
    assert float(probe.score(probe.logits)[0]) == pytest.approx(whole.item())
    want = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu().detach()
    assert float(want.max()) > 0
    torch.testing.assert_close(METHODS["grad_cam"](probe), want)


@pytest.mark.parametrize("output", ["out", 0, None, lambda found: found])
def test_an_output_that_is_not_there_is_refused_with_those_that_are(output):
    classifier = Classifier.of(Wrapped(lambda y: {"aux": y, "logits": y}), "net.relu2", output=output)
    with pytest.raises(ValueError, match=r"returns dict \['aux', 'logits'\], expected logits \[B, C\]: pass output=, their key or index"):
        classifier(nets.images(1).float())


def test_explain_takes_a_function_and_prints_its_score(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("cam_core.figures.explained", lambda picture, heat, title: titles.append(title) or Figure())
    torch.manual_seed(0)
    Image.new("RGB", (32, 32), (200, 100, 0)).save(tmp_path / "a.png")

    def warmer(logits):
        return logits[:, 3] - logits[:, 1]

    given = {"model": "resnet8", "weights": None, "size": 32, "methods": ["grad_cam", "edges"]}
    pictures, problems = explain([tmp_path / "a.png"], tmp_path / "out", target=warmer, **given)
    assert (len(pictures), problems) == (2, [])
    target = json.loads((tmp_path / "out/explained.json").read_text())["images"][0]["target"]
    assert (target["class"], target["name"]) == (None, "warmer")
    assert titles[0][0] == f"warmer, {target['score']:.4g} · Grad-CAM"
    assert titles[0][1].startswith("predicted: ")
