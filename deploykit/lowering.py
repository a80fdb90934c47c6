"""Lower: what an export plan makes of the captured network, up to the graph that a target's converter is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deploykit.errors import TargetError, UsageError
from deploykit.graph import optimize, simplify
from deploykit.graph.graph import Graph, Pass
from deploykit.graph.passes.build_in_preprocessing import NAME as BUILD_IN
from deploykit.graph.passes.build_in_preprocessing import Normalisation, build_in_preprocessing
from deploykit.graph.passes.drop_unused_outputs import NAME as DROP_OUTPUTS
from deploykit.graph.passes.output_contract import NAME as CONTRACT
from deploykit.graph.passes.output_contract import output_contract
from deploykit.graph.passes.remove_no_ops import NAME as NO_OPS
from deploykit.graph.round import round_weights
from deploykit.recipe import Recipe
from deploykit.records import ExportPlan, QuantizationPlan
from deploykit.targets.schemes import check_scheme, default_minimum_os
from deploykit.targets.table import TARGETS, check_plan, part
from deploykit.vocab import Estimator, InputKind, Layout, OutputKind, Precision, Target

# Points of mIoU that a file with integers may lose, on calibration images, before layers stay in float.
MAX_DROP = 0.5
# What these do belongs to the contract of the file; without the second the graph is the converter's to clean.
_ALWAYS = (NO_OPS, DROP_OUTPUTS)


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose; ``None`` takes the target's default."""

    precision: Precision = Precision.FP32
    input_kind: InputKind = InputKind.TENSOR
    output_kind: OutputKind = OutputKind.LOGITS
    layout: Layout | None = None
    opset: int | None = None
    minimum_os: str | None = None
    optimize: bool = True
    passes: tuple[str, ...] | None = None
    skip_passes: tuple[str, ...] = ()
    estimator: Estimator | None = None
    equalization: float | None = None
    correct_biases: bool = True
    max_drop: float | None = MAX_DROP
    calibration: str | None = None
    integer_io: bool = False


def optional_passes(target: Target) -> tuple[str, ...]:
    """Return the names of the passes that an export to ``target`` may be told to do without, in order."""
    simplifying = tuple(name for name in simplify.PASSES if name not in _ALWAYS)
    needed = {one.__name__ for one in part(target, "lowering").PASSES}
    optimizing = tuple(name for name in optimize.PASSES if name not in needed)
    return (*simplifying, *optimizing, *(one.__name__ for one in _forms(target)), *on_files(target))


def plan_export(recipe: Recipe, target: Target, options: ExportOptions) -> ExportPlan:
    """Return the frozen plan of one file. Raises TargetError where the target cannot do what is asked."""
    row = TARGETS[target]
    inputs = (BUILD_IN,) if options.input_kind is InputKind.IMAGE else ()
    outputs = () if options.output_kind is OutputKind.LOGITS else (CONTRACT,)
    _refuse_feedback_of_a_mask(recipe, options.output_kind)
    chosen = _chosen(target, options)
    plan = ExportPlan(
        target=target,
        precision=options.precision,
        layout=options.layout or Layout.NCHW,
        input_kind=options.input_kind,
        output_kind=options.output_kind,
        input_shapes=tuple(item.shape for item in recipe.file.inputs),
        passes=(
            *(name for name in simplify.PASSES if name in _ALWAYS or name in chosen),
            *inputs,
            *outputs,
            *(name for name in optimize.PASSES if name in chosen),
            *(one.__name__ for one in _forms(target, options.precision) if one.__name__ in chosen),
            *(one.__name__ for one in part(target, "lowering").PASSES),
            *(name for name in on_files(target) if name in chosen),
        ),
        opset=row.default_opset if options.opset is None else options.opset,
        minimum_os=options.minimum_os or default_minimum_os(target, options.precision),
        quantization=_quantization(options),
    )
    check_scheme(target, plan.precision, plan.minimum_os, integer_io=options.integer_io)
    check_plan(plan)
    return plan


def needs_calibration(options: ExportOptions) -> bool:
    """Return whether images decide anything in a file of ``options``: not in float, and not in palettes."""
    return not options.precision.is_float and options.precision not in (Precision.PALETTE4, Precision.PALETTE6)


def _quantization(options: ExportOptions) -> QuantizationPlan | None:
    """Return what decides the integers of a file; of palettes nothing does but the weights themselves."""
    if options.precision.is_float:
        return None
    if not needs_calibration(options):
        return QuantizationPlan(None, 0.0, False, None, None)
    return QuantizationPlan(
        estimator=options.estimator,
        equalization=options.equalization,
        correct_biases=options.correct_biases,
        max_drop=options.max_drop,
        calibration=options.calibration,
        integer_io=options.integer_io,
    )


def options_for(target: Target, options: ExportOptions, *, alone: bool) -> ExportOptions:
    """Return ``options`` for one of several targets: opset and minimum OS go only to the targets that have them.

    A minimum OS that only another target has is not for this one; one that nobody has stays, and is refused.
    """
    row = TARGETS[target]
    if alone:
        return options
    systems = {name for other in TARGETS.values() for name in other.minimum_os if name not in row.minimum_os}
    return replace(
        options,
        opset=options.opset if row.opsets else None,
        minimum_os=options.minimum_os if row.minimum_os and options.minimum_os not in systems else None,
    )


