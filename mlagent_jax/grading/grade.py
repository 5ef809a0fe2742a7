"""Grades submissions outside every sandbox, against labels that were never inside one.

A process with neither labels nor privileges parses the submission; see `parsers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from mlagent_jax.grading.labels import read_truth
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.grading.parsers import parse_isolated
from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.grading.submissions import RefusedSubmission


@dataclass(frozen=True)
class Graded:
    """The scores of a valid submission. `public` is used for the reward, `private` for evaluation.

    also: the task's further metrics, name -> (public, private).
    """

    public: float
    private: float
    also: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Invalid:
    """Why a submission was not graded, in one sentence for the agent that wrote it."""

    reason: str


def grade(spec: GradingSpec, submission: bytes | None) -> Graded | Invalid:
    """Scores a submission on both splits.

    A submission is a UTF-8 CSV file with the id column and the target columns, and one row per id of the test data.
    Both columns and rows may be in any order. If the task has a target array, the submission is an array written by
    `numpy.save`, in the order of the test data.

    Args:
        submission: the content of the file; None if the script wrote none.

    Raises:
        LabelsError: the held-out labels cannot be used.
        ParserUnavailableError: no process to parse the submission can be started.
    """
    truth = read_truth(spec)
    scores = _scores(spec, submission, {"public": truth.public, "private": truth.private})
    if isinstance(scores, Invalid):
        return scores
    also = {name: (scores[name, "public"], scores[name, "private"]) for name in spec.also_metrics}
    return Graded(scores[spec.metric, "public"], scores[spec.metric, "private"], also)


def grade_whole(spec: GradingSpec, submission: bytes | None) -> dict[str, float] | Invalid:
    """Scores a submission on public and private rows together. Returns metric name -> score; raises as `grade`."""
    truth = read_truth(spec)
    scores = _scores(spec, submission, {"whole": truth.public | truth.private})
    return scores if isinstance(scores, Invalid) else {name: scores[name, "whole"] for name in spec.metrics}


def _scores(
    spec: GradingSpec, submission: bytes | None, splits: Mapping[str, Bool[np.ndarray, " n"]]
) -> dict[tuple[str, str], float] | Invalid:
    """The scores by (metric, split). splits: name -> the rows that belong to it."""
    truth = read_truth(spec)
    try:
        predicted = parse_isolated(spec, truth, submission)
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
