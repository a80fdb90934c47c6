"""The process that loads Core AI assets for another one: ``python -m deploykit.targets.coreai.child``.

The compiler of a Core AI program ends its process where the bytecode is damaged or of a version that it does not know.
Here this costs nobody else anything. It also gives the runtime, all of whose calls are asynchronous, an event loop that
is its own. Requests come on standard input and are answered on standard output, one at a time, until the input ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from coreai.authoring import AIModelAsset
from coreai.authoring.asset import OSVersion
from coreai.runtime import NDArray

from deploykit.targets.coreai.bytecode import describe, expose, load_program, program_text, with_own_names
from deploykit.targets.coreai.integers import Integers
from deploykit.targets.coreai.message import Arrays, Body, receive, send


async def answer_all(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer every request until ``requests`` ends; what fails is answered with its reason."""
    async with AsyncExitStack() as stack:
        function: Any = None
        while True:
            try:
                body, arrays = receive(requests)
            except EOFError:
                return
            try:
                if body["ask"] == "open":
                    function, found = await _open(stack, body["path"])
                    send(answers, found)
                elif body["ask"] == "run":
                    send(answers, {}, await _run(function, arrays))
                else:
                    send(answers, *_READERS[body["ask"]](body))
            except Exception as error:
                # The runtime raises the errors of four languages, under classes that are not stable.
                send(answers, {"error": f"{type(error).__name__}: {str(error).strip()}"})


async def _open(stack: AsyncExitStack, path: str) -> tuple[Any, Body]:
    model = await stack.enter_async_context(AIModelAsset.load(path).executable())
    names = model.function_names
    function = model.load_function("main" if "main" in names else names[0])
    described = function.desc
    if described.state_names:
        raise ValueError(f"the function keeps the states {', '.join(described.state_names)} between calls")
    found = {
        "inputs": [_declared(name, described.input_descriptor(name)) for name in described.input_names],
        "outputs": [_declared(name, described.output_descriptor(name)) for name in described.output_names],
    }
    return function, found


def _declared(name: str, descriptor: Any) -> list[Any]:
    return [name, [-1 if size is None else int(size) for size in descriptor.shape], str(descriptor.dtype)]


async def _run(function: Any, arrays: Arrays) -> Arrays:
    found = await function({name: NDArray(value) for name, value in arrays.items()})
    return {name: value.numpy() for name, value in found.items()}


def _describe(body: Body) -> tuple[Body, Arrays]:
    summary = AIModelAsset.load(body["path"]).summary(include_statistics=False)
    system = summary._compatibility_version if summary else None
    return asdict(describe(load_program(Path(body["path"])), system)), {}


def _text(body: Body) -> tuple[Body, Arrays]:
    text = program_text(load_program(Path(body["path"]))).encode()
    return {}, {"text": np.frombuffer(text, np.uint8)}


def _expose(body: Body) -> tuple[Body, Arrays]:
    program = load_program(Path(body["path"]))
    names = expose(program, only=body.get("only"))
    program.save_asset(Path(body["to"]))
    return {"names": names}, {}


def _quantize(body: Body) -> tuple[Body, Arrays]:
    program = load_program(Path(body["path"]))
    integers = Integers(program)
    weights = integers.compress(body["bits"], set(body["kept_weights"]))
    activations = []
    if body["scales"] is not None:
        activations = integers.round_activations(body["scales"], {*body["kept"], *integers.left})
    with_own_names(program).save_asset(Path(body["to"]), None, OSVersion(body["system"]))
    return {"weights": weights, "activations": activations, "left": integers.left}, {}


_READERS = {"describe": _describe, "text": _text, "expose": _expose, "quantize": _quantize}


def main() -> None:
    """Answer requests until there are none; what libraries print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asyncio.run(answer_all(sys.stdin.buffer, answers))


if __name__ == "__main__":
    main()
