"""Who is faster, from times taken in turn: log-ratios of neighbours, a bootstrap over sessions and blocks, a verdict.

Samples are seconds [round, block, triple, contender]: in a triple A, B and A once more (the control, in a session of
its own) run one after the other, in a round all three have sessions of their own, made anew. Of each triple come

* the effect, ``log b - (log a + log c) / 2``, and
* the control, ``log c - log a``, which would be zero but for noise.

With equal noise the two are uncorrelated, and whatever moves B's session moves the control's likewise: the second tells
what the first would show if nothing were different. A block gives the median of its triples, a round the mean of its
blocks, which run in opposite orders, and the figure is the trimmed mean of the rounds. Its standard error comes from
the hierarchical bootstrap, which draws rounds and then blocks of each; the interval is that of Tukey and McLaughlin
(1963) for a trimmed mean, Student's t with the degrees of freedom of what is left after trimming.

A verdict needs the whole interval beyond the margin and beyond the control's 95 % interval. Looking early and often
would find differences in noise, so that the error allowed is spent over the looks as the cube of the time that has
passed (Kim and DeMets 1987), almost all of it at the last one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from deploykit.comparison_records import Estimate, Judgement, Round, Verdict
from deploykit.latency.schedule import CONTROL, A, B
from deploykit.latency_records import AWAY_COUNTS

MARGIN = 0.02
# Both tails, over all looks.
ERROR = 0.02
LOOKS = (0.125, 0.25, 0.5, 1.0)
# The control raises the threshold and never gives a verdict: at the level of the verdict it would only cost power.
FLOOR_LEVEL = 0.95
RESAMPLES = 1000
TRIMMED = 0.1
# With fewer sessions their spread is not known.
MIN_ROUNDS = 6
POWER = 0.8
_SPENDING = 3

Values = NDArray[np.float64]


def level_of_look(look: int, error: float = ERROR) -> float:
    """Return the confidence of the intervals at a look, counted from 0; the errors of all add up to ``error``."""
    before = LOOKS[look - 1] if look else 0.0
    return 1.0 - error * (LOOKS[look] ** _SPENDING - before**_SPENDING)


def as_samples(rounds: Sequence[Round]) -> Values:
    """Return the samples of ``rounds`` as an array of seconds [round, block, triple, contender].

    What the system gave to another process in the middle of a run is taken off: it says nothing of A or B, and on a
    busy core it is most of the noise.
    """
    samples = np.array([one.samples_s for one in rounds], dtype=np.float64)
    away = np.array([one.away_s for one in rounds], dtype=np.float64)
    return samples - away if away.size else samples


def preempted(rounds: Sequence[Round]) -> float:
    """Return the part of the samples during which another process got the core for a time that counts."""
    samples = np.array([one.samples_s for one in rounds], dtype=np.float64)
    away = np.array([one.away_s for one in rounds], dtype=np.float64)
    return float((away > AWAY_COUNTS * samples).mean()) if away.size else 0.0


def effect_of(samples: Values) -> Values:
    """Return log-ratios of B to A [round, block, triple]."""
    logs = np.log(samples)
    return np.asarray(logs[..., B] - (logs[..., A] + logs[..., CONTROL]) / 2)


def control_of(samples: Values) -> Values:
    """Return log-ratios of A's second session to its first [round, block, triple]."""
    return np.asarray(np.log(samples[..., CONTROL]) - np.log(samples[..., A]))


def estimate(ratios: Values, level: float, seed: int) -> tuple[float, float, float]:
    """Return location, standard error and half width of the interval at ``level`` of log-ratios [round, block, triple].

    At least ``MIN_ROUNDS`` rounds are needed.
    """
    blocks = np.median(ratios, axis=-1)
    rounds, per_round = blocks.shape
    location = float(stats.trim_mean(blocks.mean(axis=1), TRIMMED))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(rounds, size=(RESAMPLES, rounds, 1))
    inside = rng.integers(per_round, size=(RESAMPLES, rounds, per_round))
    resampled = stats.trim_mean(blocks[drawn, inside].mean(axis=2), TRIMMED, axis=1)
    # Drawing n of n loses a part of the variance that only few sessions make felt.
    error = float(np.std(resampled) * math.sqrt(rounds / (rounds - 1)))
    left = rounds - 2 * int(TRIMMED * rounds)
    half_width = float(stats.t.ppf((1 + level) / 2, left - 1)) * error
    return location, error, half_width


def judge(
    samples: Values, *, margin: float = MARGIN, look: int = len(LOOKS) - 1, seed: int = 0, error: float = ERROR
) -> Judgement:
    """Return the verdict on B from ``samples`` in seconds [round, block, triple, contender], at one of the looks.

    ``error`` is that of all looks together, of both tails.
    """
    rounds = len(samples)
    if rounds < MIN_ROUNDS:
        reason = f"only {rounds} rounds of new sessions fitted into the time, and {MIN_ROUNDS} are needed"
        return Judgement(Verdict.INCONCLUSIVE, reason, margin, rounds)
    level = level_of_look(look, error)
    middle, deviation, half = estimate(effect_of(samples), level, seed)
    control, _, control_half = estimate(control_of(samples), FLOOR_LEVEL, seed)
    limit, floor = math.log1p(margin), abs(control) + control_half
    threshold = max(limit, floor)
    verdict, reason = _verdict(middle - half, middle + half, limit, floor)
    return Judgement(
        verdict=verdict,
        reason=reason,
        margin=margin,
        rounds=rounds,
        level=level,
        effect=_estimate(middle, half),
        control=_estimate(control, control_half),
        noise_floor=math.expm1(floor),
        threshold=math.expm1(threshold),
        smallest_effect=math.expm1(threshold + half + float(stats.norm.ppf(POWER)) * deviation),
    )


def _verdict(low: float, high: float, limit: float, floor: float) -> tuple[Verdict, str]:
    threshold = max(limit, floor)
    if low > threshold:
        return Verdict.SLOWER, "the whole interval is above margin and noise floor"
    if high < -threshold:
        return Verdict.FASTER, "the whole interval is below margin and noise floor"
    if -limit < low and high < limit:
        if floor <= limit:
            return Verdict.SAME, "the whole interval is within the margin"
        return Verdict.INCONCLUSIVE, "the noise floor is above the margin"
    if low > limit or high < -limit:
        return Verdict.INCONCLUSIVE, "the interval is beyond the margin, but not beyond the noise floor"
    return Verdict.INCONCLUSIVE, "the interval is too wide for the margin"


def _estimate(middle: float, half: float) -> Estimate:
    return Estimate(math.exp(middle), math.exp(middle - half), math.exp(middle + half))
