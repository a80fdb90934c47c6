"""What the tests of the page share."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.web import page


@pytest.fixture
def runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the WebAssembly runtimes, which no test without a browser loads."""
    folder = tmp_path / "runtimes"
    (folder / "litert").mkdir(parents=True)
    (folder / page.PACKAGES).write_text('{"@litertjs/core": {"version": "2.5.3"}}')
    (folder / "litert" / "litert.wasm").write_bytes(b"\0asm")
    monkeypatch.setattr(page, "RUNTIMES", folder)
    return folder
