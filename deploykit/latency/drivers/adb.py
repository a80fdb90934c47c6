"""Measure TFLite files on an Android device with LiteRT's ``benchmark_model``, through ``adb``.

Never run on hardware by us: it is tested against a stand-in for adb that replays public logs.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from deploykit.errors import DeviceError, UsageError
from deploykit.latency.drivers import android, benchmark_model
from deploykit.latency.drivers.adb_job import AdbJob
from deploykit.latency.drivers.benchmark_model import ACCELERATORS, ToolRun
from deploykit.latency.drivers.feeds import Feeds, first_feed
from deploykit.latency.drivers.options import TOOL_VARIABLE, DeviceOptions
from deploykit.latency.drivers.phone import Phone, find_phone
from deploykit.latency.drivers.programs import ADB, require_program
from deploykit.latency.drivers.rounds import measure_rounds, reason_of, session_runs, session_seconds
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark, Conditions, RunSummary, SkippedLatency, Warned
from deploykit.vocab import Target

DRIVER = "adb"
# A GPU compiles its programs anew in every session: ten seconds were seen (tensorflow issue 58379).
START_S = 120.0
WRONG_PROGRAM = ("not executable", "Exec format error", "CANNOT LINK EXECUTABLE", "syntax error", "No such file")
LOW_BATTERY = 20.0


def measure_on_android(
    serial: str | None,
    subjects: Sequence[Subject],
    protocol: Protocol,
    options: DeviceOptions,
    *,
    feeds: Feeds,
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Return what the device of ``serial`` (None: the only one) measured, its sessions interleaved at random.

    The tool takes one feed of each subject, the first; without one it draws random values. Where the connection ends, a
    program hangs or Ctrl-C comes, what was measured so far is kept with ``complete`` False. The folder on the device
    is removed in every case, or the result says that it remains.

    Raises:
        DeviceError: no device, one that is not ready, no room on it, or a wrong benchmark_model: nothing was measured.
        UsageError: an accelerator that this driver does not have, or no benchmark_model.
    """
    say = report or (lambda message: None)
    require_program(ADB)
    tool = _tool(options)
    accelerators = options.accelerators or ("cpu",)
    for one in accelerators:
        if one not in ACCELERATORS:
            raise UsageError("This driver has no such accelerator.", found=one, expected=", ".join(ACCELERATORS))
    taken = [one for one in subjects if one.target is Target.TFLITE]
    others = [one for one in subjects if one not in taken]
    skipped = [SkippedLatency(one.name, "benchmark_model runs TFLite files only", elsewhere=True) for one in others]
    if not taken:
        raise DeviceError(
            "There is nothing that Android can run.",
            found=", ".join(f"{one.name} ({one.target})" for one in subjects) or "no file",
            expected="at least one TFLite file",
            next_step="deploykit export --target tflite",
        )
    phone = find_phone(serial)
    session = _Session(phone, tool, protocol, options, say)
    jobs = [
        AdbJob(one.name, one, accelerator, threads)
        for one in taken
        for accelerator in accelerators
        for threads in (options.threads if accelerator != "gpu" else options.threads[:1])
    ]
    return session.measure(jobs, skipped, feeds)


def _tool(options: DeviceOptions) -> Path:
    if options.benchmark_model is None:
        raise UsageError(
            "The adb driver needs LiteRT's benchmark_model, built for the device.",
            found="neither --benchmark-model nor " + TOOL_VARIABLE,
            expected="the path of the program on this machine",
            next_step="build it: bazel build -c opt --config=android_arm64 tflite/tools/benchmark:benchmark_model",
        )
    return options.benchmark_model


