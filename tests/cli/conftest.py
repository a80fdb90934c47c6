"""Running the command line inside the test process, as a user would see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from deploykit.cli.main import run_command


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def deploykit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs one command and returns exit code, stdout and stderr."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["deploykit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_command()
        captured = capsys.readouterr()
        code = stopped.value.code
        return Result(0 if code is None else int(code), captured.out, captured.err)

    return run
