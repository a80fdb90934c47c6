"""The live view with Chromium's own fake camera: the background is replaced while files are switched."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest
from browser_case import needs_browser, served, shown

from deploykit.latency.measure import Protocol
from deploykit.web.plan import bundled_picture, make_page_plan

pytestmark = [needs_browser, pytest.mark.full]

PIXELS = "document.getElementById('picture').toDataURL('image/png')"


def pixels_of(page) -> np.ndarray:
    """What the canvas shows: (H, W, 3) in RGB."""
    encoded = base64.b64decode(page.evaluate(PIXELS).partition(",")[2])
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def choose(page, background: str) -> np.ndarray:
    """The canvas with another background."""
    page.check(f"input[name=background][value={background}]")
    page.wait_for_timeout(700)
    return pixels_of(page)


def test_the_background_of_a_still_is_replaced_where_the_host_sees_no_person(browser, sinet_files, tmp_path) -> None:
    plan = make_page_plan(sinet_files[:1], Protocol())
    mask = np.frombuffer(plan.files["files/0-mask.bin"], np.uint8).reshape(224, 224)
    picture = bundled_picture()
    person = cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    inside = cv2.erode(person, np.ones((9, 9), np.uint8)) > 0
    outside = cv2.dilate(person, np.ones((9, 9), np.uint8)) == 0
    assert inside.mean() > 0.1
    assert outside.mean() > 0.1
    with served(plan) as server, shown(browser, server) as (page, seen):
        page.wait_for_selector("html[data-first-mask-ms]")
        page.uncheck("#mirror")
        page.fill("#colour", "#ff0000")
        red = choose(page, "colour")
        assert np.abs(red[outside].astype(int) - (255, 0, 0)).mean() < 12
        assert np.abs(red[inside].astype(int) - picture[inside]).mean() < 12
        blurred = choose(page, "blur")
        assert np.abs(blurred[outside].astype(int) - picture[outside]).mean() < 40
        assert blurred[outside].std() < picture[outside].std()
        alone = choose(page, "mask")
        assert alone[inside].mean() > 240
        assert alone[outside].mean() < 15
        own = tmp_path / "own.png"
        cv2.imwrite(str(own), np.full((40, 30, 3), (200, 100, 0), np.uint8))
        page.set_input_files("#image", str(own))
        page.wait_for_timeout(700)
        assert np.abs(pixels_of(page)[outside].astype(int) - (0, 100, 200)).mean() < 12
        page.check("#mirror")
        page.wait_for_timeout(700)
        assert np.abs(pixels_of(page)[:, ::-1][outside].astype(int) - (0, 100, 200)).mean() < 12
        assert seen.errors == []


def test_the_camera_runs_and_files_are_switched_meanwhile(browser, sinet_files) -> None:
    plan = make_page_plan(sinet_files, Protocol())
    with served(plan) as server, shown(browser, server) as (page, seen):
        page.wait_for_selector("html[data-first-mask-ms]")
        page.click("#camera")
        page.wait_for_function("() => parseFloat(document.querySelector('#fps').textContent) > 0")
        first = pixels_of(page)
        page.wait_for_timeout(1500)
        assert (pixels_of(page) != first).any()
        page.select_option("#artifact", "1")
        page.wait_for_function(
            f"() => document.querySelector('#live-status').textContent.startsWith({sinet_files[1].name!r})"
        )
        page.wait_for_timeout(1000)
        assert float(page.inner_text("#fps")) > 0
        for stage in ("preprocess", "inference", "mask", "composite"):
            assert page.inner_text(f"#time-{stage}").endswith("ms")
        page.click("#camera")
        assert page.inner_text("#camera") == "Start camera"
        # The benchmark has the device for itself.
        page.click("#camera")
        page.click("#tab-bench")
        page.click("#start")
        assert page.inner_text("#camera") == "Start camera"
        page.click("#stop")
        assert seen.errors == []
        assert seen.elsewhere(server) == []


def test_the_page_fits_a_phone_and_is_used_by_keyboard(browser, sinet_files) -> None:
    plan = make_page_plan(sinet_files, Protocol())
    with served(plan) as server, shown(browser, server, viewport={"width": 390, "height": 844}) as (page, _):
        page.wait_for_selector("html[data-first-mask-ms]")
        for tab in ("#tab-live", "#tab-bench"):
            page.click(tab)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.focus("#tab-bench")
        page.keyboard.press("ArrowLeft")
        assert page.get_attribute("#tab-live", "aria-selected") == "true"
        assert page.is_visible("#live")
        assert not page.is_visible("#bench")
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll('button, input, select, canvas, progress')]
            .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
            .map((one) => one.id)"""
        )
        assert unnamed == []
