"""Grids: what cannot matter does not, and the share in a cell by brute force."""

import pytest
import torch

from cam_core import METHODS, Probe, maps
from cam_core.metrics.grids import GridLocalization, cells, grid, on_grid
from tests.nets import gap, images


def test_a_grid_has_its_images_row_by_row():
    four = images(4, 6, 8)
    whole = grid(four)
    assert whole.shape == (3, 12, 16)
    for number, (y, x) in enumerate(((0, 0), (0, 8), (6, 0), (6, 8))):
        assert torch.equal(whole[:, y : y + 6, x : x + 8], four[number])
    assert torch.equal(cells(whole[None], 2)[0], four)
    nine = torch.stack([grid(images(9, 4, 4, seed)) for seed in (1, 2)])
    assert torch.equal(cells(nine, 3)[1, 5], nine[1, :, 4:8, 8:12])
    with pytest.raises(ValueError, match="12 x 16 cannot be divided into 5 x 5"):
        cells(whole[None], 5)
    with pytest.raises(ValueError, match="n x n images, got 3"):
        grid(four[:3])


@pytest.mark.parametrize(("side", "cell"), [(2, 0), (2, 3), (3, 5)])
def test_difull_is_the_network_on_one_cell(side, cell):
    network, single = gap(), images(side * side)
    answer = on_grid(network, "DiFull", side, cell)
    whole = grid(single)[None]
    torch.testing.assert_close(answer(whole), network(single[cell : cell + 1]))
    torch.testing.assert_close(cells(answer.activations(whole), side)[0], network.activations(single))
    elsewhere = single.clone()
    elsewhere[[i for i in range(side * side) if i != cell]] = 0.5
    assert torch.equal(answer(grid(elsewhere)[None]), answer(whole))


def test_dipart_reads_one_cell_of_a_whole_pass_and_gridpg_changes_nothing():
    network, single = gap(), images(4)
    whole = grid(single)[None]
    assert on_grid(network, "GridPG", 2, 1) is network
    answer = on_grid(network, "DiPart", 2, 1)
    seen = network.activations(whole)
    assert torch.equal(answer.activations(whole), seen)
    half = seen.shape[-1] // 2
    torch.testing.assert_close(answer(whole), network.head(seen[:, :, :half, half:]))
    with pytest.raises(ValueError, match="setting"):
        on_grid(network, "DiSome", 2, 0)


def test_where_nothing_else_can_matter_hires_cam_stays_in_the_cell_and_grad_cam_does_not():
    """HiResCAM multiplies by the gradient in place, which is 0 outside; Grad-CAM spreads the channel's weight over all cells."""
    whole, found = torch.stack([grid(images(4, seed=seed)) for seed in (1, 2, 3)]), {}
    probe = Probe(on_grid(gap(), "DiFull", 2, 3), whole)
    for name in ("hires_cam", "grad_cam", "mean_activation"):
        raw = METHODS[name](probe)
        metric = GridLocalization()
        metric.update(raw, [3] * 3)
        found[name] = metric.compute()
    assert found["hires_cam"] == 100
    assert 10 < found["grad_cam"] < 60
    assert 10 < found["mean_activation"] < 60


def test_the_share_in_the_cell_by_brute_force():
    raw = torch.randn(4, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    raw[3] = -raw[3].abs()  # nothing positive
    places = [0, 4, 8, 2]
    metric = GridLocalization(3)
    metric.update(raw, places)
    shares = []
    for heat, place in zip(raw.tolist(), places, strict=True):
        positive = [(y, x, v) for y, line in enumerate(heat) for x, v in enumerate(line) if v > 0]
        inside = sum(v for y, x, v in positive if (y // 2, x // 3) == divmod(place, 3))
        shares.append(inside / sum(v for *_, v in positive) if positive else 0.0)
    assert metric.per_image()[1].shape == (4, 2)
    assert metric.compute() == pytest.approx(25 * sum(shares))
    assert metric.setting == "3 x 3"


def test_a_constant_map_is_at_chance_whatever_the_size():
    metric = GridLocalization()
    metric.update(maps.upsample(torch.ones(2, 4, 4), (8, 8)), torch.tensor([0, 3]))
    assert metric.compute() == 25
