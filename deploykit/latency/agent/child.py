"""One phase, in a process of its own: the start-up of one subject, or the steady state or profile of all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from . import cores
from .conditions import Watch
from .events import Stream
from .profile import profile
from .runtimes import prepared
from .startup import start_up
from .steady import Turn, said, sample, warm_up


def run_phase(order: Mapping[str, Any]) -> int:
    """Do what ``order`` says: phase, subjects, limits, affinity, origin_ns and spawned_ns. Return the exit code."""
    stream = Stream(order["origin_ns"])
    cores.pin(order["affinity"])
    if order["phase"] == "steady":
        _steady(order, stream)
        return 0
    for subject in order["subjects"]:
        stream.emit("opening", phase=order["phase"], subject=subject["name"])
        try:
            if order["phase"] == "startup":
                start_up(subject, stream, order["spawned_ns"])
            else:
                rows = profile({**subject, **subject.get("profiled", {})}, order["limits"]["profile_runs"])
                stream.emit("operations", subject=subject["name"], rows=rows)
        except Exception as error:  # runtimes raise classes of their own
            stream.emit("problem", subject=subject["name"], phase=order["phase"], message=said(error))
    return 0


def _steady(order: Mapping[str, Any], stream: Stream) -> None:
    limits = order["limits"]
    turns = []
    for subject in order["subjects"]:
        name = subject["name"]
        stream.emit("opening", phase="steady", subject=name)
        try:
            turn = Turn(name, prepared(subject)(), limits, subject["threads"])
            warm_up(turn, stream.emit)
        except Exception as error:  # runtimes raise classes of their own
            stream.emit("problem", subject=name, phase="steady", message=said(error))
        else:
            turns.append(turn)
    watch = Watch(order["affinity"], stream.now_s)
    sample(turns, limits["seed"], stream.emit, watch.read, origin_ns=stream.origin_ns)
    for turn in turns:
        turn.session.close()
    sys.stderr.flush()
