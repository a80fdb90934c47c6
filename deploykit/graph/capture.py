"""Capture: an evaluated network becomes a graph of functional ATen operations with float64 weights."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from deploykit.chatter import contained
from deploykit.errors import CaptureError, VerificationError
from deploykit.graph.graph import Graph, aten, constant, module_path, stamp, tidy
from deploykit.vocab import TensorSpec

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def modules_in_training(network: nn.Module) -> tuple[str, ...]:
    """Return the paths of the modules of ``network`` that are in training mode and would behave differently."""
    sensitive = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._InstanceNorm)
    return tuple(
        path or "(root)"
        for path, module in network.named_modules()
        # The user's own modules may read ``training``; torch's others do not.
        if module.training and (isinstance(module, sensitive) or not type(module).__module__.startswith("torch.nn."))
    )


def capture(
    network: nn.Module, examples: Sequence[Tensor], inputs: Sequence[TensorSpec], outputs: Sequence[str]
) -> Graph:
    """Return the graph of ``network`` in evaluation mode on float32 ``examples``, its weights cast to float64.

    ``network`` is left untouched. ``outputs`` names the tensors that it returns, in order.

    Raises:
        VerificationError: a module is in training mode.
        CaptureError: ``torch.export`` cannot follow the network, or it returns something else than announced.
    """
    training = modules_in_training(network)
    if training:
        raise VerificationError(
            "The network is in training mode: BatchNorm would use batch statistics, and dropout would be active.",
            where=", ".join(training[:10]) + (f" and {len(training) - 10} more" if len(training) > 10 else ""),
            expected="every module in evaluation mode",
            next_step="call .eval() on the network before handing it over",
        )
    with _quiet():
        try:
            exported = torch.export.export(network, tuple(examples), strict=False)
            module = exported.run_decompositions({}).module(check_guards=False)
        except Exception as error:
            raise CaptureError(
                "The network cannot be captured as a graph.",
                where=f"{type(network).__name__}, with inputs "
                + ", ".join("x".join(str(side) for side in example.shape) for example in examples),
                found=_first_lines(error),
                expected="a forward that torch.export can follow with these input shapes",
                next_step=_way_out(network),
            ) from error
    assert isinstance(module, fx.GraphModule)
    module.graph.set_codegen(fx.graph.CodeGen())
    module = fx.GraphModule(module, module.graph)  # leaves the exporter's hooks and tree specifications behind
    _drop_assertions(module)
    _restore_batch_norm(module)
    _flatten_outputs(module, outputs, type(network).__name__)
    tidy(module)
    _pin_promotions(module)
    _cast(module, torch.float64)
    return Graph(module, tuple(inputs), tuple(outputs))


def cast_graph(graph: Graph, dtype: torch.dtype) -> Graph:
    """Return a copy of ``graph`` whose weights and arithmetic are ``dtype``."""
    copied = graph.copy()
    _cast(copied.module, dtype)
    return copied


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.export warns about its own code, and prints about an error that we report ourselves."""
    with contained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _way_out(network: nn.Module) -> str:
    multiple = getattr(network, "size_multiple", None)
    if isinstance(multiple, int):
        return f"give an input whose height and width are multiples of {multiple}; see the cause with --verbose"
    return "check the input size and make control flow independent of tensor values; see the cause with --verbose"


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + (" ".join(lines[:3])[:400] if lines else "no message")


def _drop_assertions(module: fx.GraphModule) -> None:
    """Drop the assertions about dtype and layout, which capture has settled: they would keep dead code alive."""
    for node in module.graph.find_nodes(op="call_function", target=aten._assert_tensor_metadata.default):
        module.graph.erase_node(node)


def _restore_batch_norm(module: fx.GraphModule) -> None:
    """Write each decomposed evaluation BatchNorm as ``aten.batch_norm``, the form with one output."""
    graph = module.graph
    target = aten._native_batch_norm_legit_no_training.default
    for node in [n for n in graph.nodes if n.op == "call_function" and n.target is target]:
        x, gamma, beta, mean, var, momentum, eps = node.args
        with graph.inserting_before(node):
            call = graph.call_function(
                aten.batch_norm.default, (x, gamma, beta, mean, var, False, momentum, eps, False)
            )
        for reader in list(node.users):
            if reader.target is operator.getitem and reader.args[1] == 0:
                stamp(call, reader)
                reader.replace_all_uses_with(call)
                graph.erase_node(reader)


