"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of real cases beside the checkout; tests that need it are skipped where it is absent."""
    cases = Path(__file__).resolve().parents[1].parent / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip(f"no real cases at {cases}")
    return cases
