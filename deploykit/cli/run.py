"""``deploykit run``: one photo through an exported file, as its own runtime computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An exported file, its folder or its manifest.")],
    *,
    input_path: Annotated[Path, typer.Option("--input", help="A photo.", show_default=False)],
    output_path: Annotated[Path, typer.Option("--output", help="Where the mask goes.")] = Path("mask.png"),
    cut_out_path: Annotated[
        Path | None, typer.Option("--cut-out", help="Write photo, mask and cut-out side by side.", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")] = 1,
) -> None:
    """Run an exported file on a photo and write the mask, at the size of the photo."""
    from deploykit import api
    from deploykit.artifact import MANIFEST, read_artifact
    from deploykit.cli.console import stderr_console
    from deploykit.errors import UsageError
    from deploykit.images.preprocess import read_image
    from deploykit.recipe import recipe_from_table
    from deploykit.report.picture import mask_of, triptych, write_image

    places = [path.resolve() for path in (input_path, output_path, cut_out_path) if path is not None]
    if len(set(places)) != len(places):
        raise UsageError(
            "A file would be written over.",
            found=", ".join(str(path) for path in (input_path, output_path, cut_out_path) if path is not None),
            expected="different files for --input, --output and --cut-out",
        )
    record = read_artifact(artifact)
    photo = read_image(input_path)
    outputs = api.run(record, image=photo, threads=threads)
    mask = mask_of(record, recipe_from_table(record.recipe_table, record.path.parent / MANIFEST), outputs, photo)
    write_image(output_path, mask)
    if cut_out_path is not None:
        write_image(cut_out_path, triptych([(photo, mask)]))
    share = (mask > 0).mean()
    stderr_console().print(f"{record.runtime}: {share:.1%} of the pixels are foreground", markup=False)
    typer.echo(str(output_path))
