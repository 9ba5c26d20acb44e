"""Agreement of two trainings' maps and cascading randomization, against loops and worked facts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from torch import nn

from cam_core import METHODS, load_classifier, metrics
from cam_core.classifier import Classifier
from cam_core.metrics.randomization import _cascade, hog, spearman, ssim, stages
from cam_core.metrics.stability import KINDS, mask_dice, mask_iou, partners, script_agreement, script_mask, top_area
from tests.nets import dense, gap, images


def two_squares():
    first, second = np.zeros((1, 224, 224)), np.zeros((1, 224, 224))
    first[0, 10:60, 20:70], second[0, 120:170, 20:70] = 0.9, 0.9
    first[0, 10, 20] = second[0, 120, 20] = 1  # one brightest pixel: were the squares flat, all of them would wrap
    return first, second


def test_disjoint_squares_agree_by_the_script_and_not_by_the_iou():
    first, second = two_squares()
    assert mask_iou(first > 0.4, second > 0.4).tolist() == [0]
    assert script_agreement(first, second)[0] == pytest.approx(124 / 224, abs=1e-6)  # .554: a row that is empty in both counts 1
    assert script_agreement(first, second, dice=True)[0] == pytest.approx(2 * 124 / 224, abs=1e-6)  # and 2 by their Dice
    assert mask_iou(first > 1, second > 1).tolist() == [0]


def literal_script(first, second):
    """The released script pixel by pixel: an 8-bit picture, stretched to 0 ... 256 of 8 bits, compared row by row: IoU and Dice."""
    masks = []
    for heat in (first, second):
        picture = [[round(255 * value) for value in row] for row in heat.tolist()]  # Python rounds halves to even, as OpenCV does
        low, high = (end(value for row in picture for value in row) for end in (min, max))
        byte = [[int(256 * ((value - low) / (high - low))) % 256 if high > low else 0 for value in row] for row in picture]
        masks.append(np.array([[[value > 100] * 3 for value in row] for row in byte]))
    ious, dices = [], []
    for row_a, row_b in zip(*masks, strict=True):
        both, areas = (row_a & row_b).sum(), row_a.sum() + row_b.sum()
        ious.append((both + 1e-6) / (areas - both + 1e-6))
        dices.append(2 * (both + 1e-6) / (areas + 1e-6))
    return float(np.mean(ious)), float(np.mean(dices))


def test_the_script_sees_an_8_bit_picture_stretched_again():
    """Grey levels 26, 102, 140, 230 of 255 become 0, 256 · 76/204 = 95, 143 and 256, which is 0 in 8 bits."""
    heat = np.array([[26, 102, 140, 230]]) / 255 + 0.001
    assert script_mask(heat).tolist() == [[False, False, True, False]]
    assert (np.floor(256 * heat) > 100).tolist() == [[False, True, True, True]]  # neither stretched nor wrapped
    near = np.array([[0.0, 0.5, 0.997, 0.9985, 1.0]])  # grey levels 0, 128, 254, 255, 255: all that rounds to 255 wraps
    assert script_mask(near).tolist() == [[False, True, True, False, False]]
    halves = np.array([[0, 0.5 / 255, 1.5 / 255, 5 / 255]])  # to even: 0, 0, 2, 5
    assert script_mask(halves, 101).tolist() == [[False, False, True, False]]
    assert not script_mask(np.full((1, 2, 2), 0.7)).any()


def test_maps_in_the_unit_range_go_to_the_script_without_a_min_max():
    """ABN's map of grey levels 100, 100.6, 101.4, 102 has the picture 100, 101, 101, 102; min-maxed first it would be 0, 76, 178, 255."""
    first = torch.tensor([[[100, 100.6], [101.4, 102]]]).repeat(2, 1, 1) / 255  # bright: the 101s, at 128; 102 wraps
    second = torch.tensor([[[100.0, 101], [100, 102]]]).repeat(2, 1, 1) / 255
    script, others = (metrics.map_stability(first + shift, second + shift) for shift in (0, 1))
    value = {m.kind: m.compute() for m in script if m.of == "pair"}
    assert value["iou_script"] == pytest.approx(50, abs=1e-3)  # the first row agrees, the second does not
    assert value["dice_script"] == pytest.approx(50, abs=1e-3)
    outside = {m.kind: m.compute() for m in others if m.of == "pair"}
    assert outside["iou_script"] == pytest.approx(0, abs=1e-3)  # min-maxed first: bright are 178 and, in the second, 128
    assert outside["iou"] == value["iou"]


