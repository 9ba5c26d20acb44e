"""The papers' own recipes reach the training: what `fit` gets is the published record, on all training images, and nothing else differs."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from cam_core.data import Dataset
from cam_core.learned.calm import CalmHead
from cam_core.pretrained import load_classifier
from data_scripts.draw import draw
from reproduce import jobs, sources
from studies.ablations import widened
from training import store
from training.batches import batches
from training.recipes import PAPERS
from training.trunks import calm_trunk


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "drawn", small=True, progress=False)


@pytest.fixture
def fitted(monkeypatch, tmp_path):
    """What `fit` is called with, and nothing trained."""
    calls = []

    def fit(model, recipe, data, **_):
        calls.append((model, recipe, data))
        return {"history": [], "updates": 0}

    monkeypatch.setattr(store, "fit", fit)
    monkeypatch.setattr(store, "accuracy", lambda *_: 0.0)
    for name in ("imagenet", "cub"):  # drawn images are too few to hold any out, and fewer than the papers'
        monkeypatch.setitem(sources.SOURCES, name, replace(sources.SOURCES[name], held_out=0, published=None, classes=None))
    monkeypatch.setattr(jobs, "STORE", tmp_path / "models")
    monkeypatch.setattr(jobs, "calm_trunk", partial(calm_trunk, weights=None))
    return calls


@pytest.mark.parametrize(
    ("paper", "name", "recipe", "side"),
    [
        ("paper", "resnet18", "calm", 28), ("paper", "vgg16_bn", "calm_vgg", 28), ("paper", "inception_v3", "calm_inception", 28),
        ("wsol", "resnet18", "calm_wsol", 28), ("wsol", "vgg16", "calm_wsol_vgg", 14),
        ("wsol", "inception_v3", "calm_wsol_inception", 28),
    ],
)  # fmt: skip
def test_calm(fitted, root, paper, name, recipe, side):
    learned = jobs.calm("cub", name, root, paper=paper)
    assert [record for _, record, _ in fitted] == [PAPERS[recipe]] * 2
    network = ["network: resnet18 instead of resnet50"] if name == "resnet18" else []
    if recipe == "calm_inception":
        network = ["Mixed_6e: read, as by the WSOL benchmark, instead of left out"]
    assert [summary["deviations"] for _, summary in learned.values()] == [network] * 2
    model, _, data = fitted[0]
    with torch.no_grad():
        assert model.eval().classifier.activations(torch.rand(1, 3, 224, 224)).shape[2:] == (side, side)
    assert (model.head.detach_scale, model.head.uniform) == (True, False)
    assert data["images"].shape[2:] == (256, 256)
    fitted.clear()
    _, summary = jobs.network("cub", name, root, paper=paper)
    assert fitted[0][1] == PAPERS[recipe]
    assert summary["deviations"] == network
    if name == "inception_v3":  # the benchmark's ends in two bare convolutions, with dropout before each and before the head
        for made in (model, fitted[0][0]):
            parts = [type(m) for m in list(made.classifier.trunk.children())[-5 if paper == "wsol" else -2 :] for m in (m, *m.children())]
            new = [nn.Conv2d, *[nn.BatchNorm2d] * (paper == "paper"), nn.ReLU]
            drop = [nn.Dropout] * (paper == "wsol")
            assert [part for part in parts if part is not Conv2dNormActivation] == [*drop, *new, *drop, *new, *drop]


@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn"])
def test_cam_and_calm_start_alike(fitted, root, name):
    """As released: Glorot's uniform distribution, for VGG He's normal one over the outputs; biases of 0."""
    jobs.network("cub", name, root, paper="paper")
    (linear,) = (m for m in fitted[0][0].classifier.head.modules() if isinstance(m, nn.Linear))
    head = CalmHead(linear.in_features, 5000, name=name)
    for layer in (head.class_head, linear):
        assert not layer.bias.any()
        places, classes = layer.weight.shape[1], layer.weight.shape[0]
        if name == "resnet18":
            assert layer.weight.abs().max() <= (6 / (places + classes)) ** 0.5
        wanted = (2 / (places + classes)) ** 0.5 if name == "resnet18" else (2 / classes) ** 0.5
        assert layer.weight.std().item() == pytest.approx(wanted, rel=0.05)


def test_fewer_images_than_the_papers_have_are_a_deviation(fitted, root, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "cub", replace(sources.SOURCES["cub"], published=5994, classes=200))
    _, summary = jobs.network("cub", "vgg16", root, paper="wsol")
    count = len(fitted[0][2]["images"])
    classes = len(sources.images("cub", root)("squash").classes)
    assert summary["deviations"] == [f"images: {count} instead of 5994", f"classes: {classes} instead of 200"]
    monkeypatch.setitem(sources.SOURCES, "cub", replace(sources.SOURCES["cub"], published=count, classes=classes))
    assert jobs.network("cub", "vgg16", root, paper="wsol")[1]["deviations"] == []


def test_calm_and_its_baseline_on_imagenet(fitted, root):
    """Both are fine-tuned with finer maps by the WSOL benchmark's recipe."""
    jobs.calm("imagenet", "resnet18", root, paper="wsol")
    plain, _ = jobs.network("imagenet", "resnet18", root, paper="wsol")
    assert [record for _, record, _ in fitted] == [PAPERS["calm_wsol_imagenet"]] * 3
    assert all(data["images"].shape[2:] == (256, 256) for *_, data in fitted)
    with torch.no_grad():
        assert plain.activations(torch.rand(1, 3, 224, 224)).shape[2:] == (28, 28)


