"""The page in a real Chromium: its first mask, its benchmark and what it never does."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from browser_case import needs_browser, quick, served, shown

from deploykit.latency.measure import Protocol
from deploykit.latency_records import Stopped
from deploykit.web.certificate import make_certificate
from deploykit.web.kept import benchmark_of, read_kept
from deploykit.web.plan import make_page_plan

pytestmark = needs_browser


def measure_on(page) -> str:
    """Run the benchmark of the page; return what it says in the end."""
    page.click("#tab-bench")
    page.click("#start")
    page.wait_for_selector("html[data-benchmark=ended]")
    return page.inner_text("#bench-status")


def test_a_page_shows_a_mask_and_its_benchmark_comes_back(browser, small_files) -> None:
    plan = quick(make_page_plan(small_files, Protocol()))
    with served(plan) as server, shown(browser, server) as (page, seen):
        page.wait_for_selector("html[data-first-mask-ms]")
        assert "LiteRT.js" in page.inner_text("#live-status") or "onnxruntime-web" in page.inner_text("#live-status")
        assert page.evaluate("crossOriginIsolated")
        assert measure_on(page) == "done"
        assert seen.errors == []
        assert any(url.endswith(".wasm") for url in seen.requests)
        assert seen.elsewhere(server) == []
        (run,) = server.runs.all()
        result = run.benchmark()
    assert result.complete
    assert not result.skipped
    assert {one.artifact for one in result.measured} == {one.name for one in small_files}
    for one in result.measured:
        assert len(one.samples_s) >= 8
        assert one.accelerator == "wasm"
        assert one.stopped is Stopped.RUNS
        assert not any("otherwise than the host" in note for note in one.notes)
    assert {one.runtime.split()[0] for one in result.measured} == {"LiteRT.js", "onnxruntime-web"}


@pytest.mark.full
def test_a_file_with_another_mask_than_the_hosts_is_not_timed(browser, small_files) -> None:
    plan = quick(make_page_plan(small_files[:1], Protocol()))
    (mask,) = (name for name in plan.files if name.endswith("-mask.bin"))
    content = bytearray(plan.files[mask])
    for place in range(len(content) // 500):
        content[place] ^= 1
    plan.files[mask] = bytes(content)
    with served(plan) as server, shown(browser, server) as (page, _):
        measure_on(page)
        assert "it is not timed" in page.inner_text("#rows")
        result = server.runs.all()[0].benchmark()
    assert not result.measured
    assert "99.8" in result.skipped[0].reason


@pytest.mark.full
def test_a_page_that_prepares_pictures_otherwise_is_noted(browser, small_files) -> None:
    plan = quick(make_page_plan(small_files[:1], Protocol()))
    rule = plan.body["subjects"][0]["inputs"][0]["image"]
    rule["mean"] = [value + 20 for value in rule["mean"]]
    with served(plan) as server, shown(browser, server) as (page, _):
        measure_on(page)
        (latency,) = server.runs.all()[0].benchmark().measured
    assert "20.0 of 256 levels apart" in " ".join(latency.notes)


@pytest.mark.full
def test_a_page_that_is_closed_leaves_what_it_measured(browser, small_files) -> None:
    plan = quick(make_page_plan(small_files, Protocol()), min_seconds=60.0, max_seconds=60.0)
    with served(plan) as server:
        with shown(browser, server, "#run") as (page, _):
            page.wait_for_selector("tr[data-state=measuring]")
            page.wait_for_timeout(1500)
            before = server.runs.all()[0].samples
            page.goto("about:blank")
            page.wait_for_timeout(500)
        (run,) = server.runs.all()
        assert run.over
        result = run.benchmark()
    assert before > 0
    assert not result.complete
    assert result.ended == "the page was closed"
    assert sum(len(one.samples_s) for one in result.measured) >= before
    assert {one.stopped for one in result.measured} == {Stopped.INTERRUPTED}


@pytest.mark.full
def test_a_page_whose_command_ends_says_so_and_saves_its_benchmark(browser, small_files, tmp_path) -> None:
    plan = quick(make_page_plan(small_files, Protocol()), min_seconds=60.0, max_seconds=60.0)
    with ExitStack() as command:
        server = command.enter_context(served(plan))
        with shown(browser, server) as (page, _):
            page.click("#tab-bench")
            page.click("#start")
            page.wait_for_selector("tr[data-state=measuring]")
            assert not page.is_visible("#problem")
            assert not page.is_visible("#save")
            command.close()
            page.wait_for_selector("#problem")
            assert "The command has ended" in page.inner_text("#problem")
            page.wait_for_timeout(1000)
            page.click("#stop")
            page.wait_for_selector("html[data-benchmark=ended]")
            assert "on this page alone" in page.inner_text("#bench-status")
            with page.expect_download() as download:
                page.click("#save")
            path = tmp_path / download.value.suggested_filename
            download.value.save_as(path)
            # A second one would find no files; the first one is not lost by trying.
            page.click("#start")
            page.wait_for_function(
                "() => document.querySelector('#bench-status').textContent.startsWith('not started')"
            )
            assert page.is_visible("#save")
    result = benchmark_of(read_kept(path), small_files, path)
    assert len(result.measured) == 2
    assert result.ended == "it was stopped on the page"
    (heard,) = server.runs.all()
    assert sum(len(one.samples_s) for one in result.measured) > heard.samples


@pytest.mark.full
def test_an_idle_page_notices_that_its_command_has_ended(browser, small_files) -> None:
    with ExitStack() as command:
        server = command.enter_context(served(make_page_plan(small_files, Protocol())))
        with shown(browser, server) as (page, _):
            page.wait_for_selector("html[data-first-mask-ms]")
            page.wait_for_timeout(5000)
            assert not page.is_visible("#problem")
            command.close()
            page.wait_for_selector("#problem", timeout=10_000)


@pytest.mark.full
def test_a_benchmark_that_is_stopped_on_the_page_keeps_what_it_measured(browser, small_files) -> None:
    plan = quick(make_page_plan(small_files, Protocol()), min_seconds=60.0, max_seconds=60.0)
    with served(plan) as server, shown(browser, server, "#run") as (page, _):
        page.wait_for_selector("tr[data-state=measuring]")
        page.wait_for_timeout(1000)
        page.click("#stop")
        page.wait_for_selector("html[data-benchmark=ended]")
        assert "is kept" in page.inner_text("#bench-status")
        result = server.runs.all()[0].benchmark()
    assert len(result.measured) == 2
    assert not result.complete


@pytest.mark.full
def test_a_device_enters_by_the_address_once_and_can_reload(browser, small_files) -> None:
    plan = quick(make_page_plan(small_files, Protocol()))
    certificate = make_certificate("127.0.0.1")
    path, open_options = "#the-token", {"ignore_https_errors": True}
    with served(plan, "the-token", certificate) as server:
        with shown(browser, server, path, **open_options) as (page, seen):
            page.wait_for_selector("html[data-first-mask-ms]")
            assert "the-token" not in page.url
            page.reload()
            page.wait_for_selector("html[data-first-mask-ms]")
            assert page.evaluate("isSecureContext && crossOriginIsolated")
            assert measure_on(page) == "done"
            assert seen.elsewhere(server) == []
        with shown(browser, server, path, **open_options) as (page, _):
            page.wait_for_function("() => document.querySelector('#entering').textContent.includes('used before')")
        with shown(browser, server, **open_options) as (page, _):
            page.wait_for_function("() => document.querySelector('#entering').textContent.includes('not complete')")
        assert len(server.runs.all()) == 1


@pytest.mark.full
@pytest.mark.parametrize("accelerator", ["webgpu", "webnn"])
def test_an_accelerator_that_the_browser_lacks_is_named_and_nothing_else_computes(
    browser, small_files, accelerator: str
) -> None:
    plan = quick(make_page_plan(small_files, Protocol(), accelerators=(accelerator,)))
    with served(plan) as server, shown(browser, server) as (page, seen):
        measure_on(page)
        result = server.runs.all()[0].benchmark()
        assert seen.errors == []
    assert not result.measured
    assert {one.reason[:12] for one in result.skipped} == {"this browser"}
    assert all({"webgpu": "WebGPU", "webnn": "WebNN"}[accelerator] in one.reason for one in result.skipped)


@pytest.mark.full
def test_two_threads_give_the_hosts_mask_too(browser, small_files) -> None:
    plan = quick(make_page_plan(small_files, Protocol(), threads=(1, 2)))
    with served(plan) as server, shown(browser, server) as (page, seen):
        assert measure_on(page) == "done"
        result = server.runs.all()[0].benchmark()
        assert seen.errors == []
    assert not result.skipped
    assert sorted(one.threads for one in result.measured) == [1, 1, 2, 2]
