"""How far a public score would move if other test rows had been drawn."""

from __future__ import annotations

import numpy as np

from mlagent_jax.errors import UserError
from mlagent_jax.grading.labels import read_truth
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.grading.parsers import parse_isolated
from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.grading.submissions import RefusedSubmission

_RESAMPLES = 200


def public_standard_error(spec: GradingSpec, submission: bytes | None) -> float:
    """One standard error of a submission's public score, by a bootstrap over the public rows (Efron 1979).

    Draws for which the metric is not finite, such as those of a single class, are left out.
    Raises UserError for a submission that is refused, and LabelsError and ParserUnavailableError as `grade` does.
    """
    truth, metric = read_truth(spec), METRICS[spec.metric]
    try:
        predicted = parse_isolated(spec, truth, submission)
    except RefusedSubmission as refused:
        raise UserError(f"there is no standard error of a refused submission: {refused}") from refused
    rows = np.flatnonzero(truth.public)
    rng = np.random.default_rng(0)
    draws = (rng.choice(rows, len(rows)) for _ in range(_RESAMPLES))
    scores = [metric.score(truth.values[drawn], predicted[drawn]) for drawn in draws]
    return float(np.std([score for score in scores if np.isfinite(score)], ddof=1))
