"""``deploykit demo``: the main job end to end on a bundled checkpoint, with a picture at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploykit.cli.options import OutputDirOption

DEMO_SEED = 9_000_001


def demo(
    output_dir: OutputDirOption = Path("demo"),
    photo: Annotated[
        Path | None, typer.Option("--photo", help="Your own photo instead of a drawn one.", show_default=False)
    ] = None,
) -> None:
    """Verify, export and run the bundled SINet, and write photo, mask and cut-out to a PNG."""
    from deploykit import api
    from deploykit.artifact import MANIFEST, find_artifacts, require_writable
    from deploykit.cli.export import export
    from deploykit.cli.verify_reparam import verify_reparam
    from deploykit.images.preprocess import read_image
    from deploykit.images.synthetic import synthesize
    from deploykit.recipe import recipe_from_table
    from deploykit.report.picture import mask_of, triptych, write_image

    require_writable(output_dir)
    verify_reparam("sinet")
    export("sinet", output_dir=output_dir)
    image = synthesize(DEMO_SEED, 448).image if photo is None else read_image(photo)
    rows = []
    for artifact in find_artifacts(output_dir / "sinet"):
        outputs = api.run(artifact, image=image)
        recipe = recipe_from_table(artifact.recipe_table, artifact.path.parent / MANIFEST)
        rows.append((image, mask_of(artifact, recipe, outputs, image)))
    picture = output_dir / "demo.png"
    write_image(picture, triptych(rows))
    typer.echo(f"photo, mask and cut-out, one row for each file: {picture}")
