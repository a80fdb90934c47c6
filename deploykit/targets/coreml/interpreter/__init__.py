"""Reference interpreter of Core ML programs: evaluates an ``.mlpackage`` on any operating system."""

from deploykit.targets.coreml.interpreter.declared import ColorLayout, ProgramTensor
from deploykit.targets.coreml.interpreter.run import MilInterpreter, TracedValue

__all__ = ["ColorLayout", "MilInterpreter", "ProgramTensor", "TracedValue"]
