"""What a TFLite file says about itself: one metadata buffer of JSON, named after this package."""

from __future__ import annotations

import json
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

NAME = "deploykit"


def read_metadata(path: Path) -> dict[str, str]:
    """Return the properties that the export wrote into the file at ``path``; an empty dictionary for other files."""
    model = schema.Model.GetRootAs(path.read_bytes())
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == NAME.encode():
            found: dict[str, str] = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
            return found
    return {}
