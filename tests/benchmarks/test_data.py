"""What the benchmark opens is a list of ImageNet with boxes, and every decoder that is timed gives the same pixels."""

import numpy as np
import pytest

from benchmarks.data import DECODERS, drawn_list
from cam_core.data import ImageNet


def test_the_drawn_list_is_read_with_its_boxes(tmp_path):
    data = ImageNet(drawn_list(tmp_path, 20))
    assert [len(item.official_boxes) for item in data.annotations] == [2, 1] * 10
    assert len(data.classes) == 1000


@pytest.mark.parametrize("name", ["Pillow", "torchvision.io", "simplejpeg"])
def test_decoders_agree(drawn, name):
    if name == "simplejpeg":
        pytest.importorskip(name)
    path = next((drawn / "ILSVRC2012/val").iterdir())
    ours, other = np.asarray(DECODERS["read_image"](path)), np.asarray(DECODERS[name](path))
    assert (ours == (other.transpose(1, 2, 0) if name == "torchvision.io" else other)).all()
