"""Faithfulness beside Captum, TorchCAM and pytorch-grad-cam where they compute the same; elsewhere the deviation itself."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cam_core import METHODS, metrics
from cam_core.metrics import removal
from cam_core.metrics.road import impute
from cam_core.probe import Probe
from tests.nets import dense, images

pytestmark = pytest.mark.oracle
GRID = 8


@pytest.fixture
def case():
    """A probe whose network the peers call with normalised images, and maps [B,8,8] of cells of two by two pixels."""
    probe = Probe(dense(), images(3))
    return probe, torch.randn(3, GRID, GRID, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("scaled", [False, True])
def test_infidelity_is_captums_when_it_perturbs_by_the_same_squares(case, scaled):
    captum = pytest.importorskip("captum.metrics", reason="captum is not installed: make setup")
    probe, maps = case
    metric = metrics.Infidelity(scaled)
    squares = metric.squares(GRID, GRID).double()
    pixels = F.interpolate(squares[:, None], (16, 16), mode="nearest-exact")

    def remove(inputs):
        gone = pixels.repeat(3, 1, 1, 1)  # captum repeats every image in turn
        return gone.expand_as(inputs), inputs * (1 - gone)

    spread = (maps.repeat_interleave(2, 1).repeat_interleave(2, 2) / 12)[:, None].expand(-1, 3, -1, -1)  # a cell's value over its numbers
    theirs = captum.infidelity(
        probe.classifier.scores, remove, probe.inputs, spread, target=probe.targets, n_perturb_samples=len(squares), normalize=scaled
    )
    assert metric.measure(maps, probe)[:, int(scaled)].numpy() == pytest.approx(theirs.detach().numpy(), rel=1e-6)


def test_max_sensitivity_is_captums_when_it_moves_the_same_way(case):
    captum = pytest.importorskip("captum.metrics", reason="captum is not installed: make setup")
    probe, _ = case
    metric, explain = metrics.MaxSensitivity(radius=0.05, samples=6), METHODS["hires_cam"]
    moved = torch.stack([other.images for other in metric.neighbours(probe)], 1).flatten(0, 1)

    def explanation(inputs):
        (batch,) = inputs  # captum repeats every image in turn
        index = torch.arange(3).repeat_interleave(len(batch) // 3)
        return (explain(probe.pairs(index, probe.targets[index]).like(batch)),)

    theirs = captum.sensitivity_max(explanation, probe.images, lambda *_: (moved,), n_perturb_samples=6)
    ours = metric.measure(explain(probe), probe, explain)
    assert ours[:, 0].numpy() == pytest.approx(theirs.numpy(), rel=1e-9)


def test_deletion_is_torchcams_and_its_insertion_starts_from_another_image(case):
    torchcam = pytest.importorskip("torchcam.metrics", reason="torchcam is not installed: make setup")
    probe, maps = case
    heat = maps.repeat_interleave(2, 1).repeat_interleave(2, 2)  # ties: both sort stably
    extractor = SimpleNamespace(_hooks_off=nullcontext, model=probe.classifier.scores)
    peer = torchcam.DeletionInsertionMetric(extractor, lambda logits: logits.softmax(1), steps=8)
    ranks, unmasked = removal.ranks(heat).flatten(1), probe.probabilities.gather(1, probe.targets[:, None])[:, 0]
    fractions, deletion, from_mean = peer._compute_curves(probe.inputs, torch.zeros_like(probe.inputs), ranks, probe.targets, unmasked)
    ours = metrics.Deletion(step=32).curve(heat, probe)
    assert fractions.shape == (9,)
    assert ours.numpy() == pytest.approx(deletion.numpy(), rel=1e-6)
    insertion = metrics.Insertion(step=32).curve(heat, probe)
    assert insertion[:, -1].numpy() == pytest.approx(from_mean[:, -1].numpy(), rel=1e-6)
    assert not np.allclose(insertion[:, 0], from_mean[:, 0], rtol=1e-3)  # a blur here, the mean colour there


def test_imputation_is_pytorch_grad_cams_without_its_noise():
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="grad-cam is not installed: make setup")
    image = images(1)[0].float()
    missing = np.random.default_rng(0).random((16, 16)) < 0.7
    theirs = road.NoisyLinearImputer(noise=0)(image, torch.from_numpy((~missing).astype(np.float32)))
    assert impute(image.numpy(), missing) == pytest.approx(theirs.numpy(), abs=1e-6)


def explains(probe, heat):
    """What TorchCAM asks for an explainer: here one whose maps are known, on a network that takes normalised images."""

    class Known:
        model = torch.nn.Module()
        _hooks_off = nullcontext

        def __call__(self, _target, _scores):
            return [heat]

        def fuse_cams(self, cams):
            return cams[0]

    Known.model.forward = probe.classifier.scores
    return Known()


@pytest.mark.parametrize("seed", range(3))
def test_average_drop_and_increase_on_the_mean_colour_are_torchcams(seed):
    """It multiplies the normalised image, whose zero is the mean colour. L-CAM's black is another number."""
    torchcam = pytest.importorskip("torchcam.metrics", reason="torchcam is not installed: make setup")
    probe = Probe(dense(seed), images(12))
    heat = torch.rand(12, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theirs = torchcam.ClassificationMetric(explains(probe, heat), lambda logits: logits.softmax(1))
    theirs.update(probe.inputs)
    found = theirs.summary()
    drop, increase = metrics.AverageDrop(fill="mean"), metrics.IncreaseInConfidence(fill="mean")
    for metric in (drop, increase):
        metric.update(heat, probe)
    assert drop.compute() == pytest.approx(100 * found["avg_drop"], rel=1e-5)  # it adds 1e-7 to Y
    assert increase.compute() == pytest.approx(100 * found["conf_increase"], abs=1e-9)
    assert 0 < found["avg_drop"] < 1
    assert 0 < found["conf_increase"] < 1
    black = metrics.AverageDrop()
    black.update(heat, probe)
    assert black.compute() != pytest.approx(drop.compute(), rel=1e-2)


def test_torchcam_drops_images_whose_map_is_not_a_number_and_ours_refuses_them(case):
    torchcam = pytest.importorskip("torchcam.metrics", reason="torchcam is not installed: make setup")
    probe, _ = case
    heat = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    heat[1, 0, 0] = float("nan")
    theirs = torchcam.ClassificationMetric(explains(probe, heat), lambda logits: logits.softmax(1))
    theirs.update(probe.inputs)
    assert (theirs.total, theirs.nan_count) == (2, 1)
    with pytest.raises(ValueError, match="average_drop: a map contains NaN"):
        metrics.AverageDrop(fill="mean").update(heat, probe)


@pytest.fixture
def perturbation():
    """pytorch-grad-cam's choice of pixels, [H,W] bool: those it removes at a percentile, the most or the least salient first."""
    peer = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence", reason="grad-cam is not installed: make setup")

    def removed(heat, percentile, *, most):
        kind = peer.RemoveMostRelevantFirst if most else peer.RemoveLeastRelevantFirst
        return kind(percentile, lambda _image, kept: kept)(None, heat) == 0

    return removed


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_percentile_of_pytorch_grad_cams_road_is_what_stays(perturbation, share):
    """On a map without ties its MoRF at 100 - p and its LeRF at p take the pixels that ours takes at p percent."""
    heat = (torch.randperm(256, generator=torch.Generator().manual_seed(0)).reshape(16, 16) / 256).double()
    rank, count = removal.ranks(heat[None])[0], int(share * 256)
    assert torch.equal(perturbation(heat, 100 * (1 - share), most=True), rank < count)
    assert torch.equal(perturbation(heat, 100 * (1 - share), most=False), rank >= 256 - count)


def test_its_percentile_lies_between_two_pixels_and_may_take_one_more(perturbation):
    """Its threshold is interpolated: of 256 pixels a tenth is 26 there and int(25.6) = 25 here."""
    heat = (torch.randperm(256, generator=torch.Generator().manual_seed(0)).reshape(16, 16) / 256).double()
    theirs, ours = perturbation(heat, 90, most=True), removal.ranks(heat[None])[0] < int(0.1 * 256)
    assert (int(theirs.sum()), int(ours.sum())) == (26, 25)
    assert not (ours & ~theirs).any()


def test_its_percentile_takes_all_or_far_too_much_of_a_map_with_ties(perturbation):
    """A map of a ReLU, 60 % zeros: nothing is below a threshold of zero. Ours takes exactly its share (`removal.ranks`)."""
    heat = torch.zeros(400, dtype=torch.float64)
    heat[240:] = torch.arange(1, 161) / 160
    heat = heat[torch.randperm(400, generator=torch.Generator().manual_seed(3))].reshape(20, 20)
    most, least = ({p: int(perturbation(heat, p, most=way).sum()) for p in (10, 50, 80)} for way in (True, False))
    assert most == {10: 400, 50: 400, 80: 80}  # everything, everything, a fifth
    assert least == {10: 360, 50: 240, 80: 240}  # all zeros at once, whether half or a fifth was asked for
    ranks = removal.ranks(heat[None], [7])[0]
    assert [int((ranks < int(share * 400)).sum()) for share in (0.9, 0.5, 0.2)] == [360, 200, 80]


def test_road_is_pytorch_grad_cams_without_noise_on_maps_without_ties(case):
    """Its imputation of normalised images and ours in [0, 1] agree, since the weights of the neighbours add up to one."""
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="grad-cam is not installed: make setup")
    probe, _ = case
    order = torch.rand(3, 256, generator=torch.Generator().manual_seed(5)).argsort(1)
    heat = (order / 256).double().reshape(3, 16, 16)
    targets = [lambda logits, c=c: logits.softmax(-1)[c] for c in probe.targets.tolist()]
    scores, network = [], lambda imputed: probe.classifier.scores(imputed.double())
    for kind in (road.ROADMostRelevantFirst, road.ROADLeastRelevantFirst):
        metric = kind(percentile=50)
        metric.perturbation.imputer = road.NoisyLinearImputer(noise=0)
        scores.append(metric(probe.inputs.float(), heat.numpy(), targets, network, return_diff=False))
    combined = metrics.RoadCombined(0.5, noise=0)
    rows = combined.measure(heat, probe).numpy()
    np.testing.assert_allclose(rows[:, 2:].T, scores, rtol=1e-4)
    assert combined.summary(rows) == pytest.approx(100 * np.mean(scores[1] - scores[0]) / 2, rel=1e-3)
