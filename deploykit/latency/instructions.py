"""Instructions of one inference, counted by valgrind's callgrind: the same on a busy machine as on an idle one.

The program that runs marks where counting begins and ends (``counted.py``), so that start-up, loading and the first
inferences are in no count. Two counts have to agree. valgrind 3.19 knows no AVX-512: it hides it from the program, and
the runtimes take the kernels that they would take on a processor with AVX2.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from deploykit.errors import ArtifactError, TargetError
from deploykit.latency import counted
from deploykit.latency.subjects import Subject
from deploykit.vocab import Target

RUNS = 6
# Counts of one file differ by about one per cent; more says that something else was counted.
AGREE = 0.05
COUNTED = (Target.ONNX, Target.TFLITE)
NOT_AVX512 = "instructions are those of the kernels that the runtime takes under valgrind, which hides AVX-512 from it"
_TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)
# What time.sleep calls, with any version of its symbol.
_MARK = "clock_nanosleep*"


def require_valgrind() -> str:
    """Return the path of valgrind. Raises TargetError where there is none."""
    found = shutil.which("valgrind")
    if found is None:
        raise TargetError(
            "Instructions cannot be counted: valgrind is missing.",
            where="--instructions",
            found="no valgrind on the PATH",
            expected="valgrind, which runs on Linux",
            next_step="apt-get install valgrind, or leave --instructions out",
        )
    return found


def count_instructions(subject: Subject, inputs: Path, say: Callable[[str], None]) -> int | None:
    """Return the instructions of one inference of ``subject`` on the arrays in the .npz file ``inputs``, on one thread.

    None where its runtime cannot be run alone. Raises ArtifactError where it does not run under valgrind.
    """
    if subject.target not in COUNTED:
        return None
    say(f"counting instructions of {subject.name} under valgrind, which takes a minute or more")
    first, second = _counts(subject, inputs)
    if abs(first - second) > AGREE * max(first, second):
        raise ArtifactError(
            "Instructions cannot be counted: two counts of the same inferences differ.",
            where=str(subject.path),
            found=f"{first // RUNS} and {second // RUNS} an inference",
            expected=f"a difference of at most {AGREE:.0%}",
            next_step="leave --instructions out",
        )
    # What happens once more than it has to is in one of them alone.
    return round(min(first, second) / RUNS)


def _counts(subject: Subject, inputs: Path) -> tuple[int, int]:
    """Return the instructions of ``RUNS`` inferences, counted twice."""
    with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
        done = subprocess.run(
            [
                require_valgrind(),
                "--tool=callgrind",
                # Its pipes for a debugger would stay behind where it is ended.
                "--vgdb=no",
                f"--dump-before={_MARK}",
                f"--callgrind-out-file={folder}/count",
                sys.executable,
                "-W",
                "ignore",
                counted.__file__,
                json.dumps(_plan(subject, inputs)),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        written = sorted(Path(folder).glob("count.*"), key=lambda path: int(path.suffix[1:]))[-2:]
        totals = [_TOTAL.search(path.read_text("utf-8", "replace")) for path in written]
    found = [int(total[1]) for total in totals if total is not None]
    if done.returncode or len(found) < 2:
        last = [line for line in done.stderr.strip().splitlines() if not line.startswith("==")][-1:]
        raise ArtifactError(
            "The file does not run under valgrind.",
            where=str(subject.path),
            found=" ".join([f"exit code {done.returncode}", *last])[:400],
            expected="a file that runs as it does without it",
            next_step="leave --instructions out",
        )
    return found[0], found[1]


def _plan(subject: Subject, inputs: Path) -> dict[str, object]:
    options: dict[str, str] = {}
    if subject.target is Target.ONNX:
        from deploykit.targets.onnx.runtime import integer_options

        options = integer_options(subject.path)
    return {
        "target": subject.target.value,
        "path": str(subject.path.resolve()),
        "inputs": str(inputs),
        "runs": RUNS,
        "options": options,
    }
