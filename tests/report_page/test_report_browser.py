"""The page in headless Chromium: it opens fast, sorts, filters, switches theme, and asks for nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploykit.artifact import MANIFEST
from deploykit.report_page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OPENS_WITHIN_S = 1.0
# Text and what lies behind it, of every element that has text of its own.
CONTRAST = """() => {
  const rgba = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    const svg = e instanceof SVGElement, style = getComputedStyle(e);
    if (svg && e.tagName !== 'text') continue;
    const [a, b] = [light(rgba(svg ? style.fill : style.color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) bad.push([e.tagName, e.className.baseVal ?? e.className, ratio.toFixed(2)]);
  }
  return bad;
}"""


@dataclass
class Opened:
    """A page in a browser, with what its console said and what it asked for."""

    page: object
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def report(written, tmp_path_factory) -> Path:
    """A report on two files: the second one, changed and never measured, lies beside the first."""
    folder = tmp_path_factory.mktemp("browser") / "artifacts"
    shutil.copytree(written, folder)
    (manifest,) = folder.glob(f"chain/onnx-*/{MANIFEST}")
    shutil.copytree(manifest.parent, folder / "chain" / "onnx-other")
    (folder / "chain" / "onnx-other" / "chain.onnx").write_bytes(b"another")
    (folder / "foreign.json").write_text(json.dumps({"a": 1}), "utf-8")
    path = folder.parent / "report.html"
    write_report(folder, path, recipes=[written.parent / "chain.toml"])
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def opened(browser, report, request) -> Iterator[Opened]:
    options = {"viewport": {"width": 1280, "height": 900}, **getattr(request, "param", {})}
    context = browser.new_context(**options)
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.said.append(message.text))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("request", lambda asked: found.asked.append(asked.url))
    found.page.goto(report.as_uri())
    yield found
    context.close()


def names(page) -> list[str]:
    return page.eval_on_selector_all("#file-table tbody tr:not([hidden]) th", "all => all.map(e => e.textContent)")


def test_it_opens_in_time_without_a_word_and_asks_for_nothing(opened, report):
    # The time of its own thread: a test that waits for the clock fails where the machine is busy.
    session = opened.page.context.new_cdp_session(opened.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    opened.page.reload()
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    assert 0 < metrics["TaskDuration"] < OPENS_WITHIN_S
    assert opened.said == []
    assert {url for url in opened.asked if not url.startswith("data:")} == {report.as_uri()}


def test_every_picture_is_there(opened):
    widths = opened.page.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(widths) == 8
    assert min(widths) > 0


def test_a_column_sorts_both_ways_by_keyboard(opened):
    page = opened.page
    before = names(page)
    assert len(before) == 2
    header = page.locator("#file-table thead th", has_text="file")
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert names(page) == sorted(before)
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "descending"
    assert names(page) == sorted(before, reverse=True)
    latency = page.locator("#file-table thead th", has_text="latency")
    for _ in range(2):
        latency.locator("button").click()
        assert header.get_attribute("aria-sort") == "none"
        measured = page.eval_on_selector_all(
            "#file-table tbody tr td:nth-child(6)", "all => all.map(e => e.textContent)"
        )
        assert "not measured" in measured[-1]


def test_files_are_filtered_and_counted(opened):
    page = opened.page
    page.fill("#filter-text", "onnx-other")
    assert len(names(page)) == 1
    assert page.text_content("#filter-count") == "1 of 2 shown"
    page.fill("#filter-text", "")
    page.select_option("#filter-target", "onnx")
    assert page.text_content("#filter-count") == "2 of 2 shown"
    page.fill("#filter-text", "nothing of that name")
    assert names(page) == []


@pytest.mark.parametrize("opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_theme_switches_and_is_remembered(opened):
    page = opened.page

    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    system = ground()
    seen = {"system": system}
    for theme in ("light", "dark"):
        page.click("#theme")
        assert page.text_content("#theme") == f"Theme: {theme}"
        seen[theme] = ground()
    assert seen["light"] != seen["dark"]
    assert system in (seen["light"], seen["dark"])
    page.reload()
    assert page.text_content("#theme") == "Theme: dark"
    assert ground() == seen["dark"]


@pytest.mark.parametrize("opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_text_stands_out_in_both_themes(opened):
    opened.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert opened.page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("opened", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_a_phone_scrolls_tables_and_not_the_page(opened):
    page = opened.page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        state = page.evaluate(
            "[document.activeElement.id || document.activeElement.tagName, "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        if state[0] == "BODY":
            break
        assert state[1] != "none", state
        reached.add(state[0])
    assert {"theme", "filter-text", "filter-target", "SUMMARY", "BUTTON", "A"} <= reached


def test_printing_opens_what_is_folded(opened):
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") > 0
