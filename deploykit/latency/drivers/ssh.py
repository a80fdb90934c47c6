"""Measure files on another Linux or macOS machine: the agent is copied there, runs, and leaves nothing behind."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from deploykit.errors import DeviceError
from deploykit.latency.drivers.feeds import Feeds, npy_bytes
from deploykit.latency.drivers.options import DeviceOptions
from deploykit.latency.drivers.remote import Remote
from deploykit.latency.drivers.remote_python import RemotePython, bootstrap, find_python
from deploykit.latency.drivers.ssh_address import parse_address
from deploykit.latency.measure import Protocol
from deploykit.latency.recording import Recording
from deploykit.latency.subjects import Subject
from deploykit.latency.worker import PROGRAM, PlannedSubject, agent_program, make_plan, run_agent
from deploykit.latency_records import Benchmark, Latency, Machine, SkippedLatency, Warned

DRIVER = "ssh"
# A session of the agent is never silent for so long; the connection itself is watched by ssh.
PATIENCE_S = 900.0
LOST = "the connection to the machine was lost"
_SILENT = Recording().ended


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
    """Return what the machine at ``address`` (``ssh://user@host[:port]``) measured, all interleaved in one process.

    Where the connection ends, the agent says nothing for too long or Ctrl-C comes, what was measured so far is kept
    with ``complete`` False. The folder there is removed in every case, or the result says that it remains.

    Raises:
        UsageError: no such address.
        DeviceError: nothing was measured: no connection, a host key that is unknown or has changed, no Python, no
            runtime, no room.
    """
    say = report or (lambda message: None)
    remote = Remote(parse_address(address))
    warnings: list[Warned] = []
    when = datetime.now(UTC).isoformat(timespec="seconds")
    say(f"connecting to {remote.address}")
    try:
        remote.make_folder()
        python = find_python(remote, options.remote_python)
        reasons = _reasons(subjects, python)
        wanted = [one for one in subjects if not reasons[one.name]]
        if options.bootstrap and any("not installed" in reason for reason in reasons.values()):
            say("making a temporary environment there")
            able = [one for one in subjects if not reasons[one.name] or "not installed" in reasons[one.name]]
            python = bootstrap(remote, python, [one.target for one in able])
            reasons = _reasons(subjects, python)
            wanted = [one for one in subjects if not reasons[one.name]]
        if not wanted:
            raise _nothing(remote, reasons)
        planned = _plan(wanted, options, feeds, remote.folder)
        say(f"copying {len(wanted)} file{'' if len(wanted) == 1 else 's'} and the agent")
        remote.put(_files(wanted, feeds))
        heard = _run(remote, python, make_plan([one.plan for one in planned], protocol), say)
    finally:
        left = remote.clean()
        if left:
            say(left)
            warnings.append(Warned("Something of the measurement is left on the machine.", left))
    measured, problems = _results(heard, planned)
    if not measured and not heard.complete:
        raise DeviceError(
            "Nothing was measured on the machine.",
            where=str(remote.address),
            found=heard.ended,
            expected="an agent that runs to its end",
            next_step="try again; --verbose shows where it stopped",
        )
    skipped = [SkippedLatency(name, reason) for name, reason in reasons.items() if reason]
    return Benchmark(
        measured=measured,
        skipped=(*skipped, *problems),
        machine=heard.machine,
        conditions=tuple(heard.conditions),
        warnings=tuple(warnings),
        started=when,
        complete=heard.complete,
        ended=heard.ended,
    )


def _reasons(subjects: Sequence[Subject], python: RemotePython) -> dict[str, str]:
    return {subject.name: python.lacks(subject.target) for subject in subjects}


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
    for index, subject in enumerate(subjects):
        inputs = tuple(
            {name: f"{folder}/{_input_name(index, turn, place)}" for place, name in enumerate(feed)}
            for turn, feed in enumerate(feeds[subject.name])
        )
        for accelerator in options.accelerators or ("cpu",):
            for threads in options.threads:
                alone = len(options.threads) == 1 and len(options.accelerators) < 2
                name = (
                    subject.name
                    if alone
                    else f"{subject.name} ({accelerator}, {threads} thread{'' if threads == 1 else 's'})"
                )
                path = f"{folder}/{_file_name(index, subject)}"
                plan = PlannedSubject(name, path, str(subject.target), threads, accelerator, inputs)
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


def _run(remote: Remote, python: RemotePython, plan: Mapping[str, object], say: Callable[[str], None]) -> Recording:
    # The shell outlives the agent and removes the folder: also where this connection, and we with it, are gone. An
    # agent that nobody hears ends at its next word. Its number stands in the folder while it runs.
    script = (
        f"cd {remote.quoted} || exit 1; trap '' HUP; export TMPDIR={remote.quoted}; exec 3<&0\n"
        f"{shlex.quote(python.program)} {PROGRAM} <&3 & echo $! > pid; exec 3<&-\n"
        f"wait $!; r=$?; cd /; rm -rf {remote.quoted}; exit $r"
    )
    heard = run_agent(remote.command(script), plan, report=say, patience_s=PATIENCE_S)
    if not heard.complete and heard.ended == _SILENT:
        heard.end_early(LOST)
    return heard


def _results(heard: Recording, planned: Sequence[_Planned]) -> tuple[tuple[Latency, ...], tuple[SkippedLatency, ...]]:
    measured, problems = [], []
    device = _device(heard.machine)
    for one in planned:
        artifact = one.subject.artifact
        latency = heard.latency(
            one.plan.name,
            device=device,
            driver=DRIVER,
            accelerator=one.plan.accelerator,
            threads=one.plan.threads,
            size_bytes=one.subject.size_bytes,
            target=one.subject.target,
            precision=artifact.plan.precision if artifact else None,
            content_hash=artifact.content_hash if artifact else None,
            network=artifact.recipe if artifact else None,
        )
        said = [*heard.of(one.plan.name).problems.values(), *heard.common_problems]
        if latency is not None:
            measured.append(replace(latency, artifact=one.subject.name))
        elif said or heard.complete:
            problems.append(SkippedLatency(one.plan.name, said[0] if said else "no run of it was measured"))
        else:
            problems.append(SkippedLatency(one.plan.name, f"not measured: {heard.ended}"))
    return tuple(measured), tuple(problems)


def _device(machine: Machine | None) -> str:
    if machine is None:
        return "another machine"
    plural = "" if machine.cores == 1 else "s"
    return f"{machine.processor}, {machine.cores} core{plural}, {machine.system} {machine.architecture}"
