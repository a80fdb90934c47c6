"""The program whose instructions are counted: so many inferences of one file, and as little else as can be.

It is run by its path with a plan as JSON and imports numpy and one runtime alone, since under valgrind every import
takes fifty times as long. Before and after every count it sleeps for no time at all, a call of the system's library
that nothing else here makes: callgrind writes its count down whenever it sees that call.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WARMUP_RUNS = 5


def main(plan: dict[str, Any]) -> None:
    """Run the file at ``plan["path"]`` to warm it up, then twice ``plan["runs"]`` times, on one thread."""
    inputs = dict(np.load(plan["inputs"]))
    run = _onnx(plan, inputs) if plan["target"] == "onnx" else _tflite(plan, inputs)
    # A collection in one of the counts would be as much as a small network.
    gc.disable()
    for runs in (WARMUP_RUNS, plan["runs"], plan["runs"]):
        for _ in range(runs):
            run()
        time.sleep(0)


def _onnx(plan: dict[str, Any], inputs: dict[str, Any]) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in plan["options"].items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(plan["path"], options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def _tflite(plan: dict[str, Any], inputs: dict[str, Any]) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=plan["path"], num_threads=1)
    interpreter.allocate_tensors()
    signatures = list(interpreter.get_signature_list())
    if signatures:
        runner = interpreter.get_signature_runner(signatures[0])
        return lambda: runner(**inputs)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], inputs[detail["name"]])
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