@given(hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 6)), elements=st.floats(0, 1)))
def test_the_measures_by_loops(both):
    first, second = both
    found = tuple(float(script_agreement(first, second, dice=dice)) for dice in (False, True))
    assert found == pytest.approx(literal_script(first, second), rel=1e-12)
    pairs = list(zip(first.ravel() > 0.4, second.ravel() > 0.4, strict=True))
    either = sum(a or b for a, b in pairs)
    assert mask_iou(first > 0.4, second > 0.4) == (pytest.approx(sum(a and b for a, b in pairs) / either) if either else 0)
    areas = sum(int(a) + int(b) for a, b in pairs)
    assert mask_dice(first > 0.4, second > 0.4) == (pytest.approx(2 * sum(a and b for a, b in pairs) / areas) if areas else 0)
    ranked = sorted(range(first.size), key=lambda i: (-first.ravel()[i], i))[: round(0.3 * first.size)]
    assert np.flatnonzero(top_area(first, 0.3)).tolist() == sorted(ranked)
    if np.ptp(first) > 1e-3 and np.ptp(second) > 1e-3:
        expected = stats.spearmanr(first.ravel(), second.ravel()).statistic
        assert spearman(first[None], second[None])[0] == pytest.approx(expected, abs=1e-9)


def test_the_brightest_pixel_wraps_in_the_script():
    heat = np.zeros((1, 3, 3))
    heat[0, 1, 1] = 1.0
    assert script_agreement(heat, heat).tolist() == [1]
    assert script_agreement(heat, np.zeros_like(heat)).tolist() == [1]  # 1 became 256, which is 0: nobody misses it


def test_agreement_stands_beside_that_of_shuffled_images():
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(40, 7, 7, generator=generator)
    second = (first + 0.1 * torch.rand(40, 7, 7, generator=generator)) * 3 - 1
    found = {(m.kind, m.of): m for m in metrics.map_stability(first, second, (28, 28), batch=7)}
    assert set(found) == {(kind, of) for kind in KINDS for of in ("pair", "shuffled", "excess")}
    for kind in KINDS:
        pair, shuffled, excess = (found[kind, of].compute() for of in ("pair", "shuffled", "excess"))
        assert excess == pytest.approx(pair - shuffled)
        assert pair > shuffled + (0.5 if kind == "correlation" else 15)
        low, high = found[kind, "excess"].interval(resamples=200)
        assert 0 < low < excess < high
    assert abs(found["correlation", "shuffled"].compute()) < 0.1
    whole = {(m.kind, m.of): m for m in metrics.map_stability(first, second, (28, 28), batch=64)}
    for key, metric in found.items():
        assert np.array_equal(metric.per_image()[1], whole[key].per_image()[1])
    same = {m.name: m.compute() for m in metrics.map_stability(first, first) if m.of == "pair"}
    assert same.pop("stability_correlation") == pytest.approx(1)
    assert same == pytest.approx(dict.fromkeys((f"stability_{kind}" for kind in KINDS if kind != "correlation"), 100))


@given(st.integers(2, 30), st.integers(0, 5))
def test_partners_are_other_images_each_once(count, seed):
    other = partners(count, seed)
    assert sorted(other.tolist()) == list(range(count))
    assert (other != np.arange(count)).all()


