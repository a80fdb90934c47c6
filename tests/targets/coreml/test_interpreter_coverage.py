"""Every operation that coremltools can write is known to the interpreter and has a case, or is refused for a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import test_interpreter_boxes
import test_interpreter_compressed
import test_interpreter_conv
import test_interpreter_elementwise
import test_interpreter_index
import test_interpreter_linear
import test_interpreter_pool
import test_interpreter_reduce
import test_interpreter_resample
import test_interpreter_resize
import test_interpreter_shape
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from interpreter_programs import Case, check, save_program

from deploykit.errors import TargetError
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.targets.coreml.interpreter.table import OPERATIONS

MODULES: tuple[ModuleType, ...] = (
    test_interpreter_boxes,
    test_interpreter_compressed,
    test_interpreter_conv,
    test_interpreter_elementwise,
    test_interpreter_index,
    test_interpreter_linear,
    test_interpreter_pool,
    test_interpreter_reduce,
    test_interpreter_resample,
    test_interpreter_resize,
    test_interpreter_shape,
)

# What PyTorch's front-end and coremltools' passes write for networks that see, by what it serves.
EMITTED_FOR_VISION: dict[str, tuple[str, ...]] = {
    "convolution and pooling": ("avg_pool", "conv", "conv_transpose", "max_pool"),
    "normalisation": ("batch_norm", "instance_norm", "layer_norm", "reduce_l2_norm", "rsqrt", "sqrt", "square"),
    "activation": (
        "clip", "elu", "erf", "exp", "gelu", "leaky_relu", "linear_activation", "prelu", "relu", "relu6", "sigmoid",
        "sigmoid_hard", "silu", "softmax", "softplus", "softplus_parametric", "softsign", "tanh", "threshold",
        "thresholded_relu",
    ),
    "arithmetic": (
        "abs", "add", "cast", "ceil", "cos", "exp2", "floor", "floor_div", "inverse", "log", "maximum", "minimum",
        "mod", "mul", "pow", "real_div", "round", "sign", "sin", "sub",
    ),
    "comparison": (
        "equal", "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_not", "logical_or",
        "logical_xor", "not_equal", "select",
    ),
    "resizing": (
        "affine", "crop", "pixel_shuffle", "pixel_unshuffle", "resample", "resize", "resize_bilinear",
        "resize_nearest_neighbor", "upsample_bilinear", "upsample_nearest_neighbor",
    ),
    "shape": (
        "band_part", "batch_to_space", "concat", "depth_to_space", "expand_dims", "fill", "fill_like", "identity",
        "one_hot", "pad", "range_1d", "reshape", "reshape_like", "reverse", "shape", "slice_by_index", "slice_by_size",
        "slice_update", "space_to_batch", "space_to_depth", "split", "squeeze", "stack", "tile", "transpose",
    ),
    "indexing": (
        "gather", "gather_along_axis", "gather_nd", "non_zero", "scatter", "scatter_along_axis", "scatter_nd",
        "sliding_windows",
    ),
    "reduction": (
        "argsort", "cumsum", "reduce_argmax", "reduce_argmin", "reduce_max", "reduce_mean", "reduce_min",
        "reduce_prod", "reduce_sum", "topk",
    ),
    "attention": ("einsum", "linear", "matmul", "scaled_dot_product_attention"),
    "detection": ("crop_resize", "non_maximum_suppression"),
    "compression": (
        "constexpr_affine_dequantize", "constexpr_blockwise_shift_scale", "constexpr_cast", "constexpr_lut_to_dense",
        "constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense", "dequantize",
        "quantize",
    ),
}  # fmt: skip

# What is refused by its name, and why.
REFUSED = {
    "control flow": ("cond", "while_loop"),
    "lists, which only control flow fills": (
        "list_gather", "list_length", "list_read", "list_scatter", "list_write", "make_list",
    ),
    "a state that outlives a call": ("read_state",),
    "recurrence, which vision networks do not use": ("gru", "lstm", "rnn"),
    "random numbers: no reference could agree": (
        "random_bernoulli", "random_categorical", "random_normal", "random_uniform",
    ),
    "an answer that is no tensor": ("classify",),
    "an experiment of coremltools that no converter writes": ("conv_quantized",),
    "no operation that runs": ("_const_symbolic", "const"),
}  # fmt: skip


def _all(table: dict[str, tuple[str, ...]]) -> set[str]:
    return {name for names in table.values() for name in names}


def test_what_coremltools_can_write_is_known_or_refused() -> None:
    known, refused = set(OPERATIONS), _all(REFUSED)
    assert not known & refused
    assert set(SSAOpRegistry.core_ops) == known | refused


def test_what_vision_networks_hold_is_known() -> None:
    assert _all(EMITTED_FOR_VISION) <= set(OPERATIONS)


CASES = [case for module in MODULES for case in module.CASES]
OPSETS = ("iOS15", "iOS16", "iOS17", "iOS18")
# Operations whose later form only takes more types: their first case serves again.
LATER_FORMS = {
    "iOS16": ("gather_along_axis", "resample"),
    "iOS17": (
        "batch_norm", "clip", "expand_dims", "instance_norm", "inverse", "l2_norm", "layer_norm",
        "local_response_norm", "log", "matmul", "reduce_argmax", "reduce_argmin", "resample", "reshape_like", "reverse",
        "reverse_sequence", "rsqrt", "scatter", "scatter_along_axis", "scatter_nd", "slice_by_index", "slice_by_size",
        "sliding_windows", "squeeze", "transpose",
    ),
    "iOS18": ("constexpr_cast",),
}  # fmt: skip
AGAIN = [
    replace(next(case for case in CASES if case.operation == name), target=target)
    for target, names in LATER_FORMS.items()
    for name in names
]


@pytest.mark.parametrize("case", AGAIN, ids=lambda case: f"{case}-{case.target}")
def test_the_later_form_of_an_operation_equals_the_same_reference(case: Case) -> None:
    check(case)


def test_every_form_of_every_known_operation_has_a_case() -> None:
    forms = SSAOpRegistry.core_ops
    opsets = [getattr(ct.target, name) for name in OPSETS]
    wanted = {(name, forms[name][opset]) for name in OPERATIONS for opset in opsets if opset in forms[name]}
    assert {
        (case.operation, forms[case.operation][getattr(ct.target, case.target)]) for case in CASES + AGAIN
    } == wanted


def test_everything_unknown_is_named_at_once(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        noise = mb.random_normal(shape=[2, 3])
        state = np.zeros((2, 3), np.float32)
        cell = mb.gru(
            x=mb.expand_dims(x=x, axes=[1]),
            initial_h=state[:1],
            weight_ih=np.zeros((9, 3), np.float32),
            weight_hh=np.zeros((9, 3), np.float32),
        )
        branch = mb.cond(
            pred=mb.greater(x=mb.reduce_sum(x=x), y=0.0),
            _true_fn=lambda: mb.relu(x=x),
            _false_fn=lambda: mb.random_uniform(shape=[2, 3]),
        )
        return mb.add(x=noise, y=branch), cell[1]

    x = np.ones((2, 3), np.float32)
    interpreter = MilInterpreter(save_program(build, {"x": x}, tmp_path / "odd.mlpackage", "iOS15"))
    expected = ("cond", "gru", "random_normal", "random_uniform")
    assert interpreter.unknown_operations() == expected
    assert [tensor.name for tensor in interpreter.inputs] == ["x"]
    with pytest.raises(TargetError) as caught:
        interpreter.run({"x": x})
    assert caught.value.found == ", ".join(expected)
    with pytest.raises(TargetError):
        next(iter(interpreter.trace({"x": x})))
