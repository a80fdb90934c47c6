"""The program of a Core AI asset as Apple's compiler holds it: read, named alike each time, copied with more outputs.

Loading damaged bytecode ends the whole process, so that only a process of its own may load a file: ``child``.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from coreai._compiler.ir import Attribute, Module, RankedTensorType, StringAttr
from coreai.authoring import AIModelAsset, AIProgram
from coreai.authoring.context import Context

from deploykit.targets.coreai.program import ENTRY, Program, ProgramOperation, Value

_PRIVATE = "priv"
_PREFIXES = ("coreai.", "decomposable.")
_DTYPES = {"f": "float", "bf": "bfloat", "si": "int", "i": "int", "ui": "uint"}
_DTYPE = re.compile(r"(bf|f|si|ui|i)(\d+)")
_SYMBOL = re.compile(r"@([\w$.-]+)")
_COMPOSITE = re.compile(r'composite_declaration<"([^"]+)"')
# Where a weight is used, and where its bytes are written.
_RESOURCE = re.compile(r"(dense_resource<|^ +)(resource_\d+)(?=>|: \")", re.MULTILINE)
_RANDOM_SUFFIX = re.compile(r"_[a-z]{8}$")
# What the location of the last operation made of one node says: which node, and that its output is this one.
_SOURCE = re.compile(r'"sources": \[\{id = \d+ : ui64, identifiers = \["([^"]+)"\]')
_OUTPUT_MAP = '"output_maps"'


def load_program(path: Path) -> Any:
    """Return the ``AIProgram`` of the asset at ``path``. Damaged bytecode ends the process."""
    return AIModelAsset.load(path).program


def program_text(program: Any) -> str:
    """Return the whole ``program`` as text, weights included, without what says where an operation came from."""
    return str(program._module._mlir_module.operation.get_asm(enable_debug_info=False))


def with_own_names(program: Any) -> Any:
    """Return ``program`` with its private graphs and its weights numbered in order.

    The converter gives the graphs random names, and calls the weights after a hash that differs in each process.
    """
    _number_graphs(program)
    text = program._module._mlir_module.operation.get_asm(enable_debug_info=True)
    numbers: dict[str, int] = {}
    named = _RESOURCE.sub(lambda found: f"{found[1]}resource_{numbers.setdefault(found[2], len(numbers))}", text)
    return AIProgram._from_mlir_module(Module.parse(named, Context()._mlir_context))


def _number_graphs(program: Any) -> None:
    counts: Counter[str] = Counter()
    names = {}
    for graph in _graphs(program).values():
        if _PRIVATE in graph.attributes:
            stem = _RANDOM_SUFFIX.sub("", graph.symbol_name)
            names[graph.symbol_name] = f"{stem}_{counts[stem]}"
            counts[stem] += 1
    for graph in _graphs(program).values():
        graph.attributes["sym_name"] = StringAttr.get(names.get(graph.symbol_name, graph.symbol_name), graph.context)
        for operation in _flat(graph.entry_block):
            if operation.name == "coreai.invoke":
                callee = names.get(_callee(operation), _callee(operation))
                operation.attributes["callee"] = Attribute.parse(
                    f"#param.constant<@{callee}> : !param.symbol", operation.context
                )


def describe(program: Any, system: str | None) -> Program:
    """Return what the function that ``program``, made for ``system`` and later, is run through holds."""
    graphs = _graphs(program)
    name, public = _entry(graphs)
    return _Reader(graphs).program(name, public, system)


def _entry(graphs: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the name of the function that is run, and of all that can be."""
    public = tuple(name for name, graph in graphs.items() if _PRIVATE not in graph.attributes)
    return ENTRY if ENTRY in graphs else public[0], public


def named_values(program: Any) -> tuple[Any, dict[Any, str], dict[Any, str]]:
    """Return the function that is run, value → name as ``describe`` has it, and value → the operation that makes it."""
    graphs = _graphs(program)
    name, public = _entry(graphs)
    reader = _Reader(graphs)
    reader.program(name, public, None)
    operations = graphs[name].entry_block.operations
    kinds = {result: reader.kind(operation) for operation in operations for result in operation.results}
    return graphs[name], reader.names, kinds


