"""Masks to look at: the same images through the checkpoint and through each file, with what differs between them."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.artifact import MANIFEST
from deploykit.errors import DeploykitError
from deploykit.evaluation.dataset import HELD_OUT_SEEDS, drawn_side
from deploykit.evaluation.predict import Predictor, opened
from deploykit.evaluation.subjects import Subject
from deploykit.images.preprocess import Pixels, image_paths, read_image
from deploykit.images.synthetic import synthesize
from deploykit.metrics.confusion import Mask
from deploykit.network import load_network
from deploykit.recipe import Recipe, bundled_recipes, load_recipe, recipe_from_table
from deploykit.report_page.records import Dossier, Matched, Network
from deploykit.targets.table import require

Say = Callable[[str], None]
PORTRAITS = 2
# The most images of one network, and the longer side of a picture in pixels: the page stays small.
MOST, SIDE = 6, 224
_PHOTO_QUALITY = 82
# Palette indices of a difference: background and portrait of both, only in the checkpoint's mask, only in the file's.
_PALETTE = np.array([[24, 26, 30], [122, 128, 138], [64, 156, 255], [255, 196, 0]], np.uint8)


@dataclass(frozen=True)
class Picture:
    """An image inside the page: its ``source`` as a data URI, what it shows, width and height in pixels."""

    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Masked:
    """The mask of one file beside the checkpoint's on the same image; ``different`` of ``pixels`` differ."""

    name: str
    mask: Picture | None
    difference: Picture | None
    different: int = 0
    pixels: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One image with the reference's mask and those of the files."""

    name: str
    photo: Picture
    mask: Picture
    foreground: float
    files: tuple[Masked, ...]