def _chosen(target: Target, options: ExportOptions) -> frozenset[str]:
    """Return the optional passes to run. Raises UsageError for a name that is not one of them."""
    optional = optional_passes(target)
    # A name of another target's is for that target: with several targets one list serves them all.
    known = {name for one in TARGETS for name in optional_passes(one)}
    for option, names in (("--passes", options.passes or ()), ("--skip-pass", options.skip_passes)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(
                "There is no such pass to choose.",
                where=option,
                found=", ".join(name or "an empty name" for name in unknown),
                expected=", ".join(optional),
                next_step="deploykit export --explain shows what each pass did",
            )
    if not options.optimize:
        return frozenset()
    asked = optional if options.passes is None else options.passes
    return frozenset(asked) - frozenset(options.skip_passes)


def _forms(target: Target, precision: Precision | None = None) -> tuple[Pass, ...]:
    """Return the forms that files of ``target`` are faster with: those of ``precision``, or of any.

    A file with integers is made of one in single precision, and has its forms.
    """
    lowering = part(target, "lowering")
    always: tuple[Pass, ...] = getattr(lowering, "FORMS", ())
    single: tuple[Pass, ...] = getattr(lowering, "SINGLE_FORMS", ())
    half: tuple[Pass, ...] = getattr(lowering, "HALF_FORMS", ())
    return (
        *(single if precision is not Precision.FP16 else ()),
        *always,
        *(half if precision in (Precision.FP16, None) else ()),
    )


def on_files(target: Target) -> tuple[str, ...]:
    """Return the names of the passes that rewrite the file which the converter of ``target`` wrote."""
    names: tuple[str, ...] = getattr(part(target, "lowering"), "ON_FILES", ())
    return names


def _lowering(target: Target) -> tuple[Pass, ...]:
    """Return every pass of ``target``, in order: the forms that it is faster with, then what its converter needs."""
    needed: tuple[Pass, ...] = part(target, "lowering").PASSES
    return (*_forms(target), *needed)


def lower(graph: Graph, recipe: Recipe, plan: ExportPlan) -> Graph:
    """Return the captured ``graph`` as the graph that ``plan`` writes, its weights rounded once."""
    return finish(rewritten(graph, recipe, plan), plan)


def lower_exactly(graph: Graph, recipe: Recipe, plan: ExportPlan) -> Graph:
    """Return what ``lower`` returns as it is before rounding: the same nodes, float64 weights and arithmetic."""
    return _for_target(rewritten(graph, recipe, plan), plan)


def finish(exact: Graph, plan: ExportPlan) -> Graph:
    """Return what ``rewritten`` gave as the graph that ``plan`` writes: rounded once, then rewritten for its target."""
    return _for_target(round_weights(exact), plan)


def rewritten(graph: Graph, recipe: Recipe, plan: ExportPlan, *, until: str | None = None) -> Graph:
    """Return the captured ``graph`` after the target-independent passes of ``plan``, in float64.

    With ``until``, optimizing ends with the pass of that name.
    """
    names = [name for name in plan.passes if name in simplify.PASSES]
    simple = simplify.simplify(graph, keep_outputs=[output.name for output in recipe.deployed()], names=names)
    whole = with_contracts(simple, recipe, plan)
    optimizing = [name for name in plan.passes if name in optimize.PASSES]
    if until is not None:
        optimizing = optimizing[: optimizing.index(until) + 1]
    return optimize.optimize(whole, optimizing)


def decides_rewriting(plan: ExportPlan) -> tuple[object, ...]:
    """Return what of ``plan`` decides what ``rewritten`` gives: plans that are alike in it share one graph."""
    names = [name for name in plan.passes if name in (*simplify.PASSES, *optimize.PASSES)]
    needed = frozenset(names) - frozenset(optional_passes(plan.target))
    return (*names, needed, plan.input_kind, plan.output_kind, plan.target is Target.COREML)


def with_contracts(graph: Graph, recipe: Recipe, plan: ExportPlan) -> Graph:
    """Return the simplified ``graph`` with the preprocessing and the kind of output that ``plan`` puts in the file."""
    return _with_contract(_with_preprocessing(graph, recipe, plan), recipe, plan)


def target_passes(plan: ExportPlan) -> tuple[Pass, ...]:
    """Return the passes on the graph that ``plan`` runs for its target, in order."""
    return tuple(one for one in _lowering(plan.target) if one.__name__ in plan.passes)


def _with_preprocessing(deploy: Graph, recipe: Recipe, plan: ExportPlan) -> Graph:
    if plan.input_kind is not InputKind.IMAGE:
        return deploy
    # Core ML's image input hands pixels over as floats.
    pixel_dtype = "float32" if plan.target is Target.COREML else "uint8"
    return build_in_preprocessing(
        deploy,
        {
            item.name: Normalisation(item.mean, item.scale, pixel_dtype)
            for item in recipe.file.inputs
            if item.kind == "image"
        },
    )


def _with_contract(deploy: Graph, recipe: Recipe, plan: ExportPlan) -> Graph:
    if plan.output_kind is OutputKind.LOGITS:
        return deploy
    return output_contract(deploy, plan.output_kind, {one.name: len(one.classes) for one in recipe.deployed()})


def _refuse_feedback_of_a_mask(recipe: Recipe, kind: OutputKind) -> None:
    fed = [item.name for item in recipe.file.inputs if item.feedback is not None]
    if fed and kind is OutputKind.MASK:
        raise TargetError(
            "A mask cannot be fed back: the network takes a probability.",
            where=f"{recipe.name}: input {', '.join(fed)}",
            found=f"--output-kind {kind}",
            expected=f"{OutputKind.LOGITS} or {OutputKind.PROBABILITY}",
            next_step=f"export with --output-kind {OutputKind.PROBABILITY}, and threshold it at 0.5",
        )


def _for_target(graph: Graph, plan: ExportPlan) -> Graph:
    for rewrite in target_passes(plan):
        graph = rewrite(graph)
    return graph
