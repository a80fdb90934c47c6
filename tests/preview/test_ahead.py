from __future__ import annotations

import threading
import time

import pytest

from deploykit.preview.ahead import ahead


def never():
    return False


def workers():
    return [one for one in threading.enumerate() if one.name == "deploykit-preview"]


def test_items_come_in_order_and_the_thread_goes():
    with ahead(range(20), 3, never) as items:
        assert list(items) == list(range(20))
    assert not workers()


def test_they_are_made_ahead_and_no_further_than_allowed():
    made = []

    def source():
        for index in range(10):
            made.append(index)
            yield index

    with ahead(source(), 2, never) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 60
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(made) == 4, "one taken, two waiting, one in hand"
    assert len(made) < 10
    assert not workers()


def test_an_error_comes_behind_the_items_before_it():
    def source():
        yield 1
        raise ValueError("broken")

    with ahead(source(), 5, never) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_they_end_when_somebody_stops_even_where_nothing_comes():
    release, stopped = threading.Event(), threading.Event()

    def source():
        yield 1
        release.wait(5)
        yield 2

    with ahead(source(), 1, stopped.is_set) as items:
        assert next(items) == 1
        stopped.set()
        assert list(items) == []
        release.set()
    assert not workers()
