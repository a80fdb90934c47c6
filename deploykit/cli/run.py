"""``deploykit run``: photos, or the frames of a video, through an exported file, as its own runtime computes it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

FILE, FOLDER = Path("mask.png"), Path("masks")


@dataclass(frozen=True)
class _Job:
    """One photo and the pictures that are made of it."""

    photo: Path
    mask: Path
    cut_out: Path | None


def run(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An exported file, its folder or its manifest.")],
    *,
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input",
            help="A photo; several, or a folder of them, are the frames of a video in order.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Where the mask goes: a file, a folder for frames.", show_default="mask.png, or masks"
        ),
    ] = None,
    cut_out: Annotated[
        Path | None,
        typer.Option(
            "--cut-out", help="Write photo, mask and cut-out side by side; a folder for frames.", show_default=False
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")] = 1,
) -> None:
    """Run an exported file on a photo, or on the frames of a video, and write each mask at the size of its photo.

    A file that takes the frame before as an input gets what it gave for that frame, and for the first one what its
    recipe says; another file takes each photo alone. Frames of a folder come in the order of their names, the numbers
    in them by value.
    """
    import numpy as np

    from deploykit import api
    from deploykit.artifact import MANIFEST, read_artifact
    from deploykit.cli.console import stderr_console
    from deploykit.images.preprocess import read_image
    from deploykit.recipe import recipe_from_table
    from deploykit.report.picture import mask_of, triptych, write_image

    jobs = _jobs(inputs, output, cut_out)
    record = read_artifact(artifact)
    recipe = recipe_from_table(record.recipe_table, record.path.parent / MANIFEST)
    photos, frames = itertools.tee(read_image(job.photo) for job in jobs)
    shares = []
    for job, photo, values in zip(jobs, photos, api.run_sequence(record, frames, threads=threads), strict=True):
        mask = mask_of(record, recipe, values, photo)
        write_image(job.mask, mask)
        if job.cut_out is not None:
            write_image(job.cut_out, triptych([(photo, mask)]))
        shares.append((mask > 0).mean())
        typer.echo(str(job.mask))
    of_what = "the pixels" if len(jobs) == 1 else f"the pixels of {len(jobs)} photos"
    stderr_console().print(f"{record.runtime}: {np.mean(shares):.1%} of {of_what} are foreground", markup=False)


def _jobs(inputs: Sequence[Path], output: Path | None, cut_out: Path | None) -> tuple[_Job, ...]:
    """Return what to do, in order. Raises UsageError where a file would be written over."""
    from deploykit.errors import UsageError

    photos = [photo for given in inputs for photo in (_frames(given) if given.is_dir() else (given,))]
    if len(inputs) == 1 and not inputs[0].is_dir():
        jobs: tuple[_Job, ...] = (_Job(photos[0], output or FILE, cut_out),)
    else:
        _require_folders(output, cut_out)
        names = [f"{photo.stem}.png" for photo in photos]
        folder = output or FOLDER
        jobs = tuple(
            _Job(photo, folder / name, cut_out / name if cut_out else None)
            for photo, name in zip(photos, names, strict=True)
        )
    taken = {job.photo.resolve() for job in jobs}
    for path in (path for job in jobs for path in (job.mask, job.cut_out) if path is not None):
        if path.resolve() in taken:
            raise UsageError(
                "A file would be written over.",
                found=str(path),
                expected="different files for --input, --output and --cut-out",
            )
        taken.add(path.resolve())
    return jobs


def _require_folders(output: Path | None, cut_out: Path | None) -> None:
    from deploykit.errors import UsageError
    from deploykit.images.preprocess import IMAGE_SUFFIXES

    for option, path in (("--output", output), ("--cut-out", cut_out)):
        if path is not None and path.suffix.lower() in IMAGE_SUFFIXES:
            raise UsageError(
                "Several photos give several pictures.", where=option, found=str(path), expected="a folder for them"
            )


def _frames(folder: Path) -> list[Path]:
    from deploykit.images.preprocess import image_paths

    def by_value(path: Path) -> list[tuple[int, str]]:
        # Text and numbers take turns, so that like is compared with like.
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted(image_paths(folder), key=by_value)
