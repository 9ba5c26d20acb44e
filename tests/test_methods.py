"""One battery over every method of the table, the papers' formulas transcribed literally, and the identities that must hold."""

import copy
import math
import zlib
from dataclasses import replace
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.overrides import TorchFunctionMode

from cam_core import load_classifier, maps
from cam_core.classifier import Classifier
from cam_core.methods import METHODS, is_control, method, perturbation
from cam_core.methods.gradient import layer_cam_fused, refine_cam
from cam_core.methods.increment import phases
from cam_core.networks import resnet_cifar
from cam_core.probe import Probe
from tests import nets, reference

JOINED = {  # the methods of several layers, with those of the tiny networks
    name: replace(METHODS[name], function=partial(function, layers=["relu1", "relu2"]))
    for name, function in (("layer_cam[fused]", layer_cam_fused), ("refine_cam", refine_cam), ("poly_cam", perturbation.poly_cam))
}
CNNS = [name for name in METHODS if name != "legrad"]  # which needs a transformer: tests/test_legrad.py
ANY = [
    *({**METHODS, **JOINED}[name] for name in CNNS),
    METHODS["grad_cam"].power(2),
    METHODS["grad_cam"].power(0.5),
    METHODS["cam"].at_mean(0.3),
]
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


def state(classifier):
    """All that a call might leave behind: tensors, their gradients and flags, hooks, and every plain attribute of every module."""
    tensors = [*classifier.named_parameters(), *classifier.named_buffers()]
    kept = {name: (t.detach().clone(), t.data_ptr(), t.requires_grad, t.grad) for name, t in tensors}
    plain = {
        (name, key): value
        for name, module in classifier.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple)
    }
    hooks = {(name, key): len(value) for name, m in classifier.named_modules() for key, value in vars(m).items() if "hooks" in key}
    return kept, plain, hooks


def unchanged(before, after):
    for (name, old), new in zip(before[0].items(), after[0].values(), strict=True):
        assert torch.equal(old[0], new[0]), name
        assert old[1:3] == new[1:3], name
        assert new[3] is None, name
    assert before[1:] == after[1:]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    torch.relu(-x).sum().backward()  # a guided ReLU would stop this gradient
    assert x.grad.tolist() == [-1.0, 0.0]


@by_name
def test_frozen_weights_and_no_grad_give_the_same_map_and_nothing_is_changed(any_method):
    classifier, x = nets.gap().requires_grad_(False), nets.images(2)
    before, kept = state(classifier), x.clone()
    with torch.no_grad():
        heat = any_method(Probe(classifier, x))
    assert not heat.requires_grad
    assert heat.dtype == x.dtype
    assert torch.equal(x, kept)
    unchanged(before, state(classifier))
    close(heat, any_method(Probe(nets.gap(), x)))


@by_name
def test_in_inference_mode_with_images_made_there_the_map_is_the_same(any_method):
    classifier = nets.gap()
    with torch.inference_mode():
        heat = any_method(Probe(classifier, nets.images(2)))
    close(heat, any_method(Probe(nets.gap(), nets.images(2))))


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


LIGHTER = {  # a CPU is slow in float16
    "rise": partial(perturbation.rise, samples=600),
    "ss_cam": partial(perturbation.ss_cam, samples=3),
    "is_cam": partial(perturbation.is_cam, samples=3),
    "layer_cam[fused]": partial(layer_cam_fused, layers=["layer1", "layer3"]),
    "refine_cam": partial(refine_cam, layers=["layer1", "layer3"]),
    "poly_cam": partial(perturbation.poly_cam, layers=["layer1", "layer3"]),
}


