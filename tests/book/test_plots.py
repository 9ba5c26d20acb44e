"""Figures show what the files say: one bar a seed, from ten seeds on one of their mean."""

from argparse import Namespace

import plots
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from reproduce import results

from .conftest import frame, paired


def differences(values):
    rows = [paired(str(v - 1), str(v + 1), key=f"x-s{i}", seed=str(i), p_holm="0.2") for i, v in enumerate(values)]
    return frame(rows, results.DIFFERENCE)


def test_ten_seeds_have_one_bar_and_nine_have_nine():
    values = [4, 1, 3, 0, 2, 5, -1, 1, 4, 2]
    (ten,) = plots.configurations(differences(values)).itertuples()
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ten.value, ten.ci_low, ten.ci_high) == pytest.approx((2.1, interval.low, interval.high))
    assert ten.decided
    assert ten.where == "ImageNet validation, ResNet-50"
    nine = plots.configurations(differences(values[:9]))
    assert list(nine["value"]) == values[:9]
    assert not nine["decided"].any(), "by the corrected p of each seed"


def test_rows_of_the_first_images_alone_are_left_out():
    rows = differences([1, 2])
    assert len(plots.configurations(rows.assign(setting=["100%", "100% first 6"]))) == 1


def test_a_figure_is_drawn_for_both_themes_and_described(tmp_path):
    text = plots.figure(
        Namespace(out=tmp_path), "x", lambda into, theme: into.subplots().plot([0, 1], color=theme.text), size=(2, 1),
        question="Is 1 < 2?", answer="Yes.", alt="A line & a dot",
    )  # fmt: skip
    for theme, colour in (("light", "#1f1f24"), ("dark", "#e6e6ea")):
        assert colour in (tmp_path / f"src/_static/plots/x-{theme}.svg").read_text()
        assert f'class="only-{theme}"' in text
    assert 'alt="A line &amp; a dot"' in text
    assert "Is 1 &lt; 2?" in text


def test_a_figure_is_drawn_once_more_for_phones_with_its_panels_below_each_other(tmp_path):
    seen = []

    def draw(into, _theme):
        boxes = [axes.get_position() for axes in plots.row(into, 2)]
        seen.append((plots.is_narrow(into), boxes[0].y0 > boxes[1].y1, boxes[0].x1 < boxes[1].x0))

    text = plots.figure(Namespace(out=tmp_path), "x", draw, size=(8, 1), phone=3, question="?", answer="!", alt="A line")
    assert seen == [(False, False, True), (True, True, False)]
    for theme in ("light", "dark"):
        assert f'<source media="screen and (max-width: 40rem)" srcset="_static/plots/x-{theme}-phone.svg" width="403" height="288">' in text
        assert 'width="302.4pt"' in (tmp_path / f"src/_static/plots/x-{theme}-phone.svg").read_text()
        assert 'width="576pt"' in (tmp_path / f"src/_static/plots/x-{theme}.svg").read_text()


def test_a_legend_takes_as_many_columns_as_fit(tmp_path):
    for width, columns in ((8.2, 3), (4.2, 2), (2.4, 1)):
        into = Figure(figsize=(width, 3), layout="constrained")
        plots.below(into, [Line2D([], [], label="a label of some length") for _ in range(3)], 3)
        (legend,) = into.legends
        assert legend._ncols == columns
    into = Figure(figsize=(2, 1))
    plots.below(into, [Line2D([], [], label="a label that is wider than any figure of this width")], 3)
    assert len(into.legends) == 1


def test_labels_of_close_points_cover_neither_each_other_nor_a_mark():
    into = Figure(figsize=(4, 3))
    axes = into.subplots()
    points = [(1, 1), (1.02, 1.01), (1.01, 0.99), (1.03, 1.0), (2, 2)]
    for at in points:
        axes.plot(*at, "o", ms=6)
    into.draw_without_rendering()
    plots.place_labels(axes, [(f"point {number}", at, "black") for number, at in enumerate(points)])
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 5
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
        assert not any(box.contains(*axes.transData.transform(at)) for at in points)
        assert axes.bbox.containsx(box.x0)
        assert axes.bbox.containsx(box.x1)
