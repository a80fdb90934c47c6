"""One benchmark in a browser from the beginning to the end: the page is served, opened here or elsewhere, and heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from deploykit.errors import DeviceError, UsageError
from deploykit.latency.measure import Protocol
from deploykit.latency.recording import INTERRUPTED
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark
from deploykit.web.access import Door, new_token
from deploykit.web.address import lan_address, qr_text
from deploykit.web.certificate import make_certificate
from deploykit.web.chromium import browsing, require_chromium
from deploykit.web.plan import ACCELERATORS, PagePlan, make_page_plan
from deploykit.web.runs import BrowserRun
from deploykit.web.server import Place, serving

HERE, LAN = None, "lan"
# A page that says nothing for so long is gone; opening and warming up one file takes less.
PATIENCE_S = 180.0
RUN_AT_ONCE = "#run"
_LOOK_S = 1.0


@dataclass
class _Heard:
    """What the server heard last of the run that is waited for."""

    news: asyncio.Event
    run: BrowserRun | None = None

    def take(self, run: BrowserRun) -> None:
        self.run = run
        self.news.set()


def measure_in_browser(
    which: str | None,
    subjects: Sequence[Subject],
    protocol: Protocol,
    *,
    threads: Sequence[int] = (1,),
    accelerators: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> Benchmark:
    """Return what a browser measured of ``subjects``: a Chromium here for None, a device of the network for "lan".

    For the latter its address and QR code are reported, and it is waited for until it opens the page and its benchmark
    ends. What was measured until a page is gone, or Ctrl-C, is returned with ``complete`` False.

    Raises:
        UsageError: no such browser or accelerator, or the runtimes of the page are missing.
        DeviceError: no browser here, or nothing was measured.
        ArtifactError: no file that a page can run.
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    say = report or (lambda message: None)
    if which not in (HERE, LAN):
        raise UsageError("There is no such browser.", found=ascii(which), expected="browser or browser:lan")
    require_accelerators(accelerators)
    if which is HERE:
        require_chromium()
    wanted = tuple(accelerators) or ("wasm",)
    plan = make_page_plan(subjects, protocol, threads=threads, accelerators=wanted, report=say)
    heard = _Heard(asyncio.Event())
    try:
        ended = asyncio.run(_round(which, plan, heard, say, patience_s))
    except KeyboardInterrupt:
        ended = INTERRUPTED
    result = heard.run.benchmark() if heard.run else None
    if result is not None and result.measured:
        return result
    if ended == INTERRUPTED:
        raise KeyboardInterrupt
    reasons = "; ".join(dict.fromkeys(f"{one.artifact}: {one.reason}" for one in result.skipped)) if result else ""
    raise DeviceError(
        "Nothing was measured in the browser.",
        found=reasons[:1000] or ended,
        expected="a browser that opens the page and runs at least one file with the host's mask",
        next_step="deploykit web shows the page with what it says",
    )


def require_accelerators(accelerators: Sequence[str]) -> None:
    """Raise UsageError where one of ``accelerators`` is none of a page."""
    unknown = [one for one in accelerators if one not in ACCELERATORS]
    if unknown:
        raise UsageError(
            "A page has no such accelerator.",
            where="--accelerator",
            found=", ".join(map(ascii, unknown)),
            expected=", ".join(ACCELERATORS),
        )


async def _round(
    which: str | None, plan: PagePlan, heard: _Heard, say: Callable[[str], None], patience_s: float
) -> str:
    """Serve ``plan`` until a run has ended; return why it did, empty for a regular end."""
    async with AsyncExitStack() as stack:
        if which is HERE:
            server = await stack.enter_async_context(serving(plan, Place(), Door()))
        else:
            address, token = lan_address(), new_token()
            certificate = make_certificate(address)
            server = await stack.enter_async_context(serving(plan, Place(address), Door(token), certificate))
            say(f"open {server.url}#{token} on the device and start its benchmark\n{qr_text(server.url + '#' + token)}")
        server.runs.changed = heard.take
        browser = None
        if which is HERE:
            say("starting a browser")
            browser = await stack.enter_async_context(browsing(server.url + RUN_AT_ONCE))
        silent_s = 0.0
        while silent_s < patience_s:
            if heard.run is not None:
                say(heard.run.doing)
                if heard.run.over:
                    return ""
            if browser is not None and browser.returncode is not None:
                return _cut(heard.run, "the browser ended by itself")
            heard.news.clear()
            try:
                await asyncio.wait_for(heard.news.wait(), _LOOK_S)
                silent_s = 0.0
            except TimeoutError:
                # The first word of a person with a phone takes longer than that of a program.
                silent_s += 0.0 if which is LAN and heard.run is None else _LOOK_S
        return _cut(heard.run, f"the page said nothing for {patience_s:g} s")


def _cut(run: BrowserRun | None, why: str) -> str:
    if run is not None:
        run.end_early(why)
    return why
