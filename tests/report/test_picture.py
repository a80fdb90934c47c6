"""What a person looks at: the mask on the photo, the cut-out, and the picture of all three."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

from deploykit.errors import ArtifactError, ImageError
from deploykit.images.preprocess import read_image
from deploykit.recipe import recipe_from_table
from deploykit.records import TensorRecord
from deploykit.report.picture import cut_out, mask_of, triptych, write_image
from deploykit.vocab import Layout, OutputKind

TABLE = tomllib.loads("""
format_version = 1
name = "small"
description = "a network of this test"
license = "MIT"
source = "this test"

[network]
factory = "sinet"

[[inputs]]
name = "image"
shape = [1, 3, 4, 8]
source = "this test"

[[outputs]]
name = "edge"
meaning = "edges"

[[outputs]]
name = "scores"
meaning = "scores"
classes = ["background", "person", "hair"]
""")


def recipe(tmp_path, **resize):
    given = {**TABLE["inputs"][0], "resize": resize}
    return recipe_from_table({**TABLE, "inputs": [given]}, tmp_path / "small.toml")


def artifact(tmp_path, layout=Layout.NCHW, kind=OutputKind.LOGITS):
    """What the mask needs to know of a file."""
    outputs = (
        TensorRecord("edge", (1, 1, 4, 8), "float32", Layout.NCHW),
        TensorRecord("scores", (1, 3, 4, 8), "float32", layout),
    )
    return SimpleNamespace(path=tmp_path / "small.onnx", outputs=outputs, plan=SimpleNamespace(output_kind=kind))


def scores(rows=4, columns=8):
    """Person in the left half, hair in the last quarter, background between them."""
    values = np.zeros((1, 3, rows, columns), dtype=np.float32)
    values[0, 0] = 0.5
    values[0, 1, :, : columns // 2] = 1.0
    values[0, 2, :, -columns // 4 :] = 2.0
    return values


@pytest.mark.parametrize("layout", list(Layout))
def test_every_class_but_the_first_is_foreground(tmp_path, layout):
    given = scores() if layout is Layout.NCHW else scores().transpose(0, 2, 3, 1)
    outputs = {"scores": given, "edge": np.zeros((1, 1, 4, 8))}
    mask = mask_of(artifact(tmp_path, layout), recipe(tmp_path), outputs, np.zeros((40, 80, 3), np.uint8))
    assert (mask.dtype, mask.shape) == (np.uint8, (40, 80))
    assert (mask[:, :40] == 255).all()
    assert (mask[:, 40:60] == 0).all()
    assert (mask[:, 60:] == 255).all()


def test_the_border_of_a_letterbox_is_cut_away(tmp_path):
    boxed = scores()
    boxed[:, :, :, :2] = boxed[:, :, :, 6:] = [[[9.0]], [[0.0]], [[0.0]]]
    mask = mask_of(
        artifact(tmp_path), recipe(tmp_path, rule="letterbox"), {"scores": boxed}, np.zeros((40, 40, 3), np.uint8)
    )
    assert mask.shape == (40, 40)
    assert (mask[:, :20] == 255).all()
    assert (mask[:, 20:] == 0).all()


def test_a_file_without_classes_or_without_an_image_gives_no_mask(tmp_path):
    photo = np.zeros((4, 8, 3), np.uint8)
    no_classes = recipe_from_table({**TABLE, "outputs": TABLE["outputs"][:1]}, tmp_path / "small.toml")
    prior = {"name": "prior", "kind": "tensor", "shape": [1, 4], "source": "this test"}
    no_image = recipe_from_table({**TABLE, "inputs": [prior]}, tmp_path / "small.toml")
    for given in (no_classes, no_image):
        with pytest.raises(ArtifactError, match="gives no mask") as caught:
            mask_of(artifact(tmp_path), given, {"scores": scores()}, photo)
        assert caught.value.where == str(tmp_path / "small.onnx")


# Pictures


def test_a_cut_out_keeps_the_photo_inside_and_shows_a_chequered_ground_outside():
    photo = np.random.default_rng(0).integers(0, 200, (30, 30, 3), dtype=np.uint8)
    mask = np.zeros((30, 30), np.uint8)
    mask[5:10] = 255
    cut = cut_out(photo, mask)
    assert np.array_equal(cut[5:10], photo[5:10])
    assert set(np.unique(cut[10:])) == {206, 236}
    assert (photo != cut).any(), "a new picture"


def test_a_triptych_has_a_row_for_each_photo_and_fits_the_widest():
    rows = [(np.full((10, 20, 3), 50, np.uint8), np.zeros((10, 20), np.uint8))]
    rows.append((np.full((30, 40, 3), 90, np.uint8), np.full((30, 40), 255, np.uint8)))
    picture = triptych(rows)
    assert picture.shape == (10 + 16 + 30 + 16, 3 * (40 + 16), 3)
    assert (picture[8:18, 8:28] == 50).all()
    assert (picture[8:18, 3 * 36 :] == 255).all(), "white beside the narrow row"
    assert (picture[34:64, 8:48] == 90).all()
    assert (picture[34:64, 2 * 56 + 8 : 2 * 56 + 48] == 90).all(), "all of it is cut out"


def test_pictures_are_written_in_rgb_and_grey(tmp_path):
    colour = np.full((4, 5, 3), (250, 100, 5), np.uint8)
    write_image(tmp_path / "new" / "colour.png", colour)
    write_image(tmp_path / "grey.png", colour[..., 0])
    assert np.array_equal(read_image(tmp_path / "new" / "colour.png"), colour)
    assert (read_image(tmp_path / "grey.png") == 250).all()


@pytest.mark.parametrize("name", ["mask.xyz", "mask.txt"])
def test_an_unknown_format_is_refused(tmp_path, name):
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / name, np.zeros((2, 2), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / "file" / "mask.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / "folder.png", np.zeros((2, 2), np.uint8))
