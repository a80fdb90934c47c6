from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from interpreter_programs import Case, check, random

X = random(2, 4, 6)
GENERATOR = np.random.default_rng(1)


def added(name: str, label: str, expected: Callable[[], Any], target: str, **parameters: Any) -> Case:
    """A program that adds the decompressed weight to its input."""

    def build(x: Any) -> Any:
        return mb.add(x=x, y=getattr(mb, name)(**parameters))

    return Case(name, label, build, {"x": X}, lambda: X + expected(), target)


def packed(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Numbers written one after the other into a stream of bits, the lowest bit of each first."""
    stream = [int(number) >> bit & 1 for number in numbers.reshape(-1) for bit in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return np.array(
        [sum(stream[start + bit] << bit for bit in range(8)) for start in range(0, len(stream), 8)], np.uint8
    )


SIGNED = GENERATOR.integers(-128, 128, (4, 6)).astype(np.int8)
UNSIGNED = GENERATOR.integers(0, 256, (4, 6)).astype(np.uint8)
SCALES = random(4, seed=2, low=0.01, high=0.1)
ZEROS = GENERATOR.integers(-20, 20, 4).astype(np.int8)
SIXTEEN, INDICES = random(16, seed=3), GENERATOR.integers(0, 16, (4, 6)).astype(np.uint8)
SIXTY_FOUR, WIDE = random(64, seed=4), GENERATOR.integers(0, 64, (4, 6)).astype(np.uint8)
SPARSE = np.where(random(4, 6, seed=5) > 0, random(4, 6, seed=6), 0).astype(np.float32)
MASK = (SPARSE != 0).astype(np.uint8)
BLOCK_SCALES, BLOCK_OFFSETS = random(2, 3, seed=7), GENERATOR.integers(-9, 9, (2, 3)).astype(np.int8)


def blocks(values: np.ndarray) -> np.ndarray:
    return np.kron(values, np.ones((2, 2), values.dtype))


def narrow(values: np.ndarray, kind: Any) -> np.ndarray:
    return values.astype(types.nptype_from_builtin(kind))


TWO_TABLES = random(2, 1, 4, 1, seed=8)
FOUR = GENERATOR.integers(0, 4, (4, 6)).astype(np.uint8)
VECTORS = random(1, 1, 2, 3, seed=9)
BITS = GENERATOR.integers(0, 2, (4, 2)).astype(np.uint8)


def _vectors() -> np.ndarray:
    return np.concatenate([np.concatenate([VECTORS[0, 0, bit] for bit in row])[None] for row in BITS])


def _joint(x: Any) -> Any:
    """Palettized and pruned at once: the table is applied to what the mask keeps."""
    mask, kept = mb.constexpr_lut_to_sparse(
        indices_mask=narrow(MASK, types.uint1),
        indices_nonzero_data=narrow(FOUR[MASK != 0], types.uint2),
        lut=TWO_TABLES[:1],
    )
    return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=kept, mask=mask))


def _sparse_quantized(x: Any) -> Any:
    mask, kept = mb.constexpr_sparse_blockwise_shift_scale(
        data_mask=narrow(MASK, types.uint1),
        nonzero_data=SIGNED[MASK != 0],
        scale=BLOCK_SCALES[:, :1],
        offset=BLOCK_OFFSETS[:, :1],
    )
    return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=kept, mask=mask))


def _sparse_reference() -> np.ndarray:
    scale, offset = (values[:, :1].repeat(2, 0) for values in (BLOCK_SCALES, BLOCK_OFFSETS))
    return np.where(MASK, (SIGNED - offset.astype(np.float32)) * scale, 0)


STEP = np.float32(0.05)


def _activation(label: str, kind: str, zero: Any, low: int, high: int) -> list[Case]:
    def stored() -> np.ndarray:
        return np.clip(np.round(X / STEP) + float(zero), low, high)

    def quantized(x: Any) -> Any:
        return mb.quantize(input=x, scale=STEP, zero_point=zero, output_dtype=kind)

    return [
        Case("quantize", label, lambda x: mb.cast(x=quantized(x), dtype="fp32"), {"x": X}, stored, "iOS17"),
        Case(
            "dequantize",
            label,
            lambda x: mb.dequantize(input=quantized(x), scale=STEP, zero_point=zero),
            {"x": X},
            lambda: (stored() - float(zero)) * STEP,
            "iOS17",
        ),
    ]


ROW_SCALES = random(6, seed=10, low=0.01, high=0.1)


def _palettized(bits: int) -> Case:
    """The form of iOS 16 and 17: one table, indices packed into bytes."""
    table = random(2**bits, seed=bits)
    indices = np.random.default_rng(bits).integers(0, 2**bits, (4, 6)).astype(np.uint8)
    return added(
        "constexpr_lut_to_dense",
        f"{bits} bits",
        lambda: table[indices],
        "iOS16",
        indices=packed(indices, bits),
        lut=table,
        shape=np.array([4, 6], np.uint32),
    )


def _scaled_table(x: Any) -> Any:
    """Palettized, and the table itself quantized: one constant made of another."""
    table = np.array([-100, 3, 50, 127], np.int8).reshape(1, 1, 4, 1)
    dense = mb.constexpr_lut_to_dense(indices=narrow(FOUR, types.uint2), lut=table)
    return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=dense, scale=SCALES[:, None]))


KEPT = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.uint8)
CHOSEN = np.array([1, 0, 0, 1], np.uint8)
PAIRS = random(1, 1, 2, 2, seed=14)


def _joint_vectors(x: Any) -> Any:
    mask, kept = mb.constexpr_lut_to_sparse(
        indices_mask=narrow(KEPT, types.uint1),
        indices_nonzero_data=narrow(CHOSEN, types.uint1),
        lut=PAIRS,
        vector_axis=0,
    )
    return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=kept, mask=mask))


def _joint_vectors_reference() -> np.ndarray:
    """Each kept index stands for two rows of its column."""
    out = np.zeros((8, 2), np.float32)
    for (row, column), index in zip(np.argwhere(KEPT), CHOSEN, strict=True):
        out[2 * row : 2 * row + 2, column] = PAIRS[0, 0, index]
    return out


ROWS = {"int8": ZEROS, "uint8": np.arange(100, 104).astype(np.uint8)}
DEQUANTIZED = [
    ("int8, per channel", SIGNED, ZEROS),
    ("uint8, per channel", UNSIGNED, ROWS["uint8"]),
    ("int8, no zero point", SIGNED, None),
]


def _dequantized(label: str, stored: np.ndarray, zero: np.ndarray | None) -> Case:
    """A stored tensor that is dequantized when the program runs, axis 0."""
    more = {} if zero is None else {"zero_point": zero}

    def build(x: Any) -> Any:
        return mb.add(x=x, y=mb.dequantize(input=stored, scale=SCALES, axis=0, **more))

    def expected() -> np.ndarray:
        shift = 0 if zero is None else zero.astype(np.float32)[:, None]
        return X + (stored.astype(np.float32) - shift) * SCALES[:, None]

    return Case("dequantize", label, build, {"x": X}, expected, "iOS17")


CASES = [
    added(
        "constexpr_affine_dequantize",
        "per tensor",
        lambda: (UNSIGNED.astype(np.float32) - 7) * np.float32(0.02),
        "iOS16",
        quantized_data=UNSIGNED,
        zero_point=np.uint8(7),
        scale=np.float32(0.02),
        axis=0,
    ),
    added(
        "constexpr_affine_dequantize",
        "per channel",
        lambda: (SIGNED.astype(np.float32) - ZEROS[:, None]) * SCALES[:, None],
        "iOS16",
        quantized_data=SIGNED,
        zero_point=ZEROS,
        scale=SCALES,
        axis=0,
    ),
    added(
        "constexpr_cast",
        "",
        lambda: random(4, 6, seed=2).astype(np.float16),
        "iOS16",
        source_val=random(4, 6, seed=2).astype(np.float16),
        output_dtype="fp32",
    ),
    added(
        "constexpr_lut_to_dense",
        "4 bits",
        lambda: SIXTEEN[INDICES],
        "iOS16",
        indices=packed(INDICES, 4),
        lut=SIXTEEN,
        shape=np.array([4, 6], np.uint32),
    ),
    added(
        "constexpr_lut_to_dense",
        "6 bits, across bytes",
        lambda: SIXTY_FOUR[WIDE],
        "iOS16",
        indices=packed(WIDE, 6),
        lut=SIXTY_FOUR,
        shape=np.array([4, 6], np.uint32),
    ),
    added(
        "constexpr_lut_to_dense",
        "a table for each group",
        lambda: np.stack([TWO_TABLES[row // 2, 0, FOUR[row], 0] for row in range(4)]),
        "iOS18",
        indices=narrow(FOUR, types.uint2),
        lut=TWO_TABLES,
    ),
    added(
        "constexpr_lut_to_dense",
        "vectors",
        _vectors,
        "iOS18",
        indices=narrow(BITS, types.uint1),
        lut=VECTORS,
        vector_axis=1,
    ),
    added(
        "constexpr_sparse_to_dense",
        "packed mask",
        lambda: SPARSE,
        "iOS16",
        nonzero_data=SPARSE[SPARSE != 0],
        mask=packed(MASK, 1),
        shape=np.array([4, 6], np.uint32),
    ),
    added(
        "constexpr_sparse_to_dense",
        "mask",
        lambda: SPARSE,
        "iOS18",
        nonzero_data=SPARSE[SPARSE != 0],
        mask=narrow(MASK, types.uint1),
    ),
    added(
        "constexpr_blockwise_shift_scale",
        "int8, blocks of 2x2",
        lambda: (SIGNED - blocks(BLOCK_OFFSETS).astype(np.float32)) * blocks(BLOCK_SCALES),
        "iOS18",
        data=SIGNED,
        scale=BLOCK_SCALES,
        offset=BLOCK_OFFSETS,
    ),
    added(
        "constexpr_blockwise_shift_scale",
        "int4",
        lambda: (FOUR.astype(np.float32) - 2) * blocks(BLOCK_SCALES),
        "iOS18",
        data=narrow(FOUR.astype(np.int8) - 2, types.int4),
        scale=BLOCK_SCALES,
    ),
    Case(
        "constexpr_lut_to_sparse",
        "",
        _joint,
        {"x": X},
        lambda: X + np.where(MASK, TWO_TABLES[0, 0, FOUR, 0], 0),
        "iOS18",
    ),
    Case(
        "constexpr_sparse_blockwise_shift_scale",
        "",
        _sparse_quantized,
        {"x": X},
        lambda: X + _sparse_reference(),
        "iOS18",
    ),
    *[_palettized(bits) for bits in (1, 2, 8)],
    added(
        "constexpr_lut_to_dense",
        "8 bits, iOS 18",
        lambda: random(256, seed=12)[UNSIGNED],
        "iOS18",
        indices=UNSIGNED,
        lut=random(256, seed=12).reshape(1, 1, 256, 1),
    ),
    added(
        "constexpr_lut_to_dense",
        "vectors along the last axis",
        lambda: VECTORS[0, 0][BITS[:, :2]].reshape(4, 6),
        "iOS18",
        indices=narrow(BITS, types.uint1),
        lut=VECTORS,
        vector_axis=-1,
    ),
    Case(
        "constexpr_lut_to_dense",
        "a table of 8-bit numbers, scaled",
        _scaled_table,
        {"x": X},
        lambda: X + (np.array([-100, 3, 50, 127])[FOUR] * SCALES[:, None]),
        "iOS18",
    ),
    added(
        "constexpr_blockwise_shift_scale",
        "uint4 with offset, one scale for each row",
        lambda: (FOUR - np.array([[1], [0], [3], [2]], np.float32)) * SCALES[:, None],
        "iOS18",
        data=narrow(FOUR, types.uint4),
        scale=SCALES[:, None],
        offset=narrow(np.array([[1], [0], [3], [2]], np.uint8), types.uint4),
    ),
    added(
        "constexpr_blockwise_shift_scale",
        "uint8, offset a fraction",
        lambda: (UNSIGNED - np.float32(127.5)) * np.float32(0.01),
        "iOS18",
        data=UNSIGNED,
        scale=np.full((1, 1), 0.01, np.float32),
        offset=np.full((1, 1), 127.5, np.float32),
    ),
    added(
        "constexpr_affine_dequantize",
        "zero point a fraction, last axis",
        lambda: (UNSIGNED - np.float32(3.5)) * ROW_SCALES,
        "iOS16",
        quantized_data=UNSIGNED,
        zero_point=np.float32(3.5),
        scale=ROW_SCALES,
        axis=-1,
    ),
    Case(
        "constexpr_lut_to_sparse",
        "vectors",
        _joint_vectors,
        {"x": random(2, 8, 2, seed=13)},
        lambda: random(2, 8, 2, seed=13) + _joint_vectors_reference(),
        "iOS18",
    ),
    *[_dequantized(label, stored, zero) for label, stored, zero in DEQUANTIZED],
    *_activation("int8", "int8", np.int8(5), -128, 127),
    *_activation("uint8", "uint8", np.uint8(20), 0, 255),
    Case(
        "quantize",
        "per channel",
        lambda x: mb.cast(
            x=mb.quantize(input=x, scale=SCALES, zero_point=ZEROS, axis=1, output_dtype="int8"), dtype="fp32"
        ),
        {"x": X},
        lambda: np.clip(np.round(X / SCALES[:, None]) + ZEROS[:, None], -128, 127),
        "iOS17",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)
