"""What a probe answers, against the plain network; what it refuses."""

import pytest
import torch
import torchvision

from cam_core.classifier import Classifier
from cam_core.probe import Probe
from tests import nets


def test_gradients_equal_a_backward_pass_through_the_whole_network():
    classifier, x = nets.dense(), nets.images(3)
    targets = torch.tensor([1, 4, 0])
    a = classifier.activations(x).detach().requires_grad_()
    logits = classifier.head(a)
    want = torch.autograd.grad(logits[torch.arange(3), targets].sum(), a)[0]
    probe = Probe(classifier, x, targets)
    assert torch.allclose(probe.gradients(), want, rtol=1e-12, atol=0)
    p = classifier.head(a).softmax(1)[torch.arange(3), targets].sum()
    assert torch.allclose(probe.gradients("probability"), torch.autograd.grad(p, a)[0], rtol=1e-12, atol=1e-18)


def test_masked_scores_equal_masking_by_hand():
    classifier, x = nets.dense(), nets.images(2)
    masks = torch.rand(2, 5, 16, 16, dtype=torch.float64)
    for fill, colour in (
        ("black", torch.zeros(3, 1, 1)),
        ("mean", classifier.mean),
        (torch.full((3, 1, 1), 0.2), torch.full((3, 1, 1), 0.2)),
    ):
        got = Probe(classifier, x, chunk=3).score_masked(masks, fill)
        for b in range(2):
            for m in range(5):
                by_hand = masks[b, m] * x[b] + (1 - masks[b, m]) * colour
                assert torch.allclose(got[b, m], classifier(by_hand[None])[0], rtol=1e-9, atol=1e-12)


def test_a_mask_of_ones_changes_nothing_to_the_bit():
    classifier, x = nets.gap(), nets.images(2)
    assert torch.equal(Probe(classifier, x).score_masked(torch.ones(2, 1, 16, 16).double(), "mean")[:, 0], classifier(x).detach())


def test_only_selected_masks_are_passed():
    classifier, x = nets.gap(), nets.images(2)
    select = torch.tensor([[True, False, True], [False, False, False]])
    passed = []
    classifier.trunk.register_forward_pre_hook(lambda _m, given: passed.append(len(given[0])))
    logits = Probe(classifier, x).score_masked(torch.rand(2, 3, 4, 4).double(), select=select)
    assert torch.equal(logits.isnan().all(-1), ~select)
    assert sum(passed) == 2


def test_channels_are_masked_at_the_head_alone():
    classifier, x = nets.dense(), nets.images(2)
    keep = (torch.rand(2, 4, 6) > 0.5).double()
    probe = Probe(classifier, x)
    got = probe.score_channels(keep)
    want = classifier.head((probe.activations[1] * keep[1, 3][:, None, None])[None])
    assert torch.allclose(got[1, 3], want[0], rtol=1e-12)


def test_pairs_share_the_pass_through_the_trunk():
    classifier, x = nets.gap(), nets.images(3)
    probe = Probe(classifier, x)
    _ = probe.logits
    passes = []
    classifier.trunk.register_forward_pre_hook(lambda *_: passes.append(1))
    index, targets = torch.tensor([2, 0, 2]), torch.tensor([1, 3, 4])
    pairs = probe.pairs(index, targets)
    got = pairs.gradients()
    assert not passes
    assert torch.equal(got, Probe(classifier, x[index], targets).gradients())


def test_it_works_under_no_grad_inference_mode_and_with_frozen_weights():
    classifier, x = nets.gap(), nets.images(1)
    want = Probe(classifier, x).gradients()
    classifier.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(Probe(classifier, x).gradients(), want)
    with torch.inference_mode():
        assert torch.equal(Probe(classifier, x).gradients(), want)


def test_what_is_refused():
    classifier, x = nets.gap(), nets.images(2)
    with pytest.raises(ValueError, match=r"target 9 is out of range: the classifier has 5 classes \(0..4\)"):
        Probe(classifier, x, torch.tensor([0, 9]))
    with pytest.raises(ValueError, match=r"one class per image \[2\]"):
        Probe(classifier, x, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"\[2\], got \(2,\) of torch.float32"):
        Probe(classifier, x, torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\] .* one image is image\[None\]"):
        Probe(classifier, x[0])
    with pytest.raises(ValueError, match=r"a tensor of floats in \[0, 1\], got ndarray"):
        Probe(classifier, x.numpy())
    with pytest.raises(ValueError, match=r"a tensor of floats in \[0, 1\], got torch.uint8"):
        Probe(classifier, (255 * x).to(torch.uint8))
    with pytest.raises(ValueError, match=r"reach from -\S+ to \S+: pass RGB in \[0, 1\]"):
        Probe(classifier, (x - 0.9) / 0.2)
    with pytest.raises(ValueError, match="reach from 0 to 255"):
        Probe(classifier, torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 255.0)]).to(x))
    with pytest.raises(
        ValueError, match="images have 1 channels, the classifier has mean and std of 3: give both as the network was trained"
    ):
        Probe(classifier, x[:, :1])
    with pytest.raises(ValueError, match="images are on meta"):
        Probe(classifier, x.to("meta"))
    with pytest.raises(ValueError, match='"black", "mean" or a colour'):
        Probe(classifier, x).score_masked(torch.ones(2, 1, 2, 2), "white")
    with pytest.raises(TypeError, match=r"needs a Classifier, got Gap: Classifier\.of\(network\) makes one of a network"):
        Probe(nets.Gap(), x)
    with pytest.raises(ValueError, match="the classifier is in train mode"):
        Probe(classifier.train(), x)


