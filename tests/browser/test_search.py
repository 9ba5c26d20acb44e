"""The search of the book, opened from disk: sections, and the spellings that people type."""

import pytest

from .conftest import address


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("GradCAM", "glossary.html"),
        ("Grad-CAM++", "glossary.html"),
        ("SISE", "glossary.html"),
        ("WSOL", "glossary.html"),
        ("Holm", "glossary.html"),
        ("cite", "use_it.html#cite"),
        ("install", "use_it.html#install"),
        ("slurm", "use_it.html"),
        ("pointing game", "protocol.html"),
    ],
)
def test_the_search_finds(page, site, words, wanted):
    page.goto(f"{address(site, 'search')}?q={words.replace('+', '%2B').replace(' ', '+')}")
    page.wait_for_function("() => /found|did not match/.test(document.querySelector('#search-results .search-summary')?.textContent ?? '')")
    found = [link.get_attribute("href") for link in page.locator("#search-results li a").all()]
    assert any(wanted in link for link in found), found
