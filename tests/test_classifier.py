"""The cut of a network, its weights, its frozen copy."""

import hashlib
import inspect
import operator
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from cam_core import METHODS, metrics
from cam_core.classifier import FACTS, Classifier
from cam_core.cutting import cut, cuts
from cam_core.learned.calm import Calm
from cam_core.learned.plain import with_pooled_head
from cam_core.metrics.grids import on_grid
from cam_core.networks import resnet_cifar
from cam_core.pretrained import default_layer, load_classifier
from cam_core.probe import Probe
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
    side = {"inception_v3": 299, "vit_h_14": 518}.get(name, 224)
    with torch.no_grad():
        activations, beside = classifier.look(torch.empty(1, 3, side, side, device="meta"))
        logits = classifier.head(activations, *beside)
    assert activations.ndim == 4
    channels, height, width = activations.shape[1:]
    assert channels >= 256
    assert 7 <= height == width <= 14 * side / 196  # stride 32 at the coarsest, the patches of vit_h_14 at the finest
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


class Through(nn.Module):
    """A convolution, what ``between`` does to its output, the mean, a linear layer."""

    def __init__(self, between):
        super().__init__()
        self.conv, self.fc, self.between = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), between

    def forward(self, x):
        return self.fc(self.between(self.conv(x)).mean((2, 3)))


def statement(x):
    x.relu_()
    return x


def of_a_view(x):
    x.view(-1).relu_()
    return x


def of_a_view_behind_another_operation(x):
    rows = (2 * x).flatten(1)
    rows[:, 5:].mul_(3.0)
    x[:, :3].add_(1.0)
    return x - rows.view_as(x)


def augmented(x):
    same, part = x, x[:, 1:]
    same += 1
    part *= 2
    return x


def augmented_sizes(x):
    height = side = x.shape[2]
    side += x.shape[3]
    return x.view(x.shape[0], -1, height, x.shape[3]) / side


def into_out(x):
    torch.clamp(x, min=0, out=x)
    return x


@torch.fx.wrap
def opaque(x):
    x[:, :2] = 0
    return x


def by_name(x):
    return opaque(x)


IN_PLACE = {
    "function": torch.relu_,
    "statement": statement,
    "view": of_a_view,
    "views": of_a_view_behind_another_operation,
    "+=": augmented,
    "+= of sizes": augmented_sizes,
    "operator": lambda x: operator.imul(x, 3),
    "out": into_out,
    "opaque": by_name,
    "positional": lambda x: F.hardtanh(x, -0.1, 0.1, True),
    "relu": lambda x: F.relu(x, True),
    "method": lambda x: x.add_(1).mul_(x),
    "module": nn.Sequential(nn.Dropout(), nn.Flatten(2), nn.LeakyReLU(0.3, True), nn.Unflatten(2, (6, 6))),
}


