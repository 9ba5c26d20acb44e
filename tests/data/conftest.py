import os
from pathlib import Path

import pytest

from data_scripts import draw


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small drawn data root, made once."""
    return draw.draw(tmp_path_factory.mktemp("data") / "drawn", seed=0, small=True, progress=False)


@pytest.fixture(scope="session")
def real() -> Path:
    if "CAM_DATA" not in os.environ:
        pytest.skip("CAM_DATA is not set: the readers were NOT tested on real ImageNet, VOC2007 and CUB-200-2011 images")
    return Path(os.environ["CAM_DATA"])
