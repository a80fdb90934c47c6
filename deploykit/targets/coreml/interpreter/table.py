"""Which operations the interpreter knows: one literal table from the name in the program to its arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deploykit.targets.coreml.interpreter.arguments import Operation
from deploykit.targets.coreml.interpreter.ops_boxes import BOXES
from deploykit.targets.coreml.interpreter.ops_compressed import COMPRESSED
from deploykit.targets.coreml.interpreter.ops_elementwise import ELEMENTWISE
from deploykit.targets.coreml.interpreter.ops_index import INDEX
from deploykit.targets.coreml.interpreter.ops_linear import LINEAR
from deploykit.targets.coreml.interpreter.ops_reduce import REDUCE
from deploykit.targets.coreml.interpreter.ops_resize import RESIZE
from deploykit.targets.coreml.interpreter.ops_shape import SHAPE
from deploykit.targets.coreml.interpreter.ops_spatial import SPATIAL

OPERATIONS: Final[Mapping[str, Operation]] = {
    **BOXES,
    **COMPRESSED,
    **ELEMENTWISE,
    **INDEX,
    **LINEAR,
    **REDUCE,
    **RESIZE,
    **SHAPE,
    **SPATIAL,
}
