"""Models that coremltools compressed, against the weights that their files state, and against the originals."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil.frontend.milproto.load import load
from interpreter_programs import quiet_conversion, random
from torch import nn
from vision_networks import UNet, randomized

from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.targets.coreml.interpreter.table import OPERATIONS

X = random(1, 3, 16, 16)
FULL = pytest.mark.full

# How a model is compressed: a name, the opset that it needs, the constexpr operation that must appear.
Way = tuple[str, str, str]
WAYS: tuple[Way, ...] = (
    ("linear int8", "iOS16", "constexpr_affine_dequantize"),
    ("linear uint8", "iOS16", "constexpr_affine_dequantize"),
    ("linear int8", "iOS18", "constexpr_blockwise_shift_scale"),
    ("linear int4", "iOS18", "constexpr_blockwise_shift_scale"),
    ("linear int4, blocks", "iOS18", "constexpr_blockwise_shift_scale"),
    ("palette 4 bits", "iOS16", "constexpr_lut_to_dense"),
    ("palette 6 bits", "iOS16", "constexpr_lut_to_dense"),
    ("palette 4 bits, groups", "iOS18", "constexpr_lut_to_dense"),
    ("palette 3 bits", "iOS18", "constexpr_lut_to_dense"),
    ("pruned", "iOS16", "constexpr_sparse_to_dense"),
    ("pruned", "iOS18", "constexpr_sparse_to_dense"),
    ("pruned and palettized", "iOS18", "constexpr_lut_to_sparse"),
    ("pruned and quantized", "iOS18", "constexpr_sparse_blockwise_shift_scale"),
)
PLAIN = {WAYS[0], WAYS[4], WAYS[11]}


def _configured(config: Any) -> Any:
    return cto.OptimizationConfig(global_config=config)


def _linear(**more: Any) -> Any:
    return _configured(cto.OpLinearQuantizerConfig(weight_threshold=0, **more))


def _palette(bits: int, **more: Any) -> Any:
    return _configured(cto.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=0, **more))


def compressed(model: Any, how: str) -> Any:
    pruning = _configured(cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0))
    if how.startswith("linear"):
        more = {"granularity": "per_block", "block_size": 2} if how.endswith("blocks") else {}
        return cto.linear_quantize_weights(model, _linear(mode="linear", dtype=how.split()[1].rstrip(","), **more))
    if how.startswith("palette"):
        more = {"granularity": "per_grouped_channel", "group_size": 2} if how.endswith("groups") else {}
        return cto.palettize_weights(model, _palette(int(how.split()[1]), **more))
    sparse = cto.prune_weights(model, pruning)
    if how.endswith("palettized"):
        return cto.palettize_weights(sparse, _palette(4), joint_compression=True)
    if how.endswith("quantized"):
        return cto.linear_quantize_weights(sparse, _linear(mode="linear_symmetric"), joint_compression=True)
    return sparse


@pytest.fixture(scope="module")
def network() -> nn.Module:
    # How far compression moves the output depends on the weights.
    torch.manual_seed(0)
    return randomized(UNet())


@pytest.fixture(scope="module")
def originals(network: nn.Module) -> dict[str, Any]:
    """The uncompressed model for each opset."""
    models = {}
    with quiet_conversion():
        exported = torch.export.export(network, (torch.from_numpy(X),)).run_decompositions({})
        for target in ("iOS16", "iOS18"):
            models[target] = ct.convert(
                exported,
                inputs=[ct.TensorType(name="x", shape=X.shape, dtype=np.float32)],
                outputs=[ct.TensorType(name="out", dtype=np.float32)],
                compute_precision=ct.precision.FLOAT32,
                minimum_deployment_target=getattr(ct.target, target),
            )
    return models


def decompressed_by_numpy(path: Path) -> dict[str, np.ndarray]:
    """Constant name → values for every compressed constant of a file, as coremltools' numpy code reads it."""
    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, model.weights_dir)
    found = {}
    for operation in program.functions["main"].operations:
        if operation.op_type.startswith("constexpr_"):
            values = operation.materialized_val_inference()
            values = values if isinstance(values, tuple) else (values,)
            found |= {output.name: value for output, value in zip(operation.outputs, values, strict=True)}
    return found


def interpreted_constants(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the interpreter makes of the compressed constants of a file, in its order."""
    seen: list[np.ndarray] = []
    table = dict(OPERATIONS)
    for name, function in OPERATIONS.items():
        if name.startswith("constexpr_"):

            def kept(arguments: Any, function: Any = function) -> Any:
                results = function(arguments)
                seen.extend(r.numpy() for r in (results if isinstance(results, tuple) else (results,)))
                return results

            table[name] = kept
    monkeypatch.setattr("deploykit.targets.coreml.interpreter.program.OPERATIONS", table)
    MilInterpreter(path)
    return seen


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way in PLAIN else FULL) for way in WAYS], ids=str)
def test_a_compressed_model_has_the_weights_that_its_file_states(
    way: Way, originals: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, target, operation = way
    path = tmp_path / "compressed.mlpackage"
    with quiet_conversion(), warnings.catch_warnings():
        originals[target].save(str(tmp_path / "plain.mlpackage"))
        compressed(originals[target], how).save(str(path))
        stated = decompressed_by_numpy(path)
    assert operation in {step.type for step in _operations(path)}
    found = interpreted_constants(path, monkeypatch)
    assert len(found) == len(stated) > 4
    for ours, theirs in zip(found, stated.values(), strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs, np.float32), rtol=1e-6, atol=1e-6)
    outputs = [MilInterpreter(tmp_path / f"{name}.mlpackage").run({"x": X})["out"] for name in ("plain", "compressed")]
    change = np.linalg.norm(outputs[1] - outputs[0]) / np.linalg.norm(outputs[0])
    assert 1e-4 < change < 2.0


def _operations(path: Path) -> Any:
    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations
