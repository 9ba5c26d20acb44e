"""What ties the methods to each other and to known answers: identities, completeness, quadrature, masks, transformers, refusals."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torchvision

from cam_core import load_classifier, maps
from cam_core.classifier import Classifier
from cam_core.methods import METHODS, method
from cam_core.methods import increment as inc
from cam_core.methods.activation import eigen_cam
from cam_core.methods.gradient import STAGES, layer_cam, layer_cam_fused
from cam_core.methods.perturbation import opti_cam, rise, rise_masks
from cam_core.methods.pixel import integrated_gradients
from cam_core.pretrained import default_layer
from cam_core.probe import Probe
from tests import nets
from tests.test_methods import close


def logit_of(probe: Probe, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return probe.classifier.scores(inputs).gather(1, probe.targets[:, None])[:, 0]


class TestIdentities:
    def test_ablation_weights_in_closed_form_on_pooling_and_a_linear_layer(self):
        probe = Probe(nets.gap(), nets.images(3), torch.tensor([0, 1, 2]))
        weight = probe.classifier.head.fc.weight.detach()[probe.targets]
        y = probe.logits.gather(1, probe.targets[:, None]).abs()
        want = torch.einsum("bk,bkhw->bhw", weight * probe.activations.mean((2, 3)) / y, probe.activations).relu()
        close(METHODS["ablation_cam"](probe), want)

    def test_authors_grad_cam_pp_is_the_positive_weights_sum_there(self):
        probe = Probe(nets.gap(), nets.images(3))
        weight = probe.classifier.head.fc.weight.detach()[probe.targets].relu()
        want = torch.einsum("bk,bkhw->bhw", weight, probe.activations)
        close(maps.min_max(METHODS["grad_cam_pp[authors]"](probe)), maps.min_max(want))

    def test_eigen_cam_takes_either_gram_matrix(self):
        wide, narrow = Probe(nets.gap(channels=80), nets.images(2)), Probe(nets.gap(channels=6), nets.images(2))
        for probe in (wide, narrow):
            a = probe.activations.flatten(2).mT
            left, values, _ = torch.linalg.svd(a, full_matrices=False)
            want = left[..., 0] * values[:, :1]
            close(eigen_cam(probe).flatten(1), want * want.sum(1, keepdim=True).sign())
            assert float(eigen_cam(probe).min()) >= -1e-12  # Perron-Frobenius

    def test_layer_cam_of_one_layer_is_fused_to_itself(self):
        probe = Probe(nets.gap(), nets.images(2))
        plain = layer_cam(probe)
        close(layer_cam_fused(probe, ["relu2"]), plain / plain.amax((1, 2), keepdim=True))

    def test_fused_layer_cam_is_the_maximum_of_its_scaled_layers(self):
        classifier, x = nets.gap(), nets.images(2)
        parts = [layer_cam(Probe(classifier.at(layer), x)) for layer in ("relu1", "relu2")]
        shallow, deep = (p / p.amax((1, 2), keepdim=True) for p in parts)
        close(layer_cam_fused(Probe(classifier, x), ["relu1", "relu2"]), torch.maximum((2 * shallow).tanh(), deep))

    def test_fused_layer_cam_asks_for_layers_it_does_not_know(self):
        with pytest.raises(ValueError, match="pass layers="):
            METHODS["layer_cam[fused]"](Probe(nets.gap(), nets.images(1)))

    @pytest.mark.parametrize("name", ["vgg16", "vgg19", "vgg16_bn", "vgg19_bn"])
    def test_the_stages_that_it_fuses_are_rectified_and_stand_before_a_pooling(self, name):
        with torch.device("meta"):
            features = list(torchvision.models.get_model(name, weights=None).features)
        places = [int(stage.removeprefix("features.")) for stage in STAGES[name]]
        assert places == [i for i, m in enumerate(features[:-1]) if isinstance(features[i + 1], torch.nn.MaxPool2d)][1:]
        assert all(isinstance(features[place], torch.nn.ReLU) for place in places)

    def test_the_deepest_stage_is_the_explained_layer(self):
        torch.manual_seed(0)
        classifier, x = load_classifier("resnet8", None), torch.rand(2, 3, 32, 32)
        for layer, stages in (("layer3", ["layer1", "layer2", "layer3"]), ("layer2", ["layer1", "layer2"])):
            probe = Probe(classifier.at(layer), x)
            close(METHODS["layer_cam[fused]"](probe), layer_cam_fused(probe, stages))
        with pytest.raises(ValueError, match=r"of resnet8 up to 'conv1' are joined is not known"):
            METHODS["layer_cam[fused]"](Probe(classifier.at("conv1"), x))


class TestIntegratedGradients:
    def test_it_adds_up_to_the_score_difference(self):
        probe = Probe(nets.dense(), nets.images(3), torch.tensor([0, 3, 4]))
        gained = logit_of(probe, probe.inputs) - logit_of(probe, torch.zeros_like(probe.inputs))
        total = integrated_gradients(probe, steps=2000).sum((1, 2))
        assert torch.allclose(total, gained, rtol=1e-3)  # kinks of the ReLUs limit the quadrature

    def test_on_a_linear_network_one_point_is_exact(self):
        classifier = nets.gap()
        classifier = type(classifier)(torch.nn.Identity(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 256, 5))).double()
        probe = Probe(classifier.eval(), nets.images(2))
        gained = logit_of(probe, probe.inputs) - logit_of(probe, torch.zeros_like(probe.inputs))
        close(integrated_gradients(probe, steps=1).sum((1, 2)), gained)


class TestGuidedBackprop:
    def test_it_is_the_gradient_of_a_network_whose_relus_are_guided_by_hooks(self):
        classifier, x = nets.gap(), nets.images(2)
        hooked = copy.deepcopy(classifier)
        for module in hooked.modules():
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False
                module.register_full_backward_hook(lambda _m, _into, out: (out[0].clamp_min(0) * (_into[0] != 0),))
        inputs = classifier.normalize(x).requires_grad_()
        targets = classifier(x).argmax(1)
        hooked.scores(inputs).gather(1, targets[:, None]).sum().backward()
        close(METHODS["guided_backprop"](Probe(classifier, x)), inputs.grad.abs().amax(1))

    def test_relu6_and_functions_are_guided_too(self):
        mobile = load_classifier("mobilenet_v2", weights=None, num_classes=5)
        probe = Probe(mobile, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        guided, plain = METHODS["guided_backprop"](probe), METHODS["saliency"](probe)
        assert not torch.allclose(maps.min_max(guided), maps.min_max(plain), atol=0.1)
        assert torch.equal(METHODS["saliency"](probe), plain)  # nothing of it stays


class TestRise:
    def test_masks_are_bilinear_lie_in_the_unit_interval_and_have_the_stated_mean(self):
        size = torch.Size([28, 28])
        masks = torch.cat(list(rise_masks(size, 400)))
        assert masks.shape == (400, 28, 28)
        assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
        assert float(masks.mean()) == pytest.approx(0.5, abs=0.02)
        assert torch.equal(masks, torch.cat(list(rise_masks(size, 400, block=7))))

    def test_a_score_that_no_mask_moves_gives_the_mean_mask(self):
        classifier = nets.gap()
        with torch.no_grad():
            classifier.head.fc.weight.zero_()
        probe = Probe(classifier, nets.images(1))
        p = float(probe.probabilities[0, probe.targets[0]])
        masks = torch.cat(list(rise_masks(torch.Size([16, 16]), 300))).double()
        close(rise(probe, samples=300)[0], p * masks.mean(0) / 0.5)


def test_opti_cam_raises_the_score_of_its_mask():
    probe = Probe(nets.dense(seed=3), nets.images(3), torch.tensor([1, 2, 3]))

    def shown(heat: torch.Tensor) -> torch.Tensor:
        mask = maps.min_max(maps.upsample(heat, probe.images.shape[-2:]))
        return probe.score_masked(mask[:, None])[:, 0].gather(1, probe.targets[:, None])[:, 0]

    assert (shown(opti_cam(probe, steps=50)) > shown(opti_cam(probe, steps=0))).all()


class TestAtMean:
    def test_a_map_is_brought_to_the_mean_and_keeps_its_order(self):
        probe = Probe(nets.gap(), nets.images(3))
        heat = method("grad_cam[mean=0.3]")(probe)
        assert torch.allclose(heat.mean((1, 2)), torch.tensor(0.3, dtype=torch.float64), atol=1e-9)
        plain = maps.upsample(maps.min_max(METHODS["grad_cam"](probe)), (16, 16))
        assert (heat[0].flatten()[plain[0].flatten().argsort()].diff() >= 0).all()

    def test_an_empty_map_stays_empty_and_an_impossible_mean_is_refused(self):
        nothing = replace(METHODS["grad_cam"], function=lambda probe: torch.zeros_like(probe.activations[:, 0]))
        assert not nothing.at_mean(0.3)(Probe(nets.gap(), nets.images(1))).any()
        with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
            METHODS["cam"].at_mean(1.5)(Probe(nets.gap(), nets.images(1)))


class TestControls:
    def test_fake_cam_hides_one_pixel(self):
        heat = METHODS["fake_cam"](Probe(nets.gap(), nets.images(2)))
        assert heat.shape == (2, 16, 16)
        assert (heat == 0).sum((1, 2)).tolist() == [1, 1]
        assert bool((METHODS["all_ones"](Probe(nets.gap(), nets.images(2))) == 1).all())

    def test_edges_of_a_step_lie_on_the_step(self):
        x = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
        x[..., 8:] = 1
        heat = METHODS["edges"](Probe(nets.gap(), x))[0]
        assert set(heat.nonzero()[:, 1].tolist()) == {7, 8}
        assert torch.allclose(heat[:, 7:9], torch.tensor(0.5, dtype=torch.float64))


class TestIncrementReadings:
    def test_scored_once_every_reading_follows_without_a_pass(self, monkeypatch):
        probe = Probe(nets.dense(seed=3), nets.images(3), torch.tensor([0, 1, 2]))
        found = inc.score(probe)
        expected = {w: inc.phases(probe, weight=w).merged for w in inc.WEIGHTS}
        monkeypatch.setattr(probe, "score_masked", None)
        for weight, merged in expected.items():
            assert torch.equal(inc.phases(probe, found, weight=weight).merged, merged)
        with pytest.raises(TypeError, match="scores are given, so masks would have no effect"):
            inc.phases(probe, found, masks="gated")

    def test_the_three_phases_are_the_method(self):
        probe = Probe(nets.dense(seed=3), nets.images(2), torch.tensor([0, 1]))
        first = inc.phase_one(probe).relu()
        second, w = inc.phase_two(probe, inc.score(probe))
        assert torch.equal(first, METHODS["grad_cam"](probe))
        assert torch.equal(inc.phase_three(probe, first, second.relu(), w), METHODS["increment_cam"](probe))

    def test_channels_and_weights_may_be_ones_own(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        own, positive = torch.rand(2, 6, dtype=torch.float64), probe.gradients().mean((2, 3)) > 0
        found = inc.phases(probe, weight=own, select=~positive)
        assert torch.equal(found.increments.isnan(), positive)
        close(found.low_resolution_score_cam, torch.einsum("bk,bkhw->bhw", own * ~positive, probe.activations).relu())

    def test_without_selection_from_the_whole_image_it_is_score_cam_of_definition_5(self):
        probe = Probe(nets.dense(seed=3), nets.images(2), torch.tensor([0, 1]))
        second = inc.phases(probe, resolution="image", path="direct", select="all").low_resolution_score_cam
        masks = maps.min_max(maps.upsample(probe.activations, probe.images.shape[-2:]))
        both = torch.cat([torch.zeros_like(masks[:, :1]), masks], 1)
        p = probe.score_masked(both, "mean").softmax(-1)[torch.arange(2), :, probe.targets]
        close(second, torch.einsum("bk,bkhw->bhw", p[:, 1:] - p[:, :1], probe.activations).relu())

    def test_merges_are_what_they_say(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        found = inc.phases(probe)
        one, two = maps.min_max(found.grad_cam), maps.min_max(found.low_resolution_score_cam)
        close(inc.phases(probe, merge="product").merged, maps.min_max(one * two))
        close(inc.phases(probe, merge="max").merged, maps.min_max(torch.maximum(one, two)))
        alpha, w = probe.gradients().mean((2, 3)), found.increments.nan_to_num(0.0)
        both = alpha / alpha.abs().amax(1, keepdim=True) + w / w.abs().amax(1, keepdim=True)
        close(inc.phases(probe, merge="channels").merged, maps.min_max(torch.einsum("bk,bkhw->bhw", both, probe.activations).relu()))

    def test_a_gated_mask_is_the_channel_under_grad_cam(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        gated = probe.activations * METHODS["grad_cam"](probe)[:, None]
        low = torch.nn.functional.interpolate(probe.images, probe.activations.shape[-2:], mode="area")
        masks = torch.cat([torch.zeros_like(gated[:, :1]), maps.min_max(gated)], 1)
        p = probe.score_masked(masks, "mean", images=low).softmax(-1)[torch.arange(2), :, probe.targets]
        w = inc.phases(probe, masks="gated").increments
        close(w.nan_to_num(0.0), torch.where(w.isnan(), 0.0, p[:, 1:] - p[:, :1]))

    @pytest.mark.parametrize(
        "wrong",
        [{"path": "x"}, {"masks": "x"}, {"select": "x"}, {"reduce": "x"}, {"enlarge": "x"}, {"fill": "x"}, {"weight": "x"}, {"merge": "x"},
         {"summed": "x"}],
        ids=str,
    )  # fmt: skip
    def test_an_unknown_option_is_refused_with_the_known_ones(self, wrong):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
            inc.phases(Probe(nets.gap(), nets.images(1)), **wrong)

    def test_an_option_that_no_phase_has_is_named(self):
        with pytest.raises(TypeError, match="unexpected keyword argument 'resolutions'"):
            inc.phases(Probe(nets.gap(), nets.images(1)), resolutions=32)

    @pytest.mark.parametrize("fill", ["black", torch.full((3, 1, 1), 0.3, dtype=torch.float64)], ids=["black", "grey"])
    def test_what_a_mask_hides_may_be_filled_otherwise(self, fill):
        classifier, x = nets.dense(seed=3), nets.images(2)
        probe, colour = Probe(classifier, x), torch.zeros(3, 1, 1).double() if fill == "black" else fill
        low = torch.nn.functional.interpolate(x, probe.activations.shape[-2:], mode="area")
        w = inc.phases(probe, fill=fill).increments
        for b, k in (~w.isnan()).nonzero().tolist():
            mask, target = maps.min_max(probe.activations)[b, k], int(probe.targets[b])
            with torch.no_grad():
                shown, hidden = classifier(torch.stack([mask * low[b] + (1 - mask) * colour, colour.expand_as(low[b])])).softmax(1)[
                    :, target
                ]
            assert float(w[b, k]) == pytest.approx(float(shown - hidden), rel=1e-9)

    @pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
    def test_the_masked_image_grows_as_it_is_told(self, mode):
        classifier, x = nets.dense(seed=3), nets.images(1)
        probe = Probe(classifier, x)
        low = torch.nn.functional.interpolate(x, probe.activations.shape[-2:], mode="area")
        found = inc.phases(probe, resolution=24, enlarge=mode)
        more = {} if mode == "nearest" else {"align_corners": False}
        with torch.no_grad():
            want = classifier(torch.nn.functional.interpolate(low, (24, 24), mode=mode, **more)).softmax(1)[0, probe.targets]
        close(found.scores.probability[:, 1], want)

    def test_weights_of_other_scores(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        found = inc.score(probe)
        plain = inc.phases(probe, found).increments
        assert bool((plain < 0).any())  # else its ReLU says nothing
        torch.testing.assert_close(inc.phases(probe, found, weight="rectified").increments, plain.relu(), equal_nan=True)
        logits = inc.phases(probe, found, weight="logit").increments
        low = torch.nn.functional.interpolate(probe.images, probe.activations.shape[-2:], mode="area")
        colour = probe.classifier.mean.double()
        for b, k in (~logits.isnan()).nonzero().tolist():
            mask = maps.min_max(probe.activations)[b, k]
            with torch.no_grad():
                both = probe.classifier(torch.stack([mask * low[b] + (1 - mask) * colour, colour.expand_as(low[b])]))
            shown, hidden = both[:, int(probe.targets[b])].tolist()
            assert float(logits[b, k]) == pytest.approx(shown - hidden, rel=1e-9)

    def test_the_second_sum_may_run_over_the_masks(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        found = inc.phases(probe, summed="masks")
        w = found.increments.nan_to_num(0.0)
        for b in range(2):
            want = sum(w[b, k] * maps.min_max(probe.activations[b, k]) for k in range(w.shape[1]))
            close(found.low_resolution_score_cam[b], want.relu())

    def test_the_merge_may_keep_signs_and_ranges(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        found = inc.phases(probe, rectify=False, rescale=False, regularise=False, weight_grad_cam=2.0, weight_score=3.0)
        alpha, w = probe.gradients().mean((2, 3)), found.increments.nan_to_num(0.0)
        want = torch.einsum("bk,bkhw->bhw", 2 * alpha + 3 * w, probe.activations)
        assert float(want.min()) < 0
        close(found.merged, want)
        close(inc.phases(probe, rectify=False, rescale=False, weight_grad_cam=2.0, weight_score=3.0).merged, maps.min_max(want.relu()))

    def test_a_channel_of_less_range_than_epsilon_is_not_scored(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        span = probe.activations.amax((2, 3)) - probe.activations.amin((2, 3))
        limit = float(span.median())
        assert torch.equal(inc.score(probe, select="all", epsilon=limit).selected, span > limit)

    def test_what_the_second_phase_had_to_go_by_is_told_for_every_image(self):
        classifier, x = nets.dense(seed=3), nets.images(3)
        probe = Probe(classifier, x, torch.tensor([0, 1, 2]))
        found = inc.phases(probe)
        told = found.diagnostics()
        assert all(value.shape == (3,) for value in told.values())
        low = torch.nn.functional.interpolate(x, probe.activations.shape[-2:], mode="area")
        with torch.no_grad():
            p = classifier(low).softmax(1)
        for b, target in enumerate(probe.targets.tolist()):
            w = [float(v) for v in found.increments[b] if not v.isnan()]
            assert float(told["probability_low"][b]) == pytest.approx(float(p[b, target]), rel=1e-9)
            assert int(told["rank_low"][b]) == sum(float(other) > float(p[b, target]) for other in p[b])
            assert int(told["scored_channels"][b]) == len(w)
            assert float(told["effective_channels"][b]) == pytest.approx(sum(abs(v) for v in w) ** 2 / sum(v * v for v in w))
            pair = torch.stack([found.grad_cam[b].flatten(), found.low_resolution_score_cam[b].flatten()])
            assert float(told["correlation"][b]) == pytest.approx(float(torch.corrcoef(pair)[0, 1]), nan_ok=True)

    def test_what_is_not_finite_is_an_error_that_names_the_image(self):
        classifier, x = nets.gap(), nets.images(3)
        probe = Probe(classifier, x, torch.tensor([0, 1, 2]))
        probe.activations[1, 0, 0, 0] = torch.inf
        with pytest.raises(ValueError, match=r"images \[1\] of the batch have .* not finite"):
            METHODS["increment_cam"](probe)

    @pytest.mark.parametrize(
        ("name", "smallest"),
        [("vgg16", 32), ("vgg19", 32), ("densenet121", 32), ("googlenet", 16), ("alexnet", 64), ("resnet18", 0), ("resnet50", 0),
         ("mobilenet_v2", 0)],
    )  # fmt: skip
    def test_the_reduced_image_is_enlarged_only_as_far_as_the_network_asks(self, name, smallest):
        with torch.device("meta"):  # shapes alone
            network = torchvision.models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {})).eval()
            images = torch.empty(1, 3, 224, 224)
        classifier = Classifier.of(network, default_layer(name, network))
        probe = SimpleNamespace(classifier=classifier, images=images, activations=classifier.activations(images))
        assert inc._smallest_side(probe) == smallest
        large = SimpleNamespace(classifier=classifier, images=images, activations=torch.empty(1, 1, 64, 64))
        assert inc._smallest_side(large) == 0  # as large as any of them needs

    def test_a_blur_keeps_the_range_and_smooths(self):
        probe = Probe(nets.dense(seed=3), nets.images(2))
        plain, soft = (inc.phases(probe, sigma=s).merged for s in (0.0, 1.0))
        assert float(soft.min()) == 0.0
        assert float(soft.max()) == 1.0
        assert float(soft.diff(dim=2).abs().mean()) < float(plain.diff(dim=2).abs().mean())


class TestTransformers:
    @pytest.fixture(scope="class")
    def vit(self):
        torch.manual_seed(0)
        classifier = load_classifier("vit_b_16", weights=None, num_classes=4)
        with torch.no_grad():  # torchvision starts the last layer at zero
            torch.nn.init.normal_(classifier._network[0].heads.head.weight, std=0.1)
        return classifier

    def test_the_cut_is_the_network_and_the_map_a_grid(self, vit):
        x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
        probe = Probe(vit, x)
        assert probe.activations.shape == (2, 768, 14, 14)
        with torch.no_grad():
            assert torch.equal(vit(x), vit._network[0].eval()(vit.normalize(x)))
        other = probe.pairs(torch.tensor([1, 0]), torch.tensor([2, 3]))
        close(other.gradients(), Probe(vit, x[[1, 0]], torch.tensor([2, 3])).gradients(), tolerance=1e-4)
        for name in ("grad_cam", "hires_cam", "layer_cam", "xgrad_cam", "eigen_cam", "mean_activation"):
            heat = METHODS[name](other)
            assert heat.shape == (2, 14, 14)
            assert torch.isfinite(heat).all()
        assert float(METHODS["hires_cam"](other).abs().max()) > 0
        keep = torch.ones(2, 1, 768)
        assert torch.allclose(other.score_channels(keep)[:, 0], other.logits, atol=1e-5)

    @pytest.mark.parametrize(("layer", "shape"), [("permute", "1, 196, 768"), ("heads", "1, 4")])
    def test_a_layer_without_tokens_is_refused(self, vit, layer, shape):
        with pytest.raises(ValueError, match=rf"gives \({shape}\), no square grid of patches behind tokens=1"):
            Probe(vit.at(layer), torch.rand(1, 3, 224, 224)).gradients()

    def test_no_small_image_is_answered_and_the_sentence_says_what_to_take(self, vit):
        probe = Probe(vit, torch.rand(1, 3, 224, 224))
        with pytest.raises(ValueError, match=r"vit_b_16 accepts no input of 96 x 96 or less: take increment_cam\[full\]"):
            METHODS["increment_cam"](probe)

    def test_gradients_are_those_of_the_whole_network(self, vit):
        x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
        kept = {}
        network = vit._network[0].eval()
        hook = network.encoder.layers.encoder_layer_10.register_forward_hook(lambda _m, _i, out: kept.update(out=out))
        logits = network(vit.normalize(x))
        hook.remove()
        gradient = torch.autograd.grad(logits[0, logits.argmax()], kept["out"])[0]
        close(Probe(vit, x).gradients().flatten(2), gradient[:, 1:].mT, tolerance=1e-4)

    def test_swin_needs_nothing_beside_its_map(self):
        probe = Probe(load_classifier("swin_t", weights=None, num_classes=4), torch.rand(1, 3, 64, 64))
        assert probe.activations.shape[1] == 768
        assert METHODS["grad_cam"](probe).shape == (1, 2, 2)
