"""LFI-CAM against a literal float64 transcription of its eight steps, written with loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cam_core import METHODS
from cam_core.classifier import Classifier
from cam_core.learned import lfi
from cam_core.learned.lfi import CIFAR_MEAN, CIFAR_STD, FeatureImportance, LfiCam, lfi_backbone, scaled_channels, scaled_map
from cam_core.probe import Probe
from studies.ablations import OneByOne
from tests import nets


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Away from the initial state: BatchNorm's weights and statistics too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
                value.copy_(noise + 0.5 if "var" in name else noise - 0.4)
    return model.eval()


def resized(image, height, width):
    """Bilinear with half-pixel centres, clamped at the border."""
    H, W = image.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y, x = max((i + 0.5) * H / height - 0.5, 0), max((j + 0.5) * W / width - 0.5, 0)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, H - 1), min(x0 + 1, W - 1)
            top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def literal(model: LfiCam, image: torch.Tensor, relu_after: tuple[int, ...]):
    """Logits and attention of one image [3,H,W] by the description, step by step."""
    c = model.classifier
    x = ((image - c.mean) / c.std).numpy()
    features = c.trunk.features(torch.from_numpy(x)[None])[0].detach().numpy()
    C, h, w = features.shape
    guide = resized((x[0] + x[1] + x[2]) / 3, h, w)
    masked = np.zeros_like(features)
    for k in range(C):
        low, high = features[k].min(), features[k].max()
        for i in range(h):
            for j in range(w):
                with np.errstate(invalid="ignore"):
                    value = np.float64(features[k, i, j] - low) / np.float64(high - low)
                value = 1.0 if math.isnan(value) else value
                value = 0.0 if features[k, i, j] == 0 else value
                masked[k, i, j] = value * guide[i, j]
    state = torch.from_numpy(masked)[None]
    convolutions = [m for m in c.trunk.importance.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in c.trunk.importance.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for number, (conv, norm) in enumerate(zip(convolutions, norms, strict=True), start=1):
        state = F.conv2d(state, conv.weight.detach(), padding=conv.kernel_size[0] // 2)
        for k in range(C):
            standard = (state[0, k] - norm.running_mean[k]) / torch.sqrt(norm.running_var[k] + norm.eps)
            state[0, k] = standard * norm.weight[k].item() + norm.bias[k].item()
        if number in relu_after:
            state = state.clamp(min=0)
    pooled = [float(state[0, k].sum()) / (h * w) for k in range(C)]
    total = sum(math.exp(p) for p in pooled)
    weights = [math.exp(p) / total for p in pooled]
    summed = np.zeros((h, w))
    for k in range(C):
        summed += weights[k] * features[k]
    summed = np.maximum(summed, 0)
    attention = (summed - summed.min()) / (summed.max() - summed.min())
    z = features * attention + features
    logits = c.head(torch.from_numpy(z)[None])[0].detach().numpy()
    return logits, attention, weights


@pytest.mark.parametrize(("family", "relu_after"), [("cifar", (2, 4)), ("imagenet", (1, 2, 3, 4))])
@pytest.mark.parametrize("kind", [LfiCam, OneByOne])
def test_equals_the_literal_transcription(family, relu_after, kind):
    model = randomised(kind(nets.gap(), family=family).double(), seed=3)
    images = nets.images(3, 16, 20)
    logits = model.classifier(images).detach().numpy()
    attention = model.explain(Probe(model.classifier, images)).numpy()
    for b in range(3):
        expected_logits, expected_attention, weights = literal(model, images[b], relu_after)
        np.testing.assert_allclose(logits[b], expected_logits, rtol=1e-10)
        np.testing.assert_allclose(attention[b], expected_attention, rtol=1e-10, atol=1e-12)
        assert sum(weights) == pytest.approx(1)
    assert attention.min() == 0
    assert attention.max() == 1


def test_families_differ():
    images, maps = nets.images(2), []
    for family in ("cifar", "imagenet"):
        model = randomised(LfiCam(nets.gap(), family=family).double())
        maps.append(model.explain(Probe(model.classifier, images)))
    assert (maps[0] - maps[1]).abs().max() > 1e-3


def test_dead_and_constant_channels():
    features = torch.rand(2, 4, 3, 3, dtype=torch.float64) - 0.3
    features[0, 0], features[1, 1] = 0, 2.5
    features.requires_grad_()
    scaled = scaled_channels(features)
    assert (scaled[0, 0] == 0).all()
    assert (scaled[1, 1] == 1).all()
    assert torch.isfinite(torch.autograd.grad(scaled.square().sum(), features)[0]).all()


def test_constant_map_is_kept():
    maps = torch.stack([torch.full((3, 3), 0.7), torch.arange(9.0).view(3, 3)]).requires_grad_()
    scaled = scaled_map(maps)
    assert torch.equal(scaled[0], maps[0])
    assert torch.equal(scaled[1], torch.arange(9.0).view(3, 3) / 8)
    assert torch.isfinite(torch.autograd.grad(scaled.square().sum(), maps)[0]).all()


def test_black_network_trains_with_finite_gradients():
    """All channels dead: S is constant 0, A stays 0, Z = F, and nothing becomes NaN."""
    backbone = nets.gap()
    with torch.no_grad():
        [p.zero_() for p in backbone.trunk.parameters()]
    model = LfiCam(backbone).double()
    loss, _ = model.loss({"images": nets.images(4), "labels": torch.tensor([0, 1, 2, 3])})
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_attention_of_one_doubles_the_features():
    """Weights enter only through A: with S constant at 1 (all features 1), Z = 2F and a linear head doubles what it adds to its bias."""
    model = LfiCam(nets.gap())
    trunk = model.classifier.trunk.double().eval()
    trunk.features = torch.nn.Identity()
    ones = torch.ones(2, 6, 4, 4, dtype=torch.float64)
    trunk.importance.forward = lambda masked: torch.full((2, 6), 1 / 6, dtype=torch.float64)
    z, attention = trunk.attend(ones)
    assert torch.allclose(attention, torch.ones(2, 4, 4, dtype=torch.float64))
    assert torch.allclose(z, 2 * ones)


@pytest.mark.parametrize(
    ("channels", "kernel", "expected"), [(256, 3, 2_361_344), (512, 3, 9_441_280), (2048, 3, 151_011_328), (256, 1, 264_192)]
)
def test_parameters_of_the_importance_network(channels, kernel, expected):
    with torch.device("meta"):
        count = sum(p.numel() for p in FeatureImportance(channels, kernel).parameters())
    assert count == expected == 4 * (kernel**2 * channels**2 + 2 * channels)


def test_stem_of_torchvision_networks_is_the_papers():
    with torch.device("meta"):
        import torchvision

        expected = sum(p.numel() for p in torchvision.models.resnet18(num_classes=3).parameters())
    backbone = lfi_backbone("resnet18", 3)
    assert sum(p.numel() for p in backbone.parameters()) == expected
    assert backbone.eval().activations(torch.zeros(1, 3, 224, 224)).shape[-2:] == (14, 14)
    assert lfi_backbone("resnet8", 3, stem_stride=1).eval().activations(torch.zeros(1, 3, 32, 32)).shape[-2:] == (8, 8)
    with pytest.raises(ValueError, match="densenet121 keeps its stem"):
        lfi_backbone("densenet121", 3, stem_stride=1)


def test_state_holds_every_tensor_once():
    model = LfiCam("resnet8", 4)
    state = model.state_dict()
    assert len({value.data_ptr() for value in state.values() if value.numel() > 0}) == len(state)
    other = LfiCam("resnet8", 4)
    other.load_state_dict(state)
    images = torch.rand(2, 3, 56, 56)
    assert torch.equal(model.eval().classifier(images), other.eval().classifier(images))
    assert isinstance(model.classifier, Classifier)


def test_cam_methods_work_at_z():
    """Pooling and one linear layer follow Z, so that Grad-CAM is CAM's rectified map over the number of places."""
    from cam_core.methods import METHODS

    model = randomised(LfiCam(nets.gap()).double())
    probe = Probe(model.classifier, nets.images(2))
    positions = probe.activations[0, 0].numel()
    torch.testing.assert_close(METHODS["grad_cam"](probe), METHODS["cam"](probe).relu() / positions)


