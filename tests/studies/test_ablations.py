"""LFI-CAM's ablations: what their maps are, and what they are called."""

import pytest
import torch
import torch.nn.functional as F

from cam_core.learned import LfiCam, lfi_backbone
from cam_core.learned.lfi import scaled_map
from cam_core.networks import resnet_cifar
from cam_core.probe import Probe
from studies.ablations import LEARNS, Learned, OneByOne, Uniform, equal_width
from tests import nets
from tests.learned.test_lfi import randomised


def test_uniform_weights_make_the_mean_activation():
    model = randomised(Uniform(nets.gap()).double())
    model.classifier.trunk.importance.weights.fill_(1 / 6)  # randomised, too
    images = nets.images(3)
    features = model.classifier.trunk.features(model.classifier.normalize(images))
    mean = features.mean(1)
    low, high = mean.amin((1, 2), keepdim=True), mean.amax((1, 2), keepdim=True)
    torch.testing.assert_close(model.explain(Probe(model.classifier, images)), (mean - low) / (high - low))
    assert not list(model.classifier.trunk.importance.parameters())
    probe = Probe(model.classifier, images)
    torch.testing.assert_close(scaled_map(model.mean_features(probe).relu()), model.explain(probe))
    assert model.name == "lfi_cam[uniform]"


def test_learned_map_is_a_convolution_and_starts_uniform():
    images = nets.images(3)
    made = {kind: kind(nets.gap()).double().eval() for kind in (Learned, Uniform)}
    maps = {kind: model.explain(Probe(model.classifier, images)) for kind, model in made.items()}
    assert torch.equal(maps[Learned], maps[Uniform])
    model = made[Learned]
    weights = model.classifier.trunk.importance.weights
    model.loss({"images": images, "labels": torch.tensor([0, 1, 2])})[0].backward()
    assert weights.grad.abs().sum() > 0
    with torch.no_grad():
        weights.copy_(torch.linspace(-1, 2, 6))
    features = model.classifier.trunk.features(model.classifier.normalize(images))
    summed = F.conv2d(features, weights.detach().view(1, 6, 1, 1)).clamp(min=0)[:, 0]
    torch.testing.assert_close(model.explain(Probe(model.classifier, images)), scaled_map(summed).detach())


def test_every_ablation_trains_under_its_own_name():
    assert [kind(nets.gap()).name for kind in (LfiCam, Uniform, Learned, OneByOne)] == [
        "lfi_cam", "lfi_cam[uniform]", "lfi_cam[learned]", "lfi_cam[kernel=1]",
    ]  # fmt: skip
    assert set(LEARNS) == {"plain", "abn", "plain[widened]", *(kind.name for kind in (LfiCam, Uniform, Learned, OneByOne))}


def test_wider_baseline():
    lfi = sum(p.numel() for p in LfiCam("resnet8", 3).parameters())
    width = equal_width("resnet8", lfi, 3)
    sizes = [sum(p.numel() for p in lfi_backbone("resnet8", 3, width=w).parameters()) for w in (width - 1, width, width + 1)]
    assert abs(sizes[1] - lfi) == min(abs(size - lfi) for size in sizes)
    with pytest.raises(ValueError, match="cannot be widened"):
        lfi_backbone("resnet18", 3, width=80)


def test_equal_width_finds_itself():
    for width in (16, 23):
        parameters = sum(p.numel() for p in resnet_cifar(8, 3, width=width).parameters())
        assert equal_width("resnet8", parameters, 3) == width
