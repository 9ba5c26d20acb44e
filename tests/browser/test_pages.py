"""Every page of the book as a reader meets it: on a desk, on a phone, in the dark, on paper, from disk and without a network."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest

from .conftest import DESKTOP, PHONE, address, pages, watch

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
WEIGHT = 1.5e6  # bytes a page may load beside its pictures
EXPLORER = 2.5e6  # the one page with all results as a table
PICTURES = {".png", ".webp", ".svg", ".jpg", ".jpeg", ".gif", ".ico"}
A4 = {"width": 688, "height": 1000}  # what the margins leave of a sheet, in pixels of CSS

WIDER = """() => {
  const column = document.querySelector(".bd-article, .bd-search-container, main").getBoundingClientRect(), faults = [];
  const said = (part) => `${part.tagName}.${part.className} ${Math.round(part.getBoundingClientRect().width)} px: ${part.textContent.trim().slice(0, 40)}`;
  const seen = (part) => part.getClientRects().length && getComputedStyle(part).clipPath === "none";
  const frame = (part) => { for (let up = part; up.matches(".bd-article *"); up = up.parentElement)
    if (up.scrollWidth > up.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(up).overflowX)) return up; };
  for (const part of document.querySelectorAll(".bd-article :is(table, pre, code, mjx-container, figure, img, svg, video, canvas, .admonition, .sd-card)")) {
    if (!seen(part)) continue;
    const box = part.getBoundingClientRect(), within = frame(part), own = part.matches("pre") && part.scrollWidth > part.clientWidth + 1;
    if (!within && !own && box.right <= column.right + 1 && box.left >= column.left - 1) continue;
    if (!within) { faults.push("wider than the column: " + said(part)); continue; }
    const edge = within.getBoundingClientRect(), style = getComputedStyle(within);
    if (edge.right > column.right + 1) faults.push("its frame is wider than the column: " + said(within));
    if (within.tabIndex !== 0 || within.getAttribute("role") !== "region" || !within.getAttribute("aria-label")) faults.push("no focus, role or name: " + said(within));
    if (style.maskImage === "none" && within !== document.activeElement) faults.push("no shade where it is cut: " + said(within));
  }
  const html = document.documentElement;
  if (html.scrollWidth > html.clientWidth) faults.push(`the page scrolls sideways: ${html.scrollWidth} px`);
  return [...new Set(faults)];
}"""

CONTRAST = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = (part) => { for (let up = part; up; up = up.parentElement) { const c = rgba(getComputedStyle(up).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255]; };
  const faults = [];
  for (const part of document.querySelectorAll(".bd-article :is(figcaption, caption, .caption-text, .credit, .provenance, .flag, .badge, small, dt, th, summary, .plot-title)")) {
    if (!part.getClientRects().length || !part.textContent.trim()) continue;
    const pair = [light(rgba(getComputedStyle(part).color)), light(behind(part))].sort((a, b) => b - a), ratio = (pair[0] + .05) / (pair[1] + .05);
    if (ratio < 4.5) faults.push(`${part.tagName}.${part.className} ${ratio.toFixed(2)}: ${part.textContent.trim().slice(0, 40)}`);
  }
  for (const picture of document.querySelectorAll(".bd-article img")) {
    const style = getComputedStyle(picture);
    if (style.filter !== "none" || style.opacity !== "1" || style.mixBlendMode !== "normal") faults.push("altered: " + picture.src);
  }
  return faults;
}"""


@pytest.fixture(params=pages() or ["index"], scope="module")
def opened(request, browser, site):
    """A page that is loaded once for all tests of this module, with what went wrong and what it loaded: (page, faults, loaded)."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light")
    page, loaded = context.new_page(), set()
    faults = watch(page)
    page.on("requestfinished", lambda asked: loaded.add(asked.url))
    page.goto(address(site, request.param))
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate("() => document.querySelectorAll('img').forEach((picture) => (picture.loading = 'eager'))")
    page.wait_for_function("() => [...document.images].every((picture) => picture.complete)")
    yield page, faults, loaded
    context.close()


def look(page, size, scheme="light", media="screen"):
    """Give the page another size, theme or medium, and wait until it has settled."""
    page.emulate_media(color_scheme=scheme, media=media)
    page.set_viewport_size(size)
    page.evaluate("theme => { document.documentElement.dataset.theme = document.documentElement.dataset.mode = theme }", scheme)
    page.wait_for_timeout(150)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_its_column_unless_it_scrolls_visibly(opened, size):
    page, *_ = opened
    look(page, size)
    page.evaluate("() => document.querySelectorAll('.bd-article details').forEach((fold) => (fold.open = true))")
    page.wait_for_timeout(100)
    assert page.evaluate(WIDER) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_words_are_readable_and_pictures_unaltered(opened, scheme):
    page, *_ = opened
    look(page, DESKTOP, scheme)
    assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, scheme):
    page, *_ = opened
    look(page, DESKTOP, scheme)
    page.evaluate(AXE)
    rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}  # in the dark only colours change
    found = page.evaluate("(rules) => axe.run({ exclude: ['.cell_input'] }, { preload: false, resultTypes: ['violations'], ...rules })", rules)["violations"]
    told = [f"{one['id']}: {node['html'][:120]}" for one in found if one["impact"] in {"serious", "critical"} for node in one["nodes"]]
    assert told == []


def test_nothing_is_cut_on_paper(opened):
    page, *_ = opened
    look(page, A4, media="print")
    cut = page.evaluate(
        """() => [...document.querySelectorAll(".bd-article :is(table, pre, img, mjx-container)")].filter((part) => part.getClientRects().length
          && part.getBoundingClientRect().right > innerWidth + 1).map((part) => `${part.tagName}.${part.className}: ${part.textContent.trim().slice(0, 60)}`)"""
    )
    assert cut == []


def test_equations_are_typeset_and_other_pages_do_without_mathjax(opened):
    page, _, loaded = opened
    wanted = page.locator(".bd-article .math").count()
    assert page.locator("mjx-container").count() >= wanted
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert any("mathjax" in url for url in loaded) == bool(wanted)


def test_a_page_weighs_little_beside_its_pictures(opened):
    page, _, loaded = opened
    files = {Path(unquote(urlsplit(url).path)) for url in loaded if url.startswith("file:")}
    weight = sum(path.stat().st_size for path in files if path.suffix.lower() not in PICTURES)
    assert weight <= (EXPLORER if page.url.endswith("explorer.html") else WEIGHT), sorted((p.stat().st_size, p.name) for p in files)[-6:]


def test_nothing_fails_and_no_other_host_is_asked(opened):
    _, faults, _ = opened
    assert faults == []
