"""Latency of exported files on this machine: found or exported first, then measured interleaved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from deploykit.artifact import find_artifacts
from deploykit.errors import DeploykitError, UsageError
from deploykit.graph.graph import sources
from deploykit.latency.arguments import check_bench
from deploykit.latency.drivers.host import measure_on_host
from deploykit.latency.drivers.options import DeviceOptions
from deploykit.latency.drivers.table import Driver, driver_of, measure_on_device
from deploykit.latency.inputs import photos_in
from deploykit.latency.measure import (
    MAX_SECONDS,
    MIN_RUNS,
    MIN_SECONDS,
    PRECISION_TARGET,
    Protocol,
    told_of_time,
)
from deploykit.latency.profile import GraphValue, Values, with_modules
from deploykit.latency.subjects import Subject, exported_subjects, find_subjects, timed_elsewhere, unmeasurable
from deploykit.latency_records import Benchmark, Latency, SkippedLatency
from deploykit.lowering import lower_exactly
from deploykit.network import LoadedNetwork, load_network
from deploykit.pipeline import DEFAULT_FOLDER, export
from deploykit.recipe import Recipe, default_recipe, load_recipe
from deploykit.records import Artifact
from deploykit.verify.reparam import training_graph
from deploykit.verify.samples import draw_samples
from deploykit.vocab import Target
from deploykit.web import require_packages

Say = Callable[[str], None]


def bench(
    artifacts: Sequence[Path | str] = (),
    *,
    output_dir: Path | None = None,
    recipe: str | Path | None = None,
    compiled: bool = False,
    threads: int | Sequence[int] = 1,
    runs: int = MIN_RUNS,
    seconds: float = MIN_SECONDS,
    max_seconds: float = MAX_SECONDS,
    precision_target: float | None = PRECISION_TARGET,
    affinity: str | Sequence[int] | None = "auto",
    startup: bool = True,
    profile: bool = False,
    images: Path | str | None = None,
    end_to_end: bool = False,
    device: str = "host",
    device_options: DeviceOptions | None = None,
    report: Say | None = None,
) -> Benchmark:
    """Return the latencies of ``artifacts`` (files, packages or folders), interleaved in a process of their own.

    Without any, those below ``output_dir`` are measured; where there are none, the default recipe is exported to
    a temporary folder. ``recipe`` measures that network in PyTorch eager beside them, with ``compiled`` in
    torch.compile too. Each number of ``threads`` is measured after the other. Times are in seconds; see ``Protocol``
    for ``runs``, ``seconds``, ``max_seconds``, ``precision_target``, ``affinity``, ``startup`` and ``profile``.
    ``images`` is a photo or a folder of them to run on, and ``end_to_end`` measures from a photo to the composite.

    ``device`` is this machine or another, as ``deploykit devices`` lists them, with ``device_options``; on another one
    files alone are measured, and there have to be some.

    What is ended early, by Ctrl-C for one, is returned as far as it came: ``complete`` is False.

    Raises:
        UsageError: arguments that do not go together or are out of range.
        ArtifactError: a file that is missing, damaged or differs from its manifest.
        ImageError: no photo where ``images`` says.
        TargetError: nothing that can be measured on this machine.
        DeviceError: the device cannot be reached, or nothing could be measured on it.
    """
    say = report or (lambda message: None)
    counts = (threads,) if isinstance(threads, int) else tuple(threads)
    paths = [Path(path) for path in artifacts]
    place = None if images is None else Path(images)
    check_bench(
        paths,
        output_dir=output_dir,
        recipe=recipe,
        images=place,
        compiled=compiled,
        end_to_end=end_to_end,
        threads=counts,
        runs=runs,
        seconds=seconds,
        max_seconds=max_seconds,
        precision_target=precision_target,
        affinity=affinity,
        device=device,
        accelerators=device_options.accelerators if device_options else (),
    )
    photos = photos_in(place)
    chosen = load_recipe(recipe) if recipe else None
    subjects = find_subjects(paths) if paths else _found(output_dir, chosen)
    if compiled and chosen is None and subjects:
        raise UsageError(
            "--compile is for a network in PyTorch, and none is named.",
            found="files alone",
            expected="--recipe with the network's recipe",
        )
    protocol = Protocol(
        min_runs=runs,
        min_seconds=seconds,
        max_seconds=max_seconds,
        precision_target=precision_target,
        affinity=affinity if affinity is None or isinstance(affinity, str) else tuple(affinity),
        startup=startup,
        profile=profile,
    )
    if driver_of(device)[0] is not Driver.HOST:
        driver, which = driver_of(device)
        if driver is Driver.BROWSER:
            _require_page_can(protocol, photos, device)
            from deploykit.web.measure import measure_in_browser

            asked = device_options.accelerators if device_options else ()
            return measure_in_browser(which, subjects, protocol, threads=counts, accelerators=asked, report=say)
        options = replace(device_options or DeviceOptions(), threads=counts)
        result = measure_on_device(device, subjects, protocol, options, recipe=chosen, photos=photos, report=say)
        result = replace(result, measured=tuple(told_of_time(one, protocol) for one in result.measured))
        return _with_modules(result, subjects, None, say) if profile else result
    with tempfile.TemporaryDirectory(prefix="deploykit-bench-") as folder:
        skipped: tuple[SkippedLatency, ...] = ()
        network = None
        if chosen is not None or not subjects:
            chosen = chosen or load_recipe(default_recipe(Path.cwd()))
            say(f"loading the network of {chosen.name}")
            network = load_network(chosen)
            if not subjects:
                say(f"nothing of {chosen.name} in {output_dir or DEFAULT_FOLDER}: exporting it")
                subjects, skipped = _exported(network, Path(folder), say)
        result = measure_on_host(
            subjects,
            network=network,
            compiled=compiled,
            recipe=chosen,
            threads=counts,
            protocol=protocol,
            photos=photos,
            end_to_end=end_to_end,
            report=say,
        )
    if profile:
        result = _with_modules(result, subjects, network, say)
    measured = tuple(told_of_time(one, protocol) for one in result.measured)
    return replace(result, measured=measured, skipped=(*result.skipped, *skipped))


def _require_page_can(protocol: Protocol, photos: Sequence[Path], device: str) -> None:
    if photos or protocol.profile:
        raise UsageError(
            "A page runs on one bundled picture, and profiles nothing.",
            found=f"--device {device} with {'--images' if photos else '--profile'}",
            expected="one of them",
        )
    require_packages()


def _with_modules(result: Benchmark, subjects: Sequence[Subject], network: LoadedNetwork | None, say: Say) -> Benchmark:
    """Return ``result`` with the PyTorch modules of each operation, the longest time first."""
    artifacts = {one.name: one.artifact for one in subjects if one.artifact is not None}
    known: dict[str, Values | str] = {}
    measured = []
    for latency in result.measured:
        artifact = artifacts.get(latency.artifact)
        values: Values | str = {}
        if latency.operations and artifact is not None:
            if latency.artifact not in known:
                say(f"looking for the modules of {latency.artifact}")
                known[latency.artifact] = values_of(artifact, network)
            values = known[latency.artifact]
        measured.append(_named(latency, values))
    return replace(result, measured=tuple(measured))


def _named(latency: Latency, values: Values | str) -> Latency:
    if isinstance(values, str):
        return replace(
            latency,
            operations=with_modules(latency.operations, {}),
            notes=(*latency.notes, f"the profile names no modules: {values}"),
        )
    return replace(latency, operations=with_modules(latency.operations, values))


def values_of(artifact: Artifact, network: LoadedNetwork | None = None) -> Values | str:
    """Return the values of the graph that ``artifact`` was written from, or why they are not known.

    The graph is made anew from the network, whose checkpoint has to be that of the artifact.
    """
    try:
        if network is None or network.checkpoint_sha256 != artifact.checkpoint_sha256:
            network = load_network(_recipe_at_hand(artifact))
        if network.checkpoint_sha256 != artifact.checkpoint_sha256:
            return f"the checkpoint of {network.recipe.name} is another than the file was made from"
        images = [item for item in network.recipe.file.inputs if item.kind == "image"]
        sized = network.recipe
        if images and artifact.plan.input_shapes:
            index = network.recipe.file.inputs.index(images[0])
            height, width = artifact.plan.input_shapes[index][-2:]
            if (height, width) != images[0].shape[-2:]:
                sized = network.recipe.with_size(height, width)
        graph = lower_exactly(training_graph(replace(network, recipe=sized)), sized, artifact.plan)
    except DeploykitError as error:
        return error.message
    nodes = list(graph.module.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    found = {node.name: GraphValue(node.name, (), ()) for node in placeholders}
    for node in nodes:
        if node.op == "call_function":
            reads = tuple(source.name for source in node.all_input_nodes if source.op != "get_attr")
            found[node.name] = GraphValue(node.name, sources(node), reads)
    # In the file inputs and outputs bear the names of the recipe.
    named = [*zip((spec.name for spec in graph.inputs), placeholders, strict=True)]
    named += zip(graph.outputs, nodes[-1].args[0], strict=True)
    for name, node in named:
        found.setdefault(name, found[node.name])
    return found


def _recipe_at_hand(artifact: Artifact) -> Recipe:
    """Return the recipe that ``artifact`` names, from deploykit or from the project in this folder."""
    here = default_recipe(Path.cwd())
    own = load_recipe(here)
    return own if own.name == artifact.recipe else load_recipe(artifact.recipe)


def _found(output_dir: Path | None, recipe: Recipe | None) -> tuple[Subject, ...]:
    artifacts = find_artifacts(output_dir or DEFAULT_FOLDER)
    return exported_subjects(one for one in artifacts if recipe is None or one.recipe == recipe.name)


def _exported(
    network: LoadedNetwork, folder: Path, say: Callable[[str], None]
) -> tuple[tuple[Subject, ...], tuple[SkippedLatency, ...]]:
    # What cannot be measured here is not exported for it either.
    reasons = {target: unmeasurable(target) for target in Target}
    targets = [target for target, reason in reasons.items() if not reason]
    skipped = tuple(
        SkippedLatency(str(target), reason, elsewhere=bool(timed_elsewhere(target)))
        for target, reason in reasons.items()
        if reason
    )
    if not targets:
        return (), skipped
    artifacts = export(network, targets, draw_samples(network.recipe), folder, step=say)
    return exported_subjects(artifacts), skipped
