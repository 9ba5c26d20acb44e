"""The networks with finer maps that CALM is trained on, and the learning rates of their parts."""

import math

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cam_core import Classifier, Probe
from cam_core.learned import LfiCam
from cam_core.learned.abn import Abn
from cam_core.learned.calm import Calm
from cam_core.learned.plain import pooled_head
from cam_core.pretrained import LITE, load_classifier
from training.recipes import CALM, CALM_INCEPTION, CALM_VGG, CALM_WSOL, CALM_WSOL_INCEPTION, CALM_WSOL_VGG, calm_plan, scratch_recipe
from training.trunks import calm_trunk, fine_tuned, finer_vgg


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_finer_resnets_reuse_every_weight(name, stride, side, tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    file = tmp_path / f"{name}.safetensors"
    save_file(network.state_dict(), file)
    backbone = calm_trunk(name, str(file), stride)
    activations = backbone.activations(torch.rand(1, 3, 224, 224))
    assert activations.shape[-2:] == (side, side)
    trunk = backbone.trunk.state_dict()
    assert all(torch.equal(value, trunk[key]) for key, value in network.state_dict().items() if not key.startswith("fc"))
    assert math.isclose(32 / stride, side / 7)


@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_efficientnet_lite_keeps_its_weights_its_colours_and_gets_a_finer_map(stride, side):
    """By CALM's reduced recipe all that comes before the last stage that steps has the base rate, the rest ten times that."""
    made, stock = calm_trunk(LITE, stride=stride), load_classifier(LITE)
    image = torch.rand(1, 3, 224, 224)
    assert (made.activations(image).shape[1:], stock.activations(image).shape[-1]) == ((1280, side, side), 7)
    assert torch.equal(made.mean, stock.mean)
    assert all(torch.equal(value, stock.trunk.state_dict()[key]) for key, value in made.trunk.state_dict().items())
    recipe = calm_plan("cub", LITE).recipe
    rates = {key: recipe.multiplier(key) for key, _ in Calm(made, 3, uniform=True).named_parameters()}
    slow = ("trunk.conv_stem", "trunk.bn1", *(f"trunk.blocks.{stage}." for stage in range(5)))
    assert all(rate == (1 if any(part in key for part in slow) else 10) for key, rate in rates.items())
    assert {key.split(".")[-2] for key, rate in rates.items() if rate == 10} >= {"class_head", "location_head", "conv_head"}


def test_a_network_to_fine_tune_keeps_its_weights_and_gets_another_linear_layer(tmp_path):
    """And LFI-CAM and ABN can be built of it, ABN's attention on the same map of 14x14."""
    torch.manual_seed(0)
    network = torchvision.models.get_model("resnet18", weights=None).eval()
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    made = fine_tuned("resnet18", 5, str(tmp_path / "own.safetensors"))
    trunk, image = made.trunk.state_dict(), torch.rand(1, 3, 224, 224)
    assert all(torch.equal(value, trunk[key]) for key, value in network.state_dict().items() if not key.startswith("fc"))
    assert made.activations(image).shape[-2:] == (14, 14)
    built_of(made)


def built_of(made):
    image = torch.rand(1, 3, 224, 224)
    for model in (Abn(made), LfiCam(made)):
        probe = Probe(model.classifier.eval(), image)
        assert (probe.logits.shape, model.explain(probe).shape) == ((1, 5), (1, 14, 14))
    return {key: scratch_recipe("abn", "cub", network=made.name).multiplier(key) for key, _ in Abn(made).named_parameters()}


def test_lite0_is_fine_tuned_with_its_own_colours_and_its_first_stages_slowly():
    made = fine_tuned(LITE, 5)
    assert torch.equal(made.mean, load_classifier(LITE).mean)
    rates = built_of(made)
    slow = {key for key, rate in rates.items() if rate == 1}
    assert slow == {key for key in rates if ".features." in key}
    assert any(".branch.stage.2" in key for key in rates), "the branch ends in a head of its own"


def test_other_families_are_refused():
    with pytest.raises(ValueError, match="got mobilenet_v2: take resnet18 or resnet50"):
        fine_tuned("mobilenet_v2", 3, None)
    with pytest.raises(ValueError, match="torchvision ResNet, VGG or inception_v3"):
        calm_trunk("mobilenet_v2", None)
    with pytest.raises(ValueError, match="32, 16 or 8"):
        calm_trunk("resnet18", None, 4)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_vgg_has_conv6_and_fewer_poolings(name, stride, side):
    with torch.device("meta"):
        backbone = calm_trunk(name, None, stride)
        stock = torchvision.models.get_model(name, weights=None).state_dict()
        assert backbone.activations(torch.zeros(2, 3, 224, 224)).shape == (2, 1024, side, side)
    kept = {key: value.shape for key, value in backbone.trunk.state_dict().items() if key.startswith("features")}
    assert kept == {key: value.shape for key, value in stock.items() if key.startswith("features")}  # numbered as by torchvision
    assert sum(isinstance(m, torch.nn.MaxPool2d) for m in backbone.trunk.modules()) == (4 if stride == 16 else 3)
    parts = [name for name, _ in backbone.trunk.named_children()]
    assert parts == ["features", "conv6", *(["bn6"] if name == "vgg16_bn" else []), "relu6"]
    assert (backbone.trunk.conv6.in_channels, backbone.trunk.conv6.kernel_size) == (512, (3, 3))


@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_inception_reads_mixed_6e(stride, side):
    with torch.device("meta"):
        backbone = calm_trunk("inception_v3", None, stride)
        assert backbone.activations(torch.zeros(2, 3, 224, 224)).shape == (2, 1024, side, side)
    names = [name for name, _ in backbone.trunk.named_children()]
    assert names[-3:] == ["Mixed_6e", "A3_1b", "A3_2b"]
    assert backbone.trunk.A3_1b[0].in_channels == 768
    with torch.device("meta"):
        stock = torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()
    kept = backbone.trunk.state_dict()
    assert all(kept[key].shape == stock[key].shape for key in kept if not key.startswith("A3"))


def test_the_benchmark_s_inception_drops_half_of_what_its_new_convolutions_and_its_head_read():
    """Written out: features of Mixed_6e, then conv, ReLU, conv, ReLU; a half is left out three times in training, never in eval mode."""
    torch.manual_seed(0)
    trunk = calm_trunk("inception_v3", None, 8, wsol=True).trunk
    read = trunk[: [name for name, _ in trunk.named_children()].index("Mixed_6e") + 1]
    convolutions = [module for name, module in trunk.named_modules() if name.startswith("A3_") and isinstance(module, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.padding) for c in convolutions] == [
        (768, 1024, (3, 3), (1, 1)), (1024, 1024, (3, 3), (1, 1)),
    ]  # fmt: skip
    images = torch.rand(1, 3, 75, 75)
    with torch.no_grad():
        features = read.eval()(images)
        expected = features
        for convolution in convolutions:
            assert not convolution.bias.any()
            expected = convolution(expected).relu()
        torch.testing.assert_close(trunk.eval()(images), expected)
        tail = trunk[len(read) :].train()
        torch.manual_seed(3)
        found = tail(features)
        torch.manual_seed(3)
        dropped = torch.nn.functional.dropout(features, 0.5)
        for convolution in convolutions:
            dropped = torch.nn.functional.dropout(convolution(dropped).relu(), 0.5)
        torch.testing.assert_close(found, dropped)


def test_learning_rate_groups_fit_the_networks():
    """As released, and as in the WSOL protocol: what is pretrained learns at the base rate, what is new ten times as fast."""
    for name, recipe, wsol in (("vgg16_bn", CALM_VGG, CALM_WSOL_VGG), ("inception_v3", CALM_INCEPTION, CALM_WSOL_INCEPTION)):
        with torch.device("meta"):
            made = Calm(calm_trunk(name, None), 3, uniform=True)
        for key, _ in made.named_parameters():
            new = any(part in key for part in ("conv6", "bn6", "A3_", "class_head", "location_head"))
            assert recipe.multiplier(key) == wsol.multiplier(key) == (10 if new else 1), key
    with torch.device("meta"):
        made = Calm(calm_trunk("resnet50", None), 3, uniform=True)
    wsol = {key: CALM_WSOL.multiplier(key) for key, _ in made.named_parameters()}
    assert all(rate == (10 if "layer4" in key or ".head." in key else 1) for key, rate in wsol.items())
    released = {key: CALM.multiplier(key) for key in wsol}
    assert {key for key in wsol if wsol[key] != released[key]} == {
        "classifier.trunk.bn1.weight", "classifier.trunk.bn1.bias",
        *(f"classifier.trunk.layer4.{block}.conv1.weight" for block in range(3)),
    }  # fmt: skip


def test_calm_on_new_convolutions():
    """A VGG of random weights end to end: probabilities, one step, gradients in conv6 and before it."""
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers([8, "M", 8, "M", 512, "M", 512, "M", 512, "M"])
    trunk = finer_vgg(torch.nn.ModuleDict({"features": features}), 8)
    made = Calm(Classifier(trunk, pooled_head(1024, 2), name="vgg"), 3, uniform=True)
    loss, _ = made.loss({"images": torch.rand(2, 3, 32, 32), "labels": torch.tensor([0, 2])})
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())
    assert trunk.features[0].weight.grad.abs().sum() > 0
    probe = Probe(made.eval().classifier, torch.rand(2, 3, 32, 32))
    assert made.explain(probe).shape == (2, 4, 4)
    torch.testing.assert_close(made.class_maps(probe).sum((1, 2, 3)), torch.ones(2))
