"""Which output of a file is which of the network's, in which layout, and whether it holds probabilities instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import UsageError
from deploykit.recipe import Output, Recipe
from deploykit.records import TensorRecord
from deploykit.targets.base import Array
from deploykit.verification.bind_inputs import require_known
from deploykit.verification.records import OutputForm
from deploykit.verify.reference import Outputs
from deploykit.vocab import Layout

_MOST_LISTED = 2
# How far probabilities in half precision are from summing to 1.
_SUM_TOLERANCE = 2e-2
_RANGE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OutputBinding:
    """One output of the recipe and the one of the file that is it; where ``fits`` is False their shapes differ."""

    output: Output
    file_output: str
    layout: Layout
    fits: bool
    foreground: bool = False

    def in_network_order(self, value: Array) -> NDArray[np.floating]:
        """Return ``value`` of the file as the network would return it: (1, C, H, W), both classes of a foreground."""
        array: NDArray[np.floating] = np.asarray(value)
        if self.layout is Layout.NHWC and array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
        if self.foreground:
            array = np.concatenate([1 - array, array], axis=1)
        return array


def bind_outputs(
    found: Mapping[str, Array],
    records: Sequence[TensorRecord],
    expected: Outputs,
    recipe: Recipe,
    path: Path,
    *,
    names: Mapping[str, str] | None = None,
) -> tuple[tuple[OutputBinding, ...], tuple[str, ...]]:
    """Return what of the file's ``found`` outputs is which of the network's ``expected`` ones, and notes on the rest.

    ``names`` states output of the recipe → output of the file. An output whose name is that of the recipe, or that is
    the only one, is bound whatever its shape: another shape is then a failure of the file. Raises UsageError where
    several ways fit, or none.
    """
    outputs = {output.name: output for output in recipe.file.outputs if output.name in expected}
    layouts = {record.name: record.layout for record in records}
    stated = dict(names or {})
    require_known(stated, outputs, dict(found), "--output-name")
    chosen = {name: stated.get(name, name) for name in outputs if stated.get(name, name) in found}
    chosen = {name: given for name, given in chosen.items() if name in stated or given not in stated.values()}
    bound = [_binding(outputs[name], given, found[given], expected[name], layouts) for name, given in chosen.items()]
    rest = {name: value for name, value in found.items() if name not in chosen.values()}
    wanted = [output for output in outputs.values() if output.name not in chosen]
    if rest and wanted:
        bound.extend(_by_shape(rest, wanted, expected, layouts, path))
    bound_names = {one.file_output for one in bound}
    order = list(outputs)
    bound.sort(key=lambda one: order.index(one.output.name))
    missing = [one.name for one in recipe.deployed() if one not in [each.output for each in bound]]
    notes = [f"the output {name} was not compared: it is not in both" for name in missing]
    notes += [
        f"{name} of the file is no output of the recipe and was not compared" for name in rest.keys() - bound_names
    ]
    return tuple(bound), tuple(notes)


def _by_shape(
    rest: Mapping[str, Array],
    wanted: Sequence[Output],
    expected: Outputs,
    layouts: Mapping[str, Layout],
    path: Path,
) -> list[OutputBinding]:
    """Return the one way in which most of ``rest`` have an output of their shape. Raises UsageError for several."""
    for among in ([one for one in wanted if one.deploy], list(wanted)):
        ways = [way for way in _ways(dict(rest), among, expected, layouts) if way]
        most = max((len(way) for way in ways), default=0)
        best = [way for way in ways if len(way) == most]
        if len(best) == 1:
            return list(best[0])
        if len(best) > 1:
            break
    else:
        deployed = [one for one in wanted if one.deploy]
        if len(rest) == 1 and len(deployed) == 1:
            (name,) = rest
            return [_binding(deployed[0], name, rest[name], expected[deployed[0].name], layouts)]
    example = f"--output-name {wanted[0].name}={next(iter(rest))}"
    raise UsageError(
        "It is not clear which output of the file is which.",
        where=str(path),
        found=", ".join(f"{name} {list(value.shape)}" for name, value in rest.items()),
        expected=", ".join(f"{one.name} {list(expected[one.name].shape)}" for one in wanted),
        next_step=f"say it, for example {example}",
    )


def _ways(
    rest: dict[str, Array], wanted: Sequence[Output], expected: Outputs, layouts: Mapping[str, Layout]
) -> Iterator[tuple[OutputBinding, ...]]:
    """Yield every way to give outputs of ``rest`` to those ``wanted`` of the same shape, each once or not at all."""
    if not wanted:
        yield ()
        return
    first, others = wanted[0], wanted[1:]
    for name, value in rest.items():
        binding = _binding(first, name, value, expected[first.name], layouts)
        if binding.fits:
            remaining = {other: array for other, array in rest.items() if other != name}
            for way in _ways(remaining, others, expected, layouts):
                yield (binding, *way)
    yield from _ways(rest, others, expected, layouts)


def _binding(output: Output, name: str, value: Array, expected: Array, layouts: Mapping[str, Layout]) -> OutputBinding:
    declared = layouts.get(name, Layout.NCHW)
    for layout in (declared, *(one for one in Layout if one is not declared)):
        shape = value.shape
        if layout is Layout.NHWC and len(shape) == 4:
            shape = (shape[0], shape[3], *shape[1:3])
        if shape == expected.shape:
            return OutputBinding(output, name, layout, True)
        one_channel = (expected.shape[0], 1, *expected.shape[2:])
        if len(output.classes) == 2 and shape == one_channel:
            return OutputBinding(output, name, layout, _probable(value), foreground=_probable(value))
    return OutputBinding(output, name, declared, False)


def _probable(value: Array) -> bool:
    array = np.asarray(value, np.float64)
    return bool(np.all(array >= -_RANGE_TOLERANCE) and np.all(array <= 1 + _RANGE_TOLERANCE))


def holds_probabilities(values: Sequence[NDArray[np.floating]]) -> bool:
    """Return whether all of ``values`` (1, C, H, W) lie in 0 to 1 and sum to 1 over the classes."""
    return all(
        value.ndim >= 2
        and value.shape[1] > 1
        and _probable(value)
        and bool(np.all(np.abs(value.astype(np.float64).sum(axis=1) - 1) <= _SUM_TOLERANCE))
        for value in values
    )


def softmax(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the probabilities that follow from ``scores`` (1, C, H, W), in float64."""
    with np.errstate(all="ignore"):  # a score that is not finite gives NaN, which no comparison passes
        powers = np.exp(scores.astype(np.float64) - scores.astype(np.float64).max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def form_of(
    binding: OutputBinding, found: Sequence[NDArray[np.floating]], network: Sequence[NDArray[np.floating]]
) -> OutputForm:
    """Return what the file's output holds, beside what the ``network`` returns."""
    if binding.foreground:
        return OutputForm.FOREGROUND
    if not binding.fits or len(binding.output.classes) < 2:
        return OutputForm.NETWORK
    return OutputForm.SOFTMAX if holds_probabilities(found) and not holds_probabilities(network) else OutputForm.NETWORK