@dataclass(frozen=True)
class Gallery:
    """The images of one network: ``reference`` says whose mask others are held against, ``notes`` what is missing."""

    recipe: str
    reference: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many pictures it holds."""
        return sum(2 + 2 * sum(one.mask is not None for one in row.files) for row in self.rows)


def galleries(
    matched: Matched, *, images: Path | None = None, recipes: Sequence[str | Path | Recipe] = (), say: Say
) -> tuple[Gallery, ...]:
    """Return the masks of every network on ``images``, a photo or a folder of them, else on held-out portraits.

    The checkpoint is that of the recipe among ``recipes``, else of the bundled one, if it is the one that the files
    were made from; otherwise the first file that runs is what the others are held against. A file that cannot be run
    here is listed with the reason. Raises ImageError for ``images`` that cannot be read.
    """
    paths = image_paths(images)[:MOST] if images is not None else ()
    photos = [(path.name, read_image(path)) for path in paths]
    return tuple(_gallery(network, photos, recipes, say) for network in matched.networks)


def _gallery(
    network: Network, photos: Sequence[tuple[str, Pixels]], recipes: Sequence[str | Path | Recipe], say: Say
) -> Gallery:
    notes: list[str] = []
    with ExitStack() as stack:
        say(f"{network.recipe}: opening the checkpoint and the files")
        reference: Predictor | None = None
        try:
            reference = stack.enter_context(opened(_checkpoint(network, recipes), 1))
        except DeploykitError as error:
            notes.append(f"The checkpoint was not run: {error.message} {error.found or ''}".strip())
        files: list[tuple[Dossier, Predictor | str]] = []
        for dossier in network.dossiers:
            files.append((dossier, _opened(stack, dossier)))
        name = f"the checkpoint of {network.recipe}, in PyTorch fp32"
        if reference is None:
            for dossier, found in files:
                if isinstance(found, Predictor):
                    reference, name = found, f"{dossier.name}, since the checkpoint is not at hand"
                    break
        if reference is None:
            notes += [f"{dossier.name}: {found}" for dossier, found in files if isinstance(found, str)]
            return Gallery(network.recipe, "", (), tuple(notes))
        notes += _unlike(reference, files)
        drawn = list(photos) or [_portrait(seed, reference.side) for seed in HELD_OUT_SEEDS[:PORTRAITS]]
        rows = []
        for index, (title, photo) in enumerate(drawn, 1):
            say(f"{network.recipe}: image {index} of {len(drawn)}")
            try:
                rows.append(_row(title, photo, reference, files))
            except DeploykitError as error:
                notes.append(f"{title}: {error.message} {error.found or ''}".strip())
    return Gallery(network.recipe, name, tuple(rows), tuple(notes))


def _unlike(reference: Predictor, files: Sequence[tuple[Dossier, Predictor | str]]) -> Iterator[str]:
    """Yield what makes masks differ besides the file itself."""
    size = (reference.photo.height, reference.photo.width)
    for dossier, found in files:
        if isinstance(found, Predictor) and (found.photo.height, found.photo.width) != size:
            own = f"{found.photo.height}x{found.photo.width}"
            yield f"{dossier.name} takes {own}, the reference {size[0]}x{size[1]}: masks differ for that as well."
    if reference.first_feedback():
        yield "The network is one for video: each image is taken as a first frame."


def _portrait(seed: int, side: int) -> tuple[str, Pixels]:
    return f"drawn portrait {seed}", synthesize(seed, drawn_side(side)).image


def _checkpoint(network: Network, recipes: Sequence[str | Path | Recipe]) -> Subject:
    """Return the network of the recipe at hand. Raises CheckpointError where its checkpoint is another one."""
    recipe = next((one for one in map(_loaded, recipes) if one.name == network.recipe), None)
    if recipe is None and network.recipe in bundled_recipes():
        recipe = load_recipe(network.recipe)
    if recipe is None:
        name = shlex.quote(f"{network.recipe}.toml")
        raise DeploykitError(f"No recipe {network.recipe} is at hand:", found=f"name its file with --recipe {name}.")
    shapes = network.dossiers[0].artifact.plan.input_shapes
    for item, shape in zip(recipe.file.inputs, shapes, strict=False):
        if item.kind == "image" and item.shape != shape and len(shape) == 4:
            recipe = recipe.with_size(shape[-2], shape[-1])
            break
    loaded = load_network(recipe)
    if loaded.checkpoint_sha256 != network.checkpoint_sha256:
        raise DeploykitError("The recipe's checkpoint is another one than the files were made from.")
    return Subject(network.recipe, loaded.recipe, network=loaded)


def _loaded(recipe: str | Path | Recipe) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


def _opened(stack: ExitStack, dossier: Dossier) -> Predictor | str:
    """Return the file ready to run, or why it is not run."""
    artifact = dossier.artifact
    if dossier.entry.changed or dossier.entry.broken:
        return "not the file that was exported: it was not run"
    try:
        require(artifact.plan.target)
        recipe = recipe_from_table(artifact.recipe_table, artifact.path.parent / MANIFEST)
        subject = Subject(dossier.name, recipe, artifact=artifact, path=artifact.path)
        return stack.enter_context(opened(subject, 1))
    except DeploykitError as error:
        return " ".join(part for part in (error.message, error.found) if part)


def _row(title: str, photo: Pixels, reference: Predictor, files: Sequence[tuple[Dossier, Predictor | str]]) -> Row:
    expected, _ = reference.predict(photo, reference.first_feedback())
    share = float(expected.mean())
    found = []
    for dossier, predictor in files:
        if isinstance(predictor, str):
            found.append(Masked(dossier.name, None, None, reason=predictor))
            continue
        try:
            mask, _ = predictor.predict(photo, predictor.first_feedback())
        except DeploykitError as error:
            found.append(Masked(dossier.name, None, None, reason=error.message))
            continue
        different = int(np.count_nonzero(mask != expected))
        words = "no pixel differs" if different == 0 else f"{different} of {mask.size} pixels differ"
        found.append(
            Masked(
                dossier.name,
                _mask_picture(mask, f"Mask of {dossier.name} on {title}"),
                _difference_picture(mask, expected, f"{dossier.name} on {title}, difference to the reference: {words}"),
                different,
                int(mask.size),
            )
        )
    alt = f"Mask of the reference on {title}: {share:.0%} portrait"
    return Row(title, _photo_picture(photo, title), _mask_picture(expected, alt), share, tuple(found))


def _size(height: int, width: int) -> tuple[int, int]:
    """Return width and height of the picture of an image."""
    ratio = min(1.0, SIDE / max(height, width))
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _photo_picture(photo: Pixels, alt: str) -> Picture:
    size = _size(*photo.shape[:2])
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _PHOTO_QUALITY])
    return Picture(_uri("image/jpeg", encoded.tobytes()), f"Photo: {alt}", *size)


def _mask_picture(mask: Mask, alt: str) -> Picture:
    size = _size(*mask.shape)
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    return Picture(_png(small), alt, *size)


def _difference_picture(mask: Mask, expected: Mask, alt: str) -> Picture:
    """Return the picture of a difference; in a smaller picture than the mask every differing pixel still shows."""
    size = _size(*mask.shape)
    only_here = _shrunk(mask & ~expected, size)
    only_there = _shrunk(expected & ~mask, size)
    indices = cv2.resize((mask & expected).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    indices = np.where(only_there, 2, np.where(only_here, 3, indices))
    return Picture(_png(_PALETTE[indices]), alt, *size)


def _shrunk(wrong: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(cv2.resize(wrong.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0)


def _png(pixels: NDArray[np.uint8]) -> str:
    """Return ``pixels``, grey (H, W) or RGB (H, W, 3), as a data URI."""
    ordered = pixels[:, :, ::-1] if pixels.ndim == 3 else pixels
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(ordered), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return _uri("image/png", encoded.tobytes())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