@pytest.mark.parametrize("between", IN_PLACE.values(), ids=IN_PLACE)
def test_operations_in_place_are_the_networks_own_and_touch_no_activations(between):
    torch.manual_seed(0)
    network, x = Through(between).eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        whole, before = network(x), network.conv(x)
        for layer in cuts(network):
            trunk, head = cut(network, layer)
            activations = trunk(x)
            kept = activations.clone()
            assert torch.equal(head(activations), whole), layer
            assert torch.equal(activations, kept), layer
            assert layer != "conv" or torch.equal(activations, before)
        assert torch.allclose(Classifier.of(network, "conv").frozen().scores(x), whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("between", [IN_PLACE[name] for name in IN_PLACE if name not in ("out", "method")])  # torch differentiates neither
@pytest.mark.parametrize("handed_over", [False, True])
def test_behind_operations_in_place_the_probe_keeps_activations_and_gradients_are_right(between, handed_over):
    torch.manual_seed(0)
    network, x = Through(between).eval(), torch.rand(2, 3, 8, 8)
    head = nn.Sequential(nn.Identity(), _Call(lambda a: network.fc(between(a).mean((2, 3))))) if handed_over else None
    classifier = Classifier(network.conv, head).eval() if handed_over else Classifier.of(network, "conv")
    probe = Probe(classifier, x, [1, 2])
    before = network.conv(classifier.normalize(x)).detach()
    leaf = before.clone().requires_grad_()
    want = torch.autograd.grad(network.fc(between(leaf * 1).mean((2, 3)))[[0, 1], [1, 2]].sum(), leaf)[0]
    torch.testing.assert_close(probe.gradients(), want)
    assert torch.equal(probe.activations, before)
    torch.testing.assert_close(METHODS["grad_cam"](probe), (want.mean((2, 3), keepdim=True) * before).sum(1).relu())


class _Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_network_may_work_in_place_on_its_input():
    network = nn.Sequential(OrderedDict(drop=nn.Dropout(0.0), relu=nn.ReLU(inplace=True), conv=nn.Conv2d(3, 4, 3), end=_Ending(4, 5)))
    probe = Probe(Classifier.of(network, "conv"), torch.rand(2, 3, 8, 8), [1, 2])
    x = probe.inputs.requires_grad_()
    want = torch.autograd.grad(network(x * 1)[[0, 1], [1, 2]].sum(), x)[0]
    torch.testing.assert_close(METHODS["saliency"](probe), want.abs().amax(1))


class _Ending(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


def doubling(channels=3):
    """BatchNorm that doubles, whatever the running statistics would say."""
    norm = nn.BatchNorm2d(channels, eps=0).eval()
    nn.init.constant_(norm.weight, 2.0)
    return norm


class Shared(nn.Module):
    """One convolution before and behind a BatchNorm: as a module called twice, a parameter of two modules, or a function of its weight."""

    def __init__(self, how):
        super().__init__()
        self.how, self.b1, self.b2, self.conv = how, doubling(), doubling(), nn.Conv2d(3, 3, 1, bias=False)
        self.conv2 = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight = nn.Parameter(torch.eye(3)[..., None, None].clone())
        self.conv2.weight = self.conv.weight

    def forward(self, x):
        if self.how == "conv twice":
            x = self.b2(self.conv(self.b1(self.conv(x))))
        elif self.how == "parameter":
            x = self.b2(self.conv2(self.b1(self.conv(x))))
        elif self.how == "norm twice":
            x = self.b1(self.conv2(self.b1(self.conv(x))))
        elif self.how == "function":
            x = self.b2(F.conv2d(self.b1(self.conv(x)), self.conv.weight))
        elif self.how == "output":
            x = self.conv(x)
            x = self.b1(x) + 3 * x
        return x.relu().mean((2, 3))


@pytest.mark.parametrize("how", ["conv twice", "parameter", "norm twice", "function", "output"])
def test_no_batch_norm_is_folded_into_what_is_used_elsewhere_too(how):
    network = Shared(how)
    classifier = Classifier.of(network, "relu", mean=(0, 0, 0), std=(1, 1, 1))
    x = torch.tensor([0.1, 0.2, 0.3])[None, :, None, None].expand(1, 3, 4, 4)
    want = torch.tensor([[0.4, 0.8, 1.2]]) * (1.25 if how == "output" else 1)
    for made in (network, classifier, classifier.frozen()):
        torch.testing.assert_close(made(x).detach(), want)


def test_a_convolution_whose_weight_is_made_at_each_call_stays_as_it_is():
    torch.manual_seed(0)
    network = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.ReLU(), _Ending(4, 5))
    classifier, x = Classifier.of(network, "2"), torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(classifier.frozen()(x), classifier(x).detach())


class Wrapped(nn.Module):
    """A network that returns what ``give`` makes of the logits."""

    def __init__(self, give, classes=5):
        super().__init__()
        self.net, self.give = nets.Gap(classes=classes), give

    def forward(self, x):
        return self.give(self.net(x))


class Output(NamedTuple):
    """As torchvision's Inception returns in training."""

    logits: torch.Tensor
    aux: torch.Tensor


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (
            lambda y: {"out": y, "aux": y},
            r"returns dict \['out', 'aux'\], expected logits \[B, C\]: pass output=, their key or index or a function",
        ),
        (lambda y: (y, y), "returns tuple, expected"),
        (lambda y: Output(y, y), "returns Output, expected"),
        (lambda y: y[:, :, None, None], r"returns Tensor \(2, 5, 1, 1\), expected"),
    ],
)
def test_what_is_no_tensor_of_class_scores_is_refused_in_one_sentence(give, told):
    classifier, x = Classifier.of(Wrapped(give), "net.relu2"), torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match=told):
        classifier(x)
    with pytest.raises(ValueError, match=told):
        Probe(classifier, x, 0)
    with pytest.raises(ValueError, match=told):
        METHODS["grad_cam"](Probe(classifier, x))
    with pytest.raises(ValueError, match=told.replace("(2, ", "(1, ")):
        METHODS["rise"](Probe(classifier, x, chunk=1))
    with pytest.raises(ValueError, match=told):
        metrics.AverageDrop().update(torch.ones(2, 16, 16), Probe(classifier, x))


