"""Pictures keep what they are given."""

import matplotlib.pyplot as plt
import pytest
import torch

from cam_core import figures


def test_the_overlay_uses_one_scale_and_draws_boxes_where_they_are():
    _, axes = plt.subplots()
    image, heat = torch.full((3, 8, 8), 0.5), torch.zeros(8, 8)
    heat[2, 5] = 1.0
    figures.overlay(axes, image, heat, torch.tensor([[1.0, 2.0, 4.0, 6.0]]))
    drawn = axes.images[0].get_array()
    assert drawn[2, 5].sum() == drawn.sum(-1).max()
    [box] = axes.patches
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (0.5, 1.5, 3.0, 4.0)
    half = torch.full((8, 8), 0.5)
    figures.overlay(axes, image, half)  # a constant map of 0.5 must not be stretched to the ends of the scale
    colour = plt.get_cmap(figures.COLOURS)(0.5)[:3]
    expected = (1 - 0.575) * 0.5 + 0.575 * colour[0]
    assert float(axes.images[1].get_array()[0, 0, 0]) == pytest.approx(expected, abs=1e-3)
    plt.close("all")


def test_a_grid_has_a_row_an_image_and_a_column_a_method():
    maps = {name: torch.rand(2, 8, 8) for name in ("score_cam[unit=logit]", "abn\nABN network")}
    figure = figures.grid(torch.rand(2, 3, 8, 8), maps, boxes=[None, None])
    assert len(figure.axes) == 2 * 3 + 1  # and the scale
    assert [axes.get_title() for axes in figure.axes[:3]] == ["", "Score-CAM\n(unit=logit)", "ABN\nABN network"]
    plt.close("all")
