"""The whole book with invented runs: assembled, built, checked, and opened in a browser without a network."""

import json
import re
import shutil
import subprocess
from argparse import Namespace

import assemble
import nbformat
import pytest

from .conftest import RESULTS, executed, row, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def opened(page, *options):
    """DOM after the scripts ran, and what the console complained about; every network address is refused."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=6000", *options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    chatter = ("[PST]: Changed to", "[PST]: Scrolled", "[togglebutton]: Adding")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line and not any(words in line for words in chatter)]
    return done.stdout, console


def test_pages_keep_the_names_of_the_notebooks(site):
    names = {page.name for page in site.glob("*.html")}
    assert {"index.html", "verdicts.html", "l_cam.html", "lfi_cam.html", "calm.html", "increment_cam.html", "explorer.html"} <= names
    assert {"run_l_cam.html", "run_increment_cam.html", "run_increment_cam-drawn_voc-resnet8-s0.html"} <= names


def test_every_page_names_the_files_of_its_numbers_and_the_commit(site):
    for page in site.glob("*.html"):
        if page.stem in {"genindex", "search"}:
            continue
        text = page.read_text()
        assert text.count('<p class="provenance">') == 1, page
        where = "results/subset/*/*/differences.csv" if page.stem in {"verdicts", "l_cam"} else "of this copy of the book"
        assert page.stem not in {"verdicts", "l_cam", "run_l_cam"} or where in text


def test_a_run_without_a_result_has_a_page_that_says_why_and_a_finished_one_what_it_took(site):
    failed, stopped, done = ((site / f"run_calm{key}.html").read_text() for key in ("-drawn_cub-resnet8-s1", "-drawn_cub-resnet8-s2", ""))
    assert "CALM: a run without a result" in failed
    assert "failed:" in failed
    assert "cell 3 of 9 stopped with ValueError: a &lt; b &amp; `c`" in failed
    assert "was interrupted:" in stopped
    assert "Run time, CPU time and peak memory: notebook 1:23 min, CPU 2:40 min, 1.5 GiB." in done


def test_a_caption_ends_with_links_to_what_was_read_for_it(monkeypatch):
    def made(options, *words):
        options.read += [f"results/{word}" for word in words]
        return "<figcaption>What is seen.</figcaption>"

    monkeypatch.setitem(assemble.MAKERS, "made", made)
    options = Namespace(results=RESULTS, rows="explorer.html#paper=calm")
    lines = ("% made: subset/*/*/metrics.csv studies/em_ml.csv", "% made", "% made: studies/a-b-c.csv studies/a-b-d.csv")
    text = assemble.filled("\n\n".join(lines), options)
    assert '<figcaption>What is seen. <a class="rows" href="_static/csv/studies-em_ml.csv" download>CSV</a></figcaption>' in text
    assert "<figcaption>What is seen.</figcaption>" in text, "rows of the runs are the figure's own link"
    assert [re.search(r'-{0}.csv" download>(.*?)</a>'.replace("{0}", file), text)[1] for file in ("c", "d")] == ["c", "d"]


def test_a_marker_that_nobody_makes_is_refused():
    with pytest.raises(ValueError, match=r"a page has `% nothing`, which is no marker; there are: .*verdicts"):
        assemble.filled("% nothing: here", Namespace(read=[]))


def test_pictures_are_described_and_progress_bars_gone(site):
    text = (site / "run_l_cam.html").read_text()
    assert 'alt="The identity as a heat map"' in text
    assert "####" not in text


def test_photographs_open_the_pages_with_answer_and_credit(site):
    assert (site / "index.html").read_text().count('<img src="_static/photographs/') == 2 * 10 + 5
    text = (site / "index.html").read_text()
    assert "The network says <em>tabby &amp; &lt;cat&gt;</em>, 62\N{NO-BREAK SPACE}%." in text
    assert 'alt="a tabby cat called Chelsea: where L-CAM-Fm sees tabby &amp; &lt;cat&gt;"' in text
    assert text.count('<p class="credit">Photograph: <a href="https://') == 3
    assert (site / "_static/photographs/chelsea-grad_cam.webp").is_file()


def test_a_book_without_photographs_is_refused_or_says_so(tmp_path):
    options = Namespace(runs=tmp_path, allow_missing=False)
    with pytest.raises(ValueError, match=r"has no photographs\.json; run `make photographs` first"):
        assemble.photographs(options, "chelsea", "cam")
    options.allow_missing = True
    assert "not been explained here" in assemble.photographs(options, "chelsea", "cam")


def test_one_search_field_one_style_and_no_thebe(site):
    text = (site / "index.html").read_text()
    assert text.count("search-button-field") == 1
    assert "THEBE_JS_URL" not in text
    assert text.count("book.css") == 1
    assert "cdn." not in text


def test_nothing_changed_nothing_done(site, root, capsys):
    before = (site / "index.html").stat().st_mtime_ns
    assert assemble.main(["--runs", str(root / "runs"), "--results", str(RESULTS), "--out", str(root / "_site")]) == 0
    assert "Nothing changed" in capsys.readouterr().out
    assert (site / "index.html").stat().st_mtime_ns == before


def test_a_paper_without_a_run_stops_the_build(tmp_path, capsys):
    assert assemble.main(["--runs", str(tmp_path), "--results", str(tmp_path), "--out", str(tmp_path / "_site")]) == 1
    assert "has no executed notebook" in capsys.readouterr().err


def test_statements_are_held_against_the_published_profiles_alone(tmp_path):
    """A run of this copy decides nothing; a published profile that is shown is taken as it ran."""
    runs = (("results/drawn", "resnet8"), ("results/subset", "resnet18"), ("runs/smoke", "resnet14"), ("runs/drawn", "resnet20"))
    for folder, backbone in runs:
        facts = {"paper": "calm", "dataset": "drawn_cub", "backbone": backbone, "method": "cam", "value": "1"}
        write_run(tmp_path / folder / "calm" / f"drawn_cub-{backbone}-s0", [row(**facts)])
    for profile, wanted in (("smoke", {"resnet8", "resnet18"}), ("drawn", {"resnet20", "resnet18"})):
        options = Namespace(runs=tmp_path / "runs", results=tmp_path / "results", profile=profile, read=[])
        assert set(assemble.evidence(options, "metrics.csv")["backbone"]) == wanted


def test_alt_text_comes_from_output_or_cell():
    notebook = json.loads(json.dumps(executed("x")))
    assert assemble.alt_text(notebook["cells"][2]) == "The identity as a heat map"
    silent = json.loads(json.dumps(executed("x", alt="")))
    assert assemble.alt_text(silent["cells"][2]) == ""
    silent["cells"][2]["metadata"]["alt"] = "told by the cell"
    page = assemble.prepare(silent, "run")
    assert page["cells"][2]["metadata"]["mystnb"]["image"]["alt"] == "told by the cell"


def test_the_tables_of_a_notebook_name_things_as_people_do():
    printed = "l_cam_fm minus cam, plain, calm_em, trust 1 [0.5, 2], weight_decay, grad_cam_pp[l_cam]: 2"
    told = "L-CAM-Fm minus CAM, plain, CALM-EM, trust 1 [0.5, 2], weight_decay, Grad-CAM++ as in L-CAM's tables: 2"
    assert assemble.spelled(printed) == told
    table = '<pre>grad_cam</pre><tr class="grad_cam"><th id="fake_cam">fake_cam</th></tr>'
    outputs = [nbformat.v4.new_output("display_data", data={"text/html": table}), nbformat.v4.new_output("stream", text=printed)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    (cell,) = assemble.prepare(json.loads(nbformat.writes(notebook)), "run")["cells"][:1]
    assert cell["outputs"][0]["data"]["text/html"] == '<pre>grad_cam</pre><tr class="grad_cam"><th id="fake_cam">Fake-CAM</th></tr>'
    assert cell["outputs"][1]["text"] == told


@in_a_browser
@pytest.mark.browser
@pytest.mark.parametrize("page", ["index", "run_l_cam", "protocol", "verdicts"])
def test_pages_open_without_network_and_without_errors(site, page):
    dom, console = opened(site / f"{page}.html")
    assert console == []
    if page in {"run_l_cam", "protocol"}:
        assert "<mjx-math" in dom
        assert "<mjx-merror" not in dom


@in_a_browser
@pytest.mark.browser
def test_dark_mode_leaves_the_colours_alone(site):
    script = "const style = getComputedStyle(document.querySelector('.cell_output img'));"
    script += "const seen = [document.documentElement.dataset.theme, style.filter, style.backgroundColor, style.opacity];"
    probe = f"<script>addEventListener('load', () => {{ {script} document.body.dataset.seen = seen.join('|'); }})</script>"
    page = site / "probe.html"
    page.write_text((site / "run_l_cam.html").read_text().replace("</body>", probe + "</body>"))
    try:
        dom, _ = opened(page, "--blink-settings=preferredColorScheme=0")
    finally:
        page.unlink()
    assert 'data-seen="dark|none|rgb(255, 255, 255)|1"' in dom


def test_a_paper_that_has_not_run_has_a_page_that_links_reach(tmp_path):
    options = Namespace(runs=tmp_path / "runs", profile="smoke", allow_missing=True)
    assert assemble.place_notebooks(tmp_path, "l_cam", options) == []
    (cell,) = json.loads((tmp_path / "run_l_cam.ipynb").read_text())["cells"]
    assert "".join(cell["source"]) == "# L-CAM\n\n*This notebook has not run here.*"
    options.allow_missing = False
    with pytest.raises(ValueError, match="has no executed notebook"):
        assemble.place_notebooks(tmp_path, "l_cam", options)
