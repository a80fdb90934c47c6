"""The tables of ``deploykit inspect``, readable at a hundred columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from deploykit.graph.conventions import CONVENTIONS, Kind
from deploykit.graph.cost import MEMORY_ASSUMPTIONS, GraphCost, LayerCost
from deploykit.inspection import FileInspection, NetworkInspection
from deploykit.inspection.records import InputContract
from deploykit.records import PassReport
from deploykit.vocab import Convention

_SHOWN_MODULES = 3


def of_network(one: NetworkInspection, layers: int) -> Iterator[RenderableType]:
    """Yield what to print about a network, with so many of its largest ``layers``."""
    yield f"{one.recipe}: {one.description}"
    yield _weights(one)
    shapes = ", ".join(f"{name} {_shape(shape)}" for name, shape in one.cost.input_shapes.items())
    yield f"\nCost at {shapes}, in the convention {one.convention}"
    yield _costs(one)
    yield from _explained(one)
    if layers:
        yield f"\nLayers of the {one.detailed.name} with the largest share of {one.convention}"
        yield _largest(one, layers)
    yield f"\nOperations that make {', '.join(one.detailed.outputs)}"
    yield _operations(one)
    yield "\nFolded and merged"
    yield _passes(one.passes)
    if one.ranges:
        yield "\nRanges of channels, the largest by the median one, of weights and of what the layer gives"
        yield _ranges(one)
    yield "\nInputs"
    yield _inputs(one)
    yield "\nOutputs"
    yield _outputs(one)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(escape(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in cells))


def _shape(shape: Sequence[int | str] | None) -> str:
    return "?" if shape is None else "x".join(str(size) for size in shape)


def _weights(one: NetworkInspection) -> str:
    if one.checkpoint is None:
        return "weights: fresh ones, since there is no checkpoint; costs depend on shapes alone"
    return f"weights: {one.checkpoint.name}, sha256 {(one.checkpoint_sha256 or '')[:12]}"


def _costs(one: NetworkInspection) -> Table:
    columns = ("form", "outputs", "parameters", str(one.convention), "peak activations")
    table = _table(*columns, right=columns[2:])
    for form in one.cost.forms:
        peak = f"{form.cost.peak.size_bytes / 1e6:.3f} MB"
        _row(table, form.name, ", ".join(form.outputs), form.cost.parameters, form.cost.macs[one.convention], peak)
    return table


def _explained(one: NetworkInspection) -> Iterator[str]:
    form, cost = one.detailed, one.detailed.cost
    yield from _convention(one.convention)
    yield from _missing(cost.not_counted[one.convention], cost.unknown, f"in the {form.name}")
    unread = one.cost.parameters - one.cost.forms[0].cost.parameters
    if unread:
        yield f"{unread:,} more parameters are in the network, and no output needs them."
    yield f"The peak of the {form.name} is at {cost.peak.module} ({cost.peak.operation}). {MEMORY_ASSUMPTIONS}"


def _convention(convention: Convention) -> Iterator[str]:
    rules = CONVENTIONS[convention]
    yield f"{convention} counts {rules.meaning}. 1 multiply-accumulate counts 1. Source: {rules.source}."


def _missing(not_counted: dict[str, int], unknown: dict[str, int], where: str) -> Iterator[str]:
    if not_counted:
        yield f"Not counted {where}: {_listed(not_counted)}."
    if unknown:
        yield f"A LOWER BOUND: how much these compute is not known: {_listed(unknown)}."


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _largest(one: NetworkInspection, number: int) -> Table:
    cost, convention = one.detailed.cost, one.convention
    table = _table("module", "operations", str(convention), "share", right=(str(convention), "share"))
    total = cost.macs[convention] or 1
    largest = cost.largest(convention, number)
    for layer in largest:
        macs = layer.macs[convention]
        _row(table, layer.module, ", ".join(layer.operations), macs, f"{macs / total:.1%}")
    rest = [layer.macs[convention] for layer in _others(cost.layers, largest) if layer.macs[convention]]
    if rest:
        table.add_section()
        _row(table, f"{len(rest)} others", "", sum(rest), f"{sum(rest) / total:.1%}")
    return table


def _others(layers: Sequence[LayerCost], shown: Sequence[LayerCost]) -> Iterator[LayerCost]:
    names = {layer.module for layer in shown}
    return (layer for layer in layers if layer.module not in names)


def _operations(one: NetworkInspection) -> Table:
    before, after = (one.cost.form(merged=merged, every_output=False) for merged in (False, True))
    columns = ("operation", f"in {one.convention}", before.name, after.name)
    table = _table(*columns, right=columns[2:])
    counts = _by_name(before.cost), _by_name(after.cost)
    kinds = {item.name: item.kind for item in (*before.cost.operations, *after.cost.operations)}
    for name in sorted(kinds, key=lambda name: -max(found[name] for found in counts)):
        _row(table, name, _role(kinds[name], one.convention), *(found[name] for found in counts))
    return table


def _by_name(cost: GraphCost) -> Counter[str]:
    return Counter({item.name: item.count for item in cost.operations})


def _role(kind: Kind, convention: Convention) -> str:
    if kind in CONVENTIONS[convention].rules:
        return "counted"
    return str(kind) if kind in (Kind.MOVE, Kind.UNKNOWN) else "not counted"


def _passes(reports: Sequence[PassReport]) -> Table:
    table = _table("pass", "done", "left alone", "what was done, or why not", right=("done", "left alone"))
    for report in reports:
        # Details go on with numbers of the single place.
        done = Counter(fired.detail.partition(",")[0] for fired in report.fired)
        rows: list[tuple[object, object, str]] = [(count, "", detail) for detail, count in done.most_common()]
        for reason, count in sorted(report.reasons().items(), key=lambda item: -item[1]):
            rows.append(("", count, f"{reason} ({_places(report, reason)})"))
        for index, row in enumerate(rows or [(0, "", "nothing to do")]):
            _row(table, "" if index else report.name, *row)
        table.add_section()
    return table


def _places(report: PassReport, reason: str) -> str:
    where = [skip.module for skip in report.skipped if skip.reason == reason]
    more = f" and {len(where) - _SHOWN_MODULES} more" if len(where) > _SHOWN_MODULES else ""
    return ", ".join(where[:_SHOWN_MODULES]) + more


def _ranges(one: NetworkInspection) -> Table:
    columns = ("layer", "operation", "channels", "dead", "weights", "activations")
    table = _table(*columns, right=columns[2:])
    for item in one.ranges:
        given = "-" if item.activation_ratio is None else f"{item.activation_ratio:.1f}"
        _row(table, item.layer, item.operation, item.channels, item.dead, f"{item.weight_ratio:.1f}", given)
    return table


def _inputs(one: NetworkInspection) -> Table:
    table = _table("name", "shape", "dtype", "what it takes")
    for item in one.inputs:
        _row(table, item.name, _shape(item.shape), f"{item.dtype}, {item.layout}", _taken(item))
    return table


def _taken(item: InputContract) -> str:
    low, high = item.value_range
    if item.mean is None or item.scale is None:
        return f"values {low:g} to {high:g}" + (f": {item.feedback}" if item.feedback else "")
    mean, scale = (", ".join(f"{value:.6g}" for value in values) for values in (item.mean, item.scale))
    return f"{item.color_order} pixels {low:g} to {high:g}, {item.resize}, then (pixel - [{mean}]) * [{scale}]"


def _outputs(one: NetworkInspection) -> Table:
    table = _table("name", "shape", "classes", "exported", "what it says")
    for item in one.outputs:
        exported = "yes" if item.deployed else "no"
        _row(table, item.name, _shape(item.shape), ", ".join(item.classes) or "-", exported, item.meaning)
    return table


def of_file(one: FileInspection) -> Iterator[RenderableType]:
    """Yield what to print about an exported file."""
    contents = one.contents
    versions = ", ".join(f"{name} {version}" for name, version in contents.versions.items())
    system = f"; runs on {contents.minimum_os} and later" if contents.minimum_os else ""
    yield f"{contents.path}\n{contents.target}, {contents.size_bytes:,} bytes, {versions}{system}"
    yield _origin(one)
    if one.macs is None:
        yield f"\n{one.convention}: not counted in a file, since {one.why_no_macs}."
    else:
        yield f"\n{one.convention}: {one.macs:,}"
        yield from _convention(one.convention)
        yield from _missing(one.not_counted, one.unknown, "in this file")
    yield "\nInputs and outputs"
    yield _tensors(one)
    yield f"\nOperations: {sum(contents.operations.values())}, of them {contents.transposes} transposes"
    yield _file_operations(one)
    yield "\nQuantised or compressed: " + (_listed(contents.quantized) or "nothing")
    yield "\nConstants in the file, and tensors that it computes, by dtype"
    yield _numbers(one)
    if contents.metadata:
        yield "\nWhat the file says of itself"
        table = _table("key", "text")
        for key, text in contents.metadata.items():
            _row(table, key, text)
        yield table


def _origin(one: FileInspection) -> str:
    if one.recipe is None:
        return "no manifest of deploykit describes it: where it comes from is not known"
    if one.changed:
        return f"exported from the recipe {one.recipe}, but CHANGED since: {', '.join(one.changed)}"
    return f"exported from the recipe {one.recipe}, {'verified' if one.verified else 'NOT verified'}, unchanged since"


def _tensors(one: FileInspection) -> Table:
    table = _table("", "name", "shape", "dtype", "what the file says of it")
    for kind, tensors in (("in", one.contents.inputs), ("out", one.contents.outputs)):
        for item in tensors:
            dtype = item.dtype + (f", {item.color_order}" if item.color_order else "")
            _row(table, kind, item.name, _shape(item.shape), dtype, item.meaning or "-")
    return table


def _file_operations(one: FileInspection) -> Table:
    table = _table("operation", f"in {one.convention}", "count", right=("count",))
    roles = {operation.name: _role(operation.kind, one.convention) for operation in one.contents.work}
    for name, count in one.contents.operations.items():
        _row(table, name, "-" if one.macs is None else roles[name], count)
    return table


def _numbers(one: FileInspection) -> Table:
    columns = ("dtype", "constants", "their values", "their bytes", "tensors computed")
    table = _table(*columns, right=columns[1:])
    constants = {item.dtype: item for item in one.contents.weights}
    for dtype in {**constants, **one.contents.computed}:
        item = constants.get(dtype)
        sizes = (item.tensors, item.values, item.size_bytes) if item else (0, 0, 0)
        _row(table, dtype, *sizes, one.contents.computed.get(dtype, 0))
    return table