@pytest.fixture(scope="module")
def in_half():
    """A small ResNet whose weights float16 and bfloat16 hold exactly, in float32 and in both, and images that they hold, too."""
    torch.manual_seed(0)
    network = resnet_cifar(8).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2), module.running_var.uniform_(0.5, 1.5)
    made = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        network = network.to(dtype)  # what survives the first two is exact in the third
        made[dtype] = Classifier.of(copy.deepcopy(network), "layer3", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    images = torch.randint(0, 17, (2, 3, 32, 32)) / 16
    return made, images, made[torch.float32](images).argmax(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CNNS)
def test_a_network_in_half_precision_has_the_maps_of_float32(name, dtype, in_half):
    made, images, targets = in_half
    function = {**METHODS, **LIGHTER}[name]
    want, got = (function(Probe(made[kind], given, targets)) for kind, given in ((torch.float32, images), (dtype, images.to(dtype))))
    assert got.dtype == torch.float32
    assert torch.isfinite(got).all()
    # a step of Opti-CAM's optimiser, a channel that Increment-CAM selects or not, a limit that FEM has: these move a map more than rounding
    decides = name == "opti_cam" or name.startswith(("increment_cam", "fem"))
    if not maps.is_empty(want).any():
        assert (maps.correlation(got, want) > (0.95 if decides else 0.99)).all()
    apart = ((got - want).sum((1, 2)).abs() / want.abs().sum((1, 2))).max()
    assert decides or float(apart) <= {torch.float16: 0.05, torch.bfloat16: 0.15}[dtype]  # Ablation-CAM subtracts logits of eight bits


class Failing(TorchFunctionMode):
    """Counts the calls of torch while it lasts, and fails at one of them; not at the switch of gradients, which needs no memory."""

    def __init__(self, at=None):
        super().__init__()
        self.at, self.calls = at, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch._C._set_grad_enabled:
            self.calls += 1
            if self.calls == self.at:
                raise MemoryError("in the middle")
        return func(*args, **(kwargs or {}))


@by_name
@pytest.mark.parametrize("share", [0.3, 0.6, 1.0], ids=["early", "late", "last"])
def test_an_exception_in_the_middle_leaves_nothing_behind(any_method, share):
    classifier, x = nets.gap(), nets.images(2)
    classifier.head.requires_grad_(False)
    kept, before, probe, unhindered = x.clone(), state(classifier), Probe(classifier, x), Probe(nets.gap(), x)
    with Failing() as counting:
        want = any_method(unhindered)
    with pytest.raises(MemoryError, match="in the middle"), Failing(at=math.ceil(share * counting.calls)):
        any_method(probe)
    assert torch.equal(x, kept)
    unchanged(before, state(classifier))
    assert torch.equal(any_method(probe), want)  # what the probe had kept by then was whole


def transcribed(name):
    return getattr(reference, name.replace("[", "_").removesuffix("]"), None)


@pytest.mark.parametrize("name", [name for name in METHODS if transcribed(name) and name not in ("cam", "cam[calm]", *JOINED)])
@pytest.mark.parametrize("build", [nets.gap, nets.dense], ids=["gap", "dense"])
def test_a_method_equals_its_formula_written_out(name, build):
    classifier, x = build(seed=3), nets.images(3)
    targets = torch.tensor([4, 0, 2])
    got = METHODS[name](Probe(classifier, x, targets))
    want = np.stack([transcribed(name)(classifier, x[b], int(targets[b])) for b in range(3)])
    assert np.abs(want).max() > 0
    close(got, torch.tensor(want))


@pytest.mark.parametrize(
    ("name", "formula"),
    [("layer_cam[fused]", reference.fused_layer_cam), ("refine_cam", reference.refine_cam), ("poly_cam", reference.poly_cam)],
)
def test_a_method_of_several_layers_equals_its_formula_written_out(name, formula):
    classifier, x = nets.gap(seed=3), nets.images(3)
    targets = torch.tensor([4, 0, 2])
    want = [formula(classifier, x[b], int(targets[b]), ("relu1", "relu2")) for b in range(3)]
    close(JOINED[name](Probe(classifier, x, targets)), torch.tensor(np.stack(want)))


@pytest.mark.parametrize("gain", ["plus", "minus"])
def test_poly_cam_by_what_a_channel_gives_or_takes_equals_its_formula_written_out(gain):
    classifier, x, layers = nets.dense(seed=3), nets.images(2), ("conv", "pool")
    got = perturbation.poly_cam(Probe(classifier, x, torch.tensor([4, 0])), layers, gain)
    want = np.stack([reference.poly_cam(classifier, x[b], c, layers, gain) for b, c in enumerate((4, 0))])
    assert np.abs(want).max() > 0
    close(got, torch.tensor(want))


def test_cam_equals_its_formula_and_the_heads_logit():
    classifier, x = nets.gap(), nets.images(3)
    probe = Probe(classifier, x, torch.tensor([1, 2, 3]))
    got = METHODS["cam"](probe)
    close(got, torch.tensor(np.stack([reference.cam(classifier, x[b], b + 1) for b in range(3)])))
    logit = got.mean((1, 2)) + classifier.head.fc.bias.detach()[probe.targets]
    close(logit, probe.logits.gather(1, probe.targets[:, None])[:, 0])
    as_calm = METHODS["cam[calm]"](probe)
    close(as_calm, torch.tensor(np.stack([reference.cam_calm(classifier, x[b], b + 1) for b in range(3)])))
    close(as_calm.mean((1, 2)), logit)  # which cue localization sees: s(A) - s(B) keeps the difference of two biases


def test_on_gap_and_linear_the_gradient_family_is_cam():
    probe = Probe(nets.gap(), nets.images(4))
    cam, cells = METHODS["cam"](probe), probe.activations.shape[2] * probe.activations.shape[3]
    close(METHODS["grad_cam"](probe), (cam / cells).relu())
    close(METHODS["hires_cam"](probe), cam / cells)
    close(METHODS["xgrad_cam"](probe), (cam / cells).relu())
    weights = probe.classifier.head.fc.weight.detach()[probe.targets].relu()
    close(METHODS["layer_cam"](probe), torch.einsum("bk,bkhw->bhw", weights, probe.activations) / cells)


def test_on_gap_and_linear_finer_and_shapley_cam_are_cam_of_other_weights():
    classifier, x = nets.gap(seed=3), nets.images(3)
    probe = Probe(classifier, x)
    w, p, cells = classifier.head.fc.weight.detach(), probe.probabilities, probe.activations[0, 0].numel()
    order = probe.logits.argsort(1, descending=True)[:, :4]  # the target is the prediction
    weights = w[order[:, 0]] - 0.6 * w[order[:, 1:]].mean(1)
    close(METHODS["finer_cam"](probe), torch.einsum("bk,bkhw->bhw", weights, probe.activations).relu() / cells)
    rising = torch.eye(5).double()[probe.targets] * 2 - p  # of y_c + log p_c by the logits; the Hessian is -(diag p - p p')
    sums = torch.einsum("ck,bk->bc", w, probe.activations.mean((2, 3)))
    curved = -p * (sums - (p * sums).sum(1, keepdim=True))
    weights = (rising - curved / 2) @ w
    close(METHODS["shapley_cam"](probe), torch.einsum("bk,bkhw->bhw", weights, probe.activations).relu() / cells)


def test_on_gap_and_linear_the_sign_of_the_gradient_does_not_matter_to_components():
    probe = Probe(nets.gap(seed=3), nets.images(3))
    close(METHODS["seg_eigen_cam"](probe), METHODS["eigen_grad_cam"](probe))


def test_recipro_cam_of_a_linear_head_is_the_class_probability_of_each_position():
    probe = Probe(nets.gap(seed=3), nets.images(2), torch.tensor([1, 4]))
    every = [METHODS["cam"](Probe(probe.classifier, probe.images, c)) / probe.activations[0, 0].numel() for c in range(5)]
    logits = torch.stack(every, -1) + probe.classifier.head.fc.bias.detach()
    close(METHODS["recipro_cam"](probe), probe.of_target(logits.softmax(-1)))


def test_weights_of_expected_grad_cam_add_up_to_what_the_class_gains_over_the_baseline():
    classifier, x = nets.gap(seed=3), nets.images(1)
    generator = torch.Generator().manual_seed(zlib.crc32(x[0].numpy().tobytes(), 0))
    torch.randperm(10, generator=generator)
    baselines = []
    for _ in range(10):
        baselines.append(torch.rand(3, 1, 1, generator=generator, dtype=torch.float64).expand(3, 16, 16))
        torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    pooled = classifier.activations(torch.stack([*baselines, x[0]])).mean((2, 3)).detach()
    weights = classifier.head.fc.weight.detach()[2] * (pooled[-1] - pooled[:-1].mean(0))
    y = classifier(torch.stack([*baselines, x[0]])).detach()[:, 2]
    close(weights.sum(), y[-1] - y[:-1].mean())
    probe = Probe(classifier, x, torch.tensor([2]))
    close(METHODS["expected_grad_cam"](probe), torch.einsum("k,bkhw->bhw", weights, probe.activations).relu())


def test_lafam_is_our_mean_activation():
    probe = Probe(nets.gap(seed=3), nets.images(2))
    written = torch.stack([sum(a[k] for k in range(len(a))) / len(a) for a in probe.activations])
    close(METHODS["mean_activation"](probe), written)


@pytest.fixture(scope="module")
def resnet():
    """ResNet-8 whose BatchNorms have something to fold, in float64."""
    torch.manual_seed(0)
    classifier = load_classifier("resnet8", None)
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data):
                values.normal_(0, 0.3)
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 2)
    return classifier.double()


