"""Rewrites of a TFLite file itself: the same values from fewer operations, and none where something else is meant."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from deploykit.chatter import contained
from deploykit.graph.capture import capture, cast_graph
from deploykit.graph.passes.pixel_shuffle_channels_last import pixel_shuffle_channels_last
from deploykit.targets.tflite.flatbuffer import operator_code, read_model, write_model
from deploykit.targets.tflite.inspection import read_contents
from deploykit.targets.tflite.rewriting import rewrite
from deploykit.targets.tflite.runtime import open_artifact

NAME = "depth_to_space_operator"
SHAPE = (2, 3, 4, 6)
CHANNELS = 5


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory) -> Callable[[int], Path]:
    """Return the file of a convolution and a pixel shuffle by a factor, the channels last inside it."""
    folder = tmp_path_factory.mktemp("shuffles")

    @cache
    def written(factor: int) -> Path:
        import litert_torch

        network = nn.Sequential(nn.Conv2d(3, CHANNELS * factor**2, 3, padding=1), nn.PixelShuffle(factor))
        graph = capture(network.eval(), [torch.zeros(SHAPE)], (), ["out"])
        graph = cast_graph(pixel_shuffle_channels_last(graph), torch.float32)
        path = folder / f"by_{factor}.tflite"
        with contained(), warnings.catch_warnings():
            # What the converter warns about is its own code.
            warnings.simplefilter("ignore")
            litert_torch.convert(graph.module.eval(), (torch.zeros(SHAPE),)).export(str(path))
        return path

    return written


def _copied(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    return copy


def _operations(path: Path) -> Counter[str]:
    return Counter(read_contents(path).operations)


def _computed(path: Path, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with open_artifact(path) as runtime:
        (taken,) = runtime.inputs
        (found,) = runtime.run({taken.name: x}).values()
    return found


@pytest.mark.parametrize("factor", [2, 3])
def test_a_pixel_shuffle_is_one_operation_that_moves_every_value_to_its_place(shuffled, factor, tmp_path):
    path = _copied(shuffled(factor), tmp_path)
    (report,) = rewrite(path, [NAME])
    assert len(report.fired) == 1
    before, after = _operations(shuffled(factor)), _operations(path)
    assert before - after == Counter({"RESHAPE": 2, "TRANSPOSE": 1})
    assert after - before == Counter({"DEPTH_TO_SPACE": 1})
    found = _computed(path)
    assert found.shape == (SHAPE[0], CHANNELS, factor * SHAPE[2], factor * SHAPE[3])
    assert np.array_equal(found, _computed(shuffled(factor)))
    # A second run finds nothing.
    (again,) = rewrite(path, [NAME])
    assert again.fired == ()


def _another_order(model, graph, shuffle):
    for tensor in graph.tensors:
        buffer = model.buffers[tensor.buffer]
        if buffer.data is not None and bytes(buffer.data) == np.array([0, 2, 1, 3], np.int32).tobytes():
            buffer.data = np.frombuffer(np.array([0, 1, 2, 3], np.int32).tobytes(), np.uint8)


def _read_elsewhere(model, graph, shuffle):
    graph.outputs = np.append(graph.outputs, shuffle[1].outputs[0]).astype(np.int32)


def _another_height(model, graph, shuffle):
    count, height, width, channels = (int(size) for size in graph.tensors[shuffle[2].outputs[0]].shape)
    graph.tensors[shuffle[2].outputs[0]].shape = np.array([count, width, height, channels], np.int32)


@pytest.mark.parametrize("change", [_another_order, _read_elsewhere, _another_height])
def test_what_is_no_pixel_shuffle_or_is_read_elsewhere_stays(shuffled, change, tmp_path):
    path = _copied(shuffled(2), tmp_path)
    model = read_model(path)
    (graph,) = model.subgraphs
    kinds = [model.operatorCodes[op.opcodeIndex].builtinCode for op in graph.operators]
    builtin = schema.BuiltinOperator
    place = next(
        i for i in range(len(kinds)) if kinds[i : i + 3] == [builtin.RESHAPE, builtin.TRANSPOSE, builtin.RESHAPE]
    )
    change(model, graph, graph.operators[place : place + 3])
    write_model(model, path)
    before = _operations(path)
    (report,) = rewrite(path, [NAME])
    assert report.fired == ()
    assert _operations(path) == before


def _transpose(model, graph, source: int, order: list[int]) -> int:
    """Append to ``graph`` a transpose of the tensor ``source``; return the tensor that it makes."""
    axes, made = schema.TensorT(), schema.TensorT()
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.array(order, np.int32).tobytes(), np.uint8)
    axes.name, axes.type, axes.shape = b"order", schema.TensorType.INT32, np.array([4], np.int32)
    axes.buffer = len(model.buffers)
    model.buffers.append(buffer)
    before = graph.tensors[source]
    made.name, made.type = before.name + b"/moved", before.type
    made.shape = np.array([int(before.shape[axis]) for axis in order], np.int32)
    graph.tensors += [axes, made]
    op = schema.OperatorT()
    op.opcodeIndex = operator_code(model, schema.BuiltinOperator.TRANSPOSE)
    op.inputs = np.array([source, len(graph.tensors) - 2], np.int32)
    op.outputs = np.array([len(graph.tensors) - 1], np.int32)
    op.builtinOptionsType, op.builtinOptions = (
        schema.BuiltinOptions.TransposeOptions, schema.TransposeOptionsT()
    )  # fmt: skip
    graph.operators.insert(1, op)
    return len(graph.tensors) - 1


@pytest.mark.parametrize(("second", "undone"), [([0, 1, 3, 2], True), ([0, 2, 1, 3], False)])
def test_a_transpose_that_undoes_the_one_before_is_passed_by(shuffled, second, undone, tmp_path):
    path = _copied(shuffled(2), tmp_path)
    model = read_model(path)
    graph = model.subgraphs[0]
    convolution = next(op for op in graph.operators if _is(model, op, schema.BuiltinOperator.CONV_2D))
    source = int(convolution.inputs[0])
    there = _transpose(model, graph, source, [0, 1, 3, 2])
    back = _transpose(model, graph, there, second)
    first, other = graph.operators[2], graph.operators[1]
    graph.operators[1], graph.operators[2] = first, other
    if undone:
        convolution.inputs = np.array([back, *convolution.inputs[1:]], np.int32)
    write_model(model, path)
    (report,) = rewrite(path, ["transpose_pairs"])
    assert len(report.fired) == (1 if undone else 0)
    assert np.array_equal(_computed(path), _computed(shuffled(2)))
    assert _operations(path) == _operations(shuffled(2))


def _is(model, op, kind: int) -> bool:
    code = model.operatorCodes[op.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode) == kind


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_grid_of_positions_is_stored_as_rows_and_columns(tmp_path, spoiled):
    import litert_torch

    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 64), indexing="ij")
    grid = torch.stack((columns, rows), dim=2)[None]
    if spoiled:
        grid[0, 7, 9, 0] += 1e-3
    path, shape = tmp_path / "moved.tflite", (1, 48, 64, 2)
    with contained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litert_torch.convert(_Moved(grid).eval(), (torch.zeros(shape),)).export(str(path))
    (tmp_path / "plain").mkdir()
    plain = _copied(path, tmp_path / "plain")
    (report,) = rewrite(path, ["constants_along_axes"])
    assert len(report.fired) == (0 if spoiled else 1)
    assert _operations(path)["ADD"] - _operations(plain)["ADD"] == (0 if spoiled else 1)
    found = _computed(path, shape)
    assert np.array_equal(found, _computed(plain, shape))
    assert (path.stat().st_size < plain.stat().st_size / 2) is not spoiled
    # Activations stay behind the last of the sums.
    assert found.min() == 0.0


class _Moved(nn.Module):
    def __init__(self, grid: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("grid", grid)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.grid)
