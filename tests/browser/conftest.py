"""The built book in Debian's Chromium: `make book browser`, or CAM_SITE=/path/to/html pytest tests/browser."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

SITE = Path(os.environ.get("CAM_SITE") or Path(__file__).parents[2] / "_site/html").resolve()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}


def pages():
    """Names of the site's pages, for `pytest.mark.parametrize`: "index", "l_cam", …; empty where no site is built."""
    return sorted(path.stem for path in SITE.glob("*.html") if path.stem != "genindex")


def pytest_collection_modifyitems(items):
    """These tests need a browser and say so; those of one page go to one worker, which opens it once."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            item.add_marker(pytest.mark.xdist_group(parameters.get("opened", item.name)))


@pytest.fixture(scope="session")
def site():
    """The folder of the built site; skips where there is none."""
    if not (SITE / "index.html").is_file():
        pytest.skip(f"no site is built in {SITE}; run `make book` first")
    return SITE


@pytest.fixture(scope="session")
def browser(site):
    """Chromium, started once."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page at desktop width; at the end of the test it must have met no error and asked no other host."""
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    faults = watch(page)
    yield page
    context.close()
    assert faults == []


def watch(page):
    """A list that collects what goes wrong on a page: errors of the console and of scripts, failed and foreign requests."""
    faults = []
    page.on("console", lambda message: faults.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"{request.url} failed: {request.failure}"))
    page.on("request", lambda request: faults.append(f"asks another host: {request.url}") if request.url.startswith("http") else None)
    return faults


def address(site, name, fragment=""):
    """The file:// address of a page."""
    return (site / f"{name}.html").as_uri() + (f"#{fragment}" if fragment else "")
