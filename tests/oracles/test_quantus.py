"""Beside Quantus where it computes the same; where it does not, what it computes instead, so that a change there is noticed."""

import numpy as np
import pytest
import torch

from cam_core import METHODS, metrics
from cam_core.metrics import removal, road
from cam_core.metrics.agreement import losses
from cam_core.probe import Probe
from tests.nets import dense, images

quantus = pytest.importorskip("quantus", reason="quantus is not installed: make setup")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
SIDE, GRID = 16, 8
QUIET = {"normalise": False, "abs": False, "disable_warnings": True, "display_progressbar": False, "return_aggregate": False}


class Scores(torch.nn.Module):
    """Logits of a probe's normalised images times what Quantus hands over: which pixels are there, float32 [B,1,H,W].

    Its features are single numbers of an image; in this way they are pixels.
    """

    def __init__(self, probe):
        super().__init__()
        self.probe = probe

    def forward(self, present):
        return self.probe.classifier.scores(present.double() * self.probe.inputs).float()


@pytest.fixture
def case():
    """A probe, what Quantus needs of it, and maps [4,16,16] without ties."""
    probe = Probe(dense(), images(4))
    given = {"model": Scores(probe).eval(), "x_batch": np.ones((4, 1, SIDE, SIDE), np.float32), "y_batch": probe.targets.numpy()}
    order = torch.rand(4, SIDE * SIDE, generator=torch.Generator().manual_seed(5)).argsort(1)
    return probe, given, ((order + 1) / (SIDE * SIDE)).double().reshape(4, SIDE, SIDE)


def channel(maps):
    """Maps [B,H,W] as attributions [B,1,H,W]."""
    return maps.float().numpy()[:, None]


def test_pixel_flipping_is_deletion_without_its_first_point(case):
    probe, given, heat = case
    flipping = quantus.PixelFlipping(features_in_step=32, perturb_baseline=0.0, **QUIET)
    theirs = np.array(flipping(**given, a_batch=channel(heat), softmax=True))
    ours = metrics.Deletion(step=32).curve(heat, probe).numpy()
    assert theirs.shape == (4, 8)
    assert ours[:, 1:] == pytest.approx(theirs, rel=1e-4)


