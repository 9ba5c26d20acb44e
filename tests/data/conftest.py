import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real() -> Path:
    if "CAM_DATA" not in os.environ:
        pytest.skip("CAM_DATA is not set: the readers were NOT tested on real ImageNet, VOC2007 and CUB-200-2011 images")
    return Path(os.environ["CAM_DATA"])
