"""The pickle machine against Python's own unpickler, on plain values."""

from __future__ import annotations

import io
import pickle

import pytest

from deploykit.checkpoint.inert import PickleMachine


@pytest.mark.parametrize("protocol", range(6))
def test_the_machine_reads_what_pickle_reads(protocol: int) -> None:
    plain = [1, -2, 2**70, 0.5, "ü", None, True, False, (1, (2,), (), (1, 2, 3, 4)), {}, list(range(2000))]
    value = {"a": plain, "again": plain, 3: "three"}
    machine = PickleMachine(io.BytesIO(pickle.dumps(value, protocol)), known={}, persistent=lambda _: None)
    found = machine.load()
    assert found == pickle.loads(pickle.dumps(value, protocol)) == value
    assert isinstance(found, dict)
    assert found["again"] is found["a"]
    assert machine.foreign == {}
