"""One battery over every method of the table, the papers' formulas transcribed literally, and the identities that must hold."""

import contextlib
from dataclasses import replace
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from cam_core import maps
from cam_core.methods import METHODS, method
from cam_core.methods.gradient import layer_cam_fused
from cam_core.methods.increment import phases
from cam_core.probe import Probe
from tests import nets, reference

FUSED = replace(METHODS["layer_cam[fused]"], function=partial(layer_cam_fused, layers=["relu1", "relu2"]))
ANY = [*{**METHODS, FUSED.name: FUSED}.values(), METHODS["grad_cam"].power(2), METHODS["grad_cam"].power(0.5), METHODS["cam"].at_mean(0.3)]
by_name = pytest.mark.parametrize("any_method", ANY, ids=lambda m: m.name)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-9) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= tolerance * max(1e-12, float(b.abs().max()))


@by_name
def test_a_batch_equals_its_images_one_by_one(any_method):
    classifier, x = nets.gap(), nets.images(4)
    together = any_method(Probe(classifier, x))
    close(together, torch.cat([any_method(Probe(classifier, one[None])) for one in x]))


@by_name
def test_the_chunk_size_does_not_matter(any_method):
    classifier, x = nets.gap(), nets.images(2)
    close(any_method(Probe(classifier, x, chunk=1)), any_method(Probe(classifier, x, chunk=1000)))


@by_name
def test_model_images_and_flags_are_left_as_they_were(any_method):
    classifier, x = nets.gap(), nets.images(2)
    classifier.head.requires_grad_(False)
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    flags = [p.requires_grad for p in classifier.parameters()]
    kept = x.clone()
    with torch.no_grad():
        heat = any_method(Probe(classifier, x))
    assert not heat.requires_grad
    assert heat.dtype == x.dtype
    assert torch.equal(x, kept)
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())
    assert flags == [p.requires_grad for p in classifier.parameters()]
    assert all(p.grad is None for p in classifier.parameters())
    assert not any(m._forward_hooks for m in classifier.modules())


@by_name
def test_dead_channels_and_a_black_image_give_no_nan(any_method):
    classifier = nets.gap()
    with torch.no_grad():
        classifier.trunk.conv2.weight[:2] = 0
        classifier.trunk.conv2.bias[:2] = -1
    x = torch.cat([nets.images(1), torch.zeros(1, 3, 16, 16, dtype=torch.float64)])
    assert torch.isfinite(any_method(Probe(classifier, x))).all()


@by_name
def test_a_size_that_no_stride_divides_a_batch_of_one_and_float32(any_method):
    classifier, x = nets.gap().float(), nets.images(1, 19, 27).float()
    heat = any_method(Probe(classifier, x))
    assert heat.dtype == torch.float32
    assert heat.device == x.device
    assert heat.shape in ((1, *Probe(classifier, x).activations.shape[-2:]), (1, 10, 14), (1, 19, 27))
    assert torch.isfinite(heat).all()


