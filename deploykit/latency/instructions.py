"""Instructions of one inference, counted by valgrind's callgrind: the same on a busy machine as on an idle one.

A run of N inferences and one of 2 N are counted, each in a process of its own; the difference over N has no start-up,
no loading and no first inference in it. valgrind 3.19 and older know no AVX-512: it hides it from the program, and the
runtimes take the kernels that they would take on a processor with AVX2.
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

RUNS = 3
COUNTED = (Target.ONNX, Target.TFLITE)
NOT_AVX512 = "instructions are those of the kernels that the runtime takes under valgrind, which hides AVX-512 from it"
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


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
    totals = []
    for runs in (RUNS, 2 * RUNS):
        say(f"counting instructions of {subject.name}: {runs} inferences")
        totals.append(_count(subject, inputs, runs))
    return round((totals[1] - totals[0]) / RUNS)


def _count(subject: Subject, inputs: Path, runs: int) -> int:
    with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
        counts = Path(folder) / "callgrind.out"
        done = subprocess.run(
            [
                require_valgrind(),
                "--tool=callgrind",
                f"--callgrind-out-file={counts}",
                sys.executable,
                "-W",
                "ignore",
                counted.__file__,
                json.dumps(_plan(subject, inputs, runs)),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        text = counts.read_text("utf-8", "replace") if counts.is_file() else ""
    total = _TOTAL.search(text)
    if done.returncode or total is None:
        last = [line for line in done.stderr.strip().splitlines() if not line.startswith("==")][-1:]
        raise ArtifactError(
            "The file does not run under valgrind.",
            where=str(subject.path),
            found=" ".join([f"exit code {done.returncode}", *last])[:400],
            expected="a file that runs as it does without it",
            next_step="leave --instructions out",
        )
    return int(total[1])


def _plan(subject: Subject, inputs: Path, runs: int) -> dict[str, object]:
    options: dict[str, str] = {}
    if subject.target is Target.ONNX:
        from deploykit.targets.onnx.runtime import integer_options

        options = integer_options(subject.path)
    return {
        "target": subject.target.value,
        "path": str(subject.path.resolve()),
        "inputs": str(inputs),
        "runs": runs,
        "options": options,
    }
