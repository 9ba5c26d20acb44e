"""The explorer in the browser: filters, plot, table and address say the same."""

import base64
import gzip
import html
import json
import re
from urllib.parse import parse_qsl

from .conftest import PHONE, address

START = "metric=average_drop&data=imagenet&setting=50%25&backbone=mobilenet_v2"


def counted(page):
    """How many rows pass the filters, as the page says."""
    return int(re.match(r"[\d,]+", page.inner_text(".explorer-count")).group().replace(",", ""))


def opened(page, site, fragment=START):
    page.goto(address(site, "explorer", fragment))
    page.wait_for_selector(".explorer-table tbody td:nth-child(4)")
    return page


def test_a_link_opens_the_explorer_filtered(page, site):
    opened(page, site)
    assert page.input_value('select[name="metric"]') == "average_drop"
    assert page.input_value('select[name="dataset"]') == "imagenet"
    assert page.input_value('select[name="setting"]') == "50%"
    texts = page.eval_on_selector_all(".explorer-table tbody tr td:nth-child(8)", "cells => cells.map(c => c.textContent)")
    assert set(texts) == {"ImageNet validation"}


def test_the_plot_has_a_dot_for_every_row_and_a_bar_for_every_interval(page, site):
    opened(page, site)
    count = counted(page)
    assert 0 < count <= 60
    assert page.locator(".explorer-forest circle").count() == count
    without = page.evaluate("document.querySelectorAll('.explorer-forest .row:not(:has(.bar))').length")
    assert page.locator(".explorer-forest .bar").count() == count - without
    assert 0 < page.locator(".explorer-forest .control").count() < count
    assert f"of {count}" in page.inner_text(".dt-info")


def test_a_filter_changes_rows_plot_and_address_and_back_undoes_it(page, site):
    opened(page, site)
    before = counted(page)
    page.select_option('select[name="method"]', "grad_cam")
    page.wait_for_function(f"!document.querySelector('.explorer-count').textContent.startsWith('{before} ')")
    after = counted(page)
    assert 0 < after < before
    assert page.locator(".explorer-forest circle").count() == after
    assert "method=grad_cam" in page.url
    page.go_back()
    page.wait_for_function(f"document.querySelector('.explorer-count').textContent.startsWith('{before} ')")


def test_many_rows_are_capped_and_the_plot_says_so(page, site):
    opened(page, site, "metric=average_drop")
    assert counted(page) > 1000
    assert page.locator(".explorer-forest circle").count() == 60
    assert f"The first 60 of {counted(page)} rows" in page.inner_text(".explorer-forest figcaption")


def test_few_runs_are_named_above_the_plot(page, site):
    opened(page, site, "kind=differences&paper=increment_cam&dataset=voc07&backbone=resnet18&metric=energy_pointing_game")
    assert page.inner_text(".explorer-count").endswith("paired differences, from results/subset/increment_cam/voc07-resnet18-s0")


def test_an_address_may_ask_for_several_words_of_a_filter(page, site):
    opened(
        page, site, "kind=values&paper=calm&dataset=cub&metric=remove_and_classify|correct_after_removal&setting=50%25&method=cam|calm_em"
    )
    assert page.input_value('select[name="method"]') == "cam|calm_em"
    cells = page.eval_on_selector_all(".explorer-table tbody tr", "rows => rows.map(r => [0, 1].map(i => r.children[i].textContent))")
    assert {method for method, _ in cells} == {"CAM", "CALM-EM"}
    assert len({metric for _, metric in cells}) == 2
    assert "; " in page.inner_text(".explorer-forest figcaption")


def test_no_label_of_the_plot_is_cut_or_struck_through(page, site):
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 800})
        opened(page, site, "kind=differences&paper=l_cam&metric=average_drop&method=l_cam_fm&than=grad_cam")
        labels = page.locator(".explorer-forest .row text")
        boxes = labels.evaluate_all("all => all.map(text => { const b = text.getBBox(); return [b.x + b.width, b.y + b.height]; })")
        dots = page.locator(".explorer-forest circle").evaluate_all(
            "all => all.map(dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')])"
        )
        wide = page.locator(".explorer-forest svg").evaluate("svg => svg.viewBox.baseVal.width")
        assert all(right <= wide for right, _ in boxes)
        assert all(right < x - 5 or bottom <= y - 3 for (right, bottom), (x, y) in zip(boxes, dots, strict=True))