@by_name
def test_an_exception_in_the_middle_leaves_nothing_behind(any_method):
    class Failing(torch.nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head, self.left = head, 1

        def forward(self, activations):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("out of memory")
            return self.head(activations)

    classifier = nets.gap()
    probe = Probe(classifier, nets.images(2))
    assert probe.logits.shape == (2, 5)
    classifier.head = Failing(classifier.head)
    classifier.head.left = 0
    with contextlib.suppress(RuntimeError, ValueError):
        any_method(probe)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not classifier.training
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    torch.relu(-x).sum().backward()  # a guided ReLU would stop this gradient
    assert x.grad.tolist() == [-1.0, 0.0]


def transcribed(name):
    return getattr(reference, name.replace("[", "_").removesuffix("]"), None)


@pytest.mark.parametrize("name", [name for name in METHODS if transcribed(name) and name != "cam"])
@pytest.mark.parametrize("build", [nets.gap, nets.dense], ids=["gap", "dense"])
def test_a_method_equals_its_formula_written_out(name, build):
    classifier, x = build(seed=3), nets.images(3)
    targets = torch.tensor([4, 0, 2])
    got = METHODS[name](Probe(classifier, x, targets))
    want = np.stack([transcribed(name)(classifier, x[b], int(targets[b])) for b in range(3)])
    assert np.abs(want).max() > 0
    close(got, torch.tensor(want))


def test_cam_equals_its_formula_and_the_heads_logit():
    classifier, x = nets.gap(), nets.images(3)
    probe = Probe(classifier, x, torch.tensor([1, 2, 3]))
    got = METHODS["cam"](probe)
    close(got, torch.tensor(np.stack([reference.cam(classifier, x[b], b + 1) for b in range(3)])))
    logit = got.mean((1, 2)) + classifier.head.fc.bias.detach()[probe.targets]
    close(logit, probe.logits.gather(1, probe.targets[:, None])[:, 0])


def test_on_gap_and_linear_the_gradient_family_is_cam():
    probe = Probe(nets.gap(), nets.images(4))
    cam, cells = METHODS["cam"](probe), probe.activations.shape[2] * probe.activations.shape[3]
    close(METHODS["grad_cam"](probe), (cam / cells).relu())
    close(METHODS["hires_cam"](probe), cam / cells)
    close(METHODS["xgrad_cam"](probe), (cam / cells).relu())
    weights = probe.classifier.head.fc.weight.detach()[probe.targets].relu()
    close(METHODS["layer_cam"](probe), torch.einsum("bk,bkhw->bhw", weights, probe.activations) / cells)


SCALE_FREE = ["cam", "grad_cam", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam", "grad_cam_pp[authors]", "saliency"]


@pytest.mark.parametrize("name", SCALE_FREE)
def test_scale_free_methods_ignore_the_scale_of_the_last_layer(name):
    one, small, x = nets.gap(), nets.gap(), nets.images(3)
    with torch.no_grad():
        small.head.fc.weight *= 1e-3
        small.head.fc.bias *= 1e-3
    targets = torch.tensor([0, 1, 2])
    a, b = (maps.min_max(METHODS[name](Probe(c, x, targets))) for c in (one, small))
    close(a, b)


@pytest.mark.parametrize("name", [*SCALE_FREE, "grad_cam_pp", "score_cam[softmax]", "fd_cam", "integrated_gradients"])
def test_a_negative_logit_does_not_turn_the_map_over(name):
    high, low, x = nets.gap(), nets.gap(), nets.images(3)
    with torch.no_grad():
        low.head.fc.bias -= 100
    close(METHODS[name](Probe(low, x, torch.tensor([0, 1, 2]))), METHODS[name](Probe(high, x, torch.tensor([0, 1, 2]))))


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_pp", "hires_cam", "layer_cam", "score_cam", "increment_cam"])
def test_the_order_of_channels_does_not_matter(name):
    classifier, x, order = nets.gap(), nets.images(2), torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = nets.gap()
    with torch.no_grad():
        shuffled.trunk.conv2.weight.copy_(classifier.trunk.conv2.weight[order])
        shuffled.trunk.conv2.bias.copy_(classifier.trunk.conv2.bias[order])
        shuffled.head.fc.weight.copy_(classifier.head.fc.weight[:, order])
    close(METHODS[name](Probe(shuffled, x)), METHODS[name](Probe(classifier, x)))


def test_score_cam_of_a_network_that_sees_one_pixel_is_known_by_hand():
    # One channel, the image's red plane at stride 1; the score rises with the mean of the masked red plane. The map is p · red.
    trunk = torch.nn.Conv2d(3, 1, 1, bias=False).double()
    with torch.no_grad():
        trunk.weight.copy_(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2)).double()
    with torch.no_grad():
        head[2].weight.copy_(torch.tensor([[8.0], [0.0]]))
        head[2].bias.zero_()
    from cam_core.classifier import Classifier

    classifier = Classifier(trunk, head, mean=(0, 0, 0), std=(1, 1, 1)).double().eval()
    x = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    x[0, 0] = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    masked_mean = (1.0 * 1.0 + 0.5 * 0.5) / 4
    p = 1 / (1 + np.exp(-8 * masked_mean))
    close(METHODS["score_cam"](Probe(classifier, x)), p * x[:, 0])


class TestIncrementCam:
    """The properties of the specification."""

    def test_with_phase_one_alone_it_is_grad_cam(self):
        probe = Probe(nets.dense(), nets.images(3))
        close(phases(probe, weight_score=0.0).merged, maps.min_max(METHODS["grad_cam"](probe)))

    def test_it_lies_between_zero_and_one_and_is_zero_without_a_positive_channel(self):
        classifier = nets.gap()
        probe = Probe(classifier, nets.images(3))
        merged = METHODS["increment_cam"](probe)
        assert float(merged.min()) == 0.0
        assert float(merged.max()) == 1.0
        with torch.no_grad():
            classifier.head.fc.weight.copy_(-classifier.head.fc.weight.abs())
        assert not METHODS["increment_cam"](Probe(classifier, nets.images(3))).any()

    def test_only_channels_with_positive_weight_are_scored(self):
        probe = Probe(nets.dense(seed=3), nets.images(3))
        found = phases(probe)
        positive = (probe.gradients().mean((2, 3)) > 0) & ~maps.is_empty(probe.activations)
        assert torch.equal(~found.increments.isnan(), positive)
        assert (found.effective_channels() <= positive.sum(1) + 1e-9).all()

    def test_the_adapter_is_applied_to_the_masked_image(self):
        classifier, x = nets.dense(seed=3), nets.images(1)
        got = phases(Probe(classifier, x, torch.tensor([2])), resolution=12).merged
        close(got[0], torch.tensor(reference.increment_cam(classifier, x[0], 2, resolution=12)))


def test_the_centre_gaussian_is_symmetric_and_has_the_stated_width():
    heat = METHODS["center_gaussian"](Probe(nets.gap(), nets.images(1, 16, 32)))[0]
    assert torch.allclose(heat, heat.flip(0))
    assert torch.allclose(heat, heat.flip(1))
    y = torch.arange(16) + 0.5 - 8
    want = torch.exp(-(y**2) / (2 * 4.0**2)).double()
    assert torch.allclose(heat[:, 15] / heat[:, 15].max(), want / want.max(), atol=1e-6)


def test_noise_differs_between_images_and_repeats():
    x = nets.images(2)
    first = METHODS["random_map"](Probe(nets.gap(), x))
    assert torch.equal(first, METHODS["random_map"](Probe(nets.gap(), x)))
    assert not torch.equal(first[0], first[1])


@given(exponent=st.floats(0.1, 8))
@settings(max_examples=15, deadline=None)
def test_a_power_keeps_the_order_of_the_pixels(exponent):
    probe = Probe(nets.gap(), nets.images(1))
    plain, raised = (m(probe).flatten() for m in (METHODS["grad_cam"], METHODS["grad_cam"].power(exponent)))
    order = plain.argsort()
    assert (raised[order].diff() >= 0).all()


def test_an_unknown_method_is_refused_with_the_names_that_exist():
    assert method("grad_cam[power=0.5]").name == "grad_cam[power=0.5]"
    with pytest.raises(ValueError, match=r"unknown method 'gradcam': expected one of cam, eigen_cam"):
        method("gradcam")


def test_cam_on_a_head_that_is_no_pooling_is_refused():
    with pytest.raises(ValueError, match="use grad_cam, which equals CAM"):
        METHODS["cam"](Probe(nets.dense(), nets.images(1)))