class _Session:
    """What is on the device while it measures, and what it said."""

    def __init__(
        self, phone: Phone, tool: Path, protocol: Protocol, options: DeviceOptions, say: Callable[[str], None]
    ) -> None:
        self.phone, self.tool, self.protocol, self.options, self.say = phone, tool, protocol, options, say
        self.conditions: list[Conditions] = []
        self.warnings: list[Warned] = []
        self.started = time.perf_counter()

    def measure(self, jobs: Sequence[AdbJob], skipped: Sequence[SkippedLatency], feeds: Feeds) -> Benchmark:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        ended, machine = "", None
        try:
            facts = self.phone.shell(android.FACTS_SCRIPT).stdout
            machine = android.read_machine(facts)
            self._require_architecture(android.parse_properties(facts))
            self._push(jobs, feeds)
            self._look()
            measure_rounds(jobs, self.protocol, self._take, self.say, started=self.started)
            if self.protocol.profile:
                self._profile(jobs)
            self._look()
        except (DeviceError, KeyboardInterrupt) as error:
            if not any(job.sessions for job in jobs):
                raise
            ended = reason_of(error)
        finally:
            left = self.phone.clean()
            if left:
                self.say(left)
                self.warnings.append(Warned("Something of the measurement is left on the device.", left))
        self._judge(jobs)
        unmeasured = [job for job in jobs if job.dropped and not job.sessions]
        device = machine.system if machine else "an Android device"
        return Benchmark(
            measured=tuple(job.latency(device, DRIVER) for job in jobs if job.sessions),
            skipped=(*skipped, *(SkippedLatency(f"{job.name} ({job.accelerator})", job.dropped) for job in unmeasured)),
            machine=machine,
            conditions=tuple(self.conditions),
            warnings=tuple(self.warnings),
            started=when,
            complete=not ended,
            ended=ended,
        )

    def _require_architecture(self, properties: Mapping[str, str]) -> None:
        built, runs = benchmark_model.architecture_of(self.tool), android.architectures(properties)
        if runs and built not in runs:
            raise DeviceError(
                "benchmark_model is built for another processor than the device has.",
                where=str(self.tool),
                found=built,
                expected=" or ".join(runs),
                next_step="pass one built for the device: --benchmark-model",
            )

    def _push(self, jobs: Sequence[AdbJob], feeds: Feeds) -> None:
        self.phone.make_folder()
        self.say("copying benchmark_model to the device")
        self.phone.push(self.tool, "benchmark_model", program=True)
        placed: dict[str, tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]] = {}
        for job in jobs:
            subject = job.subject
            if subject.name not in placed:
                index = len(placed)
                self.say(f"copying {subject.name} to the device")
                graph = self.phone.push(subject.path, f"model{index}.tflite")
                files = []
                with tempfile.TemporaryDirectory(prefix="deploykit-adb-") as folder:
                    for number, array in enumerate(first_feed(feeds, subject.name).values()):
                        local = Path(folder) / "input.bin"
                        local.write_bytes(array.tobytes())
                        files.append((self.phone.push(local, f"model{index}-input{number}.bin"), array.shape))
                placed[subject.name] = (graph, tuple(files))
            job.graph, job.inputs = placed[subject.name]

    def _take(self, job: AdbJob) -> RunSummary | str:
        run = self._run(job, profile=False)
        if isinstance(run, str):
            return run
        job.runs.append(run)
        return run.summary

    def _profile(self, jobs: Sequence[AdbJob]) -> None:
        for job in jobs:
            if job.sessions and not job.dropped:
                self.say(f"{job.name}: times of single operations")
                run = self._run(job, profile=True)
                job.profile = None if isinstance(run, str) else run

    def _run(self, job: AdbJob, *, profile: bool) -> ToolRun | str:
        """Return one session, or why this job cannot be measured."""
        words = benchmark_model.command_line(
            job.graph,
            accelerator=job.accelerator,
            threads=job.threads,
            runs=session_runs(self.protocol),
            seconds=session_seconds(self.protocol),
            warmup_seconds=self.protocol.warmup_seconds,
            max_seconds=self.protocol.max_seconds,
            inputs=job.inputs,
            profile=profile,
        )
        line = " ".join(shlex.quote(word) for word in words)
        # The number of the process lies in the folder while it runs, so that it can be ended from outside.
        script = (
            f"cd {self.phone.folder} || exit 1\n./benchmark_model {line} </dev/null 2>&1 &\n"
            "echo $! > pid; wait $!; rc=$?; rm -f pid; (exit $rc)"
        )
        done = self.phone.shell(script, timeout_s=START_S + 2 * self.protocol.max_seconds)
        run = benchmark_model.parse(done.text)
        if run is None or done.returncode:
            return self._unmeasured(job, done.text, done.last_line)
        if job.accelerator == "gpu" and run.on_gpu == "none":
            said = benchmark_model.problem(done.text) or "the tool does not say that the GPU delegate took the model"
            return f"the GPU did not run it, the CPU did: {said}"
        return run

    def _unmeasured(self, job: AdbJob, text: str, last_line: str) -> str:
        refused = [line for line in text.splitlines() if "benchmark_model" in line]
        if any(sign.lower() in line.lower() for sign in WRONG_PROGRAM for line in refused) and "count=" not in text:
            raise DeviceError(
                "The device cannot run this benchmark_model.",
                where=str(self.tool),
                found=refused[-1].strip()[:300],
                expected="a program built for the device and its version of Android",
                next_step="pass another one: --benchmark-model",
            )
        return f"benchmark_model failed with {job.accelerator}: {benchmark_model.problem(text) or last_line}"

    def _look(self) -> None:
        answer = self.phone.shell(android.STATE_SCRIPT).stdout
        self.conditions.append(android.read_conditions(answer, time.perf_counter() - self.started))

    def _judge(self, jobs: Sequence[AdbJob]) -> None:
        states = [one.thermal_state for one in self.conditions if one.thermal_state]
        hot = [state for state in states if state in android.THERMAL_STATES[android.THROTTLED_FROM :]]
        if hot:
            remedy = "let it cool down out of its case, and measure again"
            self.warnings.append(Warned(f"The device slows itself down: thermal state {hot[-1]}.", remedy))
        charge = [one.battery_percent for one in self.conditions if one.battery_percent is not None]
        if charge and min(charge) < LOW_BATTERY:
            problem = f"The battery is at {min(charge):.0f} %, where many devices save power."
            self.warnings.append(Warned(problem, "charge it to more than half first"))
        for job in jobs:
            if job.sessions and job.dropped:
                problem = f"{job.name} ({job.accelerator}) ended after {len(job.sessions)} sessions: {job.dropped}"
                self.warnings.append(Warned(problem, "measure it again"))
            if job.sessions and job.shared:
                problem = f"{job.name}: the GPU runs {job.shared}, the CPU the rest."
                self.warnings.append(Warned(problem, "deploykit inspect lists the operations of the file"))
