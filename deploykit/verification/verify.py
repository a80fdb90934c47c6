"""``deploykit verify``: an exported file against its checkpoint, another checkpoint, or another file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from deploykit.errors import DeploykitError, UsageError
from deploykit.network import load_network
from deploykit.recipe import Recipe
from deploykit.records import Artifact
from deploykit.targets.base import Array
from deploykit.verification.bind_inputs import with_color_orders
from deploykit.verification.bind_outputs import OutputBinding, bind_outputs
from deploykit.verification.exported import (
    ExportedFile,
    find_file,
    looks_exported,
    opened,
    opened_everywhere,
    precision_of,
)
from deploykit.verification.judge import Bounds, OpenFile, between, judge
from deploykit.verification.probing import Judged, hint_of_input, probe_file
from deploykit.verification.records import (
    ArtifactVerification,
    OutputForm,
    OutputVerification,
    Probe,
    ProbeVerdict,
    RuntimePair,
    RuntimeVerification,
)
from deploykit.verification.reference import (
    FileReference,
    NetworkReference,
    Reference,
    choose_recipe,
    file_outputs_as,
    find_network,
)
from deploykit.verification.sizes import Sizes, bind_at_size, settle_sizes
from deploykit.verify.samples import Sample, draw_samples
from deploykit.vocab import InputKind, Precision

if TYPE_CHECKING:
    from deploykit.attribution.records import Attribution

Named: TypeAlias = Artifact | Path | str
Report: TypeAlias = Callable[[str], None]
_COARSER = (
    Precision.FP32,
    Precision.FP16,
    Precision.INT8_WEIGHTS,
    Precision.W8A16,
    Precision.PALETTE6,
    Precision.PALETTE4,
    Precision.INT8,
)


@dataclass(frozen=True)
class Choices:
    """What a caller may state about a file; None and empty take it from the manifest, the names and the shapes.

    ``input_names`` and ``output_names`` are name in the recipe → name in the file. ``input_kind`` says what images
    are that a file takes as floats: ``image`` for pixels from 0 to 255. ``layers`` asks for the module in which the
    error arises.
    """

    precision: Precision | None = None
    input_kind: InputKind | None = None
    input_names: Mapping[str, str] | None = None
    output_names: Mapping[str, str] | None = None
    threads: int = 1
    layers: bool = False


def verify(
    artifact: Named,
    *,
    against: Named | None = None,
    images: Sequence[Path] = (),
    recipe: str | Path | Recipe | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_key: str | None = None,
    choices: Choices | None = None,
    report: Report | None = None,
) -> ArtifactVerification:
    """Return how the exported file ``artifact`` differs from what it should be, with the verdict.

    ``against`` is another checkpoint or another exported file; None, the checkpoint that the file was made from. What
    a manifest does not say, ``recipe`` and ``checkpoint`` say. Compared on seeded noise, on synthetic portraits and
    on ``images``. A failed verification is a record whose ``passed`` is False.

    Raises:
        ArtifactError: no such file, no readable one, or one that takes something else than the recipe gives.
        CheckpointError: the checkpoint is not there, damaged, another one, or of another network.
        UsageError: arguments that do not go together, or names and shapes that are not clear; layers of a file with
            integers.
        VerificationError: a file that was changed since its manifest and cannot be loaded.
    """
    say = report or (lambda message: None)
    chosen = choices or Choices()
    if chosen.threads < 1:
        raise UsageError("The number of threads is out of range.", found=str(chosen.threads), expected="at least 1")
    file = find_file(artifact)
    weights = None if checkpoint is None else Path(checkpoint)
    other, against_weights = _against(against, weights)
    if other is not None and chosen.layers:
        raise UsageError(
            "The layers of a file are those of a network.",
            where="--layers",
            found=f"--against {other.path}, a file",
            expected="a checkpoint to compare with",
        )
    if other is not None:
        _require_one_kind(file, other)
    _require_its_input_kind(file, chosen.input_kind)
    say("loading the reference")
    used = choose_recipe(file, other, recipe, against_weights or weights, checkpoint_key)
    precision, source = precision_of(file, chosen.precision)
    if chosen.layers and not precision.is_float:
        raise UsageError(
            "What each layer of a file with integers loses is not told from the values inside it.",
            where=str(file.path),
            found=f"--layers and {precision}, {source}",
            expected="a file in fp32 or fp16",
            next_step=f"rank its layers with deploykit sensitivity {used.name} --target {file.target}",
        )
    with opened_everywhere(file, chosen.threads) as runtimes:
        described = file.artifact.inputs if file.artifact else ()
        sized, inputs = bind_at_size(
            with_color_orders(runtimes[0].inputs, described), used, file.path, chosen.input_names, chosen.input_kind
        )
        opened_files = [OpenFile(file, runtime, sized, inputs) for runtime in runtimes]
        if other is None:
            network = (
                find_network(used, file.artifact, weights, checkpoint_key)
                if against_weights is None
                else load_network(used, checkpoint=against_weights, key=checkpoint_key)
            )
            run = _Run(file, opened_files, NetworkReference(network), used, precision, source, chosen, say)
            return run.verified(images, network.notes + _other_checkpoint(file, network.checkpoint_sha256))
        with _file_reference(other, used, chosen) as reference:
            coarser = max(precision, precision_of(other, chosen.precision)[0], key=_COARSER.index)
            run = _Run(file, opened_files, reference, used, coarser, source, chosen, say)
            return run.verified(images, _changed_reference(other))


def _against(against: Named | None, checkpoint: Path | None) -> tuple[ExportedFile | None, Path | None]:
    """Return the file to compare with, or the checkpoint."""
    if against is None:
        return None, None
    if isinstance(against, Artifact) or looks_exported(Path(against)):
        return find_file(against), None
    if checkpoint is not None:
        raise UsageError(
            "There are two checkpoints.",
            found=f"--against {against}, --checkpoint {checkpoint}",
            expected="one of them",
        )
    return None, Path(against)


def _require_one_kind(file: ExportedFile, other: ExportedFile) -> None:
    """Raise UsageError where both manifests say that the files give different things."""
    if file.artifact is None or other.artifact is None or file.output_kind is other.output_kind:
        return
    raise UsageError(
        "The files give different things.",
        where="--against",
        found=f"{other.artifact.plan.output_kind} in {other.path}",
        expected=f"{file.artifact.plan.output_kind}, as in {file.path}",
        next_step="compare each with its checkpoint: leave --against out",
    )


def _require_its_input_kind(file: ExportedFile, stated: InputKind | None) -> None:
    """Raise UsageError where ``stated`` is not what the manifest says of the file's images."""
    if stated is None or file.artifact is None or file.artifact.plan.input_kind is stated:
        return
    raise UsageError(
        "The file takes something else.",
        where="--input-kind",
        found=stated.value,
        expected=f"{file.artifact.plan.input_kind}, as its manifest says",
        next_step="leave --input-kind out: it is for files without a manifest",
    )


