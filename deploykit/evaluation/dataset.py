"""What is evaluated on: a folder of images and masks, or the synthetic portraits that no network was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from deploykit.errors import ImageError, UsageError
from deploykit.evaluation.masks import SOFT, read_mask
from deploykit.evaluation.records import InvalidPair
from deploykit.images.preprocess import IMAGE_SUFFIXES, Pixels, read_image
from deploykit.images.synthetic import LARGEST, SMALLEST, Portrait, synthesize
from deploykit.metrics.confusion import Mask

# The seeds that training keeps apart.
HELD_OUT_SEEDS = range(900_000, 900_128)
REPORT_EVERY = 16
IMAGES, MASKS = "images", "masks"
LAYOUT = (
    f"a folder with {IMAGES}/ and {MASKS}/, whose files have equal names up to the suffix "
    "(hidden files are passed over)"
)


@dataclass(frozen=True)
class Sample:
    """A photo ``image`` (H, W, 3) in RGB and the portrait's true pixels ``mask`` (H, W)."""

    name: str
    image: Pixels
    mask: Mask


class Dataset(Protocol):
    """Named samples; ``read`` takes the side of the network's input, which generated samples are drawn for."""

    @property
    def description(self) -> str:
        """What the samples are, in a few words."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the samples, in order."""
        ...

    @property
    def invalid(self) -> tuple[InvalidPair, ...]:
        """What was found and left out."""
        ...

    def read(self, name: str, side: int) -> Sample:
        """Return one sample."""
        ...


def drawn_side(side: int) -> int:
    """Return the side in pixels at which a portrait is drawn for an input whose longer side is ``side``."""
    return min(max(side, SMALLEST), LARGEST)


# A pipeline evaluates one file after the other on the same portraits, and drawing takes longer than many a network.
@lru_cache(maxsize=64)
def _drawn(seed: int, side: int) -> Portrait:
    return synthesize(seed, side)


@dataclass(frozen=True)
class SyntheticSet:
    """The first ``count`` held-out synthetic portraits, drawn at the input's size, so that nothing is resized."""

    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= len(HELD_OUT_SEEDS):
            raise UsageError(
                "The number of samples is out of range.",
                where="--samples",
                found=str(self.count),
                expected=f"1 to {len(HELD_OUT_SEEDS)}, the held-out portraits",
            )

    @property
    def description(self) -> str:
        """Which portraits these are."""
        return f"synthetic portraits, seeds {HELD_OUT_SEEDS[0]} to {HELD_OUT_SEEDS[self.count - 1]}"

    @property
    def names(self) -> tuple[str, ...]:
        """The seeds."""
        return tuple(str(seed) for seed in HELD_OUT_SEEDS[: self.count])

    @property
    def invalid(self) -> tuple[InvalidPair, ...]:
        """Nothing: they are drawn."""
        return ()

    def read(self, name: str, side: int) -> Sample:
        """Return the portrait of the seed ``name`` for an input whose longer side is ``side`` pixels."""
        portrait = _drawn(int(name), drawn_side(side))
        return Sample(name, portrait.image, portrait.mask > 0)


