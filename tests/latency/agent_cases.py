"""Plans for the real agent, and openers of things to measure that behave badly when they are told to."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_cases import write_onnx

from deploykit.latency.measure import Protocol
from deploykit.latency.worker import PROGRAM, PlannedSubject, agent_program

QUICK = Protocol(
    min_runs=20,
    min_seconds=0.02,
    max_seconds=0.1,
    precision_target=None,
    warmup_seconds=0.0,
    max_warmup_seconds=0.05,
    profile_runs=3,
    startup_runs=1,
    startup=False,
    affinity=None,
)
OPENER = "agent_cases:open_waiting"
BUSY_OPENER = "agent_cases:open_busy"
HELPED_OPENER = "agent_cases:open_helped"
_LARGE = bytes(2_000_000)


class Waiting:
    """Something whose run waits for ``seconds``, and which does what ``after`` so many runs it is told ``then``."""

    runtime = "waiting"

    def __init__(self, seconds: float, after: int, then: str) -> None:
        self.seconds, self.after, self.then = seconds, after, then
        self.runs = 0

    def run(self) -> None:
        self.runs += 1
        if self.then and self.runs > self.after:
            if self.then == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.then == "hang":
                time.sleep(600)
            raise ValueError("worn out")
        time.sleep(self.seconds)

    def steps(self) -> dict[str, float]:
        return {"waiting": self.seconds}

    def close(self) -> None:
        return


class Busy:
    """Something whose run computes for ``seconds`` of the core's time, however long that takes."""

    runtime = "busy"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self) -> None:
        until = time.thread_time() + self.seconds
        while time.thread_time() < until:
            pass

    def steps(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        return


class Helped(Busy):
    """Something whose run waits for a thread of its own, which computes on the same core."""

    def run(self) -> None:
        helper = threading.Thread(target=super().run)
        helper.start()
        # Without the lock it is pushed from the core by its own thread again and again.
        while helper.is_alive():
            hashlib.sha256(_LARGE).digest()


def open_helped(subject: dict[str, Any]) -> Helped:
    return Helped(**subject["arguments"])


def open_busy(subject: dict[str, Any]) -> Busy:
    return Busy(**subject["arguments"])


def open_waiting(subject: dict[str, Any]) -> Waiting:
    print("something that a runtime says")
    return Waiting(**{"seconds": 0.001, "after": 0, "then": "", **subject["arguments"]})


def agent_command(folder: Path) -> list[str]:
    """Return the command that runs the agent, packed into ``folder``."""
    program = folder / PROGRAM
    program.write_bytes(agent_program())
    return [sys.executable, str(program)]


def with_these_openers() -> dict[str, str]:
    """Return an environment in which the openers of this module are found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}


def onnx_subject(folder: Path, name: str = "m.onnx") -> PlannedSubject:
    path = write_onnx(folder / name)
    np.save(folder / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    return PlannedSubject(name, str(path), "onnx", inputs=({"x": str(folder / "x.npy")},))


def waiting_subject(name: str, **arguments: Any) -> PlannedSubject:
    return PlannedSubject(name, "", "waiting", opener=OPENER, arguments=arguments)