A_FEW = (
    "cam", "eigen_cam", "grad_cam", "grad_cam_pp", "layer_cam", "hires_cam", "score_cam", "score_cam[softmax]", "ablation_cam", "group_cam",
    "increment_cam", "score_cam[budget=32]", "saliency", "integrated_gradients",
)  # fmt: skip


@pytest.mark.parametrize("name", A_FEW)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_folding_and_channels_last_move_no_map(resnet, name, dtype):
    classifier = copy.deepcopy(resnet).to(dtype)
    x, targets = nets.images(2, 32, 32).to(dtype), torch.tensor([3, 7])
    frozen = classifier.frozen()
    assert frozen.trunk.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    plain, folded = (METHODS[name](Probe(c, x, targets)).double() for c in (classifier, frozen))
    span = float((plain.amax((1, 2)) - plain.amin((1, 2))).max())
    assert span > 0
    # the weights of the literal Increment-CAM are differences of almost equal probabilities, which multiplies float32's rounding
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4 if name == "increment_cam" else 1e-5
    assert float((plain - folded).abs().max()) <= tolerance * span


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


@pytest.mark.parametrize("name", ["grad_cam_pp", "score_cam", "score_cam[softmax]", "rise", "increment_cam"])
def test_methods_that_are_not_scale_free_do_see_the_scale_of_the_last_layer(name):
    one, small, x = nets.gap(), nets.gap(), nets.images(2)
    with torch.no_grad():
        small.head.fc.weight *= 1e-3
        small.head.fc.bias *= 1e-3
    a, b = (maps.min_max(METHODS[name](Probe(c, x, torch.tensor([0, 1])))) for c in (one, small))
    assert float((a - b).abs().max()) > 1e-4


