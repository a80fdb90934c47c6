"""Keeps one core busy in stretches of 0.1 to 2 s, with pauses as long, until it is ended.

A stretch is either arithmetic or copying of memory, by chance. Run: python benchmarks/competing_load.py CORE SEED
"""

from __future__ import annotations

import math
import os
import random
import sys
import time

# Read once, at the import of what brings its own threads.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import psutil

SHORTEST_S, LONGEST_S = 0.1, 2.0


def stretch(chance: random.Random) -> float:
    return math.exp(chance.uniform(math.log(SHORTEST_S), math.log(LONGEST_S)))


def main(core: int, seed: int) -> None:
    psutil.Process().cpu_affinity([core])
    chance = random.Random(seed)
    square, wide = np.ones((256, 256), np.float32), np.ones(16_000_000, np.float32)
    half = wide.size // 2
    while True:
        time.sleep(stretch(chance))
        until, copying = time.perf_counter() + stretch(chance), chance.random() < 0.5
        while time.perf_counter() < until:
            if copying:
                wide[:half] = wide[half:]
            else:
                np.dot(square, square)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