def test_no_part_of_the_classifier_may_train():
    network = torchvision.models.mobilenet_v2(num_classes=5)
    classifier, x = Classifier.of(network, "features.17"), torch.rand(2, 3, 32, 32)
    want, counted = Probe(classifier, x).logits, network.features[0][1].num_batches_tracked.clone()
    for part, told in ((network, "trunk.features.0.0"), (network.classifier[0], "head.classifier.0"), (network.features[3], "trunk.")):
        part.train()
        with pytest.raises(ValueError, match=f"{told}.* is in train mode, BatchNorm and dropout would move: call classifier.eval"):
            Probe(classifier, x)
        assert network.features[0][1].num_batches_tracked == counted
        network.eval()
    assert torch.equal(Probe(classifier, x).logits, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_images_leave_0_to_1_by_rounding_and_no_more(dtype):
    classifier, x = nets.gap(), nets.images(2).to(dtype)
    edge = x.clone()
    edge[0, 0, 0, 0], edge[0, 0, 0, 1] = 1 + torch.finfo(dtype).eps, -1e-7
    assert torch.isfinite(Probe(classifier, edge).logits).all()
    for other in ((x - 0.5) / 0.5, x + 0.02, x - 0.02 - x.amin(), torch.full_like(x, torch.nan), 1.02 * x / x.amax()):
        with pytest.raises(ValueError, match=r"images reach from \S+ to \S+: pass RGB in \[0, 1\], the classifier normalises them itself"):
            Probe(classifier, other)


def test_perturbed_images_come_in_by_like():
    classifier, x = nets.gap(), nets.images(2)
    probe = Probe(classifier, x, [3, 1], chunk=5)
    moved = probe.like(x + 0.3)
    assert torch.equal(moved.logits, classifier(x + 0.3).detach())
    assert moved.targets.tolist() == [3, 1]
    assert torch.equal(moved.at("conv2").activations, classifier.at("conv2").activations(x + 0.3).detach())
    assert torch.equal(moved.at("conv2").gradients(), Probe(classifier.at("conv2"), x, [3, 1]).like(x + 0.3).gradients())
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        probe.like(x[0])


def test_targets_may_be_a_list_or_one_class_for_all():
    classifier, x = nets.gap(), nets.images(2)
    want = Probe(classifier, x, torch.tensor([3, 3])).gradients()
    for same in (3, [3, 3], torch.tensor([3, 3], dtype=torch.int32)):
        probe = Probe(classifier, x, same)
        assert probe.targets.dtype == torch.int64
        assert torch.equal(probe.gradients(), want)
        assert torch.isfinite(probe.score_masked(torch.ones(2, 1, 4, 4).double()).gather(2, probe.targets[:, None, None])).all()


def test_images_of_another_precision_are_taken_in_the_classifiers():
    single, x = nets.gap().float(), nets.images(2)
    probe = Probe(single, x, [1, 2])
    assert probe.images.dtype == probe.activations.dtype == probe.gradients().dtype == torch.float32
    assert torch.equal(probe.gradients(), Probe(single, x.float(), [1, 2]).gradients())


def test_a_layer_without_a_map_is_refused():
    probe = Probe(nets.gap().at("fc"), nets.images(2))
    with pytest.raises(ValueError, match=r"fc gives \(2, 5\), which is no map \[B, K, h, w\]: explain a layer before it"):
        _ = probe.activations


def test_versions_made_in_chunks_equal_versions_made_by_hand():
    classifier, x = nets.dense(), nets.images(2)
    made = []

    def brighter(image, version):
        made.append(len(image))
        return (x[image] + 0.25 * version[:, None, None, None]).clamp(max=1)

    chosen = torch.tensor([[True, True, False], [True, False, True]])
    got = Probe(classifier, x, chunk=3).score_made(brighter, chosen)
    assert made == [3, 1]
    assert torch.equal(got.isnan().all(-1), ~chosen)
    assert torch.allclose(got[1, 2], classifier((x[1:] + 0.5).clamp(max=1))[0], rtol=1e-12)


def test_a_question_is_asked_once_and_not_of_another_probe():
    probe, asked = Probe(nets.gap(), nets.images(2)), []
    for _ in range(2):
        assert probe.once("key", lambda: asked.append(1) or len(asked)) == 1
    other = probe.pairs(torch.tensor([1]), torch.tensor([0]))
    assert other.once("key", lambda: asked.append(1) or len(asked)) == 2
    assert torch.equal(probe.like(nets.images(2, seed=5)).targets, probe.targets)


def test_images_take_the_precision_of_the_weights_whatever_the_mean_is_given_as():
    trunk, head = torch.nn.Conv2d(3, 2, 1).double(), torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    images = torch.full((1, 3, 2, 2), 0.5)
    whole = Probe(Classifier(trunk, head, mean=(0, 0, 0), std=(1, 1, 1)).eval(), images)
    torch.testing.assert_close(whole.activations, trunk(images.double()).detach())