@pytest.mark.parametrize(("name", "recipe"), [("resnet18", "l_cam"), ("vgg11", "l_cam_vgg")])
def test_l_cam(fitted, root, name, recipe):
    classifier = load_classifier(name, None, num_classes=8)
    learned = jobs.l_cam("imagenet", classifier, root, paper="paper")
    assert [record for _, record, _ in fitted] == [PAPERS[recipe]] * 2
    network = [f"network: {name} instead of {'resnet50' if name == 'resnet18' else 'vgg16'}"]
    assert [summary["deviations"] for _, summary in learned.values()] == [network] * 2
    model, _, data = fitted[0]
    assert (model.masks, model.cached) == ("batch", False)
    assert isinstance(data, Dataset)
    assert data.split == "train"
    assert min(data[0].image.shape[1:]) == 256
    example = sources.images("imagenet", root, "full")("crop")[3]
    assert data.annotations[3].label == int(classifier.frozen()(example.image[None]).argmax())


def test_lfi_cam_and_abn(fitted, root):
    options = {"paper": "paper"}
    summaries = [make("imagenet", "resnet18", root, **options)[1] for make in (jobs.plain, jobs.lfi_cam, jobs.abn)]
    assert [record.name for _, record, _ in fitted] == ["plain_imagenet", "lfi_cam_imagenet", "abn_imagenet"]
    assert all(record == PAPERS[record.name] for _, record, _ in fitted)
    network = ["network: resnet18 instead of resnet50"]
    assert [summary["deviations"] for summary in summaries] == [network, network, [*network, "stem: stride 1, as LFI-CAM's, instead of 2"]]
    _, recipe, data = fitted[1]
    assert data.split == "train"
    _, batch = next(batches(data, recipe.shortened(1, batch=4), 0, 0))
    assert batch["images"].shape == (4, 3, 224, 224)


def test_other_networks_have_no_recipe(root):
    with pytest.raises(ValueError, match="the paper has no recipe for mobilenet_v2: it trains resnet, vgg, inception"):
        jobs.calm("cub", "mobilenet_v2", root, paper="paper")


def test_the_widened_network_has_lfi_cams_size(fitted, root):
    wide, _ = widened("drawn_imagenet", "resnet20", root)
    model, _ = jobs.lfi_cam("drawn_imagenet", "resnet20", root)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (wide, model)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)
    narrow, _ = jobs.plain("drawn_imagenet", "resnet20", root)
    assert sum(p.numel() for p in narrow.parameters()) < 0.8 * sizes[0]
