"""The README's table is the one of the published results."""

import headline

from tests.book.conftest import frame, row


def test_the_readme_is_current():
    assert headline.main(["--check"]) == 0, "run `python book/headline.py` and commit README.md"


def test_a_row_a_method_with_controls_in_italics():
    base = {
        "paper": "l_cam",
        "dataset": "imagenet",
        "backbone": "efficientnet_lite0",
        "key": "r",
        "metric": "average_drop",
        "setting": "50%",
    }
    rows = [row(**(base | {"method": m, "value": "41.26"})) for m in ("grad_cam", "grad_cam[power=2]", "layer_cam")]
    rows.append(row(**(base | {"method": "score_cam", "n": "9"})))
    rows.append(row(**(base | {"method": "increment_cam", "backbone": "resnet50"})))
    text = headline.table(frame(rows))
    assert "Increment-CAM" not in text, "a stand-in"
    assert "| L-CAM | Grad-CAM | 41.3" in text
    assert "*Grad-CAM, squared*" in text
    assert "LayerCAM" not in text
    assert "Score-CAM" not in text, "nine images tell nothing"
    assert headline.table(frame([])).startswith("*No run")
