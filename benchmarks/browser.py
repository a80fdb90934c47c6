"""How the page of ``deploykit web`` fares in headless Chromium: against LiteRT native, at its start, and on a camera.

SINet's TFLite file is measured in turns, native, browser, native and so on, each time by ``deploykit bench`` on one
thread. A ratio is one browser's median over the mean of the native medians right before and after it, so that both
sides are of the same minute; the figure is the median of the ratios.

Then the page is opened in new browsers that have nothing in their caches: milliseconds from the navigation to the first
mask on the screen. In each of them the live view runs on Chromium's own fake camera, 640x480 at 60 frames a second so
that the camera limits nothing: frames a second as the page shows them, once a second. There is no GPU: pictures are
drawn by the processor as well. Needs Chromium and Playwright's Python package.

Run: python benchmarks/browser.py [--rounds N] [--openings N] [--seconds N]
Exit code 1 where the browser takes more than 4 times as long as native, the slowest opening 3 s or more, or the median
of the live view is below 15 frames a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

import deploykit
from deploykit.benchmark import bench
from deploykit.chatter import contained
from deploykit.latency.machine import device_name, this_machine
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import find_subjects
from deploykit.records import to_json, versioned
from deploykit.web.access import Door
from deploykit.web.chromium import require_chromium
from deploykit.web.page import runtime_versions
from deploykit.web.plan import PagePlan, make_page_plan
from deploykit.web.server import Place, serving

RECORD = Path(__file__).parent / "results" / "browser.json"
MOST_RATIO, MOST_OPENING_S, LEAST_FPS = 4.0, 3.0, 15.0
FLAGS = (
    "--use-fake-device-for-media-stream=fps=60",
    "--use-fake-ui-for-media-stream",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
)
STAGES = ("preprocess", "inference", "mask", "composite")
# The rate is the mean of the last 20 frames; at the start these are not there yet.
SETTLES_S = 4
PATIENCE_MS = 60_000.0


def one_median(artifact: Path, device: str) -> dict[str, Any]:
    """Return what ``device`` takes for one inference at the median, and how that was measured."""
    result = bench([artifact], device=device, runs=100, seconds=1.0, precision_target=None, startup=False)
    (latency,) = result.measured
    return {
        "device": device,
        "runtime": latency.runtime,
        "median_s": statistics.median(latency.samples_s),
        "interval_s": latency.interval_s,
        "runs": len(latency.samples_s),
    }


def against_native(artifact: Path, rounds: int) -> dict[str, Any]:
    """Return ``rounds`` ratios of browser to native, each from three measurements in a row."""
    found, ratios = [one_median(artifact, "host")], []
    for turn in range(rounds):
        begun = time.perf_counter()
        found += [one_median(artifact, "browser"), one_median(artifact, "host")]
        before, page, after = (one["median_s"] for one in found[-3:])
        ratios.append(2 * page / (before + after))
        print(
            f"round {turn}: native {before * 1e3:.2f} and {after * 1e3:.2f} ms, browser {page * 1e3:.2f} ms, "
            f"{ratios[-1]:.2f} x, in {time.perf_counter() - begun:.0f} s at load {os.getloadavg()[0]:.1f}",
            file=sys.stderr,
            flush=True,
        )
    return {"ratio": statistics.median(ratios), "ratios": ratios, "measured": found}


async def looked_at(plan: PagePlan, openings: int, seconds: int) -> dict[str, Any]:
    """Open the page in ``openings`` new browsers; return when the first mask was there and what the live view did."""
    first, rates, stages, version = [], [], [], ""
    async with serving(plan, Place(), Door()) as server, async_playwright() as playwright:
        for turn in range(openings):
            sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
            launched = playwright.chromium.launch(executable_path=str(require_chromium()), args=[*FLAGS, *sandbox])
            browser = await launched
            try:
                version = browser.version
                page = await browser.new_page()
                page.set_default_timeout(PATIENCE_MS)
                await page.goto(server.url)
                await page.wait_for_selector("html[data-first-mask-ms]")
                first.append(float(await page.evaluate("document.documentElement.dataset.firstMaskMs")) / 1000)
                await page.click("#camera")
                await page.wait_for_function("() => parseFloat(document.querySelector('#fps').textContent) > 0")
                await asyncio.sleep(SETTLES_S)
                for _ in range(seconds):
                    await asyncio.sleep(1)
                    rates.append(float(await page.inner_text("#fps")))
                stages.append({name: float((await page.inner_text(f"#time-{name}")).split()[0]) for name in STAGES})
            finally:
                await browser.close()
            print(
                f"opening {turn}: first mask after {first[-1]:.2f} s, live {statistics.median(rates[-seconds:]):.1f} "
                f"frames/s, {stages[-1]} ms, at load {os.getloadavg()[0]:.1f}",
                file=sys.stderr,
                flush=True,
            )
    return {
        "chromium": version,
        "first_mask_s": {"median": statistics.median(first), "worst": max(first), "openings": first},
        "live_view": {"fps": statistics.median(rates), "fps_each_second": rates, "ms_of_a_frame": stages},
    }


def rounded(value: Any) -> Any:
    """Return JSON values with five significant digits, which are more than a run knows."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="ratios of browser to native")
    parser.add_argument("--openings", type=int, default=7, help="new browsers that open the page")
    parser.add_argument("--seconds", type=int, default=10, help="of the live view in each of them")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        with contained():
            (artifact,) = deploykit.export("sinet", targets=["tflite"], output_dir=name)
        compared = against_native(artifact.path, options.rounds)
        plan = make_page_plan(find_subjects([artifact.path]), Protocol())
        seen = asyncio.run(looked_at(plan, options.openings, options.seconds))
    body = {
        "device": device_name(),
        "machine": to_json(this_machine()),
        "runtimes": runtime_versions(),
        "network": "sinet",
        "against_native": compared,
        **seen,
        "load_average": os.getloadavg()[0],
    }
    temporary = RECORD.with_suffix(".tmp")
    temporary.write_text(json.dumps(versioned("browser", rounded(to_json(body))), indent=1) + "\n", encoding="utf-8")
    temporary.replace(RECORD)
    ratio, worst, fps = compared["ratio"], seen["first_mask_s"]["worst"], seen["live_view"]["fps"]
    print(f"{ratio:.2f} x native, first mask within {worst:.2f} s, {fps:.1f} frames/s", file=sys.stderr)
    return 0 if ratio <= MOST_RATIO and worst < MOST_OPENING_S and fps >= LEAST_FPS else 1


if __name__ == "__main__":
    sys.exit(main())
