"""The sheet shows the first test images of the drawn sets; the caption's numbers are those of the published runs."""

from pathlib import Path
from types import SimpleNamespace

import assemble
import plot_data
import pytest

from cam_core.data import CUB200, VOC2007, ImageNet
from reproduce import results

from .test_plot_lfi_cam import caption

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture
def options(tmp_path):
    return SimpleNamespace(results=HOME / "results", runs=HOME / "runs", profile="smoke", out=tmp_path, read=[])


def test_the_sheet_shows_the_first_test_images(drawn):
    for kind, reader, split in (("imagenet", ImageNet, "val"), ("voc", VOC2007, "test"), ("cub", CUB200, "test")):
        data, (_, names, ids) = reader(drawn, split), plot_data.KINDS[kind]
        assert (data.ids[:6], data.classes) == (ids, list(names))


def test_the_caption_tells_the_means_over_the_seeds(options):
    rows = assemble.evidence(options, results.METRICS)
    said = caption(plot_data.difficulty(options, rows))
    for dataset in ("drawn_imagenet", "drawn_voc", "drawn_cub"):
        own = [
            [one.value for one in rows.itertuples() if (one.paper, one.dataset, one.backbone, one.method, one.metric, one.setting) ==
             ("increment_cam", dataset, "resnet8", method, "energy_pointing_game", "")]
            for method in ("grad_cam", "center_gaussian")
        ]  # fmt: skip
        grad_cam, centre = (sum(values) / len(values) for values in own)
        assert f"{dataset} {grad_cam:.0f} % beside {centre:.0f} %" in said
        assert grad_cam > centre


def test_the_table_has_every_set_that_can_be_fetched():
    said = plot_data.sets(None)
    assert "`voc07`" in said
    assert "911 MB; images from Flickr" in said  # the bytes of both archives
    assert said.count("* - ") == 1 + len(plot_data.OFFICIAL) + len(plot_data.OTHERS)
