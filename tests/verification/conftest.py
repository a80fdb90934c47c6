"""One exported network for every test of ``verify``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from verification_cases import Case, prepared

from deploykit.records import Artifact
from deploykit.vocab import Target


@pytest.fixture(scope="session")
def case(tmp_path_factory) -> Callable[[str], Case]:
    @cache
    def of(factory: str = "Plain") -> Case:
        return prepared(tmp_path_factory.mktemp(factory), factory)

    return of


@pytest.fixture(scope="session")
def exported(case, tmp_path_factory) -> Callable[..., Artifact]:
    """Return the fp32 file of a target, written once."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def written(target: Target, factory: str = "Plain") -> Artifact:
        return case(factory).write(target, folder / factory)

    return written
