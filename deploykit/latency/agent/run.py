"""The agent: says what machine this is, then starts one process after the other and lets them speak."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from . import AGENT, cores
from .conditions import Watch
from .events import Stream
from .machine import facts
from .runtimes import installed

_CHILD = "--phase"
_SAID = 300
# The agent's own arithmetic needs no threads, and those of OpenBLAS would wait beside a measurement.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


class _EndedError(Exception):
    """A signal asked the agent to end."""


def main(arguments: Sequence[str]) -> int:
    """Run the plan in the file that is the only argument, or on stdin; return the exit code."""
    if list(arguments) == [_CHILD]:
        from .child import run_phase

        return run_phase(json.loads(sys.stdin.read()))
    plan = json.loads(Path(arguments[0]).read_text("utf-8") if arguments else sys.stdin.read())
    stream = Stream()
    if plan["agent"] != AGENT:
        stream.emit("end", complete=False, ended=f"the plan is of version {plan['agent']}, the agent of {AGENT}")
        return 1
    for number in (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ())):
        signal.signal(number, _end)
    try:
        ended = _run(plan, stream)
    except _EndedError:
        ended = "interrupted"
    stream.emit("end", complete=not ended, ended=ended)
    return 1 if ended else 0


def _end(number: int, frame: FrameType | None) -> None:
    raise _EndedError


def _run(plan: Mapping[str, Any], stream: Stream) -> str:
    subjects = plan["subjects"]
    most = max((subject["threads"] for subject in subjects), default=1)
    try:
        pinned = cores.chosen(plan["affinity"], most)
    except OSError as error:
        return str(error)
    stream.emit(
        "hello",
        agent=AGENT,
        python=platform.python_version(),
        machine=facts(),
        runtimes=installed(),
        affinity=pinned,
    )
    watch = Watch(pinned, stream.now_s)
    stream.emit("conditions", **watch.read(slowly=True))
    ended = ""
    for phase in plan["phases"]:
        each = [subjects] if phase == "steady" else [[subject] for subject in subjects]
        for some in each:
            order = {"phase": phase, "subjects": some, "limits": plan["limits"], "affinity": pinned}
            ended = (_starts(order, stream) if phase == "startup" else _child(order, stream)) or ended
    stream.emit("conditions", **watch.read(slowly=True))
    return ended


def _starts(order: Mapping[str, Any], stream: Stream) -> str:
    """Start the subject of ``order`` several times, as often as there is time for; return why a process ended early."""
    limits = order["limits"]
    begun = time.perf_counter()
    for _ in range(limits["startup_runs"]):
        ended = _child(order, stream)
        if ended or time.perf_counter() - begun >= limits["startup_seconds"]:
            break
    return ended


def _child(order: Mapping[str, Any], stream: Stream) -> str:
    """Run one phase in a process of its own; return why it ended early, or an empty text."""
    with tempfile.TemporaryFile() as errors:
        spawned = time.perf_counter_ns()
        process = subprocess.Popen(
            [sys.executable, sys.argv[0], _CHILD],
            stdin=subprocess.PIPE,
            stdout=stream.descriptor(),
            stderr=errors,
            env={**os.environ, **_ENVIRONMENT},
        )
        try:
            given = json.dumps({**order, "origin_ns": stream.origin_ns, "spawned_ns": spawned})
            _hand_over(process, given)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if code == 0:
            return ""
        ended = f"the process of the {order['phase']} phase ended with {_name(code)}{_last_line(errors)}"
    names = [subject["name"] for subject in order["subjects"]]
    stream.emit("problem", subject=names[0] if len(names) == 1 else None, phase=order["phase"], message=ended)
    return ended


def _hand_over(process: subprocess.Popen[bytes], given: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(given.encode())
        process.stdin.close()
    except BrokenPipeError:
        # It is gone already: its exit code says why.
        return


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {lines[-1][:_SAID]}" if lines else ""
