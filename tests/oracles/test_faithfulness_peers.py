"""Faithfulness beside Captum, TorchCAM and pytorch-grad-cam where they compute the same; elsewhere the deviation itself."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cam_core import METHODS, metrics
from cam_core.metrics import removal
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
        return (explain(Probe(probe.classifier, batch, probe.targets.repeat_interleave(len(batch) // 3))),)

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
    assert removal.impute(image.numpy(), missing) == pytest.approx(theirs.numpy(), abs=1e-6)
