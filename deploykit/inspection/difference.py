"""Two exported files side by side: what one has more of than the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploykit.inspection.exported import inspect_file
from deploykit.inspection.records import FileInspection
from deploykit.vocab import Convention


@dataclass(frozen=True)
class Row:
    """One figure of both files; ``first`` and ``second`` are None where a file does not have it."""

    name: str
    first: int | None
    second: int | None

    @property
    def change(self) -> int | None:
        """How much more the second file has."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class FileDifference:
    """``figures`` in all and ``operations`` by name, the most changed first; ``texts`` that differ: name → both."""

    first: Path
    second: Path
    figures: tuple[Row, ...]
    operations: tuple[Row, ...]
    texts: dict[str, tuple[str, str]]

    @property
    def same(self) -> bool:
        """Whether nothing differs that is looked at: the values of the weights are not."""
        return not self.texts and all(row.change == 0 for row in (*self.figures, *self.operations))


def difference(first: Path | str, second: Path | str, convention: Convention = Convention.MACS) -> FileDifference:
    """Return how two exported files of any formats differ. Raises as ``inspect_file`` does."""
    one, other = inspect_file(first, convention), inspect_file(second, convention)
    names = {**one.contents.operations, **other.contents.operations}
    operations = [
        Row(name, one.contents.operations.get(name, 0), other.contents.operations.get(name, 0)) for name in names
    ]
    texts = {
        name: (a, b)
        for name, a, b in (
            (name, _texts(one).get(name, "-"), _texts(other).get(name, "-"))
            for name in dict.fromkeys((*_texts(one), *_texts(other)))
        )
        if a != b
    }
    ours, theirs = _figures(one), _figures(other)
    return FileDifference(
        first=one.contents.path,
        second=other.contents.path,
        figures=tuple(Row(name, ours.get(name), theirs.get(name)) for name in dict.fromkeys((*ours, *theirs))),
        operations=tuple(sorted(operations, key=lambda row: (-abs(row.change or 0), row.name))),
        texts=texts,
    )


def _figures(found: FileInspection) -> dict[str, int | None]:
    contents = found.contents
    values = {f"{one.dtype} weights, values": one.values for one in contents.weights}
    return {
        "bytes": contents.size_bytes,
        "operations": sum(contents.operations.values()),
        "transposes": contents.transposes,
        found.convention.value: found.macs,
        **values,
    }


def _texts(found: FileInspection) -> dict[str, str]:
    contents = found.contents
    shapes = {
        f"{kind} {item.name}": f"{item.dtype} {list(item.shape)}"
        for kind, items in (("input", contents.inputs), ("output", contents.outputs))
        for item in items
    }
    return {
        "target": contents.target.value,
        "minimum OS": contents.minimum_os or "-",
        **{f"version of {name}": value for name, value in contents.versions.items()},
        **shapes,
        **contents.metadata,
    }
