"""Every page of the book as a reader meets it: on a desk, on a phone, in the dark, on paper, from disk and without a network."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest

from .conftest import DESKTOP, PHONE, address, pages, watch

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
WEIGHT = 1.5e6  # bytes a page may load beside its pictures
PICTURES = {".png", ".webp", ".svg", ".jpg", ".jpeg", ".gif", ".ico"}
A4 = {"width": 688, "height": 1000}  # what the margins leave of a sheet, in pixels of CSS


@pytest.fixture(params=pages() or ["index"], scope="module")
def opened(request, browser, site):
    """A page that is loaded once for all tests of this module, with what went wrong and what it loaded: (page, faults, loaded)."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light")
    context.add_init_script(path=Path(__file__).parent / "look.js")
    page, loaded = context.new_page(), set()
    faults = watch(page)
    page.on("requestfinished", lambda asked: loaded.add(asked.url))
    page.goto(address(site, request.param))
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate("() => document.querySelectorAll('img').forEach((picture) => (picture.loading = 'eager'))")
    page.wait_for_function("() => [...document.images].every((picture) => picture.complete)")
    yield page, faults, loaded
    context.close()


# Colours fade into each other, slowly on a busy machine; a transition that the browser does not draw never ends.
SETTLED = """() => Promise.race([new Promise(done => setTimeout(done, 5000)), Promise.all(document.getAnimations()
    .filter(one => one instanceof CSSTransition).map(one => one.finished.catch(() => null)))]).then(() => null)"""


def look(page, size, scheme="light", media="screen"):
    """Give the page another size, theme or medium, and wait until it has settled."""
    page.emulate_media(color_scheme=scheme, media=media)
    page.set_viewport_size(size)
    page.evaluate("theme => { document.documentElement.dataset.theme = document.documentElement.dataset.mode = theme }", scheme)
    page.wait_for_timeout(150)
    page.evaluate(SETTLED)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_its_column_unless_it_scrolls_visibly(opened, size):
    page, *_ = opened
    look(page, size)
    page.evaluate("() => document.querySelectorAll('.bd-article details').forEach((fold) => (fold.open = true))")
    page.wait_for_timeout(100)
    assert page.evaluate("look.wider()") == []


FIGURES = """() => [...document.querySelectorAll(".plot:not(:has(table))")]
    .filter(plot => plot.scrollWidth > plot.clientWidth + 1).map(plot => plot.parentElement.id)"""


def test_no_figure_scrolls_on_a_phone(opened):
    page, *_ = opened
    look(page, PHONE)
    assert page.evaluate(FIGURES) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_words_are_readable_and_pictures_unaltered(opened, scheme):
    page, *_ = opened
    look(page, DESKTOP, scheme)
    assert page.evaluate("look.faint()") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, scheme):
    page, *_ = opened
    look(page, DESKTOP, scheme)
    page.evaluate(AXE)
    rules = [] if scheme == "light" else ["color-contrast"]  # in the dark only colours change
    assert page.evaluate("rules => look.serious(rules)", rules) == []


def test_nothing_is_cut_on_paper(opened):
    page, *_ = opened
    look(page, A4, media="print")
    assert page.evaluate("look.cut()") == []


def test_equations_are_typeset_and_other_pages_do_without_mathjax(opened):
    page, _, loaded = opened
    wanted = page.locator(".bd-article .math").count()
    assert page.locator("mjx-container").count() >= wanted
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert any("mathjax" in url for url in loaded) == bool(wanted)


def test_a_page_weighs_little_beside_its_pictures(opened):
    _, _, loaded = opened
    files = {Path(unquote(urlsplit(url).path)) for url in loaded if url.startswith("file:")}
    weight = sum(path.stat().st_size for path in files if path.suffix.lower() not in PICTURES)
    assert weight <= WEIGHT, sorted((p.stat().st_size, p.name) for p in files)[-6:]


def test_a_link_to_a_statement_opens_its_fold(page, site):
    page.goto(address(site, "verdicts"))
    statement = page.locator("table.matrix tbody tr:not(.paper) a").nth(3)
    fold = page.locator(f"details[id='{statement.get_attribute('href')[1:]}']")
    assert not fold.evaluate("fold => fold.open")
    statement.click()
    page.wait_for_function("fold => fold.open", arg=fold.element_handle())
    fold.evaluate("fold => { fold.open = false }")
    statement.click()  # the same link again
    page.wait_for_function("fold => fold.open", arg=fold.element_handle())
    assert page.locator("details.sd-dropdown[open]").count() == 1
    page.goto(address(site, "verdicts", "calm-cue"))
    page.wait_for_function("() => document.getElementById('calm-cue').open")


def test_nothing_fails_and_no_other_host_is_asked(opened):
    _, faults, _ = opened
    assert faults == []
