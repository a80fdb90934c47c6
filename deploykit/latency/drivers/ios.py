"""Measure Core ML packages on an iPhone or iPad from a Mac, through coremltools' remote-device tools.

Never run on hardware by us: it is tested against coremltools' own classes and signatures. What those tools do, as read
in coremltools 9.0 (models/ml_program/experimental/remote_device.py and perf_utils.py): Xcode builds and installs an app
on the device; every prediction travels there as files, so that the device is idle between two of them; the durations
are those that the device took, without that; a single operation is not timed, its share is the compute plan's estimate.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploykit.chatter import contained
from deploykit.errors import DeviceError, UsageError
from deploykit.latency.agent.median import interval_of_median
from deploykit.latency.drivers.feeds import Feeds, first_feed
from deploykit.latency.drivers.options import DeviceOptions
from deploykit.latency.drivers.programs import run
from deploykit.latency.drivers.rounds import Job, measure_rounds, reason_of, session_runs
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import Subject
from deploykit.latency_records import (
    Benchmark,
    Latency,
    Machine,
    OperationTime,
    RunSummary,
    SkippedLatency,
    Startup,
    Stopped,
    Warned,
)
from deploykit.vocab import Target

DRIVER = "ios"
# Accelerator → member of coremltools.ComputeUnit.
COMPUTE_UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "cpu+gpu": "CPU_AND_GPU", "cpu+neural-engine": "CPU_AND_NE"}
# Class of coremltools.models.compute_device → our word.
UNITS = {"MLCPUComputeDevice": "cpu", "MLGPUComputeDevice": "gpu", "MLNeuralEngineComputeDevice": "neural engine"}
LOADS = 2
UNINSTALL_S = 60.0
ESTIMATED = "the times of operations are shares of a prediction that Core ML's compute plan estimates, not measured"
IDLE = Warned(
    "Every prediction travels to the device as files, so that it is idle between two of them.",
    "take the figures as those of single predictions; an app that predicts without pause sees others",
)


@dataclass
class IosJob(Job):
    """One package with one set of compute units; ``benchmarker`` holds it loaded on the device."""

    subject: Subject
    accelerator: str
    benchmarker: Any
    inputs: dict[str, Any]
    blocks: list[list[float]] = field(default_factory=list)
    loads_s: list[float] = field(default_factory=list)
    first_s: float | None = None
    operations: tuple[OperationTime, ...] = ()

    def interval_s(self) -> tuple[float, float]:
        """Return the interval of the median over blocks of runs; there is at least one."""
        return interval_of_median(self.blocks)


def measure_on_ios(
    name: str | None,
    subjects: Sequence[Subject],
    protocol: Protocol,
    options: DeviceOptions,
    *,
    feeds: Feeds,
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Return what the iPhone or iPad called ``name`` (None: the only one) measured, in blocks at random.

    Each subject is run on its first feed. Where the connection ends or Ctrl-C comes, what was measured so far is kept
    with ``complete`` False; the app is removed from the device in every case.

    Raises:
        DeviceError: not on a Mac, no coremltools, no such device, or one that is not ready: nothing was measured.
        UsageError: an accelerator that this driver does not have.
    """
    say = report or (lambda message: None)
    accelerators = options.accelerators or ("all",)
    for one in accelerators:
        if one not in COMPUTE_UNITS:
            raise UsageError("This driver has no such accelerator.", found=one, expected=", ".join(COMPUTE_UNITS))
    if platform.system() != "Darwin":
        raise DeviceError(
            "iPhones and iPads are reached from a Mac only.",
            found=platform.system(),
            expected="macOS with Xcode 15 or later, to which the device is connected",
            next_step="run deploykit bench --device ios on a Mac",
        )
    device = find_device(name)
    reasons = {one.name: _unmeasurable(one, feeds) for one in subjects}
    skipped = [SkippedLatency(key, reason) for key, reason in reasons.items() if reason]
    wanted = [one for one in subjects if not reasons[one.name]]
    if not wanted:
        found = "; ".join(f"{one.artifact}: {one.reason}" for one in skipped)
        raise DeviceError("There is nothing that an iPhone or iPad can run.", found=found, expected="a Core ML package")
    return _Session(device, protocol, options, say).measure(wanted, accelerators, skipped, feeds)


