"""The support matrix of targets as data: what each needs installed, what its files are called, what it takes."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from deploykit.errors import TargetError
from deploykit.records import ExportPlan
from deploykit.vocab import InputKind, Layout, OutputKind, Target


@dataclass(frozen=True)
class TargetRow:
    """One target: ``packages`` are import name → distribution, all needed to write and run its files."""

    target: Target
    suffix: str
    packages: dict[str, str]
    extra: str
    runtime: str
    layouts: tuple[Layout, ...]
    input_kinds: tuple[InputKind, ...] = tuple(InputKind)
    output_kinds: tuple[OutputKind, ...] = tuple(OutputKind)
    opsets: tuple[int, ...] = ()
    default_opset: int | None = None
    minimum_os: tuple[str, ...] = ()
    default_minimum_os: str | None = None

    def missing(self) -> tuple[str, ...]:
        """Return the distributions that are not installed."""
        return tuple(d for module, d in self.packages.items() if importlib.util.find_spec(module) is None)

    def install_command(self) -> str:
        """Return the command that installs what the target needs."""
        return f"pip install 'deploykit[{self.extra}]'"

    def versions(self) -> dict[str, str]:
        """Return distribution → installed version of what the target uses."""
        return {d: importlib.metadata.version(d) for d in self.packages.values()}


TARGETS: dict[Target, TargetRow] = {
    Target.ONNX: TargetRow(
        target=Target.ONNX,
        suffix=".onnx",
        packages={"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript", "onnxsim": "onnxsim"},
        extra="onnx",
        runtime="ONNX Runtime",
        layouts=(Layout.NCHW,),
        opsets=(18, 19, 20, 21, 22),
        default_opset=18,
    ),
    Target.COREML: TargetRow(
        target=Target.COREML,
        suffix=".mlpackage",
        packages={"coremltools": "coremltools"},
        extra="coreml",
        runtime="Core ML on macOS; the reference interpreter elsewhere",
        layouts=(Layout.NCHW,),
        minimum_os=("iOS15", "iOS16", "iOS17", "iOS18"),
        default_minimum_os="iOS15",
    ),
    Target.TFLITE: TargetRow(
        target=Target.TFLITE,
        suffix=".tflite",
        packages={
            "ai_edge_litert": "ai-edge-litert",
            "ai_edge_quantizer": "ai-edge-quantizer",
            "litert_torch": "litert-torch",
        },
        extra="tflite",
        runtime="LiteRT",
        layouts=(Layout.NCHW, Layout.NHWC),
    ),
    Target.COREAI: TargetRow(
        target=Target.COREAI,
        suffix=".aimodel",
        packages={"coreai": "coreai-core", "coreai_torch": "coreai-torch"},
        extra="coreai",
        runtime="Apple's Core AI runtime",
        layouts=(Layout.NCHW,),
        minimum_os=("iOS27",),
        default_minimum_os="iOS27",
    ),
}


def require(target: Target) -> TargetRow:
    """Return the row of ``target``; an error with the install command where something is missing."""
    row = TARGETS[target]
    missing = row.missing()
    if missing:
        raise TargetError(
            f"The target {target} is not installed.",
            found="missing: " + ", ".join(missing),
            expected=", ".join(row.packages.values()),
            next_step=row.install_command(),
        )
    return row


def check_plan(plan: ExportPlan) -> None:
    """Raise TargetError where the plan asks for something that its target cannot do, naming what it can."""
    row = TARGETS[plan.target]
    choices: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("--layout", plan.layout, row.layouts),
        ("--input-kind", plan.input_kind, row.input_kinds),
        ("--output-kind", plan.output_kind, row.output_kinds),
        ("--opset", plan.opset, (*row.opsets, *(() if row.opsets else (None,)))),
        ("--minimum-os", plan.minimum_os, (*row.minimum_os, *(() if row.minimum_os else (None,)))),
    )
    for option, asked, allowed in choices:
        if asked not in allowed:
            offered = ", ".join(str(value) for value in allowed if value is not None)
            raise TargetError(
                f"The target {plan.target} does not take {option} {asked}.",
                found=str(asked),
                expected=offered or f"no {option} at all: it does not apply to {plan.target}",
            )


def part(target: Target, name: str) -> ModuleType:
    """Return the module ``name`` (lowering, export or runtime) of ``target``, imported only now."""
    return importlib.import_module(f"deploykit.targets.{target.value}.{name}")


def target_of(path: Path) -> Target:
    """Return the target whose files look like ``path``; an error for any other name."""
    for row in TARGETS.values():
        if path.suffix.lower() == row.suffix:
            return row.target
    raise TargetError(
        "The file is not one of the formats that deploykit runs.",
        where=str(path),
        found=path.suffix or "no suffix",
        expected=", ".join(row.suffix for row in TARGETS.values()),
    )
