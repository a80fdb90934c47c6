"""The lines of Kotlin that call a file on Android: TFLite with LiteRT 2, ONNX with ONNX Runtime.

Names of the interfaces: LiteRT's ``CompiledModel`` and ``TensorBuffer`` (litert/kotlin), ONNX Runtime's Java interface.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.report_page.contract import Contract, Given, InputCall, OutputCall
from deploykit.vocab import ColorOrder, Layout, OutputKind, Target

_SHIFTS = {"r": 16, "g": 8, "b": 0}
_NO_WORDS = "LiteRT's Kotlin interface has no buffers of 16-bit integers: call this file from C++."


def kotlin(contract: Contract) -> str:
    """Return the lines that load and call an ONNX or TFLite file."""
    tflite = contract.target is Target.TFLITE
    records = [*(one.record for one in contract.inputs), *(one.record for one in contract.outputs)]
    if tflite and any(record.dtype == "int16" for record in records):
        return f"// {_NO_WORDS}\n"
    lines = [*_imports(contract), ""]
    if contract.photo is not None:
        lines += [*_preprocessing(contract.photo), ""]
    lines += _litert(contract) if tflite else _onnx(contract)
    for output in contract.outputs:
        if len(output.spec.classes) > 1:
            lines += ["", *_mask(output)]
            break
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """Return ``value`` as a Kotlin string."""
    plain = {"\\": "\\\\", '"': '\\"', "$": "\\$"}
    parts = (plain.get(one, one if " " <= one <= "~" else _escaped(one)) for one in value)
    return '"' + "".join(parts) + '"'


def _escaped(one: str) -> str:
    encoded = one.encode("utf-16-be", "replace")
    return "".join(f"\\u{encoded[index]:02x}{encoded[index + 1]:02x}" for index in range(0, len(encoded), 2))


def _imports(contract: Contract) -> list[str]:
    found = ["android.content.Context"]
    photo = contract.photo
    if photo is not None:
        found.append("android.graphics.Bitmap")
        if photo.spec.resize.rule == "letterbox":
            found += ["android.graphics.Canvas", "android.graphics.Color"]
        if photo.spec.resize.rule == "letterbox" or photo.record.scale is not None:
            found.append("kotlin.math.roundToInt")
    if contract.target is Target.TFLITE:
        package = "com.google.ai.edge.litert"
        version = f"{package}:litert:2.1.0"
        found += [f"{package}.Accelerator", f"{package}.CompiledModel"]
    else:
        version = "com.microsoft.onnxruntime:onnxruntime-android:1.20.0"
        found += [f"ai.onnxruntime.{one}" for one in ("OnnxTensor", "OrtEnvironment", "OrtSession")]
        if any(_bytes(one) for one in contract.inputs):
            found += ["ai.onnxruntime.OnnxJavaType", "java.nio.ByteBuffer"]
        if not all(_bytes(one) for one in contract.inputs):
            found.append("java.nio.FloatBuffer")
    return [f'// Gradle: implementation("{version}") or newer', *(f"import {one}" for one in sorted(found))]


def _bytes(call: InputCall) -> bool:
    return call.record.dtype in ("uint8", "int8")


def _array(call: InputCall) -> str:
    return "ByteArray" if _bytes(call) else "FloatArray"


def _preprocessing(photo: InputCall) -> Iterator[str]:
    """Yield a function from a bitmap to the values of the file's input."""
    size = photo.width * photo.height
    index = "3 * i + c" if photo.record.layout is Layout.NHWC else f"{size} * c + i"
    yield "/** The photo as the file takes it; see run. */"
    yield f"fun preprocess(photo: Bitmap): {_array(photo)} {{"
    smooth = "false" if photo.spec.resize.filter == "nearest" else "true"
    if photo.spec.resize.rule == "letterbox":
        grey = photo.spec.resize.pad_value
        yield f"    // Keep the aspect ratio and fill the border with grey {grey}."
        yield f"    val ratio = minOf({photo.width}f / photo.width, {photo.height}f / photo.height)"
        yield "    val inner = Bitmap.createScaledBitmap("
        yield f"        photo, (photo.width * ratio).roundToInt(), (photo.height * ratio).roundToInt(), {smooth})"
        yield f"    val resized = Bitmap.createBitmap({photo.width}, {photo.height}, Bitmap.Config.ARGB_8888)"
        yield f"    resized.eraseColor(Color.rgb({grey}, {grey}, {grey}))"
        yield "    Canvas(resized).drawBitmap("
        yield f"        inner, (({photo.width} - inner.width) / 2).toFloat(),"
        yield f"        (({photo.height} - inner.height) / 2).toFloat(), null)"
    else:
        yield f"    val resized = Bitmap.createScaledBitmap(photo, {photo.width}, {photo.height}, {smooth})"
    yield f"    val pixels = IntArray({size})"
    yield f"    resized.getPixels(pixels, 0, {photo.width}, 0, 0, {photo.width}, {photo.height})"
    order = "bgr" if photo.order is ColorOrder.BGR else "rgb"
    shifts = ", ".join(str(_SHIFTS[one]) for one in order)
    yield f"    val shifts = intArrayOf({shifts})  // {order.upper()}"
    if photo.given is Given.VALUES:
        yield f"    val mean = floatArrayOf({', '.join(f'{one:.9g}f' for one in photo.mean)})"
        yield f"    val scale = floatArrayOf({', '.join(f'{one:.9g}f' for one in photo.scale)})"
    yield f"    val values = {_array(photo)}({3 * size})"
    yield f"    for (i in 0 until {size}) for (c in 0..2) {{"
    yield "        val level = (pixels[i] shr shifts[c]) and 0xFF"
    if photo.given is Given.PIXELS:
        level = "level.toByte()" if _bytes(photo) else "level.toFloat()"
        yield f"        values[{index}] = {level}"
    else:
        yield "        val value = (level - mean[c]) * scale[c]"
        yield f"        values[{index}] = {_quantized(photo, 'value')}"
    yield "    }"
    yield "    return values"
    yield "}"


