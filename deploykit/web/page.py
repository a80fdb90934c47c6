"""The built page and the WebAssembly runtimes on disk, as the files of a web folder."""

from __future__ import annotations

import json
from pathlib import Path

from deploykit.errors import UsageError

PAGE = Path(__file__).parent / "page"
RUNTIMES = Path(__file__).parent / "runtimes"
PACKAGES = "packages.json"
INDEX = "index.html"
ENTER = "enter.html"
# What a device may read before it has shown its token.
OPEN_TO_ALL = ("assets/enter.js", "assets/style.css")
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


def page_files() -> dict[str, Path]:
    """Return path in the web folder → file of the page and of the runtimes.

    Raises UsageError where a checkout lacks the runtimes.
    """
    if not (RUNTIMES / PACKAGES).is_file():
        raise UsageError(
            "The WebAssembly runtimes of the page are missing.",
            where=str(RUNTIMES),
            found="a checkout of the source, without them",
            expected="LiteRT.js and onnxruntime-web, which an installed wheel has",
            next_step="make web, which needs Node.js, or install the wheel",
        )
    page = {path.relative_to(PAGE).as_posix(): path for path in sorted(PAGE.rglob("*")) if path.is_file()}
    below = sorted(path for path in RUNTIMES.rglob("*") if path.is_file())
    return page | {f"runtimes/{path.relative_to(RUNTIMES).as_posix()}": path for path in below}


def runtime_versions() -> dict[str, str]:
    """Return npm package → version of the runtimes. Raises UsageError where they are missing."""
    page_files()
    packages = json.loads((RUNTIMES / PACKAGES).read_text("utf-8"))
    return {name: str(about["version"]) for name, about in packages.items()}


def content_type(name: str) -> str:
    """Return the media type of the file ``name``; bytes without further meaning where it is none of the page's."""
    return CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
