"""Grades a submission outside every sandbox, against labels that were never inside one.

Reading it is left to a process that has neither labels nor privileges; see `parsers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mlagent_jax.grading.labels import read_truth
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.grading.parsers import parse_apart
from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.grading.submissions import RefusedSubmission


@dataclass(frozen=True)
class Graded:
    """Scores of a valid submission: `public` is the reward's, `private` the evaluation's.

    also: the task's further metrics, name -> (public, private).
    """

    public: float
    private: float
    also: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Invalid:
    """Why a submission was not graded: one sentence, written for the agent that made it."""

    reason: str


def grade(spec: GradingSpec, submission: bytes | None) -> Graded | Invalid:
    """Scores the bytes of the submission (None if there is no such file) on both splits.

    A submission is a UTF-8 CSV with exactly the id column and the target columns, in any order, and one
    row for each id of the test data, in any order; or, for a task with a target array, an array as
    `numpy.save` writes it, in the order of the test data. Raises LabelsError;
    ParserUnavailableError where no process to read it in can be had.
    """
    truth = read_truth(spec)
    scores = _scores(spec, submission, {"public": truth.public, "private": truth.private})
    if isinstance(scores, Invalid):
        return scores
    also = {name: (scores[name, "public"], scores[name, "private"]) for name in spec.also_metrics}
    return Graded(scores[spec.metric, "public"], scores[spec.metric, "private"], also)


def grade_whole(spec: GradingSpec, submission: bytes | None) -> dict[str, float] | Invalid:
    """Each metric over all scored rows at once, as a competition without two boards would. As `grade`."""
    truth = read_truth(spec)
    scores = _scores(spec, submission, {"whole": truth.public | truth.private})
    return scores if isinstance(scores, Invalid) else {name: scores[name, "whole"] for name in spec.metrics}


def _scores(
    spec: GradingSpec, submission: bytes | None, splits: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], float] | Invalid:
    """(metric, split) -> score."""
    truth = read_truth(spec)
    try:
        predicted = parse_apart(spec, truth, submission)
    except RefusedSubmission as refused:
        return Invalid(str(refused))
    scores = {
        (name, split): METRICS[name].score(truth.values[rows], predicted[rows])
        for name in spec.metrics
        for split, rows in splits.items()
    }
    for (name, _), score in scores.items():
        if not math.isfinite(score):
            return Invalid(f"{spec.submission} has predictions so large that its {name} is not finite.")
    return scores
