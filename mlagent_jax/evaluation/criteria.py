"""What an experiment is to show, as comparisons over seeds that are named before it is run, and whether it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.bootstrap import student_mean
from mlagent_jax.evaluation.tables import SPLIT_TITLES, agent_title
from mlagent_jax.jsonl import Record

LEVEL = 0.05
VALUE = "normalised_gain"
_NORMAL = 1.959964  # half the width of a 95% interval, in standard errors


@dataclass(frozen=True)
class Criterion:
    """The agent's mean normalised gain on a split is above `thirds` thirds of the baseline's, less `margin`."""

    split: str
    agent: str
    baseline: str
    thirds: int = 3
    margin: float = 0.0

    def __str__(self) -> str:
        agent, baseline = agent_title(self.agent), agent_title(self.baseline)
        relation = f"above {baseline}"
        if self.margin:
            relation = f"level with {baseline}, less {100 * self.margin:g} points at most"
        if self.thirds == 2:
            relation = f"keeps two thirds of {baseline}"
        return f"{SPLIT_TITLES[self.split].lower()}: {agent} {relation}"


@dataclass(frozen=True)
class Gain:
    """An agent's mean gain on a split. runs: one for each seed, or a single one if no seed matters to the agent.

    error: the standard error of that single one over its episodes; over runs it is in their spread.
    """

    runs: tuple[float, ...]
    error: float = 0.0

    @property
    def interval(self) -> Record:
        """mean, low and high: over the runs, or of a single one over its episodes, None where that is unknown."""
        if len(self.runs) > 1:
            found = student_mean(self.runs)
            return {"mean": found.mean, "low": found.low, "high": found.high}
        (mean,) = self.runs
        margin = _NORMAL * self.error
        bounds = (mean - margin, mean + margin) if margin else (None, None)
        return {"mean": mean, "low": bounds[0], "high": bounds[1]}


def gain_of(agent: str, split: str, scores: Sequence[Mapping[str, Any]], value: str = VALUE) -> Gain | None:
    """From the `scores.json` of each seed; None if a seed has no such mean.

    An agent with the same mean in several seeds was evaluated once for all of them.
    """
    found = []
    for each in scores:
        row = next((row for row in each["means"] if (row["agent"], row["split"]) == (agent, split)), None)
        if row is None or row[value] is None:
            return None
        found.append(row[value])
    means = tuple(interval["mean"] for interval in found)
    if len(set(means)) > 1:
        return Gain(means)
    low, high = found[0]["low"], found[0]["high"]
    return Gain(means[:1], 0.0 if low is None else (high - low) / (2 * _NORMAL))


def judge(criteria: Sequence[Criterion], scores: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Each criterion with its contrast (agent - thirds/3 baseline + margin), its 95% interval, p and verdict.

    scores: the `scores.json` of each seed. The test is Welch's over the seeds, one-sided; an agent that was evaluated
    once brings its standard error over episodes. "p" is adjusted by Holm's method over the criteria that could be
    tested. "verdict" is "met", "not met", or why there is none. Raises UserError if there are no scores.
    """
    if not scores:
        raise UserError("criteria are judged over seeds, but there are no scores of any")
    rows = [_contrast(criterion, scores) for criterion in criteria]
    tested = [row for row in rows if row["p"] is not None]
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row |= {"p": adjusted, "verdict": "met" if adjusted < LEVEL else "not met"}
    return rows


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for testing them all (Holm 1979), in the order given."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def _contrast(criterion: Criterion, scores: Sequence[Mapping[str, Any]]) -> Record:
    row: Record = {"criterion": str(criterion), "interval": None, "p": None}
    agent = gain_of(criterion.agent, criterion.split, scores)
    baseline = gain_of(criterion.baseline, criterion.split, scores)
    missing = [
        agent_title(name)
        for name, gain in ((criterion.agent, agent), (criterion.baseline, baseline))
        if gain is None
    ]
    if agent is None or baseline is None:
        return row | {"verdict": f"{' and '.join(missing)} not evaluated"}
    share = criterion.thirds / 3
    # Agents trained from one seed share their expert's episodes, so they are compared seed by seed.
    seeds = max(len(agent.runs), len(baseline.runs))
    ours, theirs = (np.broadcast_to(np.array(gain.runs), seeds) for gain in (agent, baseline))
    contrasts = ours - share * theirs + criterion.margin
    mean = float(contrasts.mean())
    if seeds < 2:
        return row | {"interval": {"mean": mean, "low": None, "high": None}, "verdict": "too few seeds"}
    once = math.hypot(agent.error, share * baseline.error)
    return row | _t_test(contrasts.tolist(), once)


def _t_test(contrasts: Sequence[float], error_of_once: float) -> Record:
    """Mean, interval and one-sided p, with Welch and Satterthwaite's degrees of freedom."""
    from scipy import stats  # takes 0.5 s to import

    n, mean = len(contrasts), float(np.mean(contrasts))
    over_seeds = float(np.var(contrasts, ddof=1)) / n
    variance = over_seeds + error_of_once**2
    if variance == 0:
        return {"interval": {"mean": mean, "low": mean, "high": mean}, "p": 0.0 if mean > 0 else 1.0}
    # Only the spread over the seeds is estimated from few values.
    freedom = variance**2 / (over_seeds**2 / (n - 1)) if over_seeds else math.inf
    error = math.sqrt(variance)
    margin = float(stats.t.ppf(0.975, freedom)) * error
    return {
        "interval": {"mean": mean, "low": mean - margin, "high": mean + margin},
        "p": float(stats.t.sf(mean / error, freedom)),
    }
