"""Files opened in their own runtimes, each ready to do one inference after the other."""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Subject = Mapping[str, Any]
Feed = dict[str, Any]
DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "ai_edge_litert": "ai-edge-litert", "coremltools": "coremltools"}
_COMPUTE_UNITS = {"cpu": "CPU_ONLY", "cpu+gpu": "CPU_AND_GPU", "cpu+neural-engine": "CPU_AND_NE", "all": "ALL"}


class Session:
    """An open subject: ``run()`` is one inference on the next of its inputs."""

    def __init__(self, runtime: str, run: Callable[[], object], close: Callable[[], object] | None = None) -> None:
        self.runtime = runtime
        self.run = run
        self._close = close

    def steps(self) -> dict[str, float]:
        """Return the mean seconds of what a run consists of since it was last asked; of a file nothing is known."""
        return {}

    def close(self) -> None:
        """Release the file."""
        self.run = _closed
        if self._close is not None:
            self._close()
        self._close = None


def _closed() -> None:
    raise RuntimeError("the session is closed")


def prepared(subject: Subject) -> Callable[[], Any]:
    """Import what ``subject`` needs and read its inputs; return a function that opens it anew each time."""
    if subject.get("opener"):
        module, _, name = subject["opener"].partition(":")
        opener = getattr(importlib.import_module(module), name)
        return lambda: opener(subject)
    rows = {"onnx": _prepare_onnx, "tflite": _prepare_tflite, "coreml": _prepare_coreml}
    prepare = rows.get(subject["target"])
    if prepare is None:
        raise ValueError(f"files of {subject['target']} are not measured by the agent: {', '.join(rows)} are")
    if subject["accelerator"] != "cpu" and subject["target"] != "coreml":
        raise ValueError(f"{subject['target']} is measured on the cpu, not on {subject['accelerator']}")
    feeds = [{name: np.load(path) for name, path in feed.items()} for feed in subject["inputs"]]
    return prepare(subject, feeds)


def installed() -> dict[str, str]:
    """Return import name and version of the runtimes that are here; none is imported."""
    found = {}
    for name, distribution in DISTRIBUTIONS.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _in_turn(feeds: list[Feed]) -> Iterator[Feed]:
    return itertools.cycle(feeds)


def _prepare_onnx(subject: Subject, feeds: list[Feed]) -> Callable[[], Session]:
    import onnxruntime

    def opened() -> Session:
        session = onnxruntime.InferenceSession(
            subject["path"], onnx_options(subject), providers=["CPUExecutionProvider"]
        )
        return Session(f"ONNX Runtime {onnxruntime.__version__} (CPU)", _calls(session.run, feeds))

    return opened


def onnx_options(subject: Subject) -> Any:
    """Return the options of ONNX Runtime with which ``subject`` is opened."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = subject["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in subject.get("options", {}).items():
        options.add_session_config_entry(key, value)
    return options


def _calls(run: Callable[[None, Feed], object], feeds: list[Feed]) -> Callable[[], object]:
    if len(feeds) == 1:
        only = feeds[0]
        return lambda: run(None, only)
    turn = _in_turn(feeds)
    return lambda: run(None, next(turn))


def _prepare_tflite(subject: Subject, feeds: list[Feed]) -> Callable[[], Session]:
    from ai_edge_litert.interpreter import Interpreter

    runtime = f"LiteRT {importlib.metadata.version('ai-edge-litert')} (CPU)"

    def opened() -> Session:
        interpreter = Interpreter(model_path=subject["path"], num_threads=subject["threads"])
        interpreter.allocate_tensors()
        signatures = list(interpreter.get_signature_list())
        runner = interpreter.get_signature_runner(signatures[0]) if signatures else None
        turn = _in_turn(feeds)
        if runner is not None and interpreter.num_subgraphs() > 1:
            return Session(runtime, lambda: runner(**next(turn)))
        details = runner.get_input_details().values() if runner else interpreter.get_input_details()
        named = runner.get_input_details() if runner else {item["name"]: item for item in details}
        outputs = runner.get_output_details().values() if runner else interpreter.get_output_details()
        inputs = {name: int(item["index"]) for name, item in named.items()}
        returned = [int(item["index"]) for item in outputs]

        def run() -> list[Any]:
            for name, value in next(turn).items():
                interpreter.set_tensor(inputs[name], value)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in returned]

        return Session(runtime, run)

    return opened


def _prepare_coreml(subject: Subject, feeds: list[Feed]) -> Callable[[], Session]:
    import coremltools

    units = getattr(coremltools.ComputeUnit, _COMPUTE_UNITS[subject["accelerator"]])
    runtime = f"Core ML, coremltools {coremltools.__version__} ({subject['accelerator']}), threads chosen by Core ML"

    def opened() -> Session:
        model = coremltools.models.MLModel(subject["path"], compute_units=units)
        images = {
            item.name for item in model.get_spec().description.input if item.type.WhichOneof("Type") == "imageType"
        }
        turn = _in_turn([{name: _picture(v) if name in images else v for name, v in feed.items()} for feed in feeds])
        return Session(runtime, lambda: model.predict(next(turn)))

    return opened


def _picture(pixels: Any) -> Any:
    """Return (1, H, W, C) as Core ML takes an image: halves of grey as Pillow's mode F."""
    from PIL import Image

    plain = pixels[0] if pixels.dtype == np.uint8 else pixels[0].astype(np.float32)
    return Image.fromarray(plain[..., 0] if plain.shape[-1] == 1 else plain)
