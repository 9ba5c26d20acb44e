"""The gallery as people play with it: links, mouse, keys, sliders, a phone, no JavaScript."""

from urllib.parse import unquote

import pytest

from .conftest import PHONE, address

HEAT = ".gallery-heat:not(.gallery-second)"


def style(page, selector, key):
    return page.eval_on_selector(selector, "(element, key) => getComputedStyle(element)[key]", key)


def shown(page):
    """File of the photograph, files of the maps that lie over it, the address's fragment."""
    names = page.eval_on_selector_all(".gallery-canvas img", "all => all.filter(i => !i.hidden).map(i => i.src.split('/').pop())")
    return (*names, unquote(page.evaluate("location.hash")))


def test_a_link_opens_its_picture_and_survives_reload_and_back(page, site):
    page.goto(address(site, "gallery", "coffee/score_cam"))
    asked = ("coffee-large.webp", "coffee-score_cam-heat.webp", "#coffee/score_cam")
    assert shown(page) == asked
    assert "espresso" in page.inner_text(".gallery-answer")
    assert "CC0" in page.inner_text(".gallery-credit")
    page.reload()
    assert shown(page) == asked
    page.click('.gallery-strip button[data-picture="rocket"]')
    assert shown(page) == ("rocket-large.webp", "rocket-score_cam-heat.webp", "#rocket/score_cam")
    page.go_back()
    assert shown(page) == asked
    page.wait_for_function("[...document.querySelectorAll('.gallery-canvas img')].every(i => i.hidden || i.naturalWidth > 0)")


def test_an_address_that_names_nothing_shows_the_first_picture(page, site):
    page.goto(address(site, "gallery", "nobody/none/%"))
    assert shown(page)[:2] == ("chelsea-large.webp", "chelsea-grad_cam-heat.webp")


def test_arrow_keys_change_method_and_picture(page, site):
    page.goto(address(site, "gallery", "chelsea/grad_cam"))

    def press(key, fragment):
        page.keyboard.press(key)
        page.wait_for_selector(f'a[aria-current="true"][href$="{fragment}"]', state="attached")  # the next key starts from what is shown
        assert shown(page)[-1] == fragment

    press("ArrowRight", "#chelsea/grad_cam_pp")
    assert "Grad-CAM++" in page.inner_text('[aria-live="polite"]')
    press("ArrowLeft", "#chelsea/grad_cam")
    page.focus(".gallery-canvas")
    press("ArrowDown", "#coffee/grad_cam")
    page.focus("#gallery-opacity")
    press("ArrowRight", "#coffee/grad_cam")  # belongs to the slider


def test_the_slider_is_the_opacity_of_the_map(page, site):
    page.goto(address(site, "gallery", "chelsea/grad_cam"))
    for value in ("0", "35", "100"):
        page.fill("#gallery-opacity", value)
        page.wait_for_function(f"getComputedStyle(document.querySelector('{HEAT}')).opacity == {int(value) / 100}")
        assert page.inner_text("output") == f"{value} %"
    assert style(page, ".gallery-grey", "backdrop-filter") == "grayscale(1)"
    assert style(page, ".gallery-photo", "filter") == "none"
    page.fill("#gallery-opacity", "0")
    assert style(page, ".gallery-grey", "backdrop-filter") == "grayscale(0)"


def test_two_methods_part_at_the_line(page, site):
    page.goto(address(site, "gallery", "chelsea/grad_cam"))
    page.select_option("#gallery-other", "center_gaussian")
    assert shown(page)[1:] == ("chelsea-grad_cam-heat.webp", "chelsea-center_gaussian-heat.webp", "#chelsea/grad_cam/center_gaussian")
    page.fill(".gallery-wipe", "30")
    assert style(page, ".gallery-second", "clipPath") == "inset(0px 0px 0px 30%)"
    assert style(page, HEAT, "clipPath") == "inset(0px 70% 0px 0px)"
    assert page.inner_text('[aria-live="polite"]').count("control") == 1
    page.select_option("#gallery-other", "")
    assert shown(page)[-1] == "#chelsea/grad_cam"


def test_a_tile_is_a_button_of_the_stage(page, site):
    page.goto(address(site, "gallery", "chelsea/grad_cam"))
    assert page.locator(".gallery-row:visible").count() == 1
    page.click('.gallery-tile[href="#chelsea/l_cam_fm"]')
    assert shown(page)[-1] == "#chelsea/l_cam_fm"
    assert page.get_attribute('.gallery-tile[href="#chelsea/l_cam_fm"]', "aria-current") == "true"
    assert "learned" in page.inner_text('[aria-live="polite"]')


def test_a_drawn_picture_has_the_methods_of_its_own_networks(page, site):
    page.goto(address(site, "gallery", "bird-1/grad_cam"))
    if shown(page)[0] != "bird-1.webp":
        pytest.skip("this site was built without maps of the drawn birds")
    methods = page.eval_on_selector_all("#gallery-method option", "all => all.map(o => o.value)")
    assert methods == ["calm_em", "calm_ml", "cam"]
    assert page.input_value("#gallery-method") in methods


@pytest.mark.parametrize("fragment", ["", "chelsea/grad_cam/score_cam", "hopper/rise"])
def test_on_a_phone_nothing_is_wider_than_the_screen(page, site, fragment):
    page.set_viewport_size(PHONE)
    page.goto(address(site, "gallery", fragment))
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    box = page.locator(".gallery-canvas").bounding_box()
    assert 0 <= box["x"] < box["x"] + box["width"] <= PHONE["width"]


def test_without_javascript_the_tiles_are_there(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(site, "gallery", "coffee/score_cam"))
    assert not page.locator(".gallery").is_visible()
    assert page.locator(".gallery-row:visible").count() >= 8
    assert page.locator('[id="coffee/score_cam"] img').is_visible()
    context.close()
