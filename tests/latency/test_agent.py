"""The agent as it is shipped, one file run by Python: its events, and what is left when it or its worker ends early."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from agent_cases import QUICK, agent_command, onnx_subject, waiting_subject, with_these_openers

import deploykit
from deploykit.latency.recording import INTERRUPTED, Recording
from deploykit.latency.worker import agent_program, make_plan, run_agent
from deploykit.latency_records import Stopped

AGENT = Path(deploykit.__file__).parent / "latency" / "agent"
ABOUT = {"device": "a machine", "driver": "host"}


def test_the_agent_is_one_file_that_needs_nothing_of_deploykit(tmp_path: Path) -> None:
    # No time for a second start.
    once = replace(QUICK, startup=True, startup_runs=3, startup_seconds=0.0, profile=True)
    plan = make_plan([onnx_subject(tmp_path)], once)
    (tmp_path / "plan.json").write_text(json.dumps(plan), "utf-8")
    done = subprocess.run(
        [*agent_command(tmp_path), "plan.json"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    named = [one["event"] for one in events if one["event"] != "conditions"]
    assert named[:7] == ["hello", "opening", "started", "opened", "first", "memory", "opened"]
    assert named[7:9] == ["opening", "warm"]
    assert named[-4:] == ["stopped", "opening", "operations", "end"]
    assert set(named[9:-4]) == {"samples"}
    assert events[-1] == {"event": "end", "complete": True, "ended": ""}
    assert agent_program() == agent_program()
    for path in AGENT.glob("*.py"):
        ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
    assert "import deploykit" not in "".join(path.read_text("utf-8") for path in AGENT.glob("*.py"))


def test_a_file_is_started_in_processes_of_its_own_and_measured(tmp_path: Path) -> None:
    protocol = replace(QUICK, startup=True, startup_runs=3, startup_seconds=60.0, profile=True)
    plan = make_plan([onnx_subject(tmp_path)], protocol)
    said: list[str] = []
    heard = run_agent(agent_command(tmp_path), plan, report=said.append)
    assert said[:2] == ["starting m.onnx", "warming up m.onnx"]
    assert said[2].startswith("measuring, ")
    assert said[-2:] == ["measuring, 100 % of the least done", "profiling m.onnx"]
    assert (heard.complete, heard.ended, heard.common_problems) == (True, "", [])
    found = heard.latency("m.onnx", **ABOUT)
    assert found is not None
    assert found.stopped is Stopped.RUNS
    assert len(found.samples_s) == len(found.starts_s) == len(found.sessions) >= 20
    assert list(found.starts_s) == sorted(found.starts_s)
    assert found.startup is not None
    assert 0.05 < found.startup.process_s < 60
    assert found.startup.starts == 3
    assert set(found.startup.starts_s) == {"process_s", "cold_load_s", "warm_load_s", "first_inference_s"}
    for figure, times in found.startup.starts_s.items():
        assert len(times) == 3
        assert getattr(found.startup, figure) == sorted(times)[1]
        assert found.startup.reach(figure) > 0
    assert found.startup.warm_load_s > 0
    assert found.startup.cold_load_s > 0
    assert found.startup.first_inference_s > 0
    assert 0 < found.startup.peak_memory_bytes < 2**30
    assert [row.operation for row in found.operations] == ["Abs"]
    assert 0 < found.operations[0].seconds < 1
    assert heard.machine is not None
    assert heard.machine.cores >= 1
    assert found.starts_s[0] < heard.conditions[-1].time_s


def test_what_was_measured_before_the_worker_was_killed_is_kept(tmp_path: Path) -> None:
    plan = make_plan(
        [waiting_subject("good"), waiting_subject("bad", after=120, then="die")], replace(QUICK, min_runs=400)
    )
    heard = run_agent(agent_command(tmp_path), plan, environment=with_these_openers())
    assert not heard.complete
    assert "SIGKILL" in heard.ended
    assert heard.common_problems == [heard.ended]
    good, bad = heard.latency("good", **ABOUT), heard.latency("bad", **ABOUT)
    assert good is not None
    assert bad is not None
    assert good.stopped is bad.stopped is Stopped.INTERRUPTED
    assert 20 < len(bad.samples_s) <= 120
    assert all(sample >= 0.001 for sample in good.samples_s)


def test_a_run_that_fails_ends_its_own_subject_alone(tmp_path: Path) -> None:
    plan = make_plan([waiting_subject("good"), waiting_subject("bad", after=60, then="raise")], QUICK)
    plan["limits"].update(min_runs=100, max_seconds=60.0)
    heard = run_agent(agent_command(tmp_path), plan, environment=with_these_openers())
    assert heard.complete
    assert heard.of("bad").problems == {"steady": "ValueError: worn out"}
    assert heard.of("bad").stopped is None
    bad = heard.latency("bad", **ABOUT)
    assert bad is not None
    assert bad.stopped is Stopped.INTERRUPTED
    assert bad.notes == ("a run failed, and ended it: ValueError: worn out",)
    good = heard.latency("good", **ABOUT)
    assert good is not None
    assert good.stopped is Stopped.RUNS
    assert good.steps == {"waiting": pytest.approx(0.001)}
    assert len(good.samples_s) >= 100


def test_a_file_that_is_not_there_is_a_problem_with_its_name(tmp_path: Path) -> None:
    subject = replace(onnx_subject(tmp_path), path=str(tmp_path / "gone.onnx"))
    heard = run_agent(agent_command(tmp_path), make_plan([subject, onnx_subject(tmp_path, "n.onnx")], QUICK))
    assert "gone.onnx" in heard.of("m.onnx").problems["steady"]
    assert heard.latency("m.onnx", **ABOUT) is None
    assert heard.latency("n.onnx", **ABOUT) is not None


def test_ctrl_c_ends_all_processes_and_keeps_what_there_is(tmp_path: Path) -> None:
    plan = make_plan([waiting_subject("endless")], replace(QUICK, min_runs=10**6))
    heard = Recording()

    def interrupt() -> None:
        while not heard.of("endless").blocks:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    run_agent(agent_command(tmp_path), plan, environment=with_these_openers(), recording=heard)
    thread.join()
    assert (heard.complete, heard.ended) == (False, INTERRUPTED)
    found = heard.latency("endless", **ABOUT)
    assert found is not None
    assert found.stopped is Stopped.INTERRUPTED
    assert _running(tmp_path) == []


def test_an_agent_that_says_nothing_is_ended(tmp_path: Path) -> None:
    plan = make_plan([waiting_subject("hangs", after=0, then="hang")], QUICK)
    heard = run_agent(agent_command(tmp_path), plan, environment=with_these_openers(), patience_s=1.5)
    assert not heard.complete
    assert "said nothing for 1.5 s" in heard.ended
    assert _running(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-program-anywhere"], "cannot be started"),
        ([sys.executable, "-c", "raise SystemExit('no room')"], "no room"),
        ([sys.executable, "-c", "print('hello there'); print('{\"event\": \"hel')"], "without a word"),
    ],
)
def test_a_command_that_is_no_agent_gives_an_empty_recording(command: list[str], said: str, tmp_path: Path) -> None:
    heard = run_agent(command, make_plan([onnx_subject(tmp_path)], QUICK))
    assert not heard.complete
    assert said in heard.ended
    assert heard.latency("m.onnx", **ABOUT) is None


def test_a_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    heard = run_agent(agent_command(tmp_path), {**make_plan([], QUICK), "agent": 99})
    assert not heard.complete
    assert "version 99" in heard.ended


def _running(folder: Path) -> list[str]:
    """Return the command lines of processes that run the agent in ``folder``."""
    deadline = time.monotonic() + 30
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
