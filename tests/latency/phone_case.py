"""A made-up phone: the stand-in for adb on the PATH, what it replays, and a benchmark_model built for it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import android_logs
import pytest

from deploykit.latency.drivers import rounds
from deploykit.latency.drivers.options import DeviceOptions
from deploykit.latency.measure import Protocol

PROTOCOL = Protocol(min_runs=100, min_seconds=1.0, max_seconds=60.0, precision_target=None)
STAND_IN = Path(__file__).with_name("stand_in_adb.py")


class PhoneCase:
    """Where the stand-in looks, and what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = folder / "adb-home"
        self.phone = self.home / "phone"
        self.plan: dict[str, Any] = {"devices": {"A1": "device"}, "test_pid": os.getpid()}
        (self.home / "bin").mkdir(parents=True)
        self.phone.mkdir()
        programs = folder / "programs"
        programs.mkdir()
        _script(programs / "adb", f'exec {shlex.quote(sys.executable)} -S -E {shlex.quote(str(STAND_IN))} "$@"')
        monkeypatch.setenv("STAND_IN_ADB", str(self.home))
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.delenv("ANDROID_SERIAL", raising=False)
        monkeypatch.setattr(rounds, "MIN_SESSIONS", 3)
        self.answers(cpu=android_logs.XNNPACK, gpu=android_logs.GPU)
        self.state(thermal=android_logs.THERMAL, battery=android_logs.BATTERY)
        _script(self.home / "bin" / "getprop", f"cat <<'END'\n{android_logs.PROPERTIES}END")
        self.change()

    def change(self, **entries: Any) -> None:
        """Change what the stand-in does."""
        self.plan.update(entries)
        (self.home / "plan.json").write_text(json.dumps(self.plan), "utf-8")

    def answers(self, *, returns: int = 0, profile: str = "", **logs: str) -> None:
        """Let benchmark_model print the log of the accelerator that it was asked for, and ``profile`` if asked."""
        for name, text in logs.items():
            (self.home / f"{name}.txt").write_text(text, "utf-8")
        (self.home / "profile.txt").write_text(profile, "utf-8")
        asked = 'case "$*" in *use_gpu*) cat "$H/gpu.txt";; *) cat "$H/cpu.txt";; esac'
        profiled = 'case "$*" in *op_profiling*) cat "$H/profile.txt";; esac'
        _script(self.home / "tool", f"H={shlex.quote(str(self.home))}\n{asked}\n{profiled}\nexit {returns}")

    def state(self, *, thermal: str, battery: str) -> None:
        """Let dumpsys print these."""
        body = f"case $1 in thermalservice) cat <<'END'\n{thermal}END\n;; battery) cat <<'END'\n{battery}END\n;; esac"
        _script(self.home / "bin" / "dumpsys", body)

    def calls(self) -> list[list[str]]:
        """Return the words of every call of adb."""
        log = self.home / "calls.log"
        return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []

    def tool_calls(self) -> list[str]:
        """Return the scripts that ran benchmark_model."""
        return [call[-1] for call in self.calls() if "./benchmark_model" in call[-1]]

    def left_behind(self) -> list[Path]:
        """Return what is on the phone."""
        return sorted(self.phone.rglob("*"))

    def options(self, tmp: Path, machine: int = 0xB7, **entries: Any) -> DeviceOptions:
        """Return options with a benchmark_model that is built for the processor of number ``machine``."""
        tool = tmp / f"benchmark_model_{machine}"
        tool.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + machine.to_bytes(2, "little") + bytes(44))
        return DeviceOptions(benchmark_model=tool, **entries)


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
    path.chmod(0o755)