def _other_checkpoint(file: ExportedFile, sha256: str) -> tuple[str, ...]:
    if file.artifact is None or file.artifact.checkpoint_sha256 == sha256:
        return ()
    return (
        f"compared with another checkpoint than the file was made from: {sha256[:12]} instead of "
        f"{file.artifact.checkpoint_sha256[:12]}",
    )


def _changed_reference(other: ExportedFile) -> tuple[str, ...]:
    return (f"changed since its manifest, in {other.path.parent}: {', '.join(other.changed)}",) if other.changed else ()


@contextmanager
def _file_reference(other: ExportedFile, recipe: Recipe, chosen: Choices) -> Iterator[FileReference]:
    """Yield ``other`` open, its inputs and outputs bound to ``recipe``."""
    with opened(other, chosen.threads) as runtime:
        described = other.artifact.inputs if other.artifact else ()
        records = with_color_orders(runtime.inputs, described)
        sized, inputs = bind_at_size(records, recipe, other.path, None, None)
        sample = draw_samples(sized, noise=0, portraits=1)[0]
        yield FileReference(other, runtime, inputs, file_outputs_as(other, runtime, inputs, sample, sized))


@dataclass(frozen=True)
class _Run:
    """A file and its reference, both open."""

    file: ExportedFile
    files: list[OpenFile]
    reference: Reference
    recipe: Recipe
    precision: Precision
    precision_source: str
    chosen: Choices
    say: Report

    def verified(self, images: Sequence[Path], notes: tuple[str, ...]) -> ArtifactVerification:
        sizes, misfit = settle_sizes(self.files[0], self.recipe, self.reference, self.chosen.output_names)
        samples = draw_samples(sizes.file_recipe, images)
        self.say("running the reference")
        given = [sizes.for_network(sample) for sample in samples]
        expected = self.reference.outputs(given, sizes.network_recipe)
        bounds = Bounds(self.recipe.file.tolerances.of(self.precision), self.precision)
        values = [self._values(one, samples) for one in self.files]
        bindings, bound_notes = bind_outputs(
            values[0][0],
            self.files[0].runtime.outputs,
            expected[0],
            self.recipe,
            self.file.path,
            names=self.chosen.output_names,
            kind=self.file.output_kind,
        )
        runs = tuple(
            RuntimeVerification(one.runtime.name, judge(bindings, found, expected, samples, bounds))
            for one, found in zip(self.files, values, strict=True)
        )
        pairs = tuple(
            pair
            for one, found in zip(self.files[1:], values[1:], strict=True)
            for pair in between(
                (self.files[0].runtime.name, one.runtime.name), bindings, (values[0], found), samples, bounds.tolerance
            )
        )
        judged = Judged(self.files[0], self.reference, sizes, samples, expected, bindings, runs[0].outputs, bounds)
        probed = probe_file(judged, self.say)
        hint = hint_of_input(judged)
        telling = _telling(given, runs[0].outputs)
        layers, why_not = self._layers(sizes, telling, bindings) if self.chosen.layers else (None, ())
        findings = (*_findings(self.file, runs, pairs, probed), *((misfit,) if misfit else ()))
        return ArtifactVerification(
            recipe=self.recipe.name,
            path=self.file.path,
            target=self.file.target,
            precision=self.precision,
            precision_source=self.precision_source,
            manifest=self.file.manifest,
            changed=self.file.changed,
            reference=self.reference.record,
            samples=tuple(sample.name for sample in samples),
            inputs=self.files[0].inputs,
            runtimes=runs,
            between=pairs,
            probe=probed,
            findings=findings,
            notes=(*notes, *sizes.notes, *bound_notes, *_form_notes(runs), *((hint,) if hint else ()), *why_not),
            layers=layers,
            content_hash=None if self.file.artifact is None else self.file.artifact.content_hash,
        )

    def _layers(
        self, sizes: Sizes, samples: Sequence[Sample], bindings: Sequence[OutputBinding]
    ) -> tuple[Attribution | None, tuple[str, ...]]:
        """Return the module in which the error arises on ``samples``, or why none can be told."""
        from deploykit.attribution import attribute

        if not isinstance(self.reference, NetworkReference):
            return None, ()
        inside = [one for one in self.files[0].inputs if one.kind is InputKind.IMAGE and one.dtype != "uint8"]
        if sizes.resizes or inside:
            return None, ("no layer can be named: the file preprocesses in a way that the network's graph does not",)
        network = replace(self.reference.network, recipe=sizes.network_recipe)
        artifact = self.file.artifact
        try:
            found = attribute(
                network,
                self.file.path,
                samples,
                artifact.plan if artifact else None,
                precision=self.precision,
                inputs={one.file_input: one.input for one in self.files[0].inputs},
                outputs={one.file_output: one.output.name for one in bindings},
                step=self.say,
            )
        except DeploykitError as error:
            reason = next(iter((error.found or "").splitlines()), "")
            return None, (f"no layer can be named: {error.message} {reason}".strip(),)
        return found, ()

    def _values(self, one: OpenFile, samples: Sequence[Sample]) -> list[dict[str, Array]]:
        self.say(f"running the file: {one.runtime.name}")
        return [one.run(sample) for sample in samples]


