"""One certified network with every kind of block, for all tests of this folder."""

from __future__ import annotations

import pytest
from certificate_cases import NETWORKS, Case, certified


@pytest.fixture(scope="session")
def case() -> Case:
    return certified(NETWORKS)
