"""The lines of Swift that call a file on an Apple device: Core ML from iOS 15, Core AI from iOS 27.

Names of the interfaces: Apple's documentation of ``MLModel``, ``MLFeatureValue``, ``MLShapedArray`` (Core ML) and of
``AIModel``, ``InferenceFunction``, ``NDArray`` (Core AI). What a Core AI array holds is left to the caller: how its
elements are read one by one is not in what was at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from deploykit.report_page.contract import Contract, Given, InputCall, OutputCall
from deploykit.vocab import ColorOrder, Layout, OutputKind, Target

_SCALARS = {"float32": "Float", "float16": "Float16", "uint8": "UInt8", "int8": "Int8", "int32": "Int32"}


def swift(contract: Contract) -> str:
    """Return the lines that load and call a Core ML or Core AI file."""
    coreml = contract.target is Target.COREML
    lines = [
        f"import {one}" for one in (("CoreGraphics", "CoreML", "Vision") if coreml else ("CoreAI", "CoreGraphics"))
    ]
    lines += ["import Foundation", ""]
    if any(not _is_image(one, coreml) for one in contract.inputs if one is contract.photo) and contract.photo:
        lines += [*_preprocessing(contract.photo), ""]
    lines += _coreml(contract) if coreml else _coreai(contract)
    scored = next((one for one in contract.outputs if len(one.spec.classes) > 1), None)
    if coreml and scored is not None:
        lines += ["", *_mask(scored)]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """Return ``value`` as a Swift string."""
    plain = {"\\": "\\\\", '"': '\\"'}
    parts = (plain.get(one, one if " " <= one <= "~" else f"\\u{{{ord(one):x}}}") for one in value)
    return '"' + "".join(parts) + '"'


def _is_image(call: InputCall, coreml: bool) -> bool:
    """Whether Core ML takes a picture for this input and resizes and orders its pixels by itself."""
    return coreml and call.given is Given.PIXELS and call.spec.resize.rule == "stretch"


def _scalar(call: InputCall) -> str:
    return _SCALARS.get(call.record.dtype, "Float")


def _preprocessing(photo: InputCall) -> Iterator[str]:
    """Yield a function from a picture to the values of the file's input."""
    width, height, kind = photo.width, photo.height, _scalar(photo)
    resize = photo.spec.resize
    yield "/// The photo as the file takes it; see run."
    yield f"func preprocess(_ photo: CGImage) -> [{kind}] {{"
    yield f"    var pixels = [UInt8](repeating: {resize.pad_value}, count: {4 * width * height})"
    yield "    pixels.withUnsafeMutableBytes { buffer in"
    yield "        let context = CGContext("
    yield f"            data: buffer.baseAddress, width: {width}, height: {height}, bitsPerComponent: 8,"
    yield f"            bytesPerRow: {4 * width}, space: CGColorSpace(name: CGColorSpace.sRGB)!,"
    yield "            bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!"
    quality = {"nearest": "none", "bilinear": "low"}.get(resize.filter, "high")
    yield f"        context.interpolationQuality = .{quality}"
    if resize.rule == "letterbox":
        yield f"        let ratio = min({width}.0 / Double(photo.width), {height}.0 / Double(photo.height))"
        yield "        let size = CGSize("
        yield "            width: (Double(photo.width) * ratio).rounded(),"
        yield "            height: (Double(photo.height) * ratio).rounded())"
        yield f"        let corner = CGPoint(x: (({width} - size.width) / 2).rounded(.up),"
        yield f"                             y: (({height} - size.height) / 2).rounded(.up))"
        yield "        context.draw(photo, in: CGRect(origin: corner, size: size))"
    else:
        yield f"        context.draw(photo, in: CGRect(x: 0, y: 0, width: {width}, height: {height}))"
    yield "    }"
    order = [2, 1, 0] if photo.order is ColorOrder.BGR else [0, 1, 2]
    yield f"    let order = {order}  // {photo.order.value.upper()}"
    if photo.given is Given.VALUES:
        yield f"    let mean: [Float] = [{', '.join(f'{one:.9g}' for one in photo.mean)}]"
        yield f"    let scale: [Float] = [{', '.join(f'{one:.9g}' for one in photo.scale)}]"
    size = width * height
    yield f"    var values = [{kind}](repeating: 0, count: {3 * size})"
    index = "3 * i + c" if photo.record.layout is Layout.NHWC else f"{size} * c + i"
    yield f"    for i in 0..<{size} {{"
    yield "        for c in 0..<3 {"
    if photo.given is Given.PIXELS:
        yield f"            values[{index}] = {kind}(pixels[4 * i + order[c]])"
    else:
        yield f"            values[{index}] = {kind}((Float(pixels[4 * i + order[c]]) - mean[c]) * scale[c])"
    yield "        }"
    yield "    }"
    yield "    return values"
    yield "}"