def test_every_link_to_rows_finds_some(site):
    """Of all pages, links that figures and statements make too."""
    squeezed = (site / "_static/explorer.data.js").read_text().partition('"')[2].rpartition('"')[0]
    data = json.loads(gzip.decompress(base64.b64decode(squeezed)))
    places = {column: {word: place for place, (word, _) in enumerate(found)} for column, found in data["words"].items()}
    wanted = {link for file in site.glob("*.html") for link in re.findall(r'href="explorer\.html#([^"]+)"', file.read_text())}
    assert len(wanted) > 100
    for link in wanted:
        asked = dict(parse_qsl(html.unescape(link)))
        columns = data["kinds"][asked.pop("kind", "values")]
        columns |= {name: [data["shared"][at][i] for at in columns["at"]] for i, name in enumerate(data["conditions"])}
        tests = [(columns[column], {places[column].get(word) for word in words.split("|")}) for column, words in asked.items()]
        assert any(all(of[row] in among for of, among in tests) for row in range(len(columns["value"]))), link


def test_differences_are_named_as_such_and_have_a_zero(page, site):
    opened(page, site, "kind=differences&metric=average_drop&dataset=imagenet&setting=50%25&than=grad_cam")
    assert " minus Grad-CAM" in page.inner_text(".explorer-table tbody td:first-child >> nth=0")
    assert page.locator(".explorer-forest .zero").count() == 1
    assert page.locator("th", has_text="p (Holm)").count() >= 1


def test_rows_of_a_study_are_in_the_table_and_link_to_their_file(page, site):
    opened(page, site, "kind=studies&run=studies/lineage-imagenet-efficientnet_lite0&metric=average_drop&than=grad_cam")
    assert " minus Grad-CAM" in page.inner_text(".explorer-table tbody td:first-child >> nth=0")
    link = page.locator(".explorer-table tbody tr >> nth=0").locator("td:nth-child(7) a").get_attribute("href")
    assert (site / link).read_text().startswith("method,metric,")


def test_columns_sort_and_the_search_finds(page, site):
    opened(page, site)
    page.click(".explorer-table thead th:nth-child(4)")
    values = page.eval_on_selector_all(
        ".explorer-table tbody td:nth-child(4)", "cells => cells.map(c => Number(c.textContent.replace('−', '-')))"
    )
    assert values == sorted(values)
    page.fill(".dt-search input", "HiResCAM")
    assert set(page.eval_on_selector_all(".explorer-table tbody td:first-child", "all => all.map(c => c.textContent)")) == {"HiResCAM"}


def test_the_controls_stay_when_the_table_scrolls_sideways(page, site):
    page.set_viewport_size(PHONE)
    opened(page, site)
    frame = page.locator(".dt-layout-table")
    assert frame.evaluate("frame => frame.scrollWidth > frame.clientWidth")
    places = "() => [...document.querySelectorAll('.dt-search, .dt-length, .dt-paging')].map(part => part.getBoundingClientRect().left)"
    before = page.evaluate(places)
    assert len(before) == 3
    frame.evaluate("frame => frame.scrollTo(frame.scrollWidth, 0)")
    assert page.evaluate(places) == before


def test_rows_of_the_plot_read_apart(page, site):
    opened(page, site, "kind=differences&metric=average_drop&dataset=imagenet&setting=50%25&than=grad_cam")
    labels = page.eval_on_selector_all(".explorer-forest .row text", "all => all.map(text => text.textContent)")
    assert len(set(labels)) == len(labels) > 10


def test_a_run_links_to_its_provenance(page, site):
    opened(page, site)
    cell = page.locator(".explorer-table tbody tr >> nth=0").locator("td:nth-child(7) a")
    assert cell.inner_text().count("/") == 2
    told = json.loads((site / cell.get_attribute("href")).read_text())
    assert {"commit", "parameters", "packages", "data_digest"} <= set(told)


def test_the_rows_are_saved_as_csv(page, site):
    opened(page, site)
    with page.expect_download() as download:
        page.click(".explorer-save button")
    lines = download.value.path().read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith('"Method","Metric","Setting","Value","95 % interval","n"')
    assert len(lines) == counted(page) + 1


def test_on_a_phone_nothing_is_wider_than_the_screen(page, site):
    page.set_viewport_size(PHONE)
    opened(page, site)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator(".explorer-forest svg").bounding_box()["width"] <= PHONE["width"]


def test_without_javascript_the_files_are_linked(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(site, "explorer"))
    assert not page.locator(".explorer").is_visible()
    assert "need JavaScript" in page.inner_text("article")
    assert page.locator('.explorer-files a[href$="/values.csv"]').is_visible()
    context.close()
