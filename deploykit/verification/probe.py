"""The preprocessing inside a file, told from what it makes of images that are chosen for it.

A file that takes pixels is run on probe images, and so is the reference after the recipe's preprocessing. Where the
outputs differ, the reference is run after every preprocessing that might have been built in by mistake; the one whose
outputs are those of the file is named. Where none is, a mean and a scale are fitted to the file's own outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deploykit.images.preprocess import Pixels
from deploykit.recipe import Input
from deploykit.records import Tolerance
from deploykit.verification.fitting import Values, fitted
from deploykit.verification.hypotheses import Preprocessing, hypotheses, recipe_preprocessing
from deploykit.verification.probe_images import probe_images
from deploykit.verification.records import Hypothesis, Probe, ProbeVerdict
from deploykit.verify.samples import Sample
from deploykit.vocab import ColorOrder

RunFile = Callable[[Sample], Values]
RunReference = Callable[[Sample], Values]
Say = Callable[[str], None]

_REPORT_EVERY = 8
# A preprocessing explains a difference if it leaves at most this share of it.
_LEFT = 0.25
# Explanations that leave no more than this many times what the best one leaves are not told apart.
_ALIKE = 1.5
# The limit where the recipe bounds masks only.
_WITHOUT_BOUND = 1e-2
# A preprocessing further off than this many times the limit on the first image is not run on the others.
_HOPELESS = 4.0
# A mean and a scale are fitted to so many of the first images: ramps of colour and a plain one.
_TELLING = 2


@dataclass(frozen=True)
class ProbeCase:
    """What is probed: the image input ``spec`` of the network, and the ``size`` of the pixels that the file takes.

    ``template`` is a sample of the file, whose other inputs stay as they are. ``run_file`` and ``run_reference``
    return outputs by the recipe's names, in the same form; the reference reads ``tensors`` alone.
    """

    spec: Input
    size: tuple[int, int]
    template: Sample
    reference_template: Sample
    run_file: RunFile
    run_reference: RunReference
    tolerance: Tolerance

    @property
    def resizes(self) -> bool:
        """Whether the file brings the picture to the network's size by itself."""
        return self.size != (self.spec.height, self.spec.width)

    def found(self, image: Pixels) -> Values:
        """Return the file's outputs for RGB pixels (H, W, 3)."""
        pixels = image[:, :, ::-1] if self.spec.color_order is ColorOrder.BGR else image
        given = {**self.template.pixels, self.spec.name: np.ascontiguousarray(pixels)}
        tensors = {**self.template.tensors, self.spec.name: pixels.transpose(2, 0, 1)[None].astype(np.float32)}
        return self.run_file(replace(self.template, pixels=given, tensors=tensors))

    def expected(self, image: Pixels, preprocessing: Preprocessing) -> Values:
        """Return the reference's outputs for the same pixels after ``preprocessing``."""
        tensors = {**self.reference_template.tensors, self.spec.name: preprocessing(image, self.spec)}
        return self.run_reference(replace(self.reference_template, tensors=tensors))


def probe(case: ProbeCase, say: Say = lambda message: None) -> Probe:
    """Return whether the file preprocesses as the recipe says, and if not, how."""
    images = probe_images(*case.size)
    say("probing the preprocessing inside the file")
    found = {name: case.found(image) for name, image in images.items()}
    own = recipe_preprocessing(case.spec, resizes=case.resizes)
    expected = {name: case.expected(image, own) for name, image in images.items()}
    limit = _limit(case.tolerance, list(expected.values()))
    difference = _distance(found.values(), expected.values())
    if difference <= limit or _kept(case.tolerance, found, expected):
        return Probe(ProbeVerdict.AGREES, "the file preprocesses as the recipe says", tuple(images), difference, limit)
    tried, explained = _explanations(case, images, found, limit, say)
    better = sorted(
        (one for one in explained if one.relative_l2 <= _LEFT * difference), key=lambda one: one.relative_l2
    )
    if not better:
        return Probe(
            ProbeVerdict.UNEXPLAINED,
            f"the outputs differ on probe images, and none of {tried} other preprocessings "
            "gives them, nor any mean and scale",
            tuple(images),
            difference,
            limit,
            (),
            tried,
        )
    alike = tuple(one for one in better if one.relative_l2 <= _ALIKE * better[0].relative_l2)
    detail = "the file behaves as if " + ", or ".join(one.name for one in alike)
    return Probe(ProbeVerdict.EXPLAINED, detail, tuple(images), difference, limit, alike, tried)