def _parameters(contract: Contract, coreml: bool) -> str:
    kinds = ("CGImage" if _is_image(one, coreml) else f"[{_scalar(one)}]" for one in contract.inputs)
    return ", ".join(f"input{index}: {kind}" for index, kind in enumerate(kinds))


def _coreml(contract: Contract) -> Iterator[str]:
    stem = contract.file.removesuffix(".mlpackage")
    yield "/// Xcode compiles the package of the target into .mlmodelc."
    yield "func loadModel() throws -> MLModel {"
    yield f'    let url = Bundle.main.url(forResource: {_text(stem)}, withExtension: "mlmodelc")!'
    yield "    return try MLModel(contentsOf: url, configuration: MLModelConfiguration())"
    yield "}"
    yield ""
    for sentence in contract.sentences():
        yield f"// {sentence}"
    first = contract.outputs[0]
    kind = _SCALARS.get(first.record.dtype, "Float")
    yield f"func run(_ model: MLModel, {_parameters(contract, True)}) throws -> MLShapedArray<{kind}> {{"
    for index, one in enumerate(contract.inputs):
        if _is_image(one, True):
            yield f"    // Core ML resizes, and brings the channels into the file's order: {one.order.value.upper()}."
            yield f"    let value{index} = try MLFeatureValue("
            yield f"        cgImage: input{index}, pixelsWide: {one.width}, pixelsHigh: {one.height},"
            yield "        pixelFormatType: kCVPixelFormatType_32BGRA,"
            yield "        options: [.cropAndScale: VNImageCropAndScaleOption.scaleFill.rawValue])"
        else:
            shape = list(one.record.shape)
            yield f"    let value{index} = MLFeatureValue("
            yield f"        shapedArray: MLShapedArray<{_scalar(one)}>(scalars: input{index}, shape: {shape}))"
    named = ", ".join(f"{_text(one.record.name)}: value{index}" for index, one in enumerate(contract.inputs))
    yield f"    let inputs = try MLDictionaryFeatureProvider(dictionary: [{named}])"
    yield "    let outputs = try model.prediction(from: inputs)"
    name = _text(first.record.name)
    yield f"    guard let values = outputs.featureValue(for: {name})?.shapedArrayValue(of: {kind}.self)"
    yield "    else { throw CocoaError(.featureUnsupported) }"
    yield "    return values"
    yield "}"


def _coreai(contract: Contract) -> Iterator[str]:
    for sentence in contract.sentences():
        yield f"// {sentence}"
    yield f"func run(modelAt url: URL, {_parameters(contract, False)}) async throws -> NDArray {{"
    yield f"    // url: {_text(contract.file)} in the app's bundle. Keep model and function for the next photo."
    yield "    let model = try await AIModel(contentsOf: url)"
    yield '    guard let function = try model.loadFunction(named: "main")'
    yield "    else { throw CocoaError(.featureUnsupported) }"
    pairs = (
        f"{_text(one.record.name)}: NDArray(scalars: input{index}, shape: {list(one.record.shape)})"
        for index, one in enumerate(contract.inputs)
    )
    yield f"    var outputs = try await function.run(inputs: [{', '.join(pairs)}])"
    yield f"    guard let values = outputs.remove({_text(contract.outputs[0].record.name)})?.ndArray"
    yield "    else { throw CocoaError(.featureUnsupported) }"
    yield "    return values"
    yield "}"


def _mask(output: OutputCall) -> Iterator[str]:
    """Yield a function from the first output to the class of each pixel."""
    record = output.record
    kind = _SCALARS.get(record.dtype, "Float")
    pixels = math.prod(record.shape) // output.channels
    yield f"/// The class of each of {pixels} pixels, row by row; see run for what they mean."
    yield f"func classes(_ values: MLShapedArray<{kind}>) -> [Int] {{"
    yield "    let scalars = values.scalars"
    if output.kind is OutputKind.MASK:
        yield "    return scalars.map { Int($0) }"
    elif output.channels == 1:
        limit = "0.5" if output.kind is OutputKind.PROBABILITY else "0"
        yield f"    return scalars.map {{ $0 > {limit} ? 1 : 0 }}"
    else:
        index = f"{output.channels} * i + c" if record.layout is Layout.NHWC else f"{pixels} * c + i"
        yield f"    return (0..<{pixels}).map {{ i in"
        yield f"        (0..<{output.channels}).max {{ a, b in"
        yield f"            scalars[{index.replace('c', 'a')}] < scalars[{index.replace('c', 'b')}]"
        yield "        }!"
        yield "    }"
    yield "}"
