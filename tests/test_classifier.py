"""The cut of a network, its weights, its frozen copy."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cam_core.classifier import Classifier
from cam_core.cutting import cut, cuts
from cam_core.pretrained import default_layer, load_classifier
from tests import nets


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "densenet121", "vgg11", "resnet8"])
def test_trunk_and_head_are_the_network_to_the_bit(name):
    torch.manual_seed(0)
    classifier = load_classifier(name, weights=None)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        whole = classifier._network[0].eval()((x - classifier.mean) / classifier.std)
        activations = classifier.activations(x)
        kept = activations.clone()
        assert torch.equal(classifier.head(activations), whole)
        assert torch.equal(activations, kept)
        assert float(activations.min()) >= 0.0
        frozen = classifier.frozen()
        assert torch.allclose(frozen(x), whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) and name != "densenet121" for m in frozen.modules())


@pytest.fixture
def weightless(monkeypatch):
    """Networks built meanwhile hold no numbers, only shapes: the largest has 600 million parameters."""
    register = torch.nn.Module.register_parameter

    def shape_only(module, name, parameter):
        register(module, name, None if parameter is None else torch.nn.Parameter(parameter.to("meta"), parameter.requires_grad))

    monkeypatch.setattr(torch.nn.Module, "register_parameter", shape_only)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))  # none of them has to be refused
def test_every_classification_network_of_torchvision_is_cut_at_a_map(name, weightless):
    classifier = load_classifier(name, weights=None, device="meta")
    side = 299 if name == "inception_v3" else 224
    with torch.no_grad():
        activations, beside = classifier.look(torch.empty(1, 3, side, side, device="meta"))
        logits = classifier.head(activations, *beside)
    assert activations.ndim == 4
    channels, height, width = activations.shape[1:]
    assert channels >= 256
    assert 7 <= height == width <= 16  # stride 32 at the coarsest, the patches of vit_h_14 at the finest
    assert logits.shape == (1, 1000)


def test_an_unknown_family_is_refused_with_its_cuts():
    with pytest.raises(ValueError, match=r"which layer of novel is explained is not known: pass layer=, one of its cuts conv1, relu1"):
        default_layer("novel", nets.Gap())


def test_every_cut_of_a_network_is_one():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        whole = network(x)
        for layer in cuts(network):
            trunk, head = cut(network, layer)
            assert torch.equal(head(trunk(x)), whole), layer


def test_at_cuts_the_same_weights_elsewhere():
    classifier = load_classifier("resnet18", weights=None)
    other = classifier.at("layer3")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other(x), classifier(x))
    assert other.activations(x).shape == (1, 256, 4, 4)
    assert other.head.layer4 is not None
    assert next(other.head.fc.parameters()) is next(classifier.head.fc.parameters())


def test_a_branch_is_refused_with_the_nearest_cuts():
    with pytest.raises(ValueError, match=r"'layer4.1.conv1' is no cut.*layer4.0.relu_1"):
        load_classifier("resnet18", weights=None, layer="layer4.1.conv1")
    with pytest.raises(ValueError, match="no layer 'nope'"):
        load_classifier("resnet18", weights=None, layer="nope")
    with pytest.raises(ValueError, match="has one cut only"):
        Classifier(torch.nn.Identity(), torch.nn.Identity()).at("layer3")
    assert not Classifier(torch.nn.Identity(), torch.nn.Identity()).whole
    assert load_classifier("resnet18", weights=None).whole
    with pytest.raises(ValueError, match="unknown network 'resnet19'"):
        load_classifier("resnet19")


def test_an_in_place_operation_behind_the_cut_does_not_touch_the_activations():
    classifier = nets.gap()
    classifier = classifier.at("conv2")
    activations = classifier.activations(nets.images(1)).detach()
    kept = activations.clone()
    classifier.head(activations)
    assert torch.equal(activations, kept)
    assert float(kept.min()) < 0  # the ReLU behind the cut would have shown


def test_weights_come_from_the_folder_that_is_named(tmp_path, monkeypatch):
    torch.manual_seed(1)
    network = torchvision.models.squeezenet1_1(weights=None)
    save_file(network.half().state_dict(), tmp_path / "squeezenet1_1_mine.safetensors")
    monkeypatch.setenv("CAM_WEIGHTS", str(tmp_path))
    classifier = load_classifier("squeezenet1_1")
    assert classifier.weights == "squeezenet1_1_mine"
    assert torch.equal(classifier.state_dict()["trunk.features.0.weight"], network.features[0].weight.float())
    save_file(network.state_dict(), tmp_path / "squeezenet1_1_other.safetensors")
    with pytest.raises(ValueError, match="2 files for squeezenet1_1"):
        load_classifier("squeezenet1_1")


def test_imagenet_weights_of_a_folder_see_images_on_the_scale_they_were_trained_on(tmp_path, monkeypatch):
    """torchvision's own GoogLeNet rescales its input where it has pretrained weights."""
    torch.manual_seed(1)
    theirs = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False, transform_input=True).eval()
    save_file(theirs.state_dict(), tmp_path / "googlenet_mine.safetensors")
    monkeypatch.setenv("CAM_WEIGHTS", str(tmp_path))
    classifier, images = load_classifier("googlenet"), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        ours, expected = classifier(images), theirs(classifier.normalize(images))
        theirs.transform_input = False
        other = theirs(classifier.normalize(images))
    assert (ours - expected).abs().max() < 0.01 * (ours - other).abs().max()


def test_weights_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), file)
    with pytest.raises(ValueError, match=r"w.safetensors does not fit the network: classifier.1.* has \(7.*expected \(1000"):
        load_classifier("squeezenet1_1", weights=file)
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        load_classifier("squeezenet1_1", weights=tmp_path / "none.safetensors")
