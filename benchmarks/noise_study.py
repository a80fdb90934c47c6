"""How often ``compare`` is wrong, and what it finds: many short trials on identical and on deliberately slowed files.

The slowed files are ladders of equal blocks (depthwise 3x3, pointwise 1x1, ReLU): 20 blocks against 21 or 22, so that
the true slowdown is 5 or 10 % by construction, less what a run costs beside its blocks. A long run of each pair at the
start (--calibrate) says what it is on this machine. The identical files are the bundled SINet and the ladder, each
beside its own copy. Every trial goes through what ``deploykit compare`` does once both files are open; a worker process
serves --fresh trials. Under load, another process computes or copies memory on the other core, for stretches of 0.1 to
2 s, with pauses as long.

An interrupted study goes on where it was. With the defaults it takes about 45 minutes.
Run: python benchmarks/noise_study.py [--trials aa=400,slow10=100,slow5=100,load=200] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Read once, at the import of what brings its own threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from deploykit.api import export
from deploykit.chatter import contained
from deploykit.comparison_records import Estimate, Verdict
from deploykit.latency.contender import Contender
from deploykit.latency.duel import Duel
from deploykit.latency.machine import device_name
from deploykit.latency.trial import run_trial
from deploykit.records import to_json, versioned

RECORD = Path(__file__).parent / "results" / "noise_study.json"
BLOCKS = 20
# Much arithmetic on little memory: what a run costs beside its blocks is to be small.
CHANNELS, SIDE = 96, 20
LOAD = Path(__file__).with_name("competing_load.py")
SAVE_EVERY = 5


@dataclass(frozen=True)
class Row:
    """One row of the table. ``wrong`` verdicts may be at most ``most_wrong``, ``found`` ones at least ``least_found``.

    Parts of the trials, since fewer may be asked for than the row is about.
    """

    name: str
    what: str
    trials: int
    slower_by: int = 0
    loaded: bool = False
    most_wrong: float | None = None
    least_found: float | None = None


ROWS = {
    row.name: row
    for row in (
        Row("aa", "two copies of one file", 400, most_wrong=1 / 400),
        Row("slow10", "a true 10 % slowdown", 100, slower_by=2, least_found=0.95),
        Row("slow5", "a true 5 % slowdown", 100, slower_by=1, least_found=0.80),
        Row("load", "two copies, a load on the other core at random", 200, loaded=True, most_wrong=1 / 200),
    )
}


@dataclass(frozen=True)
class Outcome:
    """One trial. ``true_verdict`` is what it should say; ``swapped``: B is the one that is not slowed."""

    row: str
    index: int
    files: str
    swapped: bool
    true_verdict: Verdict
    verdict: Verdict
    reason: str
    rounds: int
    seconds: float
    preempted: float
    effect: Estimate | None
    control: Estimate | None
    noise_floor: float | None
    smallest_effect: float | None
    load_average: float

    @property
    def found(self) -> bool:
        return self.verdict is self.true_verdict

    @property
    def wrong(self) -> bool:
        """Whether it claims what is not true; inconclusive claims nothing."""
        return self.verdict in (Verdict.FASTER, Verdict.SLOWER) and not self.found


def ladder(blocks: int) -> nn.Sequential:
    torch.manual_seed(blocks)
    layers: list[nn.Module] = []
    for _ in range(blocks):
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 1)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers).eval()


def make_files(folder: Path) -> None:
    """Write what is compared, each file with a copy beside it, unless it is there from an earlier run."""
    if (folder / "complete").exists():
        return
    example = torch.rand(1, CHANNELS, SIDE, SIDE)
    for blocks in (BLOCKS, BLOCKS + 1, BLOCKS + 2):
        with contained():
            write_onnx(ladder(blocks), example, folder / f"ladder{blocks}.onnx")
            write_tflite(ladder(blocks), example, folder / f"ladder{blocks}.tflite")
    with contained():
        made = export("sinet", targets=["onnx", "tflite"], output_dir=folder / "artifacts")
    for artifact in made:
        shutil.copy(artifact.path, folder / f"sinet{artifact.path.suffix}")
    for path in list(folder.glob("*.*")):
        shutil.copy(path, path.with_stem(path.stem + "-copy"))
    (folder / "complete").touch()


def write_onnx(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    torch.onnx.export(module, (example,), path, dynamo=True, opset_version=18, external_data=False, verbose=False)


def write_tflite(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    import litert_torch

    litert_torch.convert(module, (example,)).export(str(path))


def pair(row: Row, index: int, folder: Path) -> tuple[Path, Path, bool]:
    """Return A and B of a trial and whether they are swapped: all kinds of files in turn, either one first."""
    suffix = (".onnx", ".tflite")[index % 2]
    swapped = index // 2 % 2 == 1
    if row.slower_by:
        files = folder / f"ladder{BLOCKS}{suffix}", folder / f"ladder{BLOCKS + row.slower_by}{suffix}"
    else:
        stem = ("sinet", "sinet", f"ladder{BLOCKS}")[index // 4 % 3]
        files = folder / f"{stem}{suffix}", folder / f"{stem}-copy{suffix}"
    return (*reversed(files), True) if swapped else (*files, False)


def run_one(duel: Duel, row: Row, index: int, options: argparse.Namespace, affinity: tuple[int, ...]) -> Outcome:
    first, second, swapped = pair(row, index, options.folder)
    duel.open(Contender(first.name, first), Contender(second.name, second), 1, affinity)
    trial = run_trial(duel, options.seconds, seed=index)
    slowed = Verdict.FASTER if swapped else Verdict.SLOWER
    judged = trial.judgement
    return Outcome(
        row=row.name,
        index=index,
        files=first.name,
        swapped=swapped,
        true_verdict=slowed if row.slower_by else Verdict.SAME,
        verdict=judged.verdict,
        reason=judged.reason,
        rounds=judged.rounds,
        seconds=trial.seconds,
        preempted=trial.preempted,
        effect=judged.effect,
        control=judged.control,
        noise_floor=judged.noise_floor,
        smallest_effect=judged.smallest_effect,
        load_average=os.getloadavg()[0],
    )


@contextmanager
def load(row: Row, seed: int, core: int) -> Iterator[None]:
    """Run the competing load on ``core`` for as long as it lasts, where the row has one."""
    if not row.loaded:
        yield
        return
    process = subprocess.Popen([sys.executable, str(LOAD), str(core), str(seed)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def usable_cores() -> list[int]:
    return sorted(psutil.Process().cpu_affinity())


def calibrate(options: argparse.Namespace, affinity: tuple[int, ...], say: Console) -> list[dict[str, Any]]:
    """Return what the slowdowns are on this machine, from long runs that end when the time is up."""
    found = []
    for row in (ROWS["slow10"], ROWS["slow5"]):
        for index in (0, 1):
            first, second, _ = pair(row, index, options.folder)
            with Duel(Contender(first.name, first), Contender(second.name, second), 1, affinity) as duel:
                # With no verdict possible before the end, every round counts.
                trial = run_trial(duel, options.calibrate, margin=0.9)
            say.print(f"{row.name} {first.name} to {second.name}: {trial.judgement.effect}")
            found.append({"row": row.name, "first": first.name, "second": second.name, **to_json(trial.judgement)})
    return found


def table(outcomes: list[Outcome]) -> Table:
    shown = Table(title="compare, one trial at a time", title_justify="left")
    for name in ("what", "trials", "false", "found", "inconclusive", "must reach", "noise floor", "seconds"):
        shown.add_column(name, justify="left" if name in ("what", "must reach") else "right")
    for row in ROWS.values():
        own = [one for one in outcomes if one.row == row.name]
        if own:
            floors = [one.noise_floor for one in own if one.noise_floor is not None]
            shown.add_row(
                row.what,
                str(len(own)),
                str(sum(one.wrong for one in own)),
                str(sum(one.found for one in own)),
                str(sum(one.verdict is Verdict.INCONCLUSIVE for one in own)),
                f"{demand(row)}: {'yes' if reached(row, own) else 'NO'}",
                f"{statistics.median(floors):.1%}" if floors else "-",
                f"{max(one.seconds for one in own):.2f}",
            )
    return shown


def demand(row: Row) -> str:
    if row.most_wrong is not None:
        return f"at most {round(row.most_wrong * row.trials)} false of {row.trials}"
    assert row.least_found is not None
    return f"{row.least_found:.0%} found"


def reached(row: Row, own: list[Outcome]) -> bool:
    wrong, found = sum(one.wrong for one in own), sum(one.found for one in own)
    if row.most_wrong is not None:
        return wrong <= max(1, row.most_wrong * len(own))
    assert row.least_found is not None
    return found >= row.least_found * len(own)


def read(path: Path) -> tuple[list[Outcome], list[dict[str, Any]]]:
    if not path.is_file():
        return [], []
    body = json.loads(path.read_text("utf-8"))["body"]
    verdicts = ("verdict", "true_verdict")
    estimates = ("effect", "control")
    outcomes = [
        Outcome(
            **{
                **one,
                **{name: Verdict(one[name]) for name in verdicts},
                **{name: Estimate(**one[name]) if one[name] else None for name in estimates},
            }
        )
        for one in body["trials"]
    ]
    return outcomes, body["calibration"]


def rounded(value: Any) -> Any:
    """Return JSON values with six significant digits, which are more than a trial knows."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write(path: Path, outcomes: list[Outcome], calibration: list[dict[str, Any]], options: argparse.Namespace) -> None:
    body = {
        "device": device_name(),
        "seconds": options.seconds,
        "rows": [asdict(row) for row in ROWS.values()],
        "calibration": calibration,
        "trials": [rounded(to_json(one)) for one in outcomes],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(versioned("noise-study", body)) + "\n", encoding="utf-8")
    temporary.replace(path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ",".join(f"{row.name}={row.trials}" for row in ROWS.values())
    parser.add_argument("--trials", default=default, help="how many of each row")
    parser.add_argument("--seconds", type=float, default=3.0, help="at most so long a trial")
    parser.add_argument("--calibrate", type=float, default=60.0, help="so long for each slowed pair; 0 for not at all")
    parser.add_argument("--fresh", type=int, default=20, help="trials after which the worker process is made anew")
    parser.add_argument("--core", type=int, help="where the trials run; the last core if not given")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deploykit-noise-study")
    parser.add_argument("--output", type=Path, default=RECORD)
    options = parser.parse_args()
    options.wanted = {name: int(count) for name, count in (one.split("=") for one in options.trials.split(","))}
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def main() -> int:
    options, say = parse(), Console(stderr=True, highlight=False)
    make_files(options.folder)
    affinity = (usable_cores()[-1] if options.core is None else options.core,)
    others = [core for core in usable_cores() if core not in affinity]
    if not others:
        say.print("one core alone: neither the judge nor the load has another one to run on")
        return 2
    outcomes, calibration = read(options.output)
    if not calibration and options.calibrate:
        calibration = calibrate(options, affinity, say)
    for name, wanted in options.wanted.items():
        row = ROWS[name]
        done = {one.index for one in outcomes if one.row == name}
        left = [index for index in range(wanted) if index not in done]
        for start in range(0, len(left), options.fresh):
            batch = left[start : start + options.fresh]
            first, second, _ = pair(row, batch[0], options.folder)
            with (
                Duel(Contender(first.name, first), Contender(second.name, second), 1, affinity) as duel,
                load(row, start, others[0]),
            ):
                for index in batch:
                    found = run_one(duel, row, index, options, affinity)
                    outcomes.append(found)
                    mark = "FALSE " if found.wrong else ""
                    ratio = f"{found.effect.ratio:.4f}" if found.effect else "-"
                    say.print(
                        f"{name} {index} {found.files}: {mark}{found.verdict}, B / A {ratio}, {found.rounds} rounds"
                    )
                    if index % SAVE_EVERY == SAVE_EVERY - 1:
                        write(options.output, outcomes, calibration, options)
            write(options.output, outcomes, calibration, options)
    write(options.output, outcomes, calibration, options)
    Console(width=160, highlight=False).print(table(outcomes))
    return 0 if all(reached(ROWS[name], [o for o in outcomes if o.row == name]) for name in options.wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
