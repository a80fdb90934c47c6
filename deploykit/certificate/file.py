"""Certificates on disk: sealed JSON, one line for each block, the same bytes for the same network."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import math
import os
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploykit.certificate.records import Certificate
from deploykit.errors import ArtifactError
from deploykit.records import RECORD_VERSION, versioned
from deploykit.seal import SEAL, broken_fields, sealed

NAME = "certificate.json"
KIND = "certificate"
_BLOCKS = '"blocks": []'


def write_certificate(certificate: Certificate, path: Path) -> None:
    """Write ``certificate`` to ``path``, whole or not at all. Raises ArtifactError where that is not possible."""
    with _beside(path) as temporary:
        temporary.write_bytes(rendered(sealed(versioned(KIND, certificate))).encode())
        temporary.replace(path)


def require_writable(path: Path) -> None:
    """Raise ArtifactError where no certificate could be written to ``path``; nothing is left there."""
    with _beside(path) as temporary:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary.touch()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path``, gone afterwards; an OSError becomes the user's error."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(
            "The certificate cannot be written.",
            where=str(path),
            found=error.strerror or str(error),
            expected="a path in a folder that exists and can be written to",
        ) from error


@dataclasses.dataclass(frozen=True)
class ReadCertificate:
    """A certificate as read from a file; ``broken`` names what its seal says was changed."""

    certificate: Certificate
    sha256: str
    broken: tuple[str, ...]


def read_certificate(path: Path) -> ReadCertificate:
    """Return the certificate at ``path`` and what its own digests find changed.

    Raises ArtifactError where there is no file, it is no certificate, or it is too damaged to be read.
    """
    try:
        content = path.read_bytes()
        record = json.loads(content)
        if not isinstance(record, dict):
            raise TypeError("JSON, but not an object with fields")
        found = f"{record['kind']}, version {record['deploykit']}"
        if found != f"{KIND}, version {RECORD_VERSION}":
            raise ArtifactError(
                "The file is no certificate of this version.",
                where=str(path),
                found=found,
                expected=f"{KIND}, version {RECORD_VERSION}",
                next_step="make it again with: deploykit verify-reparam --certificate",
            )
        broken = broken_fields(record)
        certificate = _decoded(Certificate, record["body"], "body")
        if not broken and rendered(record).encode() != content:
            broken = ("the spacing or order of the file",)
        return ReadCertificate(certificate, str(record.get(SEAL, "")), broken)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        missing = isinstance(error, OSError)
        raise ArtifactError(
            "The certificate cannot be read." if missing else "The certificate is damaged.",
            where=str(path),
            found=_damage(error),
            expected="a certificate as deploykit verify-reparam --certificate writes it",
        ) from error


def _damage(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no field {error}" if isinstance(error, KeyError) else str(error)


def rendered(record: dict[str, Any]) -> str:
    """Return the text of a sealed certificate: its head indented, then one line for each block."""
    body = record["body"]
    head = json.dumps({**record, "body": {**body, "blocks": []}}, indent=2, sort_keys=True, allow_nan=False)
    blocks = [json.dumps(block, sort_keys=True, allow_nan=False) for block in body["blocks"]]
    lines = '"blocks": [\n      ' + ",\n      ".join(blocks) + "\n    ]" if blocks else _BLOCKS
    return head.replace(_BLOCKS, lines, 1) + "\n"


@functools.cache
def _hints(record: type) -> dict[str, Any]:
    return typing.get_type_hints(record)


def _decoded(kind: Any, value: Any, where: str) -> Any:
    """Return the JSON ``value`` as the type ``kind``; raises TypeError, naming the place, where it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:
        return None if value is None else _decoded(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_decoded(arguments[0], one, f"{where}[{index}]") for index, one in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _decoded(arguments[1], one, f"{where}.{key}") for key, one in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        hints = _hints(kind)
        if hints.keys() != value.keys():
            raise TypeError(f"{where}: missing or unknown fields {', '.join(sorted(hints.keys() ^ value.keys()))}")
        return kind(**{key: _decoded(hints[key], one, f"{where}.{key}") for key, one in value.items()})
    if kind is float and not isinstance(value, bool):
        if isinstance(value, (int, float)):
            return float(value)
        if value in ("inf", "-inf", "nan"):
            return math.nan if value == "nan" else float(value)
    elif kind in (int, str, bool) and type(value) is kind:
        return value
    raise TypeError(f"{where}: {type(value).__name__} instead of {getattr(kind, '__name__', kind)}")
