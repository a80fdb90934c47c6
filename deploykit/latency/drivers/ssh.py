"""Measure files on another Linux or macOS machine: the agent is copied there, runs, and leaves nothing behind."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from deploykit.errors import DeviceError
from deploykit.latency.drivers.feeds import Feeds, npy_bytes
from deploykit.latency.drivers.options import DeviceOptions
from deploykit.latency.drivers.remote import Remote
from deploykit.latency.drivers.remote_python import RemotePython, bootstrap, find_python
from deploykit.latency.drivers.ssh_address import parse_address
from deploykit.latency.machine import device_name, warnings_about
from deploykit.latency.measure import Protocol
from deploykit.latency.recording import INTERRUPTED, Recording
from deploykit.latency.subjects import Subject
from deploykit.latency.worker import PROGRAM, PlannedSubject, agent_program, make_plan, run_agent
from deploykit.latency_records import Benchmark, Latency, SkippedLatency, Warned
from deploykit.targets.table import part
from deploykit.vocab import Target

DRIVER = "ssh"
# A session of the agent is never silent for so long; the connection itself is watched by ssh.
PATIENCE_S = 900.0
LOST = "the connection to the machine was lost"


@dataclass(frozen=True)
class _Planned:
    subject: Subject
    plan: PlannedSubject


def measure_over_ssh(
    address: str,
    subjects: Sequence[Subject],
    protocol: Protocol,
    options: DeviceOptions,
    *,
    feeds: Feeds,
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Return what the machine at ``address`` (``ssh://user@host[:port]``) measured.

    As on this machine, each number of threads is measured in a process of its own, in which all subjects take turns.
    Where the connection ends, the agent says nothing for too long or Ctrl-C comes, what was measured so far is kept
    with ``complete`` False. The folder there is removed in every case, or the result says that it remains.

    Raises:
        UsageError: no such address.
        DeviceError: nothing was measured: no connection, a host key that is unknown or has changed, no Python, no
            runtime, no room.
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    say = report or (lambda message: None)
    remote = Remote(parse_address(address))
    warnings: list[Warned] = []
    when = datetime.now(UTC).isoformat(timespec="seconds")
    say(f"connecting to {remote.address}")
    try:
        remote.make_folder()
        python = find_python(remote, options.remote_python)
        reasons = _reasons(subjects, python, feeds)
        wanted = [one for one in subjects if not reasons[one.name]]
        if options.bootstrap and any("not installed" in reason for reason in reasons.values()):
            say("making a temporary environment there")
            able = [one for one in subjects if not reasons[one.name] or "not installed" in reasons[one.name]]
            python = bootstrap(remote, python, [one.target for one in able])
            reasons = _reasons(subjects, python, feeds)
            wanted = [one for one in subjects if not reasons[one.name]]
        if not wanted:
            raise _nothing(remote, reasons)
        planned = _plan(wanted, options, feeds, remote.folder)
        say(f"copying {len(wanted)} file{'' if len(wanted) == 1 else 's'} and the agent")
        remote.put(_files(wanted, feeds))
        heard = list(_runs(remote, python, planned, protocol=protocol, counts=options.threads, say=say))
    finally:
        left = remote.clean()
        if left:
            say(left)
            warnings.append(Warned("Something of the measurement is left on the machine.", left))
    measured, problems = _results(heard, planned)
    last = heard[-1][1]
    if not measured and last.ended == INTERRUPTED:
        raise KeyboardInterrupt
    if not measured and not last.complete:
        raise DeviceError(
            "Nothing was measured on the machine.",
            where=str(remote.address),
            found=last.ended,
            expected="an agent that runs to its end",
            next_step="try again; --verbose shows where it stopped",
        )
    machine = next((one.machine for _, one in heard if one.machine is not None), None)
    conditions = tuple(one for _, recording in heard for one in recording.conditions)
    # Once for each remedy; counters are those of the cores that one run watched.
    for count, one in heard:
        found = {row.remedy: row for row in warnings_about(one.machine, one.conditions, count, one.affinity)}
        warnings = [*found.values(), *(row for row in warnings if row.remedy not in found)]
    return Benchmark(
        measured=measured,
        skipped=(*(SkippedLatency(name, reason) for name, reason in reasons.items() if reason), *problems),
        machine=machine,
        conditions=conditions,
        warnings=tuple(warnings),
        started=when,
        complete=last.complete,
        ended=last.ended,
    )


def _reasons(subjects: Sequence[Subject], python: RemotePython, feeds: Feeds) -> dict[str, str]:
    """Return name → why it cannot be measured there, or an empty text."""
    blind = "its inputs cannot be made, because the packages of its target are missing on this machine"
    return {one.name: python.lacks(one.target) or ("" if feeds.get(one.name) else blind) for one in subjects}


def _nothing(remote: Remote, reasons: Mapping[str, str]) -> DeviceError:
    lacking = any("not installed" in reason for reason in reasons.values())
    commands = [reason.partition("; ")[2] for reason in reasons.values() if "; " in reason]
    return DeviceError(
        "The machine cannot run any of the files.",
        where=str(remote.address),
        found="; ".join(dict.fromkeys(f"{name}: {reason.partition('; ')[0]}" for name, reason in reasons.items())),
        expected="a Python there that has the runtime of at least one",
        next_step=f"{remote.address.command(shlex.quote(commands[0]))}, or pass --bootstrap" if lacking else None,
    )


def _plan(subjects: Sequence[Subject], options: DeviceOptions, feeds: Feeds, folder: str) -> list[_Planned]:
    planned = []
    accelerators = options.accelerators or ("cpu",)
    for index, subject in enumerate(subjects):
        inputs = tuple(
            {name: f"{folder}/{_input_name(index, turn, place)}" for place, name in enumerate(feed)}
            for turn, feed in enumerate(feeds[subject.name])
        )
        extra = part(Target.ONNX, "runtime").integer_options(subject.path) if subject.target is Target.ONNX else {}
        for accelerator in accelerators:
            name = subject.name if len(accelerators) == 1 else f"{subject.name} ({accelerator})"
            path = f"{folder}/{_file_name(index, subject)}"
            plan = PlannedSubject(name, path, str(subject.target), 1, accelerator, inputs, options=extra)
            planned.append(_Planned(subject, plan))
    return planned


def _files(subjects: Sequence[Subject], feeds: Feeds) -> dict[str, Path | bytes]:
    files: dict[str, Path | bytes] = {PROGRAM: agent_program()}
    for index, subject in enumerate(subjects):
        files[_file_name(index, subject)] = subject.path.resolve()
        for turn, feed in enumerate(feeds[subject.name]):
            for place, array in enumerate(feed.values()):
                files[_input_name(index, turn, place)] = npy_bytes(array)
    return files


def _file_name(index: int, subject: Subject) -> str:
    # The names there are ours: a user's may hold anything.
    return f"model{index}{subject.path.suffix.lower()}" if subject.path.suffix.isascii() else f"model{index}"


def _input_name(index: int, turn: int, place: int) -> str:
    return f"model{index}-feed{turn}-input{place}.npy"


def _runs(
    remote: Remote,
    python: RemotePython,
    planned: Sequence[_Planned],
    *,
    protocol: Protocol,
    counts: Sequence[int],
    say: Callable[[str], None],
) -> Iterator[tuple[int, Recording]]:
    """Yield what the agent said for each of ``counts`` threads; nothing more after it ended early."""
    begun = time.perf_counter()
    for count in counts:
        heard = Recording(offset_s=time.perf_counter() - begun)
        silent = heard.ended
        plan = make_plan([replace(one.plan, threads=count) for one in planned], protocol)
        command = remote.command(_script(remote, python, last=count == counts[-1]))
        run_agent(command, plan, report=say, patience_s=PATIENCE_S, recording=heard)
        if not heard.complete and heard.ended == silent:
            heard.end_early(LOST)
        yield count, heard
        if not heard.complete:
            return


def _script(remote: Remote, python: RemotePython, *, last: bool) -> str:
    """Return what runs the agent there.

    The shell outlives the agent and removes the folder, unless another run follows: also where this connection, and we
    with it, are gone. An agent that nobody hears ends at its next word. Its number stands in the folder while it runs.
    """
    remove = "true" if last else "test $r -ne 0"
    return (
        f"cd {remote.quoted} || exit 1; trap '' HUP; export TMPDIR={remote.quoted}; exec 3<&0\n"
        f"{shlex.quote(python.program)} {PROGRAM} <&3 & echo $! > pid; exec 3<&-\n"
        f"wait $!; r=$?; rm -f pid; cd /; if {remove}; then rm -rf {remote.quoted}; fi; exit $r"
    )


def _results(
    heard: Sequence[tuple[int, Recording]], planned: Sequence[_Planned]
) -> tuple[tuple[Latency, ...], tuple[SkippedLatency, ...]]:
    measured, left_out = [], []
    device = device_name(next((one.machine for _, one in heard if one.machine is not None), None))
    for one in planned:
        artifact = one.subject.artifact
        for count, recording in heard:
            latency = recording.latency(
                one.plan.name,
                device=device,
                driver=DRIVER,
                accelerator=one.plan.accelerator,
                threads=count,
                size_bytes=one.subject.size_bytes,
                target=one.subject.target,
                precision=artifact.plan.precision if artifact else None,
                content_hash=artifact.content_hash if artifact else None,
                network=artifact.recipe if artifact else None,
            )
            if latency is not None:
                measured.append(replace(latency, artifact=one.subject.name))
            else:
                said = [*recording.of(one.plan.name).problems.values(), *recording.common_problems]
                left_out.append(SkippedLatency(one.plan.name, said[0] if said else f"not measured: {recording.ended}"))
    return tuple(measured), tuple(left_out)
