"""Figures show what the files say: one bar a seed, from ten seeds on one of their mean."""

import plots
import pytest
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
    from argparse import Namespace

    text = plots.figure(
        Namespace(out=tmp_path), "x", lambda into, theme: into.subplots().plot([0, 1], color=theme.text), size=(2, 1),
        question="Is 1 < 2?", answer="Yes.", alt="A line & a dot",
    )  # fmt: skip
    for theme, colour in (("light", "#1f1f24"), ("dark", "#e6e6ea")):
        assert colour in (tmp_path / f"src/_static/plots/x-{theme}.svg").read_text()
        assert f'class="only-{theme}"' in text
    assert 'alt="A line &amp; a dot"' in text
    assert "Is 1 &lt; 2?" in text


def test_a_narrow_figure_has_a_file_of_its_own_for_phones(tmp_path):
    from argparse import Namespace

    text = plots.figure(
        Namespace(out=tmp_path), "x", lambda into, _theme: into.subplots().plot([0, 1]), size=(8, 1), narrow=True,
        question="?", answer="!", alt="A line",
    )  # fmt: skip
    for theme in ("light", "dark"):
        assert f'<source media="screen and (max-width: 50rem)" srcset="_static/plots/x-{theme}-phone.svg" width="403" height="96">' in text
        assert 'width="302.4pt"' in (tmp_path / f"src/_static/plots/x-{theme}-phone.svg").read_text()
        assert 'width="576pt"' in (tmp_path / f"src/_static/plots/x-{theme}.svg").read_text()
