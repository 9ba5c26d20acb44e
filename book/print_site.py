"""The whole book as one PDF, each page of the contents printed by Chromium: `python book/print_site.py _site/html build/book.pdf`."""

import io
import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from pypdf import PdfWriter

NUMBERED = (
    '<p style="font: 8px sans-serif; width: 100%; text-align: center"><span class="title"></span> · <span class="pageNumber"></span></p>'
)
SKIPPED = {"explorer", "gallery"}  # a table of all results, and a page to click in


def contents(site):
    """Names of the pages in the order of the contents."""
    index = (site / "index.html").read_text(encoding="utf-8")
    linked = re.findall(r'class="toctree-l\d.*?href="([\w-]+)\.html', index, re.DOTALL)
    return [page for page in dict.fromkeys(["index", *linked]) if page not in SKIPPED and (site / f"{page}.html").is_file()]


def print_site(site, target):
    """Print the pages of the site to the file ``target``, a bookmark for each; the number of sheets."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser_path is None:
        raise FileNotFoundError("chromium is not installed; apt-get install chromium")
    book = PdfWriter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for name in contents(site):
            page = browser.new_page(color_scheme="light")
            page.goto((site / f"{name}.html").as_uri())
            page.evaluate("() => document.querySelectorAll('img').forEach((picture) => (picture.loading = 'eager'))")
            page.wait_for_function("() => [...document.images].every((picture) => picture.complete)")
            page.evaluate("() => window.MathJax?.startup?.promise")
            sheets = page.pdf(
                prefer_css_page_size=True,
                print_background=True,
                display_header_footer=True,
                header_template="<i></i>",
                footer_template=NUMBERED,
            )
            book.append(io.BytesIO(sheets), outline_item=page.title().split(" \N{EM DASH} ")[0])
            page.close()
        browser.close()
    target.parent.mkdir(parents=True, exist_ok=True)
    book.write(target)
    return len(book.pages)


if __name__ == "__main__":
    site, target = (Path(argument) for argument in sys.argv[1:])
    print(f"{target}: {print_site(site.resolve(), target)} pages")