def find_device(name: str | None) -> Any:
    """Return coremltools' ``Device`` called ``name``, or the only connected iPhone or iPad.

    Raises:
        DeviceError: coremltools or Xcode's devicectl is missing, no device, several, or one that is not ready.
    """
    remote = tools().remote_device
    kinds = (remote.DeviceType.IPHONE, remote.DeviceType.IPAD)
    try:
        devices = [one for one in remote.Device.get_devices() if one.type in kinds]
    except Exception as error:  # coremltools raises a private class, and ValueError without devicectl
        raise DeviceError(
            "The devices cannot be listed.",
            found=str(error)[:300],
            expected="Xcode 15 or later, with devicectl on the PATH",
            next_step='PATH="$PATH:$(xcode-select -p)/usr/bin" deploykit devices',
        ) from error
    named = [one for one in devices if name is None or one.name == name]
    connected = [one for one in named if one.state is remote.DeviceState.CONNECTED]
    listed = ", ".join(f"{one.name} ({one.state.value})" for one in devices) or "no iPhone and no iPad"
    if not connected:
        raise DeviceError(
            "The device cannot be used." if named else "There is no such device.",
            where=name,
            found=listed,
            expected="a connected iPhone or iPad in developer mode, which trusts this Mac",
            next_step="connect and unlock it, Settings > Privacy & Security > Developer Mode, then: deploykit devices",
        )
    if len(connected) > 1:
        step = f"name it: --device 'ios:{connected[0].name}'"
        raise DeviceError("Several devices are connected.", found=listed, expected="one, or its name", next_step=step)
    return connected[0]


@dataclass(frozen=True)
class Tools:
    """The parts of coremltools that this driver uses."""

    coremltools: Any
    remote_device: Any
    perf_utils: Any


def tools() -> Tools:
    """Return coremltools' tools for remote devices. Raises DeviceError where it is missing or too old for them."""
    try:
        with contained():
            import coremltools
            from coremltools.models.ml_program.experimental import perf_utils, remote_device
    except ImportError as error:
        raise DeviceError(
            "coremltools cannot be imported.",
            found=str(error)[:300],
            expected="coremltools 9",
            next_step="pip install 'deploykit[coreml]'",
        ) from error
    return Tools(coremltools, remote_device, perf_utils)


def _unmeasurable(subject: Subject, feeds: Feeds) -> str:
    if subject.target is not Target.COREML:
        return "an iPhone or iPad runs Core ML packages only"
    feed = first_feed(feeds, subject.name)
    if not feed:
        return "there is no input to run it on"
    with contained():
        spec = tools().coremltools.models.MLModel(str(subject.path), skip_model_load=True).get_spec()
    if any(item.type.WhichOneof("Type") == "imageType" for item in spec.description.input):
        return "coremltools' remote tools take tensors, no images: export it with --input-kind tensor"
    return ""


