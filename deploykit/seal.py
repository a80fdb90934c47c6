"""Digests inside a JSON record, so that a changed byte is found and the changed field named (standard library only).

A digest finds corruption and mistakes. It is not a signature: who changes the record can compute it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

SEAL, DIGESTS = "sha256", "digests"
_SHORT = 16


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Return ``record`` with ``digests``, one per field of its body, and ``sha256`` over everything else."""
    digests = {path: _digest(value)[:_SHORT] for path, value in _fields(record["body"], "")}
    with_digests = {**_content(record), DIGESTS: digests}
    return {**with_digests, SEAL: _digest(with_digests)}


def is_sealed(record: dict[str, Any]) -> bool:
    """Whether ``record`` holds any part of a seal."""
    return SEAL in record or DIGESTS in record


def broken_fields(record: dict[str, Any]) -> tuple[str, ...]:
    """Return the fields of a sealed ``record`` that were changed, added or taken away; none where it is whole.

    Fields of the body are named by their path, for example ``plan.precision`` or ``files[0]``; ``sha256`` and
    ``digests`` stand for the seal itself.
    """
    recorded = record.get(DIGESTS)
    if not isinstance(recorded, dict):
        return (DIGESTS,)
    body = record.get("body")
    now = {path: _digest(value)[:_SHORT] for path, value in _fields(body, "")}
    changed = [path for path in sorted(now.keys() | recorded.keys()) if now.get(path) != recorded.get(path)]
    whole = _digest({**_content(record), DIGESTS: recorded}) == record.get(SEAL)
    if changed and whole:
        return (DIGESTS,)
    return tuple(changed) or (() if whole else (SEAL,))


def _content(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in (SEAL, DIGESTS)}


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _fields(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Yield path → value of the fields of a body, two levels deep."""
    for name, inner in _children(value, path):
        nested = list(_children(inner, name))
        if nested:
            yield from nested
        else:
            yield name, inner


def _children(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (f"{path}.{key}" if path else str(key)), inner
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            name = inner.get("name", index) if isinstance(inner, dict) else index
            yield f"{path}[{name}]", inner
