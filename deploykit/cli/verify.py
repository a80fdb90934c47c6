"""``deploykit verify``: is an exported file what its checkpoint, or another file, says it should be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deploykit.cli.options import CheckpointKeyOption, CheckpointOption, ImagesOption, JsonOption, VerboseOption
from deploykit.vocab import InputKind, Precision


def verify(
    artifact: Annotated[
        Path | None,
        typer.Argument(metavar="ARTIFACT", help="An exported file, its folder or its manifest.", show_default=False),
    ] = None,
    *,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Compare with another checkpoint, or with another exported file.",
            show_default=False,
        ),
    ] = None,
    images: ImagesOption = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="The recipe of a file without a manifest, or instead of it.", show_default=False),
    ] = None,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    layers: Annotated[bool, typer.Option("--layers", help="Name the layer in which the error arises.")] = False,
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="Judge by these tolerances.", show_default="as the file is"),
    ] = None,
    input_kind: Annotated[
        InputKind | None,
        typer.Option("--input-kind", help="What a float input takes: image for pixels, 0 to 255.", show_default=False),
    ] = None,
    input_name: Annotated[
        list[str] | None,
        typer.Option("--input-name", metavar="RECIPE=FILE", help="Which input is which.", show_default=False),
    ] = None,
    output_name: Annotated[
        list[str] | None,
        typer.Option("--output-name", metavar="RECIPE=FILE", help="Which output is which.", show_default=False),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate", metavar="FILE", help="Check this certificate against its checkpoint.", show_default=False
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="Check the chain from checkpoint to measurements in this manifest.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")] = 1,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run an exported file on this machine and compare it with the checkpoint that it was made from.

    The manifest beside the file says which recipe and checkpoint. A file that deploykit did not make needs --recipe or
    --checkpoint; its inputs and outputs are matched by name and shape. Files that changed since their manifest are
    named, and what is odd about the outputs: NaN, infinity, a constant, values stuck at an end of their range.

    A file that takes pixels is probed: constant colours, ramps and single pixels tell whether it preprocesses as the
    recipe says, and if not, what it does instead. Exit code 1 if the file does not pass.

    --certificate checks a certificate of verify-reparam again, --manifest the chain of hashes from the checkpoint over
    the certificate to the artifact and its measurements: both instead of ARTIFACT, and whatever differs is named. They
    find corruption and mistakes; unsigned, they do not stop an adversary.
    """
    from deploykit.cli.console import print_json, progress, stdout_console
    from deploykit.cli.verify_tables import of_verification
    from deploykit.errors import UsageError
    from deploykit.images.preprocess import image_paths
    from deploykit.records import to_json, versioned
    from deploykit.verification import Choices
    from deploykit.verification import verify as verify_file

    del verbose
    if certificate is not None or manifest is not None:
        given = {"ARTIFACT": artifact, "--certificate": certificate, "--manifest": manifest}
        _refuse_unused(
            {
                "--against": against,
                "--images": images,
                "--layers": layers,
                "--precision": precision,
                "--input-kind": input_kind,
                "--input-name": input_name,
                "--output-name": output_name,
                "--threads": threads > 1,
            }
        )
        _check_chain(given, as_json, recipe=recipe, checkpoint=checkpoint, checkpoint_key=checkpoint_key)
        return
    if artifact is None:
        raise UsageError(
            "There is nothing to verify.",
            found="no ARTIFACT",
            expected="an exported file, its folder or its manifest; or --certificate FILE; or --manifest FILE",
        )
    photos = image_paths(images) if images else ()
    choices = Choices(
        precision=precision,
        input_kind=input_kind,
        input_names=_names("--input-name", input_name),
        output_names=_names("--output-name", output_name),
        threads=threads,
        layers=layers,
    )
    with progress("verify") as say:
        one = verify_file(
            artifact,
            against=against,
            images=photos,
            recipe=recipe,
            checkpoint=checkpoint,
            checkpoint_key=checkpoint_key,
            choices=choices,
            report=say,
        )
    if as_json:
        print_json(versioned("verify", {**to_json(one), "passed": one.passed}))
    else:
        console = stdout_console()
        for part in of_verification(one):
            console.print(part)
    if not one.passed:
        raise typer.Exit(1)


def _check_chain(given: dict[str, Path | None], as_json: bool, **reference: Any) -> None:
    """Check a certificate, or the chain in a manifest, and print the result; exit code 1 where it does not pass."""
    from deploykit.certificate.check import check_certificate
    from deploykit.cli.certificate_tables import show_certificate_check, show_manifest_check
    from deploykit.cli.console import progress
    from deploykit.errors import UsageError
    from deploykit.provenance.check import check_manifest

    named = {name: path for name, path in given.items() if path is not None}
    if len(named) > 1:
        raise UsageError(
            "These are verified one at a time.", found=" and ".join(named), expected="one of " + ", ".join(given)
        )
    ((name, path),) = named.items()
    with progress("verify") as say:
        if name == "--certificate":
            certificate = check_certificate(path, step=say, **reference)
        else:
            chain = check_manifest(path, step=say, **reference)
    if name == "--certificate":
        show_certificate_check(certificate, as_json)
    else:
        show_manifest_check(chain, as_json)
    if not (certificate if name == "--certificate" else chain).passed:
        raise typer.Exit(1)


def _refuse_unused(options: dict[str, object]) -> None:
    from deploykit.errors import UsageError

    if named := [name for name, value in options.items() if value]:
        raise UsageError(
            "A certificate or a chain is checked as it was recorded.",
            where=", ".join(named),
            found="an option that is for an ARTIFACT",
            expected="beside --certificate or --manifest only --recipe, --checkpoint, --checkpoint-key and --json",
        )


def _names(option: str, given: list[str] | None) -> dict[str, str]:
    """Return name in the recipe → name in the file of texts such as prior=input_1."""
    from deploykit.errors import UsageError

    found: dict[str, str] = {}
    for text in given or ():
        ours, separator, theirs = text.partition("=")
        if not separator or not ours or not theirs or ours in found:
            raise UsageError(
                "The names are not understood.",
                where=option,
                found=text,
                expected="RECIPE=FILE, each name of the recipe once, for example prior=input_1",
            )
        found[ours] = theirs
    return found