@by_name
def test_a_negative_logit_does_not_turn_the_map_over(any_method):
    high, low, x, targets = nets.gap(), nets.gap(), nets.images(3), torch.tensor([0, 1, 2])
    with torch.no_grad():
        low.head.fc.bias -= 100  # of all classes: no probability and no gradient changes
    assert (Probe(low, x).logits < 0).all()
    a, b = (any_method(Probe(c, x, targets)) for c in (low, high))
    if any_method.name in ("ablation_cam", "cam[calm]"):  # divides by |y|; has the bias in every place
        a, b = maps.min_max(a), maps.min_max(b)
    close(a, b, tolerance=1e-8)


def test_a_negative_logit_only_scales_ablation_cam():
    high, low, x = nets.gap(), nets.gap(), nets.images(3)
    with torch.no_grad():
        low.head.fc.bias -= 100
    targets = torch.tensor([0, 1, 2])
    assert (Probe(low, x).logits < 0).all()
    heat = METHODS["ablation_cam"](Probe(low, x, targets))
    assert (heat.amax((1, 2)) > 0).all()
    close(maps.min_max(heat), maps.min_max(METHODS["ablation_cam"](Probe(high, x, targets))))


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
        assert (found.diagnostics()["effective_channels"] <= positive.sum(1) + 1e-9).all()

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
    for near, meant in (("gradcam", "grad_cam"), ("Score-CAM", "score_cam"), ("incrementcam", "increment_cam")):
        with pytest.raises(ValueError, match=rf"unknown method '{near}': did you mean {meant}\?"):
            method(near)
    with pytest.raises(ValueError, match=r"unknown method 'heat': expected one of cam, cam\[calm\], eigen_cam"):
        method("heat")
    with pytest.raises(ValueError, match=r"'cam\[power=two\]': power takes a number, got 'two'"):
        method("cam[power=two]")


def test_controls_are_those_that_the_table_marks_and_those_of_learned_models():
    marked = {name for name in METHODS if is_control(name)}
    assert marked == {name for name, one in METHODS.items() if one.control}
    assert marked >= {"random_map", "center_gaussian", "mean_activation", "all_ones", "fake_cam", "edges"}
    assert all(
        map(is_control, ("mean_features", "random_l_cam", "other_l_cam_fm", "grad_cam_tuned[power=2]", METHODS["cam"].power(2).name))
    )
    assert not any(map(is_control, ("l_cam_fm", "calm_em", "grad_cam[mean=0.3]", "lfi_cam")))


def test_the_cost_of_a_map_as_a_number():
    costs = {"grad_cam": 1, "score_cam": 513, "ss_cam": 35 * 512 + 1, "ablation_cam": 1, "fd_cam": 1, "group_cam": 34, "rise": 4000}
    costs |= {"increment_cam": 257, "score_cam[budget=64]": 65, "score_cam[until=0.99]": 513, "smooth_grad": 25, "all_ones": 0}
    assert {name: METHODS[name].cost(512) for name in costs} == costs


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "ss_cam", "rise", "smooth_grad", "integrated_gradients"])
def test_the_cost_is_what_passes_through_the_network(name):
    classifier, passed = nets.gap(), []
    hook = classifier.trunk.register_forward_hook(lambda _, inputs, __: passed.append(len(inputs[0])))
    METHODS[name](Probe(classifier, nets.images(1)))
    hook.remove()
    assert sum(passed) == pytest.approx(METHODS[name].cost(Probe(nets.gap(), nets.images(1)).activations.shape[1]), abs=1)


def test_methods_are_written_as_people_write_them():
    written = {"grad_cam_pp[authors]": "Grad-CAM++ (authors)", "saliency": "saliency", "eigen_cam": "Eigen-CAM"}
    assert {name: METHODS[name].title for name in written} == written
    assert method("cam[power=0.5]").title == "CAM (power=0.5)"


def test_cam_on_a_head_that_is_no_pooling_is_refused():
    with pytest.raises(ValueError, match="use grad_cam, which equals CAM"):
        METHODS["cam"](Probe(nets.dense(), nets.images(1)))
