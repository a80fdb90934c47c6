"""What a person looks at: photo, mask and cut-out side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.errors import ArtifactError, ImageError
from deploykit.images.preprocess import Pixels, fit_mask_to_photo
from deploykit.recipe import Recipe
from deploykit.records import Artifact
from deploykit.verify.contract import classes_in
from deploykit.verify.samples import read_back

_BORDER = 8
_TILE = 12


def mask_of(artifact: Artifact, recipe: Recipe, outputs: dict[str, NDArray[np.generic]], photo: Pixels) -> Pixels:
    """Return the mask (H, W), 0 or 255, of ``photo``: every class but the first counts as foreground.

    Raises ArtifactError where no output of the file holds class scores.
    """
    image_input = next((item for item in recipe.file.inputs if item.kind == "image"), None)
    scored = next((output for output in recipe.deployed() if len(output.classes) > 1), None)
    if scored is None or image_input is None:
        raise ArtifactError(
            "The file gives no mask.",
            where=str(artifact.path),
            found="no image input, or no output with at least two classes",
            expected="an [[outputs]] entry of the recipe with classes",
        )
    record = next(one for one in artifact.outputs if one.name == scored.name)
    (values,) = read_back({scored.name: outputs[scored.name]}, [record]).values()
    small = (classes_in(values, artifact.plan.output_kind)[0] > 0).astype(np.uint8) * 255
    return fit_mask_to_photo(small, image_input, *photo.shape[:2])


def write_image(path: Path, pixels: Pixels) -> None:
    """Write ``pixels``, RGB (H, W, 3), RGBA (H, W, 4) or grey (H, W), to ``path`` in the format of its suffix."""
    ordered = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]] if pixels.ndim == 3 else pixels
    try:
        written, encoded = cv2.imencode(path.suffix or ".png", np.ascontiguousarray(ordered))
    except cv2.error:
        written = False
    if not written:
        raise ImageError("The image cannot be written.", where=str(path), found=path.suffix, expected=".png or .jpg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise ImageError("The image cannot be written.", where=str(path), found=error.strerror or str(error)) from error


def cut_out(photo: Pixels, mask: Pixels) -> Pixels:
    """Return ``photo`` (H, W, 3) where ``mask`` is set, over a chequered ground."""
    rows, columns = np.indices(photo.shape[:2])
    ground = np.where((rows // _TILE + columns // _TILE) % 2 == 0, 236, 206).astype(np.uint8)
    return np.where(mask[:, :, None] > 0, photo, ground[:, :, None]).astype(np.uint8)


def triptych(rows: list[tuple[Pixels, Pixels]]) -> Pixels:
    """Return one picture with a row for each (photo, mask): photo, mask, cut-out."""
    strips = []
    for photo, mask in rows:
        panels = [photo, np.repeat(mask[:, :, None], 3, axis=2), cut_out(photo, mask)]
        border = ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0))
        framed = [np.pad(panel, border, constant_values=255) for panel in panels]
        strips.append(np.concatenate(framed, axis=1))
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return np.asarray(np.concatenate(padded, axis=0), dtype=np.uint8)
