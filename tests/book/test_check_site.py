"""Every kind of fault is planted once in a two-page site and must be found, and nothing else."""

import subprocess
import sys

import check_site
import pytest

GOOD = """<html><head><link rel="stylesheet" href="_static/a.css"><link rel="canonical" href="https://elsewhere.org/x">
<script>const one = 1; function f() { const two = 2; }</script><script>{ const two = 3; }</script></head>
<body><h1 id="top">T</h1><a href="b.html#place">b</a><a href="#top">up</a><a href="https://elsewhere.org">out</a><a href="#">menu</a>
<a href="b.html#kind=x&amp;y=z">rows</a>
<img src="_images/m.png" alt="a map"></body></html>"""
OTHER = "<html><body><a name='place'></a><a href='a.html#t%C3%B6p'>a</a><p id='t\u00f6p'></p></body></html>".replace(
    "a.html#t%C3%B6p", "a.html#top"
)
FAULTS = {
    '<a href="gone.html">x</a>': "link to gone.html leads nowhere",
    '<a href="b.html#nothing">x</a>': "b.html has no place named nothing",
    '<a href="#nothing">x</a>': "no place named nothing",
    '<script src="https://cdn.example.org/x.js"></script>': "from another host",
    '<link rel="stylesheet" href="//fonts.example.org/css">': "from another host",
    "<style>@import 'https://fonts.example.org/css';</style>": "from another host",
    '<p style="background: url(https://example.org/x.png)">x</p>': "from another host",
    '<script src="_static/gone.js"></script>': "file _static/gone.js is missing",
    '<img src="_images/gone.png" alt="a map">': "file _images/gone.png is missing",
    '<img src="_images/m.png">': "has no description",
    '<img src="_images/m.png" alt=" ">': "has no description",
    '<img src="_images/m.png" alt="_images/m.png">': "has no description",
    '<img src="_images/m.png" srcset="https://example.org/2x.png 2x" alt="a map">': "from another host",
    "<script>const one = 2;</script>": "one is declared twice",
}


@pytest.fixture
def site(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_images").mkdir()
    (tmp_path / "_images/m.png").write_bytes(b"")
    (tmp_path / "_static/a.css").write_text("/* url(https://in.a.comment/x) */ p { background: url('data:image/png;base64,AA') }")
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "b.html").write_text(OTHER)
    return tmp_path


def test_a_sound_site_has_no_fault(site):
    assert check_site.check(site) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_alone(site, fault):
    (site / "a.html").write_text(GOOD.replace("</body>", fault + "</body>"))
    (found,) = check_site.check(site)
    assert FAULTS[fault] in found
    assert found.startswith("a.html:")


def test_a_style_may_not_load_from_elsewhere(site):
    (site / "_static/a.css").write_text("@font-face { src: url(https://fonts.example.org/f.woff2) } p { background: url(gone.png) }")
    assert [found.split(": ", 1)[1] for found in check_site.check(site)] == [
        "loads https://fonts.example.org/f.woff2 from another host",
        "file gone.png is missing",
    ]


def test_an_empty_folder_is_a_fault(tmp_path):
    assert "no page at all" in check_site.check(tmp_path)[0]


def test_the_command_says_one_line_per_fault_and_fails(site):
    (site / "b.html").write_text(OTHER + '<img src="_images/m.png">')
    done = subprocess.run([sys.executable, check_site.__file__, site], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