def test_the_mean_of_the_features_has_no_attention_in_it_and_that_of_z_has():
    model = randomised(LfiCam(nets.gap()).double())
    probe = Probe(model.classifier, nets.images(3, 8, 8))
    plain, attended = model.mean_features(probe), METHODS["mean_activation"](probe)
    torch.testing.assert_close(attended, (1 + model.explain(probe)) * plain)
    assert (attended - plain).abs().max() > 0.01


@pytest.mark.parametrize(
    ("name", "channels", "places"), [("densenet100_12", 342, 4), ("resnet110_bottleneck", 256, 4), ("resnext29_8x64d", 1024, 4)]
)
def test_cifar_families(name, channels, places):
    model = OneByOne(name, 3, stem_stride=1).eval()
    assert model.family == "cifar"
    probe = Probe(model.classifier, torch.rand(1, 3, 16, 16))
    assert probe.activations.shape == (1, channels, places, places)
    assert model.explain(probe).shape == (1, places, places)
    assert probe.logits.shape == (1, 3)


def test_densenet_attends_before_its_last_normalisation():
    """Logits are FC(GAP(ReLU(BN((1 + A) F)))), F of both signs; the plain network is explained behind that ReLU."""
    from cam_core.cutting import cut
    from cam_core.networks import densenet_cifar

    torch.manual_seed(0)
    network = randomised(densenet_cifar(10, 3, stem_stride=1).double())
    backbone = Classifier(*cut(network, "relu"), name="densenet100_12", layer="relu", network=network).double().eval()
    model, images = randomised(LfiCam(backbone).double()), nets.images(2, 16, 16)
    z, attention = model.classifier.trunk.attend(model.classifier.normalize(images))
    features = model.classifier.trunk.features(model.classifier.normalize(images))
    torch.testing.assert_close(z, (1 + attention[:, None]) * features)
    logits = network.fc(F.relu(network.norm(z)).mean((2, 3)))
    torch.testing.assert_close(model.classifier(images), logits)
    assert features.min() < 0 <= backbone.activations(images).min()