def _explanations(
    case: ProbeCase, images: Mapping[str, Pixels], found: Mapping[str, Values], limit: float, say: Say
) -> tuple[int, list[Hypothesis]]:
    """Return how many preprocessings were tested, and those that give the outputs, with their distance."""
    seen = [_tensors(recipe_preprocessing(case.spec, resizes=case.resizes), images, case.spec)]
    explained: list[Hypothesis] = []
    (first, image), *others = images.items()
    groups = hypotheses(case.spec, resizes=case.resizes)
    total = sum(len(group) for group in groups)
    tried = 0
    for group in groups:
        for one in group:
            if tried % _REPORT_EVERY == 0:
                say(f"the outputs differ: trying other preprocessings, {tried} of {total}")
            tried += 1
            tensor = _tensors(one, images, case.spec)
            if any(np.allclose(tensor, other, rtol=1e-5, atol=1e-6) for other in seen):
                continue
            seen.append(tensor)
            values = [case.expected(image, one)]
            if not _distance([found[first]], values) <= _HOPELESS * limit:
                continue
            values += [case.expected(picture, one) for _, picture in others]
            distance = _distance(found.values(), values)
            if distance <= limit:
                explained.append(Hypothesis(one.name, distance))
        if explained:
            # One mistake is likelier than two that give the same.
            break
    if not explained:
        say("the outputs differ: measuring the mean and the scale")
        explained = _measured(case, images, found, limit)
    return len(seen) - 1, explained


def _measured(
    case: ProbeCase, images: Mapping[str, Pixels], found: Mapping[str, Values], limit: float
) -> list[Hypothesis]:
    """Return the simplest of the wrong means and scales that the file's outputs lead to."""
    telling = list(images)[:_TELLING]
    pictures, given = [images[name] for name in telling], [found[name] for name in telling]
    for swapped in (False, True):
        for one in fitted(case.spec, pictures, given, case.expected, resizes=case.resizes, swapped=swapped):
            distance = _distance(found.values(), [case.expected(image, one) for image in images.values()])
            if distance <= limit:
                return [Hypothesis(one.name, distance)]
    return []


def _tensors(one: Preprocessing, images: Mapping[str, Pixels], spec: Input) -> NDArray[np.float32]:
    return np.concatenate([one(picture, spec).ravel() for picture in images.values()])


def _limit(tolerance: Tolerance, expected: Sequence[Values]) -> float:
    """Return the tolerance as a relative L2 error of these outputs."""
    if tolerance.relative_l2 is not None:
        return tolerance.relative_l2
    flat = np.concatenate([np.ravel(value).astype(np.float64) for values in expected for value in values.values()])
    rms = float(np.sqrt(np.mean(np.square(flat))))
    if tolerance.max_abs_error is None:
        return _WITHOUT_BOUND
    return tolerance.max_abs_error / rms if rms > 0 else 0.0


def _kept(tolerance: Tolerance, found: Mapping[str, Values], expected: Mapping[str, Values]) -> bool:
    if tolerance.max_abs_error is None:
        return False
    worst = 0.0
    for name, values in expected.items():
        for output, value in values.items():
            with np.errstate(all="ignore"):
                worst = max(worst, float(np.nan_to_num(np.abs(found[name][output] - value), nan=np.inf).max()))
    return worst <= tolerance.max_abs_error


def _distance(found: Iterable[Values], expected: Iterable[Values]) -> float:
    """Return the relative L2 distance over all outputs of all images; infinite where a value is not finite."""
    squares = energy = 0.0
    for a, b in zip(found, expected, strict=True):
        for name, value in b.items():
            with np.errstate(all="ignore"):
                squares += float(np.square(a[name].astype(np.float64) - value.astype(np.float64)).sum())
                energy += float(np.square(value.astype(np.float64)).sum())
    if not math.isfinite(squares) or not math.isfinite(energy):
        return math.inf
    return math.sqrt(squares / energy) if energy > 0 else (0.0 if squares == 0 else math.inf)
