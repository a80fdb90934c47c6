"""The lines of code that call a file, in the language of the phones that run it."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.errors import DeploykitError
from deploykit.records import Artifact
from deploykit.report_page.contract import contract_of
from deploykit.report_page.kotlin import kotlin
from deploykit.report_page.swift import swift
from deploykit.vocab import Target

_RUNTIMES = {
    Target.ONNX: ("Kotlin", "ONNX Runtime for Android"),
    Target.TFLITE: ("Kotlin", "LiteRT for Android"),
    Target.COREML: ("Swift", "Core ML"),
    Target.COREAI: ("Swift", "Core AI, iOS 27"),
}


@dataclass(frozen=True)
class Call:
    """How one file is called: ``sentences`` on inputs and outputs, and the ``code`` for ``runtime``."""

    name: str
    language: str
    runtime: str
    sentences: tuple[str, ...]
    code: str


def call_of(name: str, artifact: Artifact) -> Call:
    """Return how ``artifact``, called ``name`` in the report, is called; the reason where its manifest does not say."""
    language, runtime = _RUNTIMES[artifact.plan.target]
    try:
        contract = contract_of(artifact)
    except DeploykitError as error:
        return Call(name, language, runtime, (f"Not known: {error.message} {error.found or ''}".strip(),), "")
    if not contract.inputs or not contract.outputs:
        return Call(name, language, runtime, ("Not known: the manifest names no inputs or outputs of its recipe.",), "")
    written = swift(contract) if language == "Swift" else kotlin(contract)
    return Call(name, language, runtime, contract.sentences(), written)
