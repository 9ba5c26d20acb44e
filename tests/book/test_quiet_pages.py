"""What is taken off the pages, and what must stay."""

import importlib.util
from types import SimpleNamespace

import explorer
import pytest

from .conftest import BOOK


@pytest.fixture(scope="module")
def quiet():
    spec = importlib.util.spec_from_file_location("quiet_pages", BOOK / "_ext/quiet_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("style", "left"),
    [
        (".used{a:b}.unused{a:b}", ".used{a:b}"),
        (".unused .used{a:b}", ""),
        (".unused,.used{a:b}", ".unused,.used{a:b}"),
        (".used:not(.unused){a:b}", ".used:not(.unused){a:b}"),
        (".used:not(:is(.unused,.other)){a:b}", ".used:not(:is(.unused,.other)){a:b}"),
        ("p{a:b}@page{a:b}", "p{a:b}@page{a:b}"),
        ("@media print{.used{a:b}.unused{a:b}}", "@media print{.used{a:b}}"),
        ("@font-face{src:url(x)}", "@font-face{src:url(x)}"),
    ],
)
def test_rules_go_whose_classes_nobody_has(quiet, style, left):
    assert quiet.purged(style, {"used"}) == left


def test_what_a_compressed_script_names_counts_as_used(quiet):
    assert quiet.opened(explorer.script("TABLES", "div.className = 'used'")) == "div.className = 'used'"
    assert quiet.opened('window.TABLES = "used";') == 'window.TABLES = "used";'


def test_a_pages_own_scripts_load_there_alone(quiet):
    pages = {"gallery", "explorer", "index"}
    for name, page, wanted in (
        ("_static/gallery.js", "gallery", True),
        ("_static/gallery.js?v=1", "index", False),
        ("_static/explorer.data.js", "index", False),
        ("_static/book.js", "index", True),
        ("https://cdn.example.org/x.js", "index", False),
        ("_static/sphinx-thebe.js", "index", False),
    ):
        assert quiet._unwanted(SimpleNamespace(filename=name), page, pages, True) != wanted, name
    mathjax = SimpleNamespace(filename="mathjax/startup.js")
    assert quiet._unwanted(mathjax, "index", pages, False)
    assert not quiet._unwanted(mathjax, "index", pages, True)


def test_a_table_gets_a_frame_once(quiet):
    assert quiet.TABLE.sub(quiet._framed, '<table class="numbers"><tr></tr></table>').count('<div class="wide">') == 1
    own = '<table class="display"><tr></tr></table>'
    assert quiet.TABLE.sub(quiet._framed, own) == own


def test_negative_numbers_get_a_minus_and_nothing_else_does(quiet):
    body = '<td style="margin: -3px">-4.4 [-7.1, (-2.6)]</td> 2026-11-30, ResNet-18, 1-2 <pre>-1 <b>-2</b></pre><code>-3</code>\n-5 '
    wanted = '<td style="margin: -3px">−4.4 [−7.1, (−2.6)]</td> 2026-11-30, ResNet-18, 1-2 <pre>-1 <b>-2</b></pre><code>-3</code>\n−5 '
    assert quiet.with_minus(body + r'<span class="math">\( -1 \)</span>') == wanted + r'<span class="math">\( -1 \)</span>'
