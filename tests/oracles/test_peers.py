"""The same maps as pytorch-grad-cam, TorchCAM and Captum where they compute the same thing; elsewhere the deviation itself."""

import numpy as np
import pytest
import torch
import torchvision

from cam_core import load_classifier, maps
from cam_core.methods import METHODS
from cam_core.probe import Probe

pytestmark = pytest.mark.oracle
pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed: make setup")
torchcam = pytest.importorskip("torchcam.methods", reason="torchcam is not installed: make setup")
attr = pytest.importorskip("captum.attr", reason="captum is not installed: make setup")

SIDE = 64


@pytest.fixture(scope="module", params=["resnet18", "vgg16"])
def case(request):
    """(classifier, the same network plain, its layer, normalised images, images, targets), random weights."""
    torch.manual_seed(0)
    classifier = load_classifier(request.param, weights=None, num_classes=10)
    network = classifier._network[0].eval()
    for module in network.modules():  # in-place operations behind the layer would change what the peers' hooks keep
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    layer = network.layer4 if request.param == "resnet18" else network.features[29]
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return classifier, network, layer, classifier.normalize(images), images, torch.tensor([3, 7])


def peer(kind, case, **options):
    """A pytorch-grad-cam map before its resizing, [B,h,w]."""
    _, network, layer, inputs, _, targets = case
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, kind)(model=network, target_layers=[layer], **options) as cam:
        cam.activations_and_grads(inputs)  # registers nothing new; makes the hooks' first pass
        chosen = [ClassifierOutputTarget(int(t)) for t in targets]
        logits = cam.activations_and_grads(inputs)
        network.zero_grad()
        sum(target(out) for target, out in zip(chosen, logits, strict=True)).backward()
        a, g = cam.activations_and_grads.activations[0].numpy(), cam.activations_and_grads.gradients[0].numpy()
        return torch.from_numpy(np.asarray(cam.get_cam_image(inputs, layer, chosen, a, g, eigen_smooth=False)))


def agree(ours, theirs, tolerance=1e-4):
    """Equal to a share of the range, after a rectification and a rescaling that both sides share."""
    ours, theirs = maps.min_max(ours.relu().double()), maps.min_max(theirs.relu().double())
    return float((ours - theirs).abs().max()) <= tolerance


@pytest.mark.parametrize(("kind", "name"), [("GradCAM", "grad_cam"), ("HiResCAM", "hires_cam"), ("LayerCAM", "layer_cam")])
def test_grad_cam_package_agrees(case, kind, name):
    classifier, _, _, _, images, targets = case
    assert agree(METHODS[name](Probe(classifier, images, targets)), peer(kind, case))


def test_its_grad_cam_pp_adds_an_epsilon_of_the_size_of_the_denominator(case):
    classifier, network, _, _, images, targets = case
    theirs, ours = peer("GradCAMPlusPlus", case), METHODS["grad_cam_pp"](Probe(classifier, images, targets))
    probe = Probe(classifier, images, targets)
    g, a = probe.gradients().double(), probe.activations.double()
    alpha = torch.where(g != 0, g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + 1e-6), 0.0)
    with_epsilon = torch.einsum("bk,bkhw->bhw", (alpha * g.relu()).sum((2, 3)), a)
    assert agree(with_epsilon, theirs, 1e-3)  # this is what it computes
    if isinstance(network, torchvision.models.ResNet):
        assert not agree(ours, theirs, 1e-3)  # and not the paper's formula; should this fail, the epsilon is gone upstream


@pytest.mark.parametrize(("kind", "name"), [("GradCAM", "grad_cam"), ("LayerCAM", "layer_cam")])
def test_torchcam_agrees(case, kind, name):
    classifier, network, layer, inputs, images, targets = case
    with getattr(torchcam, kind)(network, layer) as extractor:
        logits = network(inputs.clone().requires_grad_())
        theirs = extractor(targets.tolist(), logits)[0].detach()
    assert agree(METHODS[name](Probe(classifier, images, targets)), theirs)


def test_torchcam_loses_the_denominator_of_grad_cam_pp(case):
    classifier, network, layer, inputs, images, targets = case
    with torchcam.GradCAMpp(network, layer) as extractor:
        logits = network(inputs.clone().requires_grad_())
        theirs = extractor(targets.tolist(), logits)[0].detach()
    probe = Probe(classifier, images, targets)
    g, a = probe.gradients().double(), probe.activations.double()
    without = torch.einsum("bk,bkhw->bhw", (g**2 * g.relu()).sum((2, 3)), a)
    assert agree(without, theirs, 1e-3)  # should this fail, the division has come back upstream


def test_captum_agrees_and_does_not_rectify(case):
    classifier, network, layer, inputs, images, targets = case
    theirs = attr.LayerGradCam(network, layer).attribute(inputs, targets)[:, 0].detach()
    probe = Probe(classifier, images, targets)
    signed = torch.einsum("bk,bkhw->bhw", probe.gradients().mean((2, 3)), probe.activations)
    assert torch.allclose(signed, theirs, rtol=1e-4, atol=1e-4 * float(signed.abs().max()))
    assert agree(METHODS["grad_cam"](probe), theirs)
