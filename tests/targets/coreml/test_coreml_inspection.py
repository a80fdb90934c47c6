"""What is read from Core ML packages that coremltools wrote, against counts made by hand."""

from __future__ import annotations

import json
import shutil

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import quiet_conversion, save_program

from deploykit.errors import ArtifactError
from deploykit.graph.conventions import not_counted, total, unknown
from deploykit.targets.contents import FileTensor, WeightBytes
from deploykit.targets.coreml.inspection import read_contents
from deploykit.vocab import Convention

MACS = Convention.MACS
MODEL = "Data/com.apple.CoreML/model.mlmodel"


def ones(*shape):
    return np.ones(shape, np.float32)


def products(image):
    """An image (1, 4, 6, 8) through every kind of product that the format has, and some others."""
    a = mb.conv(x=image, weight=ones(8, 2, 3, 3), bias=ones(8), groups=2, pad_type="same")
    b = mb.conv_transpose(x=a, weight=ones(8, 3, 2, 2), strides=[2, 2])
    c = mb.matmul(x=b, y=b, transpose_y=True)
    d = mb.matmul(x=b, y=b, transpose_x=True)
    e = mb.linear(x=image, weight=ones(5, 8))
    f = mb.transpose(x=mb.relu(x=e), perm=[0, 1, 3, 2])
    g = mb.einsum(values=(image, mb.transpose(x=image, perm=[0, 3, 2, 1])), equation="nchw,nwhu->nchu")
    return c, d, f, g


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("coreml") / "made.mlpackage"
    return save_program(products, {"image": ones(1, 4, 6, 8)}, path, "iOS16")


@pytest.fixture
def copy(package, tmp_path):
    return shutil.copytree(package, tmp_path / "copy.mlpackage")


def test_multiplications_are_those_counted_by_hand(package):
    contents = read_contents(package)
    found = [(one.name, one.kernel * one.positions) for one in contents.work if one.kernel]
    assert found == [
        ("conv", 8 * 2 * 9 * 48),
        ("conv_transpose", 8 * 3 * 4 * 48),
        # In 3 channels (12, 16) times (16, 12), and (16, 12) times (12, 16).
        ("matmul", 3 * 12 * 12 * 16),
        ("matmul", 3 * 16 * 16 * 12),
        ("linear", 5 * 8 * 24),
        # (4, 6, 8) with (8, 6, 4): 4 channels, 6 rows, 4 results of 8 products each.
        ("einsum", 4 * 6 * 4 * 8),
    ]
    assert total(contents.work, MACS) == sum(macs for _, macs in found)
    assert total(contents.work, Convention.CONV_MACS) == found[0][1]
    assert unknown(contents.work) == {}
    assert not_counted(contents.work, MACS) == {"relu": 1}


def test_operations_target_and_numbers(package):
    contents = read_contents(package)
    assert contents.versions == {"specification": "7", "opset": "CoreML6"}
    assert contents.minimum_os == "iOS 16, macOS 13"
    assert contents.transposes == contents.operations["transpose"] == 2
    assert "const" not in contents.operations
    assert contents.inputs == (FileTensor("image", (1, 4, 6, 8), "float32"),)
    assert [item.shape for item in contents.outputs] == [(1, 3, 12, 12), (1, 3, 16, 16), (1, 4, 5, 6), (1, 4, 6, 4)]
    # coremltools gives a linear layer without a bias one of zeros.
    values = 8 * 18 + 8 + 8 * 12 + 5 * 8 + 5
    assert contents.weights == (WeightBytes("float32", 5, values, 4 * values),)
    assert set(contents.computed) == {"float32"}
    assert contents.size_bytes == sum(item.stat().st_size for item in package.rglob("*") if item.is_file())


