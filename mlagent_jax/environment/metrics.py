"""Metrics that submissions are graded by, outside every sandbox.

Scores are scikit-learn's. What a prediction must be to count is part of a metric, so that a bad value is
refused with a reason instead of being clipped in silence; the one exception is log loss, as its entry says.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Scorer = Callable[[np.ndarray, np.ndarray], float]
LOG_LOSS_CLIP = 1e-15


class Prediction(enum.Enum):
    """What one predicted value must be."""

    NUMBER = "a finite number"
    NON_NEGATIVE = "a number of at least 0"
    PROBABILITY = "a probability from 0 to 1"
    CLASS = "one of the classes"


@dataclass(frozen=True)
class Metric:
    """One way to score predictions [n, t] against the truth [n, t], t target columns.

    best, worst: ends of the score's range. single_target: whether t must be 1. binary: truth is 0 or 1.
    """

    name: str
    prediction: Prediction
    best: float
    worst: float
    scorer: Scorer
    single_target: bool = False
    binary: bool = False

    @property
    def higher_is_better(self) -> bool:
        return self.best > self.worst

    def score(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        """The score, which can be infinite if predictions are absurdly large."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self.scorer(truth, predicted))


def _sklearn(name: str, **options: Any) -> Scorer:
    """Imports scikit-learn only when a score is asked for: it takes more than a second."""

    def scorer(truth: np.ndarray, predicted: np.ndarray) -> float:
        from sklearn import metrics

        return getattr(metrics, name)(truth, predicted, **options)

    return scorer


def _accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    return _sklearn("accuracy_score")(truth[:, 0], predicted[:, 0])


def _macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of F1 over the classes that occur in truth or predictions; F1 is 0 where it is undefined."""
    return _sklearn("f1_score", average="macro", zero_division=0.0)(truth[:, 0], predicted[:, 0])


def _auc(truth: np.ndarray, predicted: np.ndarray) -> float:
    return _sklearn("roc_auc_score")(truth[:, 0], predicted[:, 0])


def _log_loss(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean -log p(true class) in nats.

    One column: p(1) of a binary target. Several: one per class, truth one-hot, rows rescaled to sum to 1.
    Probabilities are clipped to [1e-15, 1 - 1e-15] first, so that the score is finite.
    """
    p = np.clip(predicted, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    if p.shape[1] == 1:
        of_truth = np.where(truth == 1, p, 1 - p)[:, 0]
    else:
        of_truth = (p / p.sum(axis=1, keepdims=True))[np.arange(len(p)), truth.argmax(axis=1)]
    return float(-np.log(of_truth).mean())


_INFINITY = float("inf")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", Prediction.CLASS, 1.0, 0.0, _accuracy, single_target=True),
        Metric("macro_f1", Prediction.CLASS, 1.0, 0.0, _macro_f1, single_target=True),
        Metric("auc", Prediction.NUMBER, 1.0, 0.0, _auc, single_target=True, binary=True),
        Metric("log_loss", Prediction.PROBABILITY, 0.0, _INFINITY, _log_loss, binary=True),
        Metric("mae", Prediction.NUMBER, 0.0, _INFINITY, _sklearn("mean_absolute_error")),
        Metric("rmse", Prediction.NUMBER, 0.0, _INFINITY, _sklearn("root_mean_squared_error")),
        Metric("rmsle", Prediction.NON_NEGATIVE, 0.0, _INFINITY, _sklearn("root_mean_squared_log_error")),
    )
}
"""By name. Errors over several target columns are means of the columns' errors, as in scikit-learn."""