@dataclass(frozen=True)
class FolderSet:
    """The pairs of ``images/`` and ``masks/`` below ``folder`` that were read and fit together."""

    folder: Path
    pairs: dict[str, tuple[Path, Path]]
    invalid: tuple[InvalidPair, ...]
    threshold: float | None

    @property
    def description(self) -> str:
        """Where they are."""
        return str(self.folder)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files without suffix, in order."""
        return tuple(self.pairs)

    def read(self, name: str, side: int) -> Sample:
        """Return the photo and mask called ``name`` at their own size, whatever ``side`` is."""
        del side
        return _read_pair(name, *self.pairs[name], self.threshold)


def read_folder(
    folder: Path,
    *,
    threshold: float | None = None,
    skip_invalid: bool = False,
    report: Callable[[str], None] | None = None,
) -> FolderSet:
    """Return the pairs below ``folder``, every one of which was read once to be sure of it.

    Raises ImageError where the layout is another one or no pair is left, and, unless ``skip_invalid``, where
    anything at all in the two folders cannot be used: all of it is listed.
    """
    faults: list[ImageError] = []
    by_stem = {kind: _by_stem(_listed(folder, kind), faults) for kind in (IMAGES, MASKS)}
    stems = sorted(by_stem[IMAGES].keys() | by_stem[MASKS].keys())
    pairs: dict[str, tuple[Path, Path]] = {}
    for index, stem in enumerate(stems):
        if report and index % REPORT_EVERY == 0:
            report(f"reading {index} of {len(stems)} pairs")
        try:
            pair = _pair(by_stem[IMAGES].get(stem, []), by_stem[MASKS].get(stem, []))
            _read_pair(stem, *pair, threshold)
        except ImageError as error:
            faults.append(error)
        else:
            pairs[stem] = pair
    invalid = tuple(_as_record(fault, folder) for fault in faults)
    if not pairs and not invalid:
        raise ImageError(
            "The folder holds no images and masks.", where=str(folder), found="empty folders", expected=LAYOUT
        )
    if invalid and not (skip_invalid and pairs):
        raise _refusal(folder, invalid, len(pairs))
    return FolderSet(folder, pairs, invalid, threshold)


def _as_record(fault: ImageError, folder: Path) -> InvalidPair:
    path = Path(fault.where or folder)
    reason = fault.message.rstrip(".") + (f": {fault.found}" if fault.found else "")
    return InvalidPair(path.relative_to(folder).as_posix(), reason)


def _refusal(folder: Path, invalid: tuple[InvalidPair, ...], usable: int) -> ImageError:
    ways = ["mend them"]
    if usable:
        ways.append("leave them out with --skip-invalid")
    if any(SOFT in one.reason for one in invalid):
        ways.append("cut soft mattes with --mask-threshold")
    return ImageError(
        f"Of the images and masks {len(invalid)} cannot be used; {usable} pairs can.",
        where=str(folder),
        found="".join(f"\n    {one.name}: {one.reason}" for one in invalid),
        expected=f"{LAYOUT}; masks of two levels, as large as their image",
        next_step=", or ".join(ways),
    )


def _listed(folder: Path, kind: str) -> list[Path]:
    place = folder / kind
    if not place.is_dir():
        there = ", ".join(sorted(item.name for item in folder.iterdir())[:6]) if folder.is_dir() else ""
        raise ImageError(
            "The folder of images and masks cannot be read.",
            where=str(place),
            found=(there or "an empty folder") if folder.is_dir() else "a file" if folder.exists() else "nothing",
            expected=LAYOUT,
        )
    return sorted(item for item in place.iterdir() if not item.name.startswith("."))


def _by_stem(paths: Iterable[Path], faults: list[ImageError]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(path.stem, []).append(path)
        else:
            kind = "a folder" if path.is_dir() else "a file" if path.exists() else "a link to nothing"
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            what = f"{kind}, not one ending in {suffixes}"
            faults.append(ImageError("This is no image.", where=str(path), found=what))
    return found


def _pair(images: list[Path], masks: list[Path]) -> tuple[Path, Path]:
    """Return the one image and the one mask of a name. Raises ImageError where one is missing or not alone."""
    if not masks:
        raise ImageError("The mask of this image is missing.", where=str(images[0]))
    if not images:
        raise ImageError("The image of this mask is missing.", where=str(masks[0]))
    for paths in (images, masks):
        if len(paths) > 1:
            raise ImageError(
                "Several files have this name.", where=str(paths[0]), found=", ".join(path.name for path in paths)
            )
    return images[0], masks[0]


def _read_pair(name: str, image_path: Path, mask_path: Path, threshold: float | None) -> Sample:
    image, mask = read_image(image_path), read_mask(mask_path, threshold)
    if image.shape[:2] != mask.shape:
        raise ImageError(
            "The mask has another size than its image.",
            where=str(mask_path),
            found=f"{mask.shape[1]}x{mask.shape[0]}, the image {image.shape[1]}x{image.shape[0]} (width x height)",
        )
    return Sample(name, image, np.ascontiguousarray(mask))