@pytest.mark.parametrize("give", [torch.sigmoid, lambda y: y.softmax(1), lambda y: F.softmax(y, 1), nn.Softmax(1), nn.Sigmoid()])
def test_a_network_that_ends_in_probabilities_is_refused(give):
    with pytest.raises(ValueError, match=r"Wrapped ends in a (softmax|sigmoid), expected logits \[B, C\]: pass the network without it"):
        Classifier.of(Wrapped(give), "net.relu2")


def test_what_only_holds_a_network_is_refused_with_where_it_is():
    network = nets.Gap()
    for layer in ("relu2", None):
        with pytest.raises(ValueError, match=r"DataParallel only wraps a network: pass the network itself, its \.module"):
            Classifier.of(nn.DataParallel(network), layer)
        with pytest.raises(ValueError, match=r"OptimizedModule only wraps a network: pass the network itself, its \._orig_mod"):
            Classifier.of(torch.compile(network), layer)
        with pytest.raises(ValueError, match="is a scripted network, which cannot be cut: pass the Python module it was made of"):
            Classifier.of(torch.jit.script(network), layer)
        with pytest.raises(ValueError, match="is a scripted network"):
            Classifier.of(torch.jit.trace(network, torch.rand(1, 3, 16, 16)), layer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_digest_is_of_the_bytes_whatever_the_type(dtype):
    torch.manual_seed(0)
    classifier = Classifier.of(resnet_cifar(8).to(dtype), "layer3")
    total, before = hashlib.sha256(), classifier.digest()
    for key, value in sorted(classifier.state_dict().items()):
        kept = value if value.dtype == torch.int64 else value.view({2: torch.int16, 8: torch.int64}[value.itemsize])
        total.update(key.encode() + kept.numpy().tobytes())
    assert before == total.hexdigest()
    with torch.no_grad():
        classifier.head.fc.bias[0] += 1
    assert classifier.digest() != before


def test_ones_own_network_becomes_a_classifier():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3).half().train()
    classifier = Classifier.of(network, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), name="mine")
    assert (classifier.layer, classifier.name, classifier.mean.dtype) == ("layer4", "mine", torch.float16)
    assert not any(module.training for module in (*network.modules(), *classifier.modules()))
    assert next(classifier.head.fc.parameters()) is next(network.fc.parameters())
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(Probe(classifier, x).logits, network(((x - 0.5) / 0.25).half()).float())
    assert Classifier.of(torchvision.models.mobilenet_v2(), "features.17").layer == "features.17"
    with pytest.raises(ValueError, match=r"which layer of gap is explained is not known: pass layer=, one of its cuts conv1, relu1"):
        Classifier.of(nets.Gap())
    with pytest.raises(TypeError, match=r"load_classifier takes a name, got Gap: a network of your own goes into Classifier\.of"):
        load_classifier(nets.Gap())


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


def test_no_fact_of_a_classifier_is_lost_where_its_parts_are_taken_elsewhere():
    """How images are resized, whose weights they are, how the logits are read: a copy that forgot one answered otherwise, in silence."""
    asked = set(inspect.signature(Classifier).parameters)
    assert asked == {"trunk", "head", "mean", "std", "network", *FACTS}
    given = {"size": 96, "resize": 100, "interpolation": "bicubic", "name": "own", "layer": "last", "weights": "w", "tokens": 1}
    given |= {"activation": "sigmoid", "output": lambda found: found}
    made = Classifier(nets.gap().trunk, nets.gap().head, mean=(0.1,) * 3, std=(0.2,) * 3, **given).eval()
    assert set(given) == set(FACTS)
    own_logits = {"output": None, "activation": "softmax"}
    others = [(made.with_parts(made.trunk, made.head), {}), (made.frozen(), {}), (on_grid(made, "DiPart", 2, 0), {"name": "own DiPart"})]
    for other, changed in [*others, (with_pooled_head(made, 3), own_logits), (Calm(made, 3).classifier, own_logits)]:
        assert {fact: getattr(other, fact) for fact in FACTS} == given | changed
        assert torch.equal(other.mean, made.mean)
        assert torch.equal(other.std, made.std)
