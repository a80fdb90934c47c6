"""Which output of a file is which of the network's, in which layout, and whether it holds something else than scores.

What a manifest says of the kind counts; of a file without one, shape and values tell it.
"""

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
from deploykit.verify.contract import holds_probabilities, in_unit_range, one_hot
from deploykit.verify.reference import Outputs
from deploykit.vocab import Layout, OutputKind


@dataclass(frozen=True)
class _Known:
    """What is known of a file's outputs before its values: ``layouts`` by name, and the kind of all."""

    layouts: Mapping[str, Layout]
    kind: OutputKind | None


@dataclass(frozen=True)
class OutputBinding:
    """One output of the recipe and the one of the file that is it; where ``fits`` is False their shapes differ.

    ``foreground``: it holds the probability of the second of two classes alone. ``kind`` is None where values tell.
    """

    output: Output
    file_output: str
    layout: Layout
    fits: bool
    foreground: bool = False
    kind: OutputKind | None = None

    def in_network_order(self, value: Array) -> NDArray[np.floating]:
        """Return ``value`` of the file as the network would return it: (1, C, H, W).

        Of a foreground these are both classes, of a mask 1 for the class of the pixel and 0 for the others.
        """
        array: NDArray[np.floating] = np.asarray(value)
        if self.layout is Layout.NHWC and array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
        if self.fits and self.kind is OutputKind.MASK:
            return one_hot(array, max(2, len(self.output.classes)))
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
    kind: OutputKind | None = None,
) -> tuple[tuple[OutputBinding, ...], tuple[str, ...]]:
    """Return what of the file's ``found`` outputs is which of the network's ``expected`` ones, and notes on the rest.

    ``names`` states output of the recipe → output of the file, ``kind`` what they hold, None where the values have to
    tell. An output whose name is that of the recipe, or that is the only one, is bound whatever its shape: another
    shape is then a failure of the file. Raises UsageError where several ways fit, or none.
    """
    outputs = {output.name: output for output in recipe.file.outputs if output.name in expected}
    known = _Known({record.name: record.layout for record in records}, kind)
    stated = dict(names or {})
    require_known(stated, outputs, dict(found), "--output-name")
    chosen = {name: stated.get(name, name) for name in outputs if stated.get(name, name) in found}
    chosen = {name: given for name, given in chosen.items() if name in stated or given not in stated.values()}
    bound = [_binding(outputs[name], given, found[given], expected[name], known) for name, given in chosen.items()]
    rest = {name: value for name, value in found.items() if name not in chosen.values()}
    wanted = [output for output in outputs.values() if output.name not in chosen]
    if rest and wanted:
        bound.extend(_by_shape(rest, wanted, expected, known, path))
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
    known: _Known,
    path: Path,
) -> list[OutputBinding]:
    """Return the one way in which most of ``rest`` have an output of their shape. Raises UsageError for several."""
    for among in ([one for one in wanted if one.deploy], list(wanted)):
        ways = [way for way in _ways(dict(rest), among, expected, known) if way]
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
            return [_binding(deployed[0], name, rest[name], expected[deployed[0].name], known)]
    example = f"--output-name {wanted[0].name}={next(iter(rest))}"
    raise UsageError(
        "It is not clear which output of the file is which.",
        where=str(path),
        found=", ".join(f"{name} {list(value.shape)}" for name, value in rest.items()),
        expected=", ".join(f"{one.name} {list(expected[one.name].shape)}" for one in wanted),
        next_step=f"say it, for example {example}",
    )


def _ways(
    rest: dict[str, Array], wanted: Sequence[Output], expected: Outputs, known: _Known
) -> Iterator[tuple[OutputBinding, ...]]:
    """Yield every way to give outputs of ``rest`` to those ``wanted`` of the same shape, each once or not at all."""
    if not wanted:
        yield ()
        return
    first, others = wanted[0], wanted[1:]
    for name, value in rest.items():
        binding = _binding(first, name, value, expected[first.name], known)
        if binding.fits:
            remaining = {other: array for other, array in rest.items() if other != name}
            for way in _ways(remaining, others, expected, known):
                yield (binding, *way)
    yield from _ways(rest, others, expected, known)


def _binding(output: Output, name: str, value: Array, expected: Array, known: _Known) -> OutputBinding:
    declared = known.layouts.get(name, Layout.NCHW)
    for layout in (declared, *(one for one in Layout if one is not declared)):
        shape = value.shape
        if layout is Layout.NHWC and len(shape) == 4:
            shape = (shape[0], shape[3], *shape[1:3])
        if shape == expected.shape and (known.kind is not OutputKind.MASK or shape[1:2] == (1,)):
            return OutputBinding(output, name, layout, True, kind=known.kind)
        classes = len(output.classes)
        if classes < 2 or shape != (expected.shape[0], 1, *expected.shape[2:]):
            continue
        values: NDArray[np.floating] = np.asarray(value)
        if known.kind is OutputKind.MASK or (known.kind is None and classes > 2 and _numbers(values, classes)):
            return OutputBinding(output, name, layout, True, kind=OutputKind.MASK)
        if classes == 2:
            fits = known.kind is OutputKind.PROBABILITY or in_unit_range(values)
            return OutputBinding(output, name, layout, fits, foreground=fits, kind=known.kind)
    return OutputBinding(output, name, declared, False, kind=known.kind)


def _numbers(values: NDArray[np.generic], classes: int) -> bool:
    """Whether all of ``values`` are numbers of ``classes`` classes."""
    return bool(np.isin(values, np.arange(classes)).all())


def form_of(
    binding: OutputBinding, found: Sequence[NDArray[np.floating]], network: Sequence[NDArray[np.floating]]
) -> OutputForm:
    """Return what the file's output holds, beside what the ``network`` returns.

    ``found`` are its values as ``in_network_order`` returns them.
    """
    if not binding.fits:
        return OutputForm.NETWORK
    if binding.kind is OutputKind.MASK:
        return OutputForm.MASK
    if binding.foreground:
        either = binding.kind is None and all(_numbers(one, 2) for one in found)
        return OutputForm.MASK if either else OutputForm.FOREGROUND
    if len(binding.output.classes) < 2:
        return OutputForm.SIGMOID if binding.kind is OutputKind.PROBABILITY else OutputForm.NETWORK
    return OutputForm.SOFTMAX if holds_probabilities(found) and not holds_probabilities(network) else OutputForm.NETWORK
