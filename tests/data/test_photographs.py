"""The photographs that come with installed packages."""

import re

import pytest

from cam_core.data.example import read_image
from data_scripts.photographs import PHOTOGRAPHS, Photograph


@pytest.mark.parametrize("photograph", PHOTOGRAPHS.values(), ids=PHOTOGRAPHS)
def test_each_is_there_and_carries_its_credit(photograph):
    assert min(read_image(photograph.path).size) >= 300
    assert photograph.licence in ("CC0", "CC BY 2.0", "public domain")
    assert photograph.author in photograph.credit
    assert re.match("https://", photograph.source)


def test_the_attribution_is_the_one_that_comes_with_the_file():
    readme = PHOTOGRAPHS["china"].path.with_name("README.txt").read_text()
    for name in ("china", "flower"):
        source = PHOTOGRAPHS[name].source.rstrip("/")
        assert source in readme
        assert "licenses/by/2.0" in readme


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(FileNotFoundError, match="comes with the package no_such_package: install it"):
        Photograph("x", "no_such_package", "x.png", "", "", "", "").path  # noqa: B018
