"""Options as text, and every way to get them wrong."""

from __future__ import annotations

import pytest

from deploykit.errors import UsageError
from deploykit.latency.argument_texts import parse_cores, parse_share, parse_threads


@pytest.mark.parametrize(
    ("text", "expected"), [("1", (1,)), ("1,2", (1, 2)), ("1-4", (1, 2, 3, 4)), ("4, 1-2,2", (4, 1, 2))]
)
def test_threads_are_one_several_or_a_range(text: str, expected: tuple[int, ...]) -> None:
    assert parse_threads(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "2-1", "1,", "a", "1.5", "1-2-3", "99999999", "1-9999"])
def test_wrong_threads_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--threads"):
        parse_threads(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("auto", "auto"), ("None", None), ("0", (0,)), ("0,2-3", (0, 2, 3)), (" 1 ", (1,))]
)
def test_cores_are_numbers_automatic_or_none(text: str, expected: object) -> None:
    assert parse_cores(text) == expected


@pytest.mark.parametrize("text", ["", "all", "-1", "3-1", "0,,1"])
def test_wrong_cores_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--affinity"):
        parse_cores(text)


@pytest.mark.parametrize(("text", "expected"), [("2%", 0.02), ("0.5 %", 0.005), ("0.02", 0.02), ("none", None)])
def test_a_share_is_in_percent_or_not(text: str, expected: float | None) -> None:
    assert parse_share(text) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("text", ["", "%", "two", "2%%"])
def test_a_wrong_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--precision-target"):
        parse_share(text)