def _flatten_outputs(module: fx.GraphModule, names: Sequence[str], network: str) -> None:
    """Make the graph return a flat tuple of tensors, one per name."""
    node = next(n for n in module.graph.nodes if n.op == "output")
    leaves, _ = torch.utils._pytree.tree_flatten(node.args[0])
    tensors = [leaf for leaf in leaves if isinstance(leaf, fx.Node)]
    if len(tensors) != len(leaves) or len(tensors) != len(names):
        raise CaptureError(
            "The network does not return what its recipe announces.",
            where=network,
            found=f"{len(leaves)} results, {len(tensors)} of them tensors",
            expected=f"{len(names)} tensors: {', '.join(names)}",
            next_step="list every tensor that forward returns under [[outputs]], in order; deploy = false drops one",
        )
    node.args = (tuple(tensors),)


def _cast(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Cast every floating weight, every floating dtype argument and every recorded value of ``module`` in place."""
    for holder in module.modules():
        for name, parameter in holder._parameters.items():
            if parameter is not None and parameter.dtype in _FLOATS:
                holder._parameters[name] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
        for name, buffer in holder._buffers.items():
            if buffer is not None and buffer.dtype in _FLOATS:
                holder._buffers[name] = buffer.to(dtype)
        for name, value in list(vars(holder).items()):
            if isinstance(value, Tensor) and value.dtype in _FLOATS:
                setattr(holder, name, value.to(dtype))
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.args = tuple(dtype if arg in _FLOATS else arg for arg in node.args)
            node.kwargs = {key: dtype if arg in _FLOATS else arg for key, arg in node.kwargs.items()}
            _pin_factory_dtype(node, dtype)
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.dtype in _FLOATS:
            node.meta["val"] = value.to(dtype)
    module.recompile()


def _pin_promotions(module: fx.GraphModule) -> None:
    """Cast the integers of an operation that makes floats of them, which would take the default dtype at run time."""
    graph = module.graph
    for node in graph.nodes:
        value, reads = node.meta.get("val"), [source.meta.get("val") for source in node.all_input_nodes]
        floats = isinstance(value, Tensor) and value.dtype in _FLOATS
        if (
            node.op != "call_function"
            or not floats
            or any(arg in _FLOATS for arg in (*node.args, *node.kwargs.values()))
        ):
            continue
        if not reads or any(isinstance(read, Tensor) and read.dtype in _FLOATS for read in reads):
            continue
        for source, read in zip(node.all_input_nodes, reads, strict=True):
            if isinstance(read, Tensor) and read.dtype in _INTEGERS:
                with graph.inserting_before(node):
                    made = graph.call_function(aten._to_copy.default, (source,), {"dtype": value.dtype})
                made.meta = {**node.meta, "val": read.to(value.dtype)}
                node.replace_input_with(source, made)


def _pin_factory_dtype(node: fx.Node, dtype: torch.dtype) -> None:
    """Give a floating tensor that is made from nothing (linspace, ones) an explicit dtype, not the default one."""
    schema = getattr(node.target, "_schema", None)
    value = node.meta.get("val")
    if schema is None or node.all_input_nodes or not isinstance(value, Tensor) or value.dtype not in _FLOATS:
        return
    if any(argument.name == "dtype" and argument.kwarg_only for argument in schema.arguments):
        node.kwargs = {**node.kwargs, "dtype": dtype}


def active_in_training(graph: Graph) -> tuple[str, ...]:
    """Return the modules of ``graph`` that were captured with training behaviour: batch statistics or dropout."""
    found = []
    for node in graph.module.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target)
        if name.startswith(("aten.native_dropout", "aten.bernoulli", "aten._native_batch_norm_legit.")) or (
            node.target is aten.dropout.default and node.args[2]
        ):
            found.append(module_path(node))
    return tuple(found)


def weights(graph: Graph) -> dict[str, Tensor]:
    """Return path → tensor of every weight that a node of ``graph`` reads."""
    found: dict[str, Tensor] = {}
    for node in graph.module.graph.nodes:
        value = constant(graph.module, node)
        if value is not None:
            found[str(node.target)] = value
    return found