def test_compressed_weights_are_listed_with_their_bytes(tmp_path):
    def build(image):
        return mb.conv(x=image, weight=np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64, 1, 1))

    path = save_program(build, {"image": ones(1, 64, 2, 2)}, tmp_path / "plain.mlpackage", "iOS18")
    optimize = ct.optimize.coreml
    config = optimize.OptimizationConfig(optimize.OpPalettizerConfig(mode="uniform", nbits=4))
    with quiet_conversion():
        compressed = optimize.palettize_weights(ct.models.MLModel(str(path), skip_model_load=True), config)
        compressed.save(str(tmp_path / "small.mlpackage"))
    contents = read_contents(tmp_path / "small.mlpackage")
    assert contents.quantized == {"constexpr_lut_to_dense": 1}
    assert contents.minimum_os == "iOS 18, macOS 15"
    assert WeightBytes("uint4", 1, 4096, 2048) in contents.weights
    assert total(contents.work, MACS) == 64 * 64 * 4


def test_an_image_input_is_an_image(tmp_path):
    with quiet_conversion():
        program = mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 6, 8))])(lambda image: mb.relu(x=image))
        model = ct.convert(
            program,
            convert_to="mlprogram",
            inputs=[ct.ImageType(name="image", shape=(1, 3, 6, 8), color_layout=ct.colorlayout.BGR)],
            minimum_deployment_target=ct.target.iOS15,
        )
        model.save(str(tmp_path / "x.mlpackage"))
    assert read_contents(tmp_path / "x.mlpackage").inputs == (FileTensor("image", (6, 8), "image", "bgr"),)


def missing_weights(package):
    (package / "Data/com.apple.CoreML/weights/weight.bin").unlink()


def short_weights(package):
    (package / "Data/com.apple.CoreML/weights/weight.bin").write_bytes(b"\0" * 64)


def no_model(package):
    (package / MODEL).unlink()


def text_for_a_model(package):
    (package / MODEL).write_text("hello, this is a text")


def empty_model(package):
    (package / MODEL).write_bytes(b"")


def no_manifest(package):
    (package / "Manifest.json").unlink()


def manifest_without_items(package):
    (package / "Manifest.json").write_text(json.dumps({"rootModelIdentifier": "x", "itemInfoEntries": {}}))


def manifest_that_leads_out(package):
    entries = {"x": {"path": "../../../etc/passwd"}}
    (package / "Manifest.json").write_text(json.dumps({"rootModelIdentifier": "x", "itemInfoEntries": entries}))


def another_model(package):
    specification = ct.proto.Model_pb2.Model()
    specification.specificationVersion = 4
    specification.neuralNetwork.SetInParent()
    (package / MODEL).write_bytes(specification.SerializeToString())


def program_without_a_block(package):
    specification = ct.proto.Model_pb2.Model()
    specification.ParseFromString((package / MODEL).read_bytes())
    specification.mlProgram.functions["main"].opset = "CoreML1"
    (package / MODEL).write_bytes(specification.SerializeToString())


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (missing_weights, "nothing in weight.bin"),
        (short_weights, "64 bytes in weight.bin"),
        (no_model, "FileNotFoundError"),
        (text_for_a_model, "model.mlmodel: DecodeError"),
        (empty_model, "no model"),
        (no_manifest, "Manifest.json: FileNotFoundError"),
        (manifest_without_items, "Manifest.json: KeyError"),
        (manifest_that_leads_out, "the path Data/../../../etc/passwd"),
        (another_model, "a model of type neuralNetwork"),
        (program_without_a_block, "no block for the opset CoreML1"),
    ],
)
def test_a_damaged_package_is_refused(copy, damage, found):
    damage(copy)
    with pytest.raises(ArtifactError) as refused:
        read_contents(copy)
    assert found in str(refused.value.found)


def test_damage_is_refused_or_read_but_never_a_crash(copy):
    raw = (copy / MODEL).read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for trial in range(60):
        damaged = bytearray(raw[: rng.integers(len(raw))] if trial % 2 else raw)
        for place in rng.integers(max(len(damaged), 1), size=4 if damaged else 0):
            damaged[place] = rng.integers(256)
        (copy / MODEL).write_bytes(damaged)
        try:
            read_contents(copy)
        except ArtifactError:
            refused += 1
    assert refused > 30