def expose(program: Any, name: str = ENTRY, only: Collection[str] | None = None) -> tuple[str, ...]:
    """Make every number that the function ``name`` of ``program`` computes one of its outputs; return their names.

    The outputs that it had keep their names; the others are called as ``describe`` calls the values, and are ``only``
    those where some are named.
    """
    graph = _graphs(program)[name]
    numbers = _Reader({})
    numbers.inputs(graph)
    found: OrderedDict[str, Any] = OrderedDict(graph.outputs_spec)
    added = []
    for operation in graph.entry_block.operations:
        for result in operation.results:
            value = numbers.value(result)
            if only is not None and value.name not in only:
                continue
            if operation.name != "coreai.constant" and value.shape is not None and value.dtype != "bool":
                found[value.name] = result
                added.append(value.name)
    graph.entry_block.operations[len(graph.entry_block.operations) - 1].operation.erase()
    with program._module._context, graph.location:
        graph.set_outputs_spec_from_dict(found)
    return tuple(added)


class _Reader:
    """Gives each value of one function a name, in the order in which they are made."""

    def __init__(self, graphs: dict[str, Any]) -> None:
        self._graphs = graphs
        self.names: dict[Any, str] = {}

    def inputs(self, graph: Any) -> tuple[Value, ...]:
        names = [str(item["coreai.name"].value) for item in graph.arg_attrs]
        self.names.update(zip(graph.arguments, names, strict=True))
        return tuple(self.value(argument) for argument in graph.arguments)

    def value(self, value: Any) -> Value:
        name = self.names.setdefault(value, f"v{len(self.names)}")
        return Value(name, *_type(value.type))

    def program(self, name: str, functions: tuple[str, ...], system: str | None) -> Program:
        graph = self._graphs[name]
        inputs = self.inputs(graph)
        operations = tuple(self._operations(graph.entry_block))
        outputs = {outside: self.value(value).name for outside, value in graph.outputs_spec}
        return Program(name, inputs, outputs, operations, functions, system)

    def _operations(self, block: Any, nested: bool = False) -> Iterator[ProgramOperation]:
        for operation in block.operations:
            if operation.name != "coreai.output":
                yield self._operation(operation, nested)
            for region in operation.operation.regions:
                for inner in region.blocks:
                    yield from self._operations(inner, nested=True)

    def _operation(self, operation: Any, nested: bool) -> ProgramOperation:
        attributes = {item.name: item.attr for item in operation.attributes}
        stored = attributes.pop("value", None) if operation.name == "coreai.constant" else None
        location = str(operation.location)
        # What was fused into an operation is noted before its own node.
        sources = _SOURCE.findall(location)
        return ProgramOperation(
            name=self.kind(operation),
            operands=tuple(self.value(operand).name for operand in operation.operands),
            results=tuple(self.value(result) for result in operation.results),
            attributes={key: str(value) for key, value in attributes.items()},
            origin=sources[-1] if sources and _OUTPUT_MAP in location else "",
            splat=bool(getattr(stored, "is_splat", False)),
            nested=nested,
        )

    def kind(self, operation: Any) -> str:
        """Return the kind of ``operation``; that of a call is the operation that the called graph is made of."""
        if operation.name == "coreai.invoke" and (called := self._graphs.get(_callee(operation))) is not None:
            composite = _COMPOSITE.search(str(called.attributes["composite_decl"])) if _is_composite(called) else None
            return composite[1] if composite else _callee(operation)
        name = str(operation.name)
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        return name


def _graphs(program: Any) -> dict[str, Any]:
    operations = program._module._mlir_module.body.operations
    return {one.symbol_name: one for one in operations if one.operation.name == "coreai.graph"}


def _flat(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for region in operation.operation.regions:
            for inner in region.blocks:
                yield from _flat(inner)


def _callee(operation: Any) -> str:
    found = _SYMBOL.search(str(operation.attributes["callee"]))
    return found[1] if found else ""


def _is_composite(graph: Any) -> bool:
    return "composite_decl" in graph.attributes


def _type(kind: Any) -> tuple[str, tuple[int | None, ...] | None]:
    """Return the name of the dtype and the shape of a tensor; the text of the type, and None, of anything else."""
    if not RankedTensorType.isinstance(kind):
        return str(kind), None
    tensor = RankedTensorType(kind)
    shape = tuple(
        None if tensor.is_dynamic_dim(axis) else int(tensor.get_dim_size(axis)) for axis in range(tensor.rank)
    )
    return _dtype(str(tensor.element_type)), shape


def _dtype(text: str) -> str:
    known = _DTYPE.fullmatch(text)
    if not known:
        return text
    return "bool" if text == "i1" else f"{_DTYPES[known[1]]}{known[2]}"