def _quantized(call: InputCall, value: str) -> str:
    record = call.record
    if record.scale is None:
        return value
    low, high = (-128, 127) if record.dtype == "int8" else (0, 255)
    plain = f"({value} / {record.scale:.9g}f).roundToInt() + {record.zero_point}"
    return f"({plain}).coerceIn({low}, {high}).toByte()"


def _parameters(contract: Contract) -> str:
    return ", ".join(f"input{index}: {_array(one)}" for index, one in enumerate(contract.inputs))


def _litert(contract: Contract) -> Iterator[str]:
    yield "class Segmenter(context: Context) : AutoCloseable {"
    yield "    private val model = CompiledModel.create("
    yield f"        context.assets, {_text(contract.file)}, CompiledModel.Options(Accelerator.CPU))"
    for kind, calls in (("Input", contract.inputs), ("Output", contract.outputs)):
        names = ", ".join(
            f"{_text(one.record.name)} to model.create{kind}Buffer({_text(one.record.name)})" for one in calls
        )
        yield f"    private val {kind.lower()}s = mapOf({names})"
    yield ""
    for sentence in contract.sentences():
        yield f"    // {sentence}"
    first = contract.outputs[0]
    kind = "ByteArray" if first.record.dtype in ("int8", "uint8") else "FloatArray"
    yield f"    fun run({_parameters(contract)}): {kind} {{"
    for index, one in enumerate(contract.inputs):
        write = "writeInt8" if _bytes(one) else "writeFloat"
        unsigned = "  // the same bytes, unsigned" if one.record.dtype == "uint8" else ""
        yield f"        inputs.getValue({_text(one.record.name)}).{write}(input{index}){unsigned}"
    yield "        model.run(inputs, outputs)"
    read = "readInt8" if kind == "ByteArray" else "readFloat"
    yield f"        return outputs.getValue({_text(first.record.name)}).{read}()"
    yield "    }"
    yield ""
    yield "    override fun close() = model.close()"
    yield "}"


def _onnx(contract: Contract) -> Iterator[str]:
    yield "class Segmenter(context: Context) : AutoCloseable {"
    yield "    private val environment = OrtEnvironment.getEnvironment()"
    yield "    private val session = environment.createSession("
    yield f"        context.assets.open({_text(contract.file)}).use {{ it.readBytes() }}, OrtSession.SessionOptions())"
    yield ""
    for sentence in contract.sentences():
        yield f"    // {sentence}"
    first = contract.outputs[0]
    integers = first.record.dtype in ("int8", "uint8")
    kind = "ByteArray" if integers else "FloatArray"
    yield f"    fun run({_parameters(contract)}): {kind} {{"
    pad = " " * 8
    for index, one in enumerate(contract.inputs):
        shape = ", ".join(str(size) for size in one.record.shape)
        buffer = f"ByteBuffer.wrap(input{index})" if _bytes(one) else f"FloatBuffer.wrap(input{index})"
        java = f", OnnxJavaType.{one.record.dtype.upper()}" if _bytes(one) else ""
        yield f"{pad}OnnxTensor.createTensor("
        yield f"{pad}    environment, {buffer}, longArrayOf({shape}){java}).use {{ tensor{index} ->"
        pad += " " * 4
    named = ", ".join(f"{_text(one.record.name)} to tensor{index}" for index, one in enumerate(contract.inputs))
    yield f"{pad}session.run(mapOf({named})).use {{ result ->"
    yield f"{pad}    val output = result.get({_text(first.record.name)}).get() as OnnxTensor"
    read = "byteBuffer" if integers else "floatBuffer"
    yield f"{pad}    return {kind}({_values(first)}).also {{ output.{read}.get(it) }}"
    while len(pad) >= 8:
        yield f"{pad}}}"
        pad = pad[4:]
    yield "    }"
    yield ""
    yield "    override fun close() = session.close()"
    yield "}"


def _values(output: OutputCall) -> int:
    size = 1
    for one in output.record.shape:
        size *= one
    return size


def _mask(output: OutputCall) -> Iterator[str]:
    """Yield a function from the first output to the class of each pixel."""
    record = output.record
    pixels = _values(output) // output.channels
    array = "ByteArray" if record.dtype in ("int8", "uint8") else "FloatArray"
    yield f"/** The class of each of {pixels} pixels, row by row; see run for what they mean. */"
    if output.kind is OutputKind.MASK:
        yield f"fun classes(values: {array}) = IntArray({pixels}) {{ i -> values[i].toInt() }}"
        return
    if output.channels == 1:
        limit = 0.5 if output.kind is OutputKind.PROBABILITY else 0.0
        value = "values[i]" if record.scale is None else f"{record.scale:.9g}f * (values[i] - {record.zero_point})"
        yield f"fun classes(values: {array}) = IntArray({pixels}) {{ i -> if ({value} > {limit}f) 1 else 0 }}"
        return
    index = f"{output.channels} * i + c" if record.layout is Layout.NHWC else f"{pixels} * c + i"
    yield f"fun classes(values: {array}) = IntArray({pixels}) {{ i ->"
    yield f"    (0 until {output.channels}).maxByOrNull {{ c -> values[{index}] }}!!"
    yield "}"
