"""A program that wants the same core: what it takes of the runs is no part of the figures, and is said."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from agent_cases import BUSY_OPENER, HELPED_OPENER, QUICK, agent_command, with_these_openers

from deploykit.cli.bench_table import sentences, tables
from deploykit.cli.console import stdout_console
from deploykit.latency.agent.cores import usable
from deploykit.latency.worker import PlannedSubject, make_plan, run_agent
from deploykit.latency_records import Benchmark, Latency

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says when the core was taken away")

COMPUTED_S = 0.003
LOAD = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


@pytest.fixture(scope="module")
def beside_a_load(tmp_path_factory: pytest.TempPathFactory) -> Latency:
    core = usable()[0]
    folder = tmp_path_factory.mktemp("load")
    subject = PlannedSubject("busy", "", "busy", opener=BUSY_OPENER, arguments={"seconds": COMPUTED_S})
    plan = make_plan([subject], QUICK)
    plan["affinity"] = [core]
    plan["limits"] = {**plan["limits"], "min_runs": 100, "max_seconds": 10.0}
    load = subprocess.Popen([sys.executable, "-c", LOAD, str(core)], stdout=subprocess.PIPE)
    try:
        assert load.stdout is not None
        load.stdout.readline()
        heard = run_agent(agent_command(folder), plan, environment=with_these_openers())
    finally:
        load.kill()
        load.communicate()
    found = heard.latency("busy", device="here", driver="host")
    assert found is not None
    return found


def test_the_time_of_others_is_in_the_samples_and_not_in_the_figures(beside_a_load: Latency) -> None:
    assert statistics.mean(beside_a_load.samples_s) > 1.3 * COMPUTED_S
    assert beside_a_load.median_s == pytest.approx(COMPUTED_S, rel=0.1)
    assert beside_a_load.preempted is not None
    assert beside_a_load.preempted > 0.2
    assert beside_a_load.interval_s is not None
    assert beside_a_load.interval_s[1] < 1.2 * COMPUTED_S


def test_the_row_and_a_sentence_say_so(beside_a_load: Latency, capsys: pytest.CaptureFixture[str]) -> None:
    result = Benchmark((beside_a_load,))
    for table in tables(result):
        stdout_console().print(table)
    assert "preempted" in capsys.readouterr().out
    assert any("other programs had the core during" in one and "end them" in one for one in sentences(result))


def test_what_threads_of_the_same_process_take_is_no_other_program(tmp_path: Path) -> None:
    subject = PlannedSubject("helped", "", "helped", opener=HELPED_OPENER, arguments={"seconds": 0.01})
    plan = make_plan([subject], QUICK)
    plan["affinity"] = [usable()[0]]
    heard = run_agent(agent_command(tmp_path), plan, environment=with_these_openers())
    found = heard.latency("helped", device="here", driver="host")
    assert found is not None
    # Its own thread needs that much of the core, whoever else wants it.
    assert min(found.own_s) > 0.01


def test_with_several_threads_nothing_is_made_up(tmp_path: Path) -> None:
    subject = PlannedSubject("busy", "", "busy", threads=2, opener=BUSY_OPENER, arguments={"seconds": 0.0005})
    heard = run_agent(agent_command(tmp_path), make_plan([subject], QUICK), environment=with_these_openers())
    found = heard.latency("busy", device="here", driver="host")
    assert found is not None
    assert (found.away_s, found.preempted) == ((), None)
    assert len(found.minor_faults) == len(found.samples_s)
