"""Confidence intervals over episodes: a bootstrap stratified by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERS = (
    "Percentile bootstrap over episodes, resampled within each task. It covers the randomness of these agents' "
    "episodes. It does not cover other tasks, other data splits or another training seed, and its width is zero if all "
    "episodes of an agent have the same score."
)


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; `low` and `high` are None if there are too few values for one."""

    mean: float
    low: float | None = None
    high: float | None = None


def stratified_mean(
    strata: Sequence[Sequence[float] | NDArray[np.floating]],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Unweighted mean of the strata's means, with a percentile bootstrap interval.

    strata: one (n_t,) array of episode values for each task. Each resample draws n_t - 1 of a task's n_t episodes with
        replacement, so that the bootstrap variance is that of the unbiased estimator (Rao and Wu 1988); drawing n_t
        would make intervals of eight episodes 6% too narrow.
    There are no bounds if a stratum has only one episode. Raises ValueError for no strata, an empty stratum, or a value
    that is not finite.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in strata]
    if not arrays or any(values.size == 0 for values in arrays):
        raise ValueError("an interval needs at least one task, and at least one episode of each task")
    if not all(np.isfinite(values).all() for values in arrays):
        raise ValueError("an interval needs finite values, but some are nan or infinite")
    mean = float(np.mean([values.mean() for values in arrays]))
    if any(values.size < 2 for values in arrays):
        return Interval(mean)
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for values in arrays:
        drawn = rng.integers(values.size, size=(resamples, values.size - 1))
        means += values[drawn].mean(axis=1) / len(arrays)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(mean, float(low), float(high))


def student_mean(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean of independent training runs with Student's t interval, which stays valid (wide) for few runs.

    values: one number for each run, (n,). There are no bounds for a single run. Raises ValueError for none.
    """
    if not values:
        raise ValueError("a mean over runs needs at least one run")
    runs = np.asarray(values, dtype=np.float64)
    mean = float(runs.mean())
    if runs.size < 2:
        return Interval(mean)
    from scipy import stats  # takes 0.5 s to import, and a single run does not need it

    error = float(runs.std(ddof=1) / np.sqrt(runs.size))
    margin = float(stats.t.ppf(0.5 + confidence / 2.0, runs.size - 1)) * error
    return Interval(mean, mean - margin, mean + margin)
