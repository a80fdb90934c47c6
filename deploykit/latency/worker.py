"""Start the measuring agent, here or elsewhere, and hear what it says until it ends or is ended."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from deploykit.latency.agent import AGENT
from deploykit.latency.measure import Protocol
from deploykit.latency.recording import INTERRUPTED, Recording

PACKAGE = "deploykit_agent"
PROGRAM = "agent.pyz"
# Nothing the agent does is silent for so long; compiling a network may take minutes.
PATIENCE_S = 900.0
_START = f"import sys\n\nfrom {PACKAGE}.run import main\n\nsys.exit(main(sys.argv[1:]))\n"
_END_S = 5.0
_FOLDER = Path(__file__).parent / "agent"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class PlannedSubject:
    """One subject of a plan, as the docstring of ``deploykit.latency.agent`` describes it; paths on its machine."""

    name: str
    path: str
    target: str
    threads: int = 1
    accelerator: str = "cpu"
    inputs: tuple[dict[str, str], ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    opener: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    profiled: dict[str, Any] = field(default_factory=dict)


def agent_program() -> bytes:
    """Return the agent as one file that Python runs, the same bytes each time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", _START)
        for source in sorted(_FOLDER.glob("*.py")):
            _add(archive, f"{PACKAGE}/{source.name}", source.read_text("utf-8"))
    return packed.getvalue()


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), text, zipfile.ZIP_DEFLATED)


def make_plan(subjects: Sequence[PlannedSubject], protocol: Protocol) -> dict[str, Any]:
    """Return the plan for ``subjects`` that the agent reads."""
    return {
        "agent": AGENT,
        "phases": list(protocol.phases()),
        "affinity": protocol.affinity,
        "limits": protocol.limits(),
        "subjects": [asdict(subject) for subject in subjects],
    }


def run_agent(
    command: Sequence[str],
    plan: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    report: Callable[[str], None] | None = None,
    patience_s: float = PATIENCE_S,
    recording: Recording | None = None,
) -> Recording:
    """Run ``command``, hand it ``plan`` on stdin and return all that it said.

    The agent gets a session of its own, so that Ctrl-C reaches this process alone: then, or where the agent says
    nothing for ``patience_s``, it is ended with all that it started, and what it said until then is kept; the
    recording is incomplete and says why. Any other exception ends it too and goes on.
    """
    heard = recording or Recording()
    say = report or (lambda message: None)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            heard.end_early(f"{command[0]} cannot be started: {error.strerror or error}")
            return heard
        assert process.stdin is not None
        assert process.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            _hand_over(process.stdin, plan)
            _listen(lines, heard, plan["limits"], say, patience_s)
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            heard.end_early("the measuring agent said all but did not end")
        except KeyboardInterrupt:
            heard.end_early(INTERRUPTED)
        except TimeoutError:
            heard.end_early(f"the measuring agent said nothing for {patience_s:g} s")
        finally:
            _end(process)
            reader.join(_END_S)
            process.stdout.close()
            _drain(lines, heard)
        if not heard.complete and process.returncode and not heard.subjects and not heard.machine:
            heard.end_early(_last_line(errors) or heard.ended)
    return heard


def _read(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line.decode("utf-8", "replace"))
    lines.put(None)


def _hand_over(stream: IO[bytes], plan: Mapping[str, Any]) -> None:
    try:
        stream.write(json.dumps(plan).encode() + b"\n")
        stream.close()
    except BrokenPipeError:
        # It ended before it read: what it said, or did not say, tells why.
        return


def _listen(
    lines: queue.Queue[str | None],
    heard: Recording,
    limits: Mapping[str, Any],
    say: Callable[[str], None],
    patience_s: float,
) -> None:
    said = ""
    while True:
        try:
            line = lines.get(timeout=patience_s)
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            return
        event = heard.hear(line)
        doing = heard.doing if event == "opening" else said
        if event == "samples":
            quarters = int(4 * heard.share_done(limits["min_runs"], limits["min_seconds"]))
            doing = f"measuring, {25 * quarters} % of the least done"
            if quarters == 4 and limits["precision_target"] is not None:
                doing = "measuring until the medians are known"
        if doing != said:
            said = doing
            say(said)


def _drain(lines: queue.Queue[str | None], heard: Recording) -> None:
    """Hear what was said before the end; an ``end`` that this process asked for says nothing new."""
    complete, ended = heard.complete, heard.ended
    while True:
        try:
            line = lines.get_nowait()
        except queue.Empty:
            break
        if line is not None:
            heard.hear(line)
    heard.complete, heard.ended = complete, ended


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if process.poll() is not None:
            break
        _signal(process, number)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            continue
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except OSError:
            return


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()
    except ProcessLookupError:
        return


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
