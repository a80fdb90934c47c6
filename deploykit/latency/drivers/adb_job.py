"""One file with one accelerator on an Android device: what its sessions gave, and the record of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploykit.latency.drivers.benchmark_model import ToolRun
from deploykit.latency.drivers.rounds import Job
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Latency, Startup, Stopped


@dataclass
class AdbJob(Job):
    """A job of ``benchmark_model``. ``graph`` and ``inputs`` are files on the device, the latter with their shapes."""

    subject: Subject
    accelerator: str
    threads: int
    graph: str = ""
    inputs: tuple[tuple[str, tuple[int, ...]], ...] = ()
    runs: list[ToolRun] = field(default_factory=list)
    profile: ToolRun | None = None

    @property
    def shared(self) -> str:
        """What the GPU took where it did not take everything, else an empty text."""
        partial = next((run for run in self.runs if run.on_gpu == "partial"), None)
        if self.accelerator != "gpu" or partial is None:
            return ""
        taken = partial.delegated
        return f"{taken[0]} of {taken[1]} operations" if taken else "a part of the operations"

    def latency(self, device: str, driver: str) -> Latency:
        """Return the record; there is at least one session. Its interval is that of the median over sessions."""
        artifact, first = self.subject.artifact, self.runs[0]
        center = "mean" if self.sessions[0].median_s is None else "median"
        backend = next((f", {run.backend}" for run in self.runs if run.backend), "")
        accelerator = "gpu and cpu" if self.shared else self.accelerator
        return Latency(
            artifact=self.name,
            device=device,
            driver=driver,
            accelerator=accelerator,
            threads=self.threads,
            warmup_runs=first.warmup_runs,
            samples_s=tuple(self.centers_s),
            size_bytes=self.subject.size_bytes,
            runtime=f"LiteRT benchmark_model ({accelerator}{backend})",
            target=self.subject.target,
            precision=artifact.plan.precision if artifact else None,
            content_hash=artifact.content_hash if artifact else None,
            starts_s=tuple(self.starts_s),
            sessions=tuple(range(len(self.sessions))),
            stopped=self.stopped or Stopped.INTERRUPTED,
            interval_s=self.interval_s(),
            startup=Startup(
                warm_load_s=first.load_s,
                first_inference_s=first.first_inference_s,
                peak_memory_bytes=first.peak_memory_bytes,
            ),
            operations=self.profile.operations if self.profile else (),
            network=artifact.recipe if artifact else None,
            notes=(f"each sample is the {center} of one session: benchmark_model prints no single runs",),
            summaries=tuple(self.sessions),
        )