class _Session:
    """The app on the device, and what was measured with it."""

    def __init__(self, device: Any, protocol: Protocol, options: DeviceOptions, say: Callable[[str], None]) -> None:
        # A prediction takes a second or two on its way: so many that they make up a second would take an hour.
        self.protocol = replace(protocol, min_seconds=0.0)
        self.device, self.options, self.say = device, options, say
        self.jobs: list[IosJob] = []

    def measure(
        self, subjects: Sequence[Subject], accelerators: Sequence[str], skipped: list[SkippedLatency], feeds: Feeds
    ) -> Benchmark:
        when, ended = datetime.now(UTC).isoformat(timespec="seconds"), ""
        started = time.perf_counter()
        folder = Path(tempfile.mkdtemp(prefix="deploykit-ios-"))
        prepared = None
        with asyncio.Runner() as runner:
            try:
                self.say(f"building and installing coremltools' app on {self.device.name}")
                prepared = self._call(runner, lambda: self._prepare(folder))
                for subject in subjects:
                    for accelerator in accelerators:
                        self._load(runner, prepared, subject, accelerator, feeds)
                measure_rounds(self.jobs, self.protocol, lambda job: self._take(runner, job), self.say, started=started)
                if self.protocol.profile:
                    for job in self.jobs:
                        self._profile(runner, job)
            except (DeviceError, KeyboardInterrupt) as error:
                if not any(job.sessions for job in self.jobs):
                    raise
                ended = reason_of(error)
            finally:
                self._clean(prepared, folder)
        unmeasured = [job for job in self.jobs if not job.sessions]
        skipped += [SkippedLatency(f"{job.name} ({job.accelerator})", job.dropped or ended) for job in unmeasured]
        return Benchmark(
            measured=tuple(self._latency(job) for job in self.jobs if job.sessions),
            skipped=tuple(skipped),
            machine=self._machine(),
            warnings=(IDLE,),
            started=when,
            complete=not ended,
            ended=ended,
        )

    async def _prepare(self, folder: Path) -> Any:
        credentials = tools().remote_device.AppSigningCredentials(development_team=self.options.development_team or "")
        return await self.device.prepare_for_model_debugging(credentials=credentials, working_directory=folder)

    def _load(self, runner: asyncio.Runner, prepared: Any, subject: Subject, accelerator: str, feeds: Feeds) -> None:
        kit = tools()
        unit = getattr(kit.coremltools.ComputeUnit, COMPUTE_UNITS[accelerator])
        self.say(f"loading {subject.name} on {self.device.name} ({accelerator})")
        with contained():
            model = kit.coremltools.models.MLModel(str(subject.path), compute_units=unit, skip_model_load=True)
            benchmarker = kit.perf_utils.MLModelBenchmarker(model=model, device=prepared)
        inputs = dict(first_feed(feeds, subject.name))
        job = IosJob(subject.name, subject, accelerator, benchmarker, inputs)
        self.jobs.append(job)
        try:
            loads = self._call(runner, lambda: benchmarker.benchmark_load(iterations=LOADS))
            first = self._call(runner, lambda: benchmarker.benchmark_predict(inputs=inputs, iterations=1))
        except DeviceError as error:
            job.dropped = reason_of(error)
            return
        job.loads_s = [one * 1e-3 for one in loads.samples]
        job.first_s = first.samples[0] * 1e-3

    def _take(self, runner: asyncio.Runner, job: IosJob) -> RunSummary | str:
        runs = session_runs(self.protocol)
        got = self._call(
            runner, lambda: job.benchmarker.benchmark_predict(inputs=job.inputs, iterations=runs, warmup=True)
        )
        block = [one * 1e-3 for one in got.samples]
        job.blocks.append(block)
        return _summary(block)

    def _profile(self, runner: asyncio.Runner, job: IosJob) -> None:
        if job.dropped:
            return
        self.say(f"{job.name}: shares of single operations")
        rows = self._call(
            runner, lambda: job.benchmarker.benchmark_operation_execution(inputs=job.inputs, iterations=1, warmup=True)
        )
        job.operations = tuple(_operation(row) for row in rows if row.measurement.samples)

    def _call(self, runner: asyncio.Runner, start: Callable[[], Any]) -> Any:
        """Return what the coroutine of ``start`` returns; whatever coremltools raises is a DeviceError."""

        async def started() -> Any:
            return await start()

        try:
            with contained():
                return runner.run(started())
        except Exception as error:  # private classes of coremltools: _DeviceCtlError, _AppBuilder.Error
            raise DeviceError(
                "coremltools could not go on with the device.",
                where=self.device.name,
                found=f"{type(error).__name__}: {error}"[:400].replace(self.device.name, "the device"),
                expected="an unlocked, connected device and a development team that may sign apps for it",
                next_step="unlock the device; name your team with --development-team; see Xcode > Devices",
            ) from error

    def _clean(self, prepared: Any, folder: Path) -> None:
        session = getattr(prepared, "session", None)
        if session is not None:
            session.stop()
            bundle = session.installation_info.bundle_identifier
            words = ["xcrun", "devicectl", "device", "uninstall", "app", "--device", self.device.identifier, bundle]
            with suppress(DeviceError):
                if run(words, timeout_s=UNINSTALL_S).returncode:
                    self.say(f"the app {bundle} may still be on {self.device.name}")
        shutil.rmtree(folder, ignore_errors=True)

    def _machine(self) -> Machine:
        kind = self.device.type.value
        system = "iPadOS" if kind == "ipad" else "iOS"
        return Machine(
            name=f"{kind}-{system}-{self.device.os_version}".lower().replace(".", "-"),
            processor="not said",
            architecture="arm64",
            system=f"{system} {self.device.os_version} ({self.device.os_build_number}), {kind}",
            cores=1,
        )

    def _latency(self, job: IosJob) -> Latency:
        artifact = job.subject.artifact
        return Latency(
            artifact=job.name,
            device=self._machine().system,
            driver=DRIVER,
            accelerator=job.accelerator,
            threads=1,
            warmup_runs=1 + len(job.blocks),
            samples_s=tuple(run for block in job.blocks for run in block),
            size_bytes=job.subject.size_bytes,
            runtime=f"Core ML ({job.accelerator}), threads chosen by Core ML",
            target=job.subject.target,
            precision=artifact.plan.precision if artifact else None,
            content_hash=artifact.content_hash if artifact else None,
            sessions=tuple(index for index, block in enumerate(job.blocks) for _ in block),
            stopped=job.stopped or Stopped.INTERRUPTED,
            interval_s=job.interval_s(),
            startup=Startup(
                cold_load_s=job.loads_s[0] if job.loads_s else None,
                warm_load_s=job.loads_s[-1] if len(job.loads_s) > 1 else None,
                first_inference_s=job.first_s,
            ),
            operations=job.operations,
            network=artifact.recipe if artifact else None,
            notes=(ESTIMATED,) if job.operations else (),
        )


def _operation(row: Any) -> OperationTime:
    usage = row.compute_device_usage
    unit = UNITS.get(type(usage.preferred_compute_device).__name__, "") if usage is not None else ""
    outputs = row.spec.outputs
    samples = row.measurement.samples
    seconds = sum(samples) / len(samples) * 1e-3
    return OperationTime(outputs[0].name if outputs else row.spec.type, row.spec.type, seconds, accelerator=unit)


def _summary(block: Sequence[float]) -> RunSummary:
    return RunSummary(
        runs=len(block),
        mean_s=statistics.fmean(block),
        min_s=min(block),
        max_s=max(block),
        std_s=statistics.pstdev(block),
        first_s=block[0],
        last_s=block[-1],
        median_s=statistics.median(block),
    )
