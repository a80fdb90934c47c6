"""Files with integers in them: each format's passes, and one whose stored integers were changed does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from verification_cases import copied, replace_weight, weight_of

from deploykit import verify_artifact
from deploykit.errors import VerificationError
from deploykit.lowering import ExportOptions
from deploykit.quantize.calibration import calibration_set
from deploykit.records import Artifact
from deploykit.targets.integers import int8_weights
from deploykit.vocab import Estimator, Precision, Target

EVERY = pytest.mark.parametrize(
    "target", [pytest.param(one, marks=pytest.mark.full) if one is Target.COREAI else one for one in Target]
)


@pytest.fixture(scope="module")
def written(case, tmp_path_factory) -> Callable[[Target], Artifact]:
    """Return the int8 file of a target, its weights those of the checkpoint."""
    folder = tmp_path_factory.mktemp("integers")
    images = calibration_set(case().recipe, count=8)
    options = ExportOptions(
        precision=Precision.INT8,
        calibration=images.record.sha256,
        estimator=Estimator.MIN_MAX,
        equalization=0.0,
        correct_biases=False,
        max_drop=None,
    )
    return cache(lambda target: case().exporter.write(target, options, folder, calibration=images))


@EVERY
def test_a_file_with_integers_passes(case, written, target):
    one = verify_artifact(written(target).path, recipe=case().recipe_path)
    assert one.passed, one.findings
    assert (one.target, one.changed, one.precision) == (target, (), Precision.INT8)
    (output,) = one.runtimes[0].outputs
    assert output.miou > 0.9
    # It is no float file: the error is far above that of half precision.
    assert output.comparison.relative_l2 > 2e-3


@EVERY
def test_changed_integers_are_named_or_fail(case, written, target, tmp_path):
    path = copied(written(target), tmp_path / "copy")
    # Core ML and Core AI begin with a file in half precision.
    half = target in (Target.COREML, Target.COREAI)
    integers = int8_weights(weight_of(case(), "last").astype(np.float16 if half else np.float32), 0).integers
    replace_weight(path, integers, integers[::-1])
    if target is Target.COREAI:
        with pytest.raises(VerificationError, match="changed since its manifest") as caught:
            verify_artifact(path, recipe=case().recipe_path)
        assert path.name in caught.value.found
        return
    one = verify_artifact(path, recipe=case().recipe_path)
    assert not one.passed
    assert one.changed[0].startswith(path.name)
    (output,) = one.runtimes[0].outputs
    assert not output.passed
    assert output.comparison.mask_agreement < 0.5
