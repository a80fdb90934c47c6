"""What the tests of the page share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_case import chromium
from targets.small_case import write_case

from deploykit import api
from deploykit.latency.subjects import Subject, find_subjects
from deploykit.web import page


@pytest.fixture
def runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the WebAssembly runtimes, which no test without a browser loads."""
    folder = tmp_path / "runtimes"
    for name in page.every_runtime_file():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0asm")
    (folder / page.PACKAGES).write_text('{"@litertjs/core": {"version": "2.5.3"}}')
    monkeypatch.setattr(page, "RUNTIMES", folder)
    return folder


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, ...]:
    """A small network as ONNX and TFLite."""
    recipe = write_case(tmp_path_factory.mktemp("small_recipe"))
    folder = tmp_path_factory.mktemp("small_files")
    api.export(recipe, targets=["onnx", "tflite"], output_dir=folder)
    return find_subjects([folder])


@pytest.fixture(scope="session")
def sinet_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, ...]:
    """The bundled SINet as ONNX and TFLite."""
    folder = tmp_path_factory.mktemp("sinet_files")
    api.export("sinet", targets=["onnx", "tflite"], output_dir=folder)
    return find_subjects([folder])


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A Chromium without a window, one for the tests of a file.

    Playwright's loop runs in this thread from the first test that needs it to the end of the file: whatever runs a loop
    of its own comes before that, or in another file.
    """
    with chromium() as found:
        yield found
