"""Options and fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Tests run in as many processes as there are cores: threads of their own would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tables are as wide here as in any pipe that does not say otherwise.
os.environ.pop("COLUMNS", None)

# A shell in the background lets what it starts ignore Ctrl-C, and children take that over.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The files of these folders share what their conftest.py exports once for a process.
SHARING = (
    "tests/attribution",
    "tests/certificate",
    "tests/cli",
    "tests/evaluation",
    "tests/inspection",
    "tests/provenance",
    "tests/stages",
    "tests/report_page",
    "tests/verification",
    "tests/web",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the whole matrix, tests marked full included")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="run by make test-full"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give all tests of a file, or of a folder in ``SHARING``, to one worker: what they share is exported once.

    The groups of ``--dist loadgroup`` do nothing from pytest 9.2 on (pytest-xdist, issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerForAFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder in SHARING else file

    return OneWorkerForAFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def tables_are_made_once() -> Iterator[None]:
    """Spare torch the tables that it makes for every export."""
    from repeated_work import keep_tables

    with pytest.MonkeyPatch.context() as patch:
        keep_tables(patch)
        yield


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of real cases beside the checkout; tests that need it are skipped where it is absent."""
    cases = Path(__file__).resolve().parents[1].parent / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip(f"no real cases at {cases}")
    return cases