def test_stability_names_settings_and_refusals():
    assert [metrics.Stability(kind).name for kind in KINDS] == [f"stability_{kind}" for kind in KINDS]
    assert metrics.Stability().setting == "> 0.392"
    assert metrics.Stability("iou_area", "excess").setting == "20% area, excess"
    heat = torch.rand(2, 4, 4)
    bad = heat.clone()
    bad[0, 0, 0] = float("nan")
    for maps, others, strangers in ((bad, heat, heat), (heat, bad, heat), (heat, heat, bad)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            metrics.Stability().update(maps, others, strangers)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        metrics.Stability().update(heat, heat + 1, heat)
    with pytest.raises(ValueError, match=r"must be \[B,H,W\] alike"):
        metrics.Stability().update(heat, heat[:, :3], heat)
    with pytest.raises(ValueError, match="at least two images, got 1"):
        metrics.map_stability(heat[:1], heat[:1])
    with pytest.raises(ValueError, match="the same images"):
        metrics.map_stability(heat, heat[:1])
    with pytest.raises(ValueError, match="kind is 'iou',"):
        metrics.Stability("overlap")


# ---------------------------------------------------------------- cascading randomization


def literal_hog(heat, cell, bins, block):
    """The descriptor pixel by pixel, as scikit-image documents it."""
    height, width = heat.shape
    rows, columns = height // cell, width // cell
    cells = np.zeros((rows, columns, bins))
    for y in range(rows * cell):
        for x in range(columns * cell):
            dy = heat[y + 1, x] - heat[y - 1, x] if 0 < y < height - 1 else 0.0
            dx = heat[y, x + 1] - heat[y, x - 1] if 0 < x < width - 1 else 0.0
            angle = math.degrees(math.atan2(dy, dx)) % 180
            cells[y // cell, x // cell, int(angle / (180 / bins)) % bins] += math.hypot(dx, dy) / cell**2
    out = []
    for y in range(rows - block + 1):
        for x in range(columns - block + 1):
            part = cells[y : y + block, x : x + block].ravel()
            part = np.minimum(part / math.sqrt((part**2).sum() + 1e-10), 0.2)
            out.append(part / math.sqrt((part**2).sum() + 1e-10))
    return out


def test_hog_pixel_by_pixel():
    heat = np.random.default_rng(0).random((2, 22, 29))
    found = hog(heat, cell=4, block=3)
    for one, descriptor in zip(heat, found, strict=True):
        blocks = [b.reshape(3, 3, 9) for b in literal_hog(one, 4, 9, 3)]
        ours = descriptor.reshape(-1, 9, 9)  # bins before the window's rows and columns
        for block, mine in zip(blocks, ours, strict=True):
            assert mine.reshape(9, 3, 3) == pytest.approx(block.transpose(2, 0, 1), abs=1e-12)
    assert hog(heat, cell=16).shape == (2, 9)
    with pytest.raises(ValueError, match=r"no cell of 32 x 32"):
        hog(heat, cell=32)


def test_ssim_at_the_middle_of_a_small_image_by_its_formula():
    """One 11 x 11 window: weighted means, variances and covariance, written out."""
    a, b = torch.rand(2, 1, 11, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    weight = torch.outer(weight, weight) / weight.sum() ** 2
    ma, mb = (weight * a).sum(), (weight * b).sum()
    va, vb, cov = (weight * a * a).sum() - ma**2, (weight * b * b).sum() - mb**2, (weight * a * b).sum() - ma * mb
    expected = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert ssim(a, b)[0] == pytest.approx(float(expected), rel=1e-6)
    assert ssim(a, a)[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="through 11 x 11 pixels, the maps have 10 x 11"):
        ssim(a[:, :10], b[:, :10])


def test_stages_run_from_the_logits_down():
    network = gap()
    assert [name for name, _ in stages(network, images(1))] == ["fc", "conv2", "conv1"]
    assert not any(module._forward_hooks for module in network.modules())


def test_weights_that_their_owner_reads_itself_are_lost_too():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)  # never called, as in attention layers

        def forward(self, x):
            return torch.einsum("bchw,dc->bdhw", x, self.inner.weight)

    trunk = nn.Sequential()
    trunk.attention, trunk.conv = Attention(), nn.Conv2d(3, 4, 1)
    network = Classifier(trunk, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))).eval()
    found = stages(network, torch.rand(1, 3, 8, 8))
    assert [name for name, _ in found] == ["2", "conv", "attention.inner"]  # a block that nothing calls comes last
    heard = sum(parameter.numel() for _, modules in found for m in modules for parameter in m.parameters(recurse=False))
    assert heard == sum(parameter.numel() for parameter in network.parameters())


