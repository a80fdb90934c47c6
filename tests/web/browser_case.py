"""A page in a real Chromium: served from a thread, driven by Playwright, every request of it written down."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from deploykit.errors import UsageError
from deploykit.web.access import Door
from deploykit.web.certificate import Certificate
from deploykit.web.chromium import find_chromium
from deploykit.web.page import every_runtime_file, page_files
from deploykit.web.plan import PagePlan
from deploykit.web.server import Place, Serving, serving

# Camera frames are drawn by the browser itself, and nobody is asked.
FLAGS = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PATIENCE_MS = 180_000.0
QUICK = {"min_runs": 8, "min_seconds": 0.0, "max_seconds": 0.2, "precision_target": None}


def why_not() -> str:
    """Why no page can be shown here, or an empty text."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed"
    if find_chromium() is None:
        return "there is no Chromium here"
    try:
        page_files(every_runtime_file())
    except UsageError as error:
        return f"{error.message} {error.next_step}"
    return ""


@contextmanager
def served(plan: PagePlan, token: str = "", certificate: Certificate | None = None) -> Iterator[Serving]:
    """Serve ``plan`` from another thread: Playwright's own calls keep this one busy."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = serving(plan, Place(), Door(token), certificate)
    try:
        server = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(30)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(30)
            # TLS says goodbye before its sockets close.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(1 if certificate else 0), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@dataclass
class Seen:
    """What went on in a browser: addresses that were asked for, and errors that nobody caught."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self, context) -> None:
        """Write down what pages of ``context`` do, their workers included."""
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def elsewhere(self, server: Serving) -> list[str]:
        """Return the requests that did not go to ``server``."""
        inside = (server.url, "blob:", "data:")
        return [url for url in self.requests if not url.startswith(inside)]


@contextmanager
def chromium() -> Iterator:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(find_chromium()), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def shown(browser, server: Serving, path: str = "", **options) -> Iterator:
    """A device that opens the page: its page, and what was seen of it."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    seen = Seen()
    seen.watch(context)
    page = context.new_page()
    page.goto(server.url + path)
    try:
        yield page, seen
    finally:
        context.close()


def quick(plan: PagePlan, **limits) -> PagePlan:
    """``plan`` with so little to measure that a test is short."""
    plan.body["protocol"].update({**QUICK, **limits})
    return plan


needs_browser = pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")
