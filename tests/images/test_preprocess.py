"""From a photo to the network's input: the authors' own preprocessing is the measure, its mistakes the twins."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deploykit.errors import ImageError
from deploykit.images.preprocess import (
    fit_mask_to_photo,
    image_paths,
    normalise,
    preprocess,
    read_image,
    resize_pixels,
)
from deploykit.recipe import Input, load_recipe
from deploykit.vocab import ColorOrder

TOLERANCE = 1e-6
RNG = np.random.default_rng(4)


def spec(height=32, width=32, **values):
    return Input(name="image", shape=(1, 3, height, width), source="this test", **values)


def letterbox(height, width, **values):
    return spec(height, width, resize={"rule": "letterbox", **values})


def photo(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels, *options):
    """Write RGB, grey or RGBA pixels with OpenCV, which wants blue first."""
    order = {2: pixels, 3: pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]]}[pixels.ndim]
    assert cv2.imwrite(str(path), order, list(options))
    return path


# The public network's own preprocessing


@pytest.fixture(scope="module")
def golden(shared_cases):
    with np.load(shared_cases / "golden_sinet" / "clovaai_astronaut_224.npz") as archive:
        return archive["x"]


@pytest.fixture(scope="module")
def astronaut(shared_cases):
    return read_image(shared_cases / "images" / "astronaut.png")


@pytest.fixture(scope="module")
def sinet_input():
    return load_recipe("sinet").file.inputs[0]


def test_sinet_sees_what_its_authors_network_saw(golden, astronaut, sinet_input):
    x = preprocess(astronaut, sinet_input)
    assert (x.dtype, x.shape) == (np.float32, (1, 3, 224, 224))
    assert np.abs(x - golden).max() <= TOLERANCE


@pytest.mark.parametrize(
    "mistake",
    [
        {"scale": tuple(255 * value for value in load_recipe("sinet").file.inputs[0].scale)},
        {"color_order": ColorOrder.RGB},
        {"resize": letterbox(1, 1).resize},
        {"resize": spec(resize={"filter": "area"}).resize},
        {"resize": spec(resize={"filter": "nearest"}).resize},
        {"mean": tuple(reversed(load_recipe("sinet").file.inputs[0].mean))},
        {"mean": (0.0,)},
    ],
    ids=["no /255", "RGB", "letterbox", "area", "nearest", "mean in RGB order", "no mean"],
)
def test_each_usual_mistake_is_beyond_the_tolerance(golden, astronaut, sinet_input, mistake, shared_cases):
    wrong = sinet_input.model_copy(update=mistake)
    # The astronaut is square: only a photo that is not shows what a letterbox does.
    image = astronaut[:, 64:] if "resize" in mistake and wrong.resize.rule == "letterbox" else astronaut
    right = golden if image is astronaut else preprocess(image, sinet_input)
    assert np.abs(preprocess(image, wrong) - right).max() > 100 * TOLERANCE


# Arithmetic


def test_mean_and_scale_are_per_channel_in_the_order_of_the_network():
    pixels = np.full((2, 2, 3), (10, 20, 30), dtype=np.uint8)
    given = spec(2, 2, color_order="bgr", mean=(1.0, 2.0, 3.0), scale=(1.0, 10.0, 100.0))
    assert preprocess(pixels, given)[0, :, 0, 0].tolist() == [29.0, 180.0, 700.0]


def test_one_mean_and_scale_count_for_all_channels():
    pixels = np.full((2, 2, 3), (10, 20, 30), dtype=np.uint8)
    assert normalise(pixels, spec(2, 2, mean=(10.0,), scale=(0.5,)))[0, :, 1, 1].tolist() == [0.0, 5.0, 10.0]


def test_stretching_ignores_the_aspect_ratio_and_a_photo_of_the_right_size_is_untouched():
    image = photo(24, 40)
    assert resize_pixels(image, spec(16, 64)).shape == (16, 64, 3)
    assert np.array_equal(resize_pixels(image, spec(24, 40)), image)
    assert np.array_equal(resize_pixels(image, spec(24, 40, color_order="bgr")), image[:, :, ::-1])


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "area"])
def test_every_filter_keeps_a_plain_colour(name):
    image = np.full((20, 30, 3), (7, 100, 250), dtype=np.uint8)
    resized = resize_pixels(image, spec(13, 17, resize={"filter": name}))
    assert (resized == (7, 100, 250)).all()


# Letterbox


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (40, 80, slice(8, 24), slice(0, 32)),
        (80, 40, slice(0, 32), slice(8, 24)),
        (50, 50, slice(0, 32), slice(0, 32)),
        (32, 30, slice(0, 32), slice(1, 31)),
        (1, 1, slice(0, 32), slice(0, 32)),
        (1, 1000, slice(15, 16), slice(0, 32)),
        (1000, 1, slice(0, 32), slice(15, 16)),
    ],
)
def test_a_letterbox_keeps_the_aspect_ratio_centred_on_its_padding(height, width, rows, columns):
    image = np.full((height, width, 3), 200, dtype=np.uint8)
    boxed = resize_pixels(image, letterbox(32, 32, pad_value=9))
    inside = np.zeros((32, 32), dtype=bool)
    inside[rows, columns] = True
    assert (boxed[inside] == 200).all()
    assert (boxed[~inside] == 9).all()


def test_the_letterbox_pads_with_grey_128_by_default():
    assert resize_pixels(photo(10, 40), letterbox(20, 20))[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (33, 64), (1, 1), (200, 3), (64, 64)])
def test_a_mask_comes_back_to_the_size_and_place_of_its_photo(rule, height, width):
    given = spec(32, 48, resize={"rule": rule, "filter": "nearest"})
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[: height // 2] = 255
    seen = resize_pixels(np.repeat(mask[:, :, None], 3, axis=2), given)[:, :, 0]
    back = fit_mask_to_photo(seen, given, height, width)
    assert back.shape == (height, width)
    step = -(-height // 32) + 1
    assert (back[: max(0, height // 2 - step)] == 255).all()
    assert (back[height // 2 + step :] == 0).all()
    if rule == "letterbox":
        assert not (back == 128).any(), "the padding is cut away"


def test_a_mask_of_another_resolution_keeps_its_letterbox():
    given = letterbox(32, 32)
    small = np.zeros((16, 16), dtype=np.uint8)
    small[4:12] = 1  # the whole of a photo twice as wide as high
    assert (fit_mask_to_photo(small, given, 50, 100) == 1).all()


# Files


def test_a_photo_is_read_in_rgb(tmp_path):
    image = photo(9, 7)
    assert np.array_equal(read_image(save(tmp_path / "a.png", image)), image)


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = photo(9, 7)[..., 0]
    read = read_image(save(tmp_path / "grey.png", grey))
    assert np.array_equal(read, np.repeat(grey[:, :, None], 3, axis=2))


def test_alpha_is_left_out(tmp_path):
    image = photo(9, 7)
    alpha = RNG.integers(0, 256, (9, 7, 1), dtype=np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "a.png", np.concatenate([image, alpha], axis=2))), image)


def test_sixteen_bits_become_eight(tmp_path):
    image = photo(9, 7)
    read = read_image(save(tmp_path / "deep.png", image.astype(np.uint16) * 257))
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - image).max() <= 1


def test_one_pixel_is_a_photo(tmp_path):
    read = read_image(save(tmp_path / "one.png", np.full((1, 1, 3), (1, 2, 3), dtype=np.uint8)))
    assert (preprocess(read, spec(8, 8))[0].reshape(3, -1).T == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda image: image),
        (3, lambda image: np.rot90(image, 2)),
        (6, lambda image: np.rot90(image, -1)),
        (8, lambda image: np.rot90(image, 1)),
        (2, lambda image: image[:, ::-1]),
    ],
)
def test_the_rotation_flag_of_a_camera_is_applied(tmp_path, orientation, turn):
    image = np.zeros((16, 32, 3), dtype=np.uint8)
    image[:8, :16] = (255, 0, 0)
    image[8:, :16] = (0, 255, 0)
    image[:8, 16:] = (0, 0, 255)
    path = save(tmp_path / "camera.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 100)
    tag = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    block = b"Exif\0\0" + tag
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:])
    read, wanted = read_image(path), turn(image)
    assert read.shape == wanted.shape
    assert (np.abs(read[4::8, 4::8].astype(int) - wanted[4::8, 4::8]) < 60).all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"no image at all", "15 bytes of no image format"),
        (b"\x89PNG\r\n\x1a\n", "8 bytes that begin as PNG and are cut off"),
        (b"\xff\xd8\xff\xe0", "4 bytes that begin as JPEG and are cut off"),
    ],
)
def test_a_file_that_is_no_image_is_refused(tmp_path, capfd, content, found):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        read_image(path)
    assert caught.value.where == str(path)
    assert caught.value.found.startswith(found)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_truncated_image_is_refused(tmp_path, suffix, share):
    path = save(tmp_path / f"cut{suffix}", photo(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(path)


def test_folders_and_absent_files_are_no_images(tmp_path):
    with pytest.raises(ImageError, match="found: a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="found: nothing"):
        read_image(tmp_path / "absent.png")


def test_the_images_of_a_folder_come_in_order_of_name(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "c.tiff"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in image_paths(tmp_path)] == ["a.jpg", "b.PNG", "c.tiff"]


def test_one_image_is_its_own_list(tmp_path):
    (photo := tmp_path / "a.JPG").touch()
    (tmp_path / "b.png").touch()
    assert image_paths(photo) == (photo,)
    (notes := tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="a file of another kind"):
        image_paths(notes)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ImageError, match="holds no images"):
        image_paths(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        image_paths(tmp_path / "absent")
