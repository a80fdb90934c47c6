"""A small network for video, exported."""

from __future__ import annotations

import pytest
from video_case import write_video_case

from deploykit.api import export, load_recipe
from deploykit.records import Artifact


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The ONNX file of the small network, with 8-bit pixels as its input."""
    from deploykit.lowering import ExportOptions
    from deploykit.vocab import InputKind

    folder = tmp_path_factory.mktemp("exported")
    recipe = load_recipe(write_video_case(folder / "network"))
    options = ExportOptions(input_kind=InputKind.IMAGE)
    (found,) = export(recipe, targets=["onnx"], output_dir=folder / "artifacts", options=options)
    return found
