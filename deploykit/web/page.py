"""The built page and the WebAssembly runtimes on disk, as the files of a web folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from deploykit.errors import UsageError
from deploykit.vocab import Target

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
# What the page loads of each runtime. Which of LiteRT.js's first two it is depends on the browser's SIMD; where a
# browser lacks promises in WebAssembly, the same two stand in for the last one.
_LITERT = ("litert.mjs", *(f"litert_wasm_{kind}internal.{end}" for kind in ("", "compat_") for end in ("js", "wasm")))
_LITERT_THREADS = ("litert_wasm_threaded_internal.js", "litert_wasm_threaded_internal.wasm")
_LITERT_PROMISES = ("litert_wasm_jspi_internal.js", "litert_wasm_jspi_internal.wasm")
_ONNX = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_ONNX_PROMISES = ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm")


def runtime_files(
    targets: Collection[Target], accelerators: Collection[str], threads: Collection[int]
) -> tuple[str, ...]:
    """Return the paths below the runtimes that files of ``targets`` need on ``accelerators`` with ``threads``."""
    wasm, others = "wasm" in accelerators, set(accelerators) != {"wasm"}
    found = [PACKAGES]
    if Target.TFLITE in targets:
        several = wasm and max(threads) > 1
        names = (*_LITERT, *(_LITERT_THREADS if several else ()), *(_LITERT_PROMISES if others else ()))
        found += [f"litert/{name}" for name in names]
    if Target.ONNX in targets:
        found += [f"onnx/{name}" for name in (*(_ONNX if wasm else ()), *(_ONNX_PROMISES if others else ()))]
    return tuple(found)


def every_runtime_file() -> tuple[str, ...]:
    """Return the paths below the runtimes of all that a page may ever load."""
    return runtime_files((Target.TFLITE, Target.ONNX), ("wasm", "webgpu"), (1, 2))


def page_files(runtimes: Iterable[str]) -> dict[str, Path]:
    """Return path in the web folder → file of the page and of those of the ``runtimes``.

    Raises UsageError where a checkout lacks one of these.
    """
    named = {name: RUNTIMES / name for name in runtimes}
    missing = [name for name, path in named.items() if not path.is_file()]
    if missing:
        raise UsageError(
            "The WebAssembly runtimes of the page are missing.",
            where=str(RUNTIMES),
            found=f"no {missing[0]}" if RUNTIMES.is_dir() else "a checkout of the source, without them",
            expected="LiteRT.js and onnxruntime-web, which an installed wheel has",
            next_step="make web, which needs Node.js, or install the wheel",
        )
    page = {path.relative_to(PAGE).as_posix(): path for path in sorted(PAGE.rglob("*")) if path.is_file()}
    return page | {f"runtimes/{name}": path for name, path in named.items()}


def runtime_versions() -> dict[str, str]:
    """Return npm package → version of the runtimes. Raises UsageError where they are missing."""
    page_files([PACKAGES])
    packages = json.loads((RUNTIMES / PACKAGES).read_text("utf-8"))
    return {name: str(about["version"]) for name, about in packages.items()}


def content_type(name: str) -> str:
    """Return the media type of the file ``name``; bytes without further meaning where it is none of the page's."""
    return CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
