"""A browser of this machine without a window, started for one page and ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploykit.errors import DeviceError

# The program to start, where it is none of the usual names.
VARIABLE = "DEPLOYKIT_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
_ON_A_MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
# No window, nothing of the user's, no request that is not the page's own, and no saving of power while nobody looks.
_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--no-pings",
    "--mute-audio",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_END_S = 5.0


def find_chromium() -> Path | None:
    """Return the program of a Chromium here: the one that the environment names, else the first of the usual ones."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named) if Path(named).is_file() else None
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and sys.platform == "darwin":
        found = next((path for path in _ON_A_MAC if Path(path).is_file()), None)
    return Path(found) if found else None


def require_chromium() -> Path:
    """Return the program of a Chromium here. Raises DeviceError where there is none."""
    found = find_chromium()
    if found is None:
        raise DeviceError(
            "There is no browser on this machine that can be started without a window.",
            where=os.environ.get(VARIABLE) or "the PATH",
            found="none of " + ", ".join(NAMES),
            expected="Chromium, Chrome or Edge",
            next_step=f"sudo apt install chromium, or {VARIABLE}=/its/path; a phone: --device browser:lan",
        )
    return found


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Show ``url`` in a Chromium without a window for as long as the context lasts.

    Raises DeviceError where there is none, or it does not start.
    """
    program = require_chromium()
    # Root has no sandbox to be put into; the page is our own, and the files in it run in WebAssembly.
    sandbox = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(prefix="deploykit-browser-", ignore_cleanup_errors=True) as profile:
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *_FLAGS,
                *sandbox,
                f"--user-data-dir={profile}",
                url,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise DeviceError(
                "The browser does not start.", where=str(program), found=error.strerror, expected="a Chromium"
            ) from error
        try:
            yield process
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _END_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
