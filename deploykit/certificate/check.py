"""Check a certificate against a checkpoint: everything is made again, and each difference is named by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from deploykit.certificate.file import ReadCertificate, read_certificate
from deploykit.certificate.make import Subject, certify_block, examine
from deploykit.certificate.records import SCOPE, TRUST, Block, Box, Certificate, CertificateCheck, Difference, Rounding
from deploykit.errors import UsageError
from deploykit.network import LoadedNetwork, load_network
from deploykit.recipe import Recipe, load_recipe
from deploykit.verify.samples import draw_samples

# Boxes and bounds have 4 digits; float64 sums on another machine may move the last one.
LAST_DIGITS = 2e-3
# Two machines measure other roundings, all far below the limits.
MEASURED = 1e-13

EXACT = ("kind", "modules", "source", "algebra", "operations", "terms", "preconditions")
LAYER = ("kind", "stride", "padding", "dilation", "groups", "weight", "bias", "recomputed")


def check_certificate(
    path: Path,
    *,
    recipe: str | Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_key: str | None = None,
    step: Callable[[str], None] | None = None,
) -> CertificateCheck:
    """Return how the certificate at ``path`` differs from what the checkpoint gives now.

    ``recipe`` is a bundled name or a path; None takes the bundled one that the certificate names. Without a
    ``checkpoint`` the recipe's own is taken. Raises ArtifactError where the certificate cannot be read, RecipeError
    and CheckpointError as loading does.
    """
    read = read_certificate(path)
    say = step or (lambda message: None)
    say("loading the checkpoint")
    chosen = sized(load_recipe(recipe or read.certificate.recipe), read.certificate.input_shapes)
    network = load_network(chosen, checkpoint=checkpoint, key=checkpoint_key)
    say("capturing the network, folding and measuring each block again")
    return compare_certificate(read, network)


def sized(recipe: Recipe, shapes: Sequence[tuple[int, ...]]) -> Recipe:
    """Return ``recipe`` at the input size that ``shapes`` tell, or as it is where they are not its inputs at a size."""
    images = [shape for item, shape in zip(recipe.file.inputs, shapes, strict=False) if item.kind == "image"]
    if tuple(item.shape for item in recipe.file.inputs) == tuple(shapes) or not images or len(images[0]) != 4:
        return recipe
    try:
        return recipe.with_size(*images[0][2:])
    except UsageError:
        return recipe


def compare_certificate(read: ReadCertificate, network: LoadedNetwork) -> CertificateCheck:
    """Return how ``read`` differs from ``network``, block by block. Raises VerificationError as ``examine`` does."""
    recorded = read.certificate
    samples = draw_samples(network.recipe)
    subject = examine(network, samples)
    found = [Difference("", f"digest of {field}", "as written", "changed since") for field in read.broken]
    found += _head(recorded, subject)
    blocks = {block.name: block for block in recorded.blocks}
    for replaced in subject.blocks:
        block = blocks.pop(replaced.name, None)
        if block is None:
            found.append(Difference(replaced.name, "block", "not there", "folded or merged"))
            continue
        observed = subject.boxes[replaced.name]
        usable = len(block.box.lower) == len(block.box.upper) == len(observed.lower)
        now = certify_block(subject, replaced, block.box if usable else observed)
        found += _differences(block, now, observed, same_samples=recorded.samples == subject.samples)
    found += [Difference(name, "block", "folded or merged", "not there") for name in blocks]
    return CertificateCheck(
        recipe=recorded.recipe,
        certificate_sha256=read.sha256,
        checkpoint_sha256=network.checkpoint_sha256,
        blocks=len(recorded.blocks),
        differences=tuple(found),
        certificate=recorded,
    )


def _head(recorded: Certificate, subject: Subject) -> Iterator[Difference]:
    recipe = subject.network.recipe
    now = {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256,
        "checkpoint_sha256": subject.network.checkpoint_sha256,
        "input_shapes": tuple(item.shape for item in recipe.file.inputs),
        "scope": SCOPE,
        "trust": TRUST,
    }
    for name, value in now.items():
        if getattr(recorded, name) != value:
            yield Difference("", name, str(getattr(recorded, name)), str(value))
    for name, digest in subject.samples.items():
        if recorded.samples.get(name, digest) != digest:
            yield Difference("", f"sample {name}", recorded.samples[name], digest)


def _differences(recorded: Block, now: Block, observed: Box, *, same_samples: bool) -> Iterator[Difference]:
    def differ(what: str, before: object, after: object) -> Difference:
        return Difference(recorded.name, what, _short(_less(before, after)), _short(_less(after, before)))

    for fault in now.faults():
        yield differ("verdict", "holds", fault)
    for field in EXACT:
        if getattr(recorded, field) != getattr(now, field):
            yield differ(field, getattr(recorded, field), getattr(now, field))
    for field in LAYER:
        before, after = getattr(recorded.layer, field), getattr(now.layer, field)
        if before != after:
            yield differ(f"folded {field}", before, after)
    for problem in _box(recorded.box, observed, same_samples):
        yield differ("box", problem, "observed on the samples")
    for name in ("float32", "float16"):
        yield from _rounding(recorded, name, getattr(recorded, name), getattr(now, name))
    for name in ("float64_error", "fold_error"):
        before, after = getattr(recorded.measured, name), getattr(now.measured, name)
        if not abs(before - after) <= MEASURED:
            yield differ(name, before, after)
    worst = now.float32.worst_bound
    if worst is not None and not 0 <= recorded.measured.float32_error <= worst:
        yield differ("float32_error", recorded.measured.float32_error, f"at most {worst:.4g}")
    if not 0 <= recorded.measured.share_of_bound <= 1:
        yield differ("share_of_bound", recorded.measured.share_of_bound, now.measured.share_of_bound)


def _box(recorded: Box, observed: Box, same_samples: bool) -> Iterator[str]:
    sides = ((recorded.lower, observed.lower, -1.0), (recorded.upper, observed.upper, 1.0))
    for name, (before, now, outwards) in zip(("lower", "upper"), sides, strict=True):
        if len(before) != len(now):
            yield f"{len(before)} channels instead of {len(now)}"
            return
        scale = np.maximum(np.abs(observed.lower), np.abs(observed.upper)) * LAST_DIGITS
        excess = outwards * (np.array(before) - np.array(now))
        wrong = ~(excess >= -scale) | ((~(excess <= scale)) & same_samples)
        if wrong.any():
            channel = int(wrong.argmax())
            yield f"{name} side of channel {channel} at {before[channel]:g} instead of {now[channel]:g}"


def _rounding(block: Block, name: str, recorded: Rounding, now: Rounding) -> Iterator[Difference]:
    for field in ("precision", "unit_roundoff", "roundings", "gamma", "overflows"):
        before, after = getattr(recorded, field), getattr(now, field)
        if before != after:
            yield Difference(block.name, f"{name} {field}", _short(before), _short(after))
    for field in ("worst_bound", "weight_rounding", "largest_sum"):
        before, after = getattr(recorded, field), getattr(now, field)
        if before != after and (before is None or after is None or not _close(before, after)):
            yield Difference(block.name, f"{name} {field}", _short(before), _short(after))
    if len(recorded.bounds) != len(now.bounds):
        yield Difference(block.name, f"{name} bounds", f"{len(recorded.bounds)}", f"{len(now.bounds)} channels")
        return
    for channel, (before, after) in enumerate(zip(recorded.bounds, now.bounds, strict=True)):
        if not _close(before, after):
            yield Difference(block.name, f"{name} bound of channel {channel}", _short(before), _short(after))
            return


def _close(one: float, other: float) -> bool:
    return one == other or abs(one - other) <= LAST_DIGITS * max(abs(one), abs(other))


def _less(value: object, other: object) -> object:
    """Return of a tuple what ``other`` does not hold as well, so that the difference alone is shown."""
    if isinstance(value, tuple) and isinstance(other, tuple):
        return tuple(one for one in value if isinstance(one, int) or one not in other) or value
    return value


def _plain(value: object) -> str:
    if dataclasses.is_dataclass(value):
        return ", ".join(f"{field.name}: {_plain(getattr(value, field.name))}" for field in dataclasses.fields(value))
    if isinstance(value, tuple) and not all(isinstance(one, int) for one in value):
        return "; ".join(map(_plain, value))
    return "none" if value is None else str(value)


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else _plain(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
