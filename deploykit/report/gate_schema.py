"""The JSON schema of what ``deploykit gate --json`` prints, made from its records."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from deploykit.gate_records import GateReport
from deploykit.records import RECORD_VERSION

KIND = "gate"


def gate_schema() -> dict[str, Any]:
    """Return the schema, JSON Schema 2020-12; keys that it does not name are not printed."""
    body = TypeAdapter(GateReport).json_schema(mode="serialization", ref_template="#/$defs/{model}")
    definitions = body.pop("$defs")
    definitions["GateReport"] = body
    for one in definitions.values():
        if one.get("type") == "object":
            one["additionalProperties"] = False
            one["required"] = sorted(one["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What deploykit gate --json prints",
        "type": "object",
        "additionalProperties": False,
        "required": ["body", "deploykit", "kind"],
        "properties": {
            "deploykit": {"const": RECORD_VERSION, "description": "The version of this format."},
            "kind": {"const": KIND},
            "body": {"$ref": "#/$defs/GateReport"},
        },
        "$defs": definitions,
    }
