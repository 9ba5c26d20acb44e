"""Every page of the book, as a reader sees it."""

import pytest

from .conftest import address, pages


@pytest.mark.parametrize("name", pages() or ["index"])
def test_a_page_opens_from_disk_without_an_error_or_another_host(page, site, name):
    page.goto(address(site, name), wait_until="load")
    assert page.title()