def _telling(samples: Sequence[Sample], outputs: Sequence[OutputVerification]) -> list[Sample]:
    """Return the noise, and the sample where an output that failed is worst, else the first picture."""
    worst = {one.worst.sample for one in outputs if one.worst is not None and not one.passed}
    pictures = samples[1:]
    return [*samples[:1], *([one for one in pictures if one.name in worst] or pictures)[:1]]


def _findings(
    file: ExportedFile, runs: Sequence[RuntimeVerification], pairs: Sequence[RuntimePair], probed: Probe
) -> tuple[str, ...]:
    """Return every reason why the file does not pass."""
    found = []
    if file.changed:
        found.append("changed, missing or added since the manifest: " + ", ".join(file.changed))
    for run in runs:
        place = f"{run.runtime}, " if len(runs) > 1 else ""
        if not run.outputs:
            found.append(f"{place}no output of the file is one of the recipe")
        for one in run.outputs:
            found += [f"{place}{one.output}: {failure}" for failure in one.comparison.failures]
            found += [f"{place}{one.output}: {lint.detail}" for lint in one.lints if lint.fails]
    for pair in pairs:
        found += [f"{pair.runtime} and {pair.other}, {pair.comparison.output}: {x}" for x in pair.comparison.failures]
    if probed.verdict is ProbeVerdict.EXPLAINED:
        found.append(f"preprocessing: {probed.detail}")
    return tuple(found)


def _form_notes(runs: Sequence[RuntimeVerification]) -> list[str]:
    words = {
        OutputForm.SOFTMAX: "holds probabilities that sum to 1, compared with the softmax of the reference's scores",
        OutputForm.FOREGROUND: "holds one probability, compared with that of the last class in the reference's softmax",
        OutputForm.SIGMOID: "holds a probability, compared with the sigmoid of the reference's score",
        OutputForm.MASK: "holds the number of the best class, compared with the reference's",
    }
    return [f"{one.output} {words[one.form]}" for one in runs[0].outputs if one.form in words]
