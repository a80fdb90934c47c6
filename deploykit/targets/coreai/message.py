"""One message between two processes: a line of JSON, then the bytes of the arrays that it announces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Body: TypeAlias = dict[str, Any]
Arrays: TypeAlias = dict[str, NDArray[np.generic]]


def send(stream: IO[bytes], body: Body, arrays: Mapping[str, NDArray[np.generic]] | None = None) -> None:
    """Write ``body`` and ``arrays`` to ``stream`` as one message. Raises OSError where nobody reads any more."""
    whole = {name: np.ascontiguousarray(value) for name, value in (arrays or {}).items()}
    announced = [[name, value.dtype.name, list(value.shape)] for name, value in whole.items()]
    stream.write(json.dumps({"body": body, "arrays": announced}).encode() + b"\n")
    for value in whole.values():
        stream.write(value.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Body, Arrays]:
    """Return the next message of ``stream``. Raises EOFError where the other side is gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message = json.loads(line)
    return message["body"], {name: _array(stream, dtype, shape) for name, dtype, shape in message["arrays"]}


def _array(stream: IO[bytes], dtype: str, shape: list[int]) -> NDArray[np.generic]:
    empty = np.empty(shape, np.dtype(dtype))
    raw = stream.read(empty.nbytes)
    if len(raw) != empty.nbytes:
        raise EOFError
    return np.frombuffer(bytearray(raw), empty.dtype).reshape(shape)
