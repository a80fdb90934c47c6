"""The lines of Swift and Kotlin say what the manifest says: kind, layout, colours, preprocessing and meaning."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.artifact import find_artifacts
from deploykit.records import Artifact, TensorRecord
from deploykit.report_page.calls import Call, call_of
from deploykit.vocab import ColorOrder, InputKind, Layout, OutputKind, Target

SUFFIXES = {Target.ONNX: ".onnx", Target.TFLITE: ".tflite", Target.COREML: ".mlpackage", Target.COREAI: ".aimodel"}
PRIOR = {
    "name": "prior",
    "kind": "tensor",
    "shape": [1, 1, 32, 32],
    "value_range": [0.0, 1.0],
    "feedback": {"output": "scores", "class_name": "person", "first": 0.0},
    "source": "this test",
}


@pytest.fixture(scope="module")
def exported(written) -> Artifact:
    (artifact,) = find_artifacts(written)
    return artifact


def made(
    artifact: Artifact,
    target: Target,
    *,
    inputs: tuple[TensorRecord, ...] | None = None,
    outputs: tuple[TensorRecord, ...] | None = None,
    kind: InputKind = InputKind.TENSOR,
    gives: OutputKind = OutputKind.LOGITS,
    photo: dict | None = None,
    more: tuple[dict, ...] = (),
    classes: list[str] | None = None,
) -> Call:
    """Return the call of a file like ``artifact`` that declares these tensors, its recipe changed likewise."""
    table = copy.deepcopy(artifact.recipe_table)
    table["inputs"][0].update(photo or {})
    table["inputs"] += more
    if classes is not None:
        table["outputs"][0]["classes"] = classes
    changed = replace(
        artifact,
        plan=replace(artifact.plan, target=target, input_kind=kind, output_kind=gives),
        path=Path("chain" + SUFFIXES[target]),
        inputs=inputs or artifact.inputs,
        outputs=outputs or artifact.outputs,
        recipe_table=table,
    )
    return call_of("a file", changed)


def bare(code: str) -> str:
    """Return ``code`` without its strings and comments, whichever begins first."""
    return re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', "", code, flags=re.DOTALL)


def balanced(code: str) -> bool:
    """Whether brackets close in order outside of strings and comments."""
    opened = []
    for one in bare(code):
        if one in "([{":
            opened.append(one)
        elif one in ")]}" and (not opened or opened.pop() + one not in ("()", "[]", "{}")):
            return False
    return not opened


PIXELS = TensorRecord("image", (1, 32, 32, 3), "uint8", Layout.NHWC, ColorOrder.RGB)


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("kind", InputKind)
def test_every_target_has_lines_for_tensors_and_images(exported, target, kind):
    inputs = (PIXELS,) if kind is InputKind.IMAGE else None
    call = made(exported, target, kind=kind, inputs=inputs)
    assert balanced(call.code)
    assert call.language == ("Swift" if target in (Target.COREML, Target.COREAI) else "Kotlin")
    assert f'"{"chain" if target is Target.COREML else "chain" + SUFFIXES[target]}"' in call.code
    assert '"image"' in call.code
    assert '"scores"' in call.code
    assert len(call.sentences) == (3 if call.language == "Swift" else 2)


def test_a_tensor_is_preprocessed_as_the_recipe_says(exported):
    photo = {"color_order": "bgr", "mean": [1.0, 2.0, 3.0], "scale": [0.1, 0.2, 0.3]}
    code = made(exported, Target.ONNX, photo=photo).code
    assert "createScaledBitmap(photo, 32, 32, true)" in code
    assert "intArrayOf(0, 8, 16)  // BGR" in code
    assert "floatArrayOf(1f, 2f, 3f)" in code
    assert "floatArrayOf(0.1f, 0.2f, 0.3f)" in code
    assert "values[1024 * c + i] = value" in code
    assert "FloatBuffer.wrap(input0), longArrayOf(1, 3, 32, 32))" in code
    swift = made(exported, Target.COREAI, photo=photo).code
    assert "let order = [2, 1, 0]  // BGR" in swift
    assert "let mean: [Float] = [1, 2, 3]" in swift
    assert "values[1024 * c + i] =" in swift


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize(
    ("name", "kotlin", "swift"),
    [("nearest", "", ""), ("bilinear", "", "bilinear"), ("bicubic", "4 x 4", "bicubic"), ("area", "averages", "area")],
)
def test_a_resizing_that_the_lines_do_otherwise_is_said(exported, target, name, kotlin, swift):
    call = made(exported, target, photo={"resize": {"rule": "letterbox", "filter": name, "pad_value": 1}})
    words = swift if call.language == "Swift" else kotlin
    (said,) = [one for one in call.sentences if one.startswith("These lines resize")] or [""]
    assert bool(said) == bool(words)
    assert words in said
    assert said in call.code
    if name == "nearest" and call.language == "Kotlin":
        assert "roundToInt(), false)" in call.code


def test_one_mean_stands_for_all_channels(exported):
    assert "floatArrayOf(127.5f, 127.5f, 127.5f)" in made(exported, Target.TFLITE).code


def test_an_image_is_given_as_bytes_without_preprocessing(exported):
    onnx = made(exported, Target.ONNX, kind=InputKind.IMAGE, inputs=(PIXELS,)).code
    assert "ByteBuffer.wrap(input0), longArrayOf(1, 32, 32, 3), OnnxJavaType.UINT8)" in onnx
    assert "values[3 * i + c] = level.toByte()" in onnx
    assert "mean" not in bare(onnx)
    tflite = made(exported, Target.TFLITE, kind=InputKind.IMAGE, inputs=(PIXELS,)).code
    assert 'inputs.getValue("image").writeInt8(input0)' in tflite
    coreml = made(exported, Target.COREML, kind=InputKind.IMAGE, inputs=(PIXELS,)).code
    assert "input0: CGImage" in coreml
    assert "pixelsWide: 32, pixelsHigh: 32" in coreml
    assert "VNImageCropAndScaleOption.scaleFill" in coreml
    coreai = made(exported, Target.COREAI, kind=InputKind.IMAGE, inputs=(PIXELS,)).code
    assert "input0: [UInt8]" in coreai


@pytest.mark.parametrize("target", Target)
def test_a_letterbox_is_drawn_by_the_caller(exported, target):
    photo = {"resize": {"rule": "letterbox", "filter": "bilinear", "pad_value": 114}}
    call = made(exported, target, kind=InputKind.IMAGE, inputs=(PIXELS,), photo=photo)
    assert balanced(call.code)
    assert "114" in call.code
    assert "ratio" in call.code
    assert "letterboxed with grey 114" in call.sentences[0]


def test_integers_are_scaled_by_the_caller(exported):
    inputs = (TensorRecord("image", (1, 32, 32, 3), "int8", Layout.NHWC, scale=0.02, zero_point=-3),)
    outputs = (TensorRecord("scores", (1, 16, 16, 2), "int8", Layout.NHWC, scale=0.1, zero_point=5),)
    call = made(exported, Target.TFLITE, inputs=inputs, outputs=outputs)
    assert balanced(call.code)
    assert "((value / 0.02f).roundToInt() + -3).coerceIn(-128, 127).toByte()" in call.code
    assert "readInt8()" in call.code
    assert "values[2 * i + c]" in call.code
    assert "0.1 * (q - 5)" in call.sentences[1]
    wide = (TensorRecord("image", (1, 32, 32, 3), "int16", Layout.NHWC, scale=0.02),)
    assert "no buffers of 16-bit integers" in made(exported, Target.TFLITE, inputs=wide).code


def test_each_kind_of_output_is_read_as_what_it_means(exported):
    single = (TensorRecord("scores", (1, 1, 16, 16), "float32", Layout.NCHW),)
    for target, words in ((Target.TFLITE, "if (values[i] > 0.5f) 1 else 0"), (Target.COREML, "$0 > 0.5 ? 1 : 0")):
        call = made(exported, target, gives=OutputKind.PROBABILITY, outputs=single)
        assert words in call.code
        assert "the probability of person" in call.sentences[1]
    mask = made(exported, Target.ONNX, gives=OutputKind.MASK, outputs=single)
    assert "values[i].toInt()" in mask.code
    assert "0 background, 1 person" in mask.sentences[1]
    logits = made(exported, Target.ONNX)
    assert "maxByOrNull { c -> values[256 * c + i] }" in logits.code
    assert "no probability" in logits.sentences[1]


@pytest.mark.parametrize("target", Target)
def test_feedback_is_an_input_of_its_own(exported, target):
    record = TensorRecord("prior", (1, 1, 32, 32), "float32", Layout.NCHW)
    call = made(exported, target, inputs=(*exported.inputs, record), more=(PRIOR,))
    assert balanced(call.code)
    assert "input1" in call.code
    assert '"prior"' in call.code
    assert "the probability of person in the frame before, 0 for the first frame" in call.sentences[1]


@pytest.mark.parametrize("target", Target)
def test_hostile_words_end_no_string_and_no_comment(exported, target):
    evil = '*/ "} $x \\(y) \n boom()\u2028'
    call = made(exported, target, classes=["background", evil])
    assert balanced(call.code)
    assert "\nboom" not in call.code
    assert "boom" in call.code
    assert "boom" not in bare(call.code)


def test_a_manifest_without_a_valid_recipe_has_no_lines(exported):
    call = call_of("a file", replace(exported, recipe_table={"name": "x"}))
    assert call.code == ""
    assert call.sentences[0].startswith("Not known:")