def test_normalisation_of_cifar():
    backbone = lfi_backbone("resnet8", 3, mean=CIFAR_MEAN, std=CIFAR_STD)
    grey = LfiCam(backbone).classifier.normalize(torch.full((1, 3, 2, 2), 0.5))
    assert grey[0, :, 0, 0].tolist() == pytest.approx([(0.5 - m) / s for m, s in zip(CIFAR_MEAN, CIFAR_STD, strict=True)], rel=1e-6)


def test_resnext_s_importance_network_starts_as_pytorch_does():
    """PyTorch draws uniformly within 1 / sqrt(fan in); the other networks' normal with variance 2 / fan out reaches far beyond that."""
    torch.manual_seed(0)
    default, drawn = FeatureImportance(64, drawn=False), FeatureImportance(64)
    bound = (9 * 64) ** -0.5
    assert all(float(m.weight.abs().max()) <= bound for m in default.layers if isinstance(m, torch.nn.Conv2d))
    assert all(float(m.weight.abs().max()) > 2 * bound for m in drawn.layers if isinstance(m, torch.nn.Conv2d))
    seen = []
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(lfi, "FeatureImportance", lambda *_, drawn, **__: seen.append(drawn) or torch.nn.Identity())
        for name in ("resnext29_8x64d", "resnet8"):
            LfiCam(lfi_backbone(name, 10))
    assert seen == [False, True]