def test_a_resnet_falls_block_by_block_and_other_cuts_follow():
    network = load_classifier("resnet18", None)
    found = [name for name, _ in stages(network, torch.rand(1, 3, 32, 32))]
    assert found == ["fc", *(f"layer{i}.{j}" for i in (4, 3, 2, 1) for j in (1, 0)), "bn1", "conv1"]
    *_, (_, _, last) = _cascade(network, torch.rand(1, 3, 32, 32), 0, 4)
    below = last.at("layer3").trunk.get_submodule("layer1.0.conv1").weight
    assert torch.equal(below, last.trunk.get_submodule("layer1.0.conv1").weight)
    assert not torch.equal(below, network.trunk.get_submodule("layer1.0.conv1").weight)
    assert not torch.equal(last.trunk.conv1.weight, network.trunk.conv1.weight)


def test_the_classifier_is_left_as_it_was_and_so_is_the_generator():
    network, state = gap(), torch.get_rng_state()
    before = network.digest()
    metrics.cascading_randomization(network, images(2), [METHODS["cam"]], seeds=(0,))
    assert network.digest() == before
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="train mode"):
        metrics.cascading_randomization(gap().train(), images(1), [METHODS["cam"]])
    with pytest.raises(ValueError, match="not its frozen copy"):
        metrics.cascading_randomization(network.frozen(), images(1), [METHODS["cam"]])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        metrics.cascading_randomization(network, images(1), [METHODS["cam"]], every=0)


def test_maps_change_with_the_weights_and_edges_do_not():
    """A random map or an edge filter looks the same whatever the network knows; a gradient map follows it, its class fixed."""
    chosen = [METHODS[name] for name in ("grad_cam", "hires_cam", "edges", "all_ones")]
    table = metrics.cascading_randomization(dense(), images(3, 32, 32), chosen, seeds=(0, 1))
    assert list(table.columns) == ["seed", "depth", "block", "method", "image", "measure", "value", "empty"]
    assert len(table) == 2 * 4 * 4 * 3 * 4  # seeds, depths 0..3, methods, images, measures
    assert table.groupby("depth").block.first().tolist() == ["", "fc2", "fc1", "conv"]
    assert table.value.between(-1, 1).all()
    said = table[~table["empty"]]
    assert np.allclose(said[said.depth == 0].value, 1)
    assert np.allclose(said[said.method == "edges"].value, 1)
    assert table[table.method == "all_ones"]["empty"].all()
    assert (table[table["empty"]].value == 0).all()
    moved = said[(said.method == "hires_cam") & (said.depth > 0) & (said.measure == "spearman")]
    assert moved.value.mean() < 0.8
    assert moved[moved.seed == 0].value.tolist() != moved[moved.seed == 1].value.tolist()


def test_a_method_meets_the_same_random_network_whoever_else_is_asked():
    alone = metrics.cascading_randomization(dense(), images(2), [METHODS["hires_cam"]], seeds=(3,))
    together = metrics.cascading_randomization(dense(), images(2), [METHODS["grad_cam"], METHODS["hires_cam"]], seeds=(2, 3), every=2)
    shared = together[(together.method == "hires_cam") & (together.seed == 3)]
    assert sorted(together.depth.unique()) == [0, 2, 3]  # every second block, and the last
    expected = alone[alone.depth.isin([0, 2, 3])]
    assert shared.value.tolist() == expected.value.tolist()


def test_weights_outside_a_standard_layer_are_drawn_anew():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.full((4,), 5.0))

    from cam_core.metrics.randomization import randomize

    odd, linear = Scale(), nn.Linear(3, 3)
    nn.init.constant_(linear.weight, 9)
    randomize([odd, linear])
    assert odd.weight.abs().max() <= 0.04
    assert linear.weight.abs().max() < 1
