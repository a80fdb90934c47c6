"""What a converter does with a construct when the pass for it is left out: why the pass is there."""

from __future__ import annotations

import pytest

from deploykit.errors import DeploykitError, TargetError, VerificationError
from deploykit.lowering import ExportOptions
from deploykit.preflight.outcome import prepared
from deploykit.targets.table import part
from deploykit.vocab import Target

# Files that convert, load and run, and give other numbers: only the comparison finds them.
WRONG = [
    ("average pooling, divisor", Target.ONNX, "average_pooling_divisor"),
    ("constant over conv", Target.COREML, "reciprocal_as_division"),
    ("GELU, tanh", Target.COREML, "gelu_by_tanh"),
    ("bilinear resize, antialias", Target.COREML, "resize_as_products"),
    ("bilinear resize by a factor", Target.TFLITE, "resize_as_products"),
    ("nearest resize, uneven", Target.TFLITE, "nearest_by_index"),
]
REFUSED = [
    ("adaptive max pooling, not dividing", Target.ONNX, "adaptive_max_pooling"),
    ("circular padding", Target.COREML, "circular_padding"),
    ("pixel unshuffle", Target.COREML, "pixel_unshuffle_as_convolution"),
    ("bicubic resize", Target.COREML, "resize_as_products"),
    ("transposed conv, output_padding", Target.TFLITE, "plain_transposed_convolution"),
    ("transposed conv, cropped unevenly", Target.TFLITE, "plain_transposed_convolution"),
    ("adaptive max pooling, dividing", Target.TFLITE, "adaptive_max_pooling"),
]


CASES = [
    *(pytest.param(*case, VerificationError) for case in WRONG[:1]),
    *(pytest.param(*case, VerificationError, marks=pytest.mark.full) for case in WRONG[1:]),
    *(pytest.param(*case, TargetError, marks=pytest.mark.full) for case in REFUSED),
]


@pytest.mark.parametrize(("construct", "target", "name", "error"), CASES)
def test_a_pass_is_needed(construct, target, name, error, tmp_path, monkeypatch):
    lowering = part(target, "lowering")
    rest = tuple(one for one in lowering.PASSES if one.__name__ != name)
    assert len(rest) == len(lowering.PASSES) - 1
    monkeypatch.setattr(lowering, "PASSES", rest)
    with pytest.raises(DeploykitError) as caught:
        prepared(construct).write(target, ExportOptions(), tmp_path)
    assert type(caught.value) is error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing that differs is kept"