def test_its_area_under_the_curve_counts_steps_and_starts_after_the_first(case):
    probe, given, heat = case
    flipping = quantus.PixelFlipping(features_in_step=32, perturb_baseline=0.0, return_auc_per_sample=True, **QUIET)
    if not hasattr(np, "trapz"):  # NumPy calls it trapezoid now: should this stop failing, they have followed
        with pytest.raises(AttributeError, match="trapz"):
            flipping(**given, a_batch=channel(heat), softmax=True)
        return
    theirs = np.array(flipping(**given, a_batch=channel(heat), softmax=True))
    curve = metrics.Deletion(step=32).curve(heat, probe).numpy()
    assert theirs == pytest.approx(np.trapezoid(curve[:, 1:], axis=1), rel=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_the_imputation_is_theirs_without_noise(share):
    rng = np.random.default_rng(0)
    image, missing = rng.random((3, 12, 17)), rng.random((12, 17)) < share
    theirs = quantus.functions.perturb_func.noisy_linear_imputation(image, np.flatnonzero(missing), noise=0)
    assert road.impute(image, missing) == pytest.approx(theirs, abs=1e-9)


def test_its_road_ranks_the_numbers_of_a_colour_image_not_its_pixels(case):
    """The ranking runs over channels x pixels, the imputation over pixels: a colour image falls out of range, ours ranks pixels."""
    probe, given, heat = case
    given["x_batch"] = probe.inputs.float().numpy()
    with pytest.raises(IndexError, match="out of bounds"):
        quantus.ROAD(noise=0, percentages=[50], **QUIET)(**given, a_batch=channel(heat))


def test_max_sensitivity_is_theirs_when_it_moves_the_same_way(case):
    probe, given, _ = case
    given["x_batch"] = probe.inputs.float().numpy()
    metric, explain = metrics.MaxSensitivity(radius=0.05, samples=4), METHODS["hires_cam"]
    moved = iter(metric.neighbours(probe))

    def move(arr, **_options):
        return next(moved).inputs.numpy().reshape(arr.shape)

    def explanation(inputs, targets, **_options):
        unnormalised = torch.from_numpy(inputs).double() * probe.classifier.std + probe.classifier.mean
        cells = explain(probe.pairs(torch.arange(len(targets)), torch.from_numpy(targets)).like(unnormalised)).numpy()
        return cells.repeat(2, 1).repeat(2, 2)[:, None]  # at image size, which it asks for, and changes no ratio of norms

    given["a_batch"] = explanation(given["x_batch"], given["y_batch"])
    theirs = quantus.MaxSensitivity(nr_samples=4, perturb_func=move, **QUIET)(
        **given, explain_func=lambda model, inputs, targets, **_: explanation(inputs, targets)
    )
    ours = metric.measure(explain(probe), probe, explain)
    assert ours[:, 0].numpy() == pytest.approx(np.array(theirs), rel=1e-3)


def prefixes(count):
    """The sets of 4 x 4 cells that are gone after 1, 2, ... blocks in scan order, bool [16,8,8]."""
    cells = torch.arange(16).reshape(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
    return torch.stack([cells <= last for last in range(count)])


def test_its_infidelity_removes_one_block_after_the_other_and_never_puts_one_back(case):
    """Ours, as the authors', removes each square from the whole image. The two agree on the one square that is the whole image."""
    probe, given, _ = case
    maps = torch.randn(4, GRID, GRID, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    spread = maps.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None] / 4  # a cell's value over its pixels

    def theirs(side):
        metric = quantus.Infidelity(perturb_patch_sizes=[side], n_perturb_samples=1, perturb_baseline=0.0, **QUIET)
        return np.array(metric(**given, a_batch=spread.float().numpy()))

    gone = prefixes(16)
    worth = maps.flatten(1) @ gone.double().flatten(1).T
    assert theirs(4) == pytest.approx((losses(probe, gone) - worth).square().mean(1).numpy(), rel=1e-3)
    whole = metrics.Infidelity(scaled=False, sides=1).measure(maps.sum((1, 2))[:, None, None], probe)[:, 0]
    assert theirs(SIDE) == pytest.approx(whole.numpy(), rel=1e-3)
    squares = metrics.Infidelity(scaled=False, sides=1)
    fours = torch.nn.functional.avg_pool2d(maps[:, None], 2)[:, 0] * 4
    assert not np.allclose(theirs(4), squares.measure(fours, probe)[:, 0].numpy(), rtol=1e-2)


def test_its_sensitivity_n_is_not_the_papers(case):
    """It removes the most salient features one block after the other and correlates over the images, not over random sets of one image.

    Beside the loss so far it sets the values of the last block alone, and probabilities are its default.
    """
    probe, given, heat = case
    heat = heat ** torch.arange(1, 5)[:, None, None]  # else every image's blocks have the same sums
    metric = quantus.SensitivityN(features_in_step=32, n_max_percentage=1.0, perturb_baseline=0.0, **QUIET)
    theirs = np.array(metric(**given, a_batch=channel(heat), softmax=False))
    rank, removed, worth = removal.ranks(heat), [], []
    for first in range(0, SIDE * SIDE, 32):
        gone = rank < first + 32
        lost = torch.stack([losses(probe, one[None])[i, 0] for i, one in enumerate(gone)])
        removed.append(lost)
        worth.append((heat * (gone & (rank >= first))).sum((1, 2)))
    assert theirs == pytest.approx([np.corrcoef(a, b)[0, 1] for a, b in zip(removed, worth, strict=True)], abs=1e-4)


def test_relevance_mass_is_the_energy_in_the_box_and_a_map_without_energy_is_not_a_number(case):
    _, given, heat = case
    heat = heat.clone()
    heat[3] = 0
    boxes = [
        torch.tensor([[2, 3, 9, 7]]),
        torch.tensor([[0, 0, 15, 4], [3, 3, 8, 12]]),
        torch.tensor([[5, 5, 5, 5]]),
        torch.tensor([[0, 0, 3, 3]]),
    ]
    masks = torch.stack([metrics.localization.inside(box, (SIDE, SIDE)) for box in boxes])
    theirs = quantus.RelevanceMassAccuracy(**QUIET)(**given, a_batch=channel(heat), s_batch=masks.numpy()[:, None])
    rows = metrics.EnergyPointingGame().measure(heat, boxes).numpy()
    assert rows[:3, 0] / rows[:3, 1] == pytest.approx(theirs[:3], rel=1e-5)
    assert np.isnan(theirs[3])
    assert metrics.EnergyPointingGame().summary(rows[3:]) == 0


def test_its_pointing_game_lets_any_tied_maximum_hit(case):
    """`MaximumInBox` takes the first in scan order; without ties the two agree."""
    _, given, heat = case
    heat = heat.clone()
    heat[3] = 0.5
    tops = [divmod(int(one.argmax()), SIDE) for one in heat]
    boxes = [torch.tensor([[x, y, x, y]]) for y, x in tops[:2]]
    boxes += [torch.tensor([[0, 0, 0, 0]]) + (tops[2] == (0, 0)), torch.tensor([[7, 7, 9, 9]])]
    masks = torch.stack([metrics.localization.inside(box, (SIDE, SIDE)) for box in boxes])
    theirs = quantus.PointingGame(**QUIET)(**given, a_batch=channel(heat), s_batch=masks.numpy()[:, None])
    ours = metrics.MaximumInBox().measure(heat, boxes)[:, 0].tolist()
    assert [bool(hit) for hit in theirs] == [True, True, False, True]
    assert ours == [1, 1, 0, 0]
