"""In which order stages are done, what runs beside what, and what a failure or Ctrl-C leaves.

A stand-in at the process boundary takes the tasks: it says when a stage begins and ends as the test wants.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from stages.conftest import Ear

from deploykit.stages.keys import difference, key_of
from deploykit.stages.records import Outcome, Stage, StageKind
from deploykit.stages.scheduler import Scheduler, in_order
from deploykit.stages.store import Store
from deploykit.stages.tasks import Done, Ended, Said, Task
from deploykit.stages.workers import Heard
from deploykit.vocab import Precision, Target


@dataclass
class Script:
    """What the stand-ins do: stages that fail, by name, and what was under way whenever one began."""

    root: Path
    failing: dict[str, Ended] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    workers: list[StandIn] = field(default_factory=list)
    interrupt: str = ""

    def hire(self, events: queue.Queue[Heard]) -> StandIn:
        self.workers.append(StandIn(self, events))
        return self.workers[-1]


class StandIn:
    """A worker that is done with a stage as soon as the pipeline listens, the oldest first."""

    def __init__(self, script: Script, events: queue.Queue[Heard]) -> None:
        self.script, self.events = script, events
        self.stage: Stage | None = None
        self.before: Stage | None = None
        self.alive, self.ended = True, False

    def give(self, task: Task) -> None:
        self.stage = task.stage
        name = task.stage.name
        beside = frozenset(one.stage.name for one in self.script.workers if one.stage is not None) - {name}
        self.script.log.append((name, beside))
        if name == self.script.interrupt:
            raise KeyboardInterrupt
        self.events.put(Heard(self, Said("at work")))
        self.events.put(Heard(self, self.script.failing.get(name) or self._ended(name)))

    def _ended(self, name: str) -> Ended:
        path = self.script.root / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.script.contents.get(name, name))
        return Ended(Done((path,)), 1.0, 2.0)

    def rest(self) -> None:
        self.before, self.stage = self.stage, None

    def stop(self) -> None:
        """It has nothing to put away."""

    def end(self) -> None:
        self.ended = True


def chain(recipe: str) -> list[Stage]:
    """A check, two exports after it with a verification each, and a bench of both."""
    check = Stage(f"{recipe}/check", StageKind.VERIFY_REPARAM, recipe)
    stages = [check]
    for target in (Target.ONNX, Target.TFLITE):
        made = Stage(f"{recipe}/{target}", StageKind.EXPORT, recipe, target, Precision.FP32, needs=(check.name,))
        own = (made.name,)
        stages += [made, Stage(f"{made.name}/verify", StageKind.VERIFY, recipe, target, needs=own, takes=own)]
    both = tuple(one.name for one in stages if one.kind is StageKind.EXPORT)
    return [*stages, Stage(f"{recipe}/bench", StageKind.BENCH, recipe, after=both, takes=both)]


def scheduler(script, stages, *, inputs=None, jobs=2, fresh=False) -> tuple[Scheduler, Ear]:
    store = Store(script.root)
    store.clean()
    ear = Ear()
    made = Scheduler(
        stages=stages,
        store=store,
        inputs=lambda stage: (inputs or {}).get(stage.name, {"version": "1"}),
        task=lambda stage, taken: Task(stage, script.root, store.work, ""),
        hire=script.hire,
        listener=ear,
        jobs=jobs,
        fresh=fresh,
    )
    return made, ear


def outcomes(done: Scheduler) -> dict[str, Outcome]:
    return {name: one.outcome for name, one in done.results.items()}


def test_each_stage_begins_after_its_needs_and_a_measurement_alone(tmp_path):
    script = Script(tmp_path)
    stages = [*chain("a"), *chain("b")]
    done, _ = scheduler(script, stages)
    assert done.run()
    order = [name for name, _ in script.log]
    assert sorted(order) == sorted(one.name for one in stages)
    for one in stages:
        assert all(order.index(before) < order.index(one.name) for before in (*one.needs, *one.after))
    for name, beside in script.log:
        assert not (beside if name.endswith("bench") else {one for one in beside if one.endswith("bench")})
    assert any(beside for _, beside in script.log)
    assert len(script.workers) == 2
    assert all(worker.ended for worker in script.workers)


def test_one_job_does_one_thing_at_a_time(tmp_path):
    script = Script(tmp_path)
    done, _ = scheduler(script, chain("a"), jobs=1)
    assert done.run()
    assert not any(beside for _, beside in script.log)


def test_a_failure_stops_what_needs_it_and_is_tried_again(tmp_path):
    error = Ended(None, 1.0, 1.0, "it is not equivalent", 1)
    script = Script(tmp_path, failing={"a/onnx": error})
    done, _ = scheduler(script, chain("a"))
    assert done.run()
    assert outcomes(done)["a/onnx"] is Outcome.FAILED
    assert done.results["a/onnx/verify"].outcome is Outcome.NOT_RUN
    assert done.results["a/onnx/verify"].reason == "a/onnx failed"
    assert [outcomes(done)[name] for name in ("a/tflite", "a/tflite/verify", "a/bench")] == [Outcome.DONE] * 3
    again, ear = scheduler(Script(tmp_path), chain("a"))
    assert again.run()
    assert list(ear.begun) == ["a/onnx", "a/onnx/verify", "a/bench"]
    assert (ear.begun["a/onnx"], ear.begun["a/onnx/verify"]) == ("failed last time", "never done")
    assert ear.begun["a/bench"] == "a/onnx changed"


def test_nothing_that_is_taken_passed(tmp_path):
    error = Ended(None, 1.0, 1.0, "no", 1)
    script = Script(tmp_path, failing={"a/check": error})
    done, _ = scheduler(script, chain("a"))
    assert done.run()
    assert {one.reason for one in done.results.values() if one.outcome is Outcome.NOT_RUN} == {"a/check failed"}
    assert outcomes(done)["a/bench"] is Outcome.NOT_RUN


def test_what_is_up_to_date_is_left_alone_and_a_change_goes_as_far_as_it_matters(tmp_path):
    first, _ = scheduler(Script(tmp_path), chain("a"))
    assert first.run()
    second, ear = scheduler(Script(tmp_path), chain("a"))
    assert second.run()
    assert not ear.begun
    changed = {"a/onnx": {"version": "2"}}
    # The file came out the same: what takes it is up to date.
    third, ear = scheduler(Script(tmp_path), chain("a"), inputs=changed)
    assert third.run()
    assert ear.begun == {"a/onnx": "version changed from 1 to 2"}
    changed = {"a/onnx": {"version": "3"}}
    fourth, ear = scheduler(Script(tmp_path, contents={"a/onnx": "other bytes"}), chain("a"), inputs=changed)
    assert fourth.run()
    assert list(ear.begun) == ["a/onnx", "a/onnx/verify", "a/bench"]
    fifth, ear = scheduler(Script(tmp_path), chain("a"), fresh=True)
    assert fifth.run()
    assert len(ear.begun) == len(chain("a"))


def test_ctrl_c_keeps_what_is_done_and_says_what_is_not(tmp_path):
    script = Script(tmp_path, interrupt="a/tflite")
    done, _ = scheduler(script, chain("a"), jobs=1)
    assert not done.run()
    assert all(worker.ended for worker in script.workers)
    found = {one.stage: one for one in in_order(chain("a"), done.results)}
    assert found["a/check"].outcome is found["a/onnx"].outcome is Outcome.DONE
    assert found["a/tflite"].reason == "Ctrl-C"
    assert found["a/bench"].reason == "not reached"
    again, ear = scheduler(Script(tmp_path), chain("a"))
    assert again.run()
    assert "a/onnx" not in ear.begun


def test_a_process_that_dies_is_replaced(tmp_path):
    script = Script(tmp_path, failing={"a/onnx": Ended(None, 0.0, 0.0, "its process ended by itself", 70)})
    done, _ = scheduler(script, chain("a"), jobs=1)
    before = done.listener.started

    def started(stage, because):
        if stage.name == "a/onnx":
            script.workers[0].alive = False
        before(stage, because)

    done.listener.started = started
    assert done.run()
    assert len(script.workers) == 2
    assert done.results["a/onnx"].exit_code == 70
    assert outcomes(done)["a/tflite"] is Outcome.DONE


def test_what_is_replaced_or_fails_leaves_no_old_files(tmp_path):
    stage = Stage("a/onnx", StageKind.EXPORT, "a")
    first, _ = scheduler(Script(tmp_path), [stage])
    first.run()
    old = tmp_path / "a" / "onnx.txt"
    assert old.is_file()
    script = Script(tmp_path, failing={"a/onnx": Ended(None, 0.0, 0.0, "no", 1)})
    second, _ = scheduler(script, [stage], inputs={"a/onnx": {"version": "2"}})
    second.run()
    assert not old.exists()
    third, _ = scheduler(Script(tmp_path), [stage])
    third.run()
    old.write_text("changed by somebody")
    Store(tmp_path).discard("a/onnx")
    assert old.is_file()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_a_process_stays_with_what_it_knows(tmp_path, jobs):
    script = Script(tmp_path)
    done, _ = scheduler(script, [*chain("a"), *chain("b")], jobs=jobs)
    done.run()
    assert len(script.workers) <= jobs


def test_keys_depend_on_what_is_in_them_and_not_on_its_order():
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    assert key_of({"a": "1", "b": "2"}) != key_of({"a": "2", "b": "1"})
    assert difference({"torch": "1.0", "gone": "x"}, {"torch": "2.0", "new": "y"}) == (
        "gone is gone, new is new, torch changed from 1.0 to 2.0"
    )
    assert difference({"the recipe": "a" * 64}, {"the recipe": "b" * 64}) == "the recipe changed"
    assert not difference({"a": "1"}, {"a": "1"})
