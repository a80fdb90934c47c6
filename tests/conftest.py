"""Options and fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests run in as many processes as there are cores: threads of their own would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the whole matrix, tests marked full included")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="run by make test-full"))


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of real cases beside the checkout; tests that need it are skipped where it is absent."""
    cases = Path(__file__).resolve().parents[1].parent / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip(f"no real cases at {cases}")
    return cases
