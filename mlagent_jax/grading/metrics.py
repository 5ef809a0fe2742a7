"""The metrics that submissions are graded by, outside every sandbox.

Scores come from scikit-learn and scipy where these have the metric. Each metric says which predictions are valid, so
that a bad value is refused with a reason instead of being clipped silently. Its `treatment` says what is clipped, how
ties count, and what an undefined score becomes.
"""

from __future__ import annotations

import enum
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

Values = Shaped[np.ndarray, "n t"]
"""n rows of t target columns, or of t values in one row of a target array: float, or str for classes and rankings."""
Scorer = Callable[[Values, Values], float]
MAX_RANKED = 5
SUM_TOLERANCE = 1.1e-5  # MLE-bench's: numpy.isclose to 1 with atol 1e-6 and its default rtol 1e-5
GREY_PEAK = 255.0
PSNR_CAP = 100.0  # decibels


class Prediction(enum.Enum):
    """What one predicted value must be. The texts are shown to agents."""

    NUMBER = "a finite number"
    NON_NEGATIVE = "a number of at least 0"
    PROBABILITY = "a probability from 0 to 1"
    WHOLE = "a whole number"
    GREY = "a grey level from 0 to 255"
    CLASS = "one of the classes"
    RANKING = "one to five labels with spaces between them, the likeliest first"

    @property
    def is_text(self) -> bool:
        return self in (Prediction.CLASS, Prediction.RANKING)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value allowed."""
        return _BOUNDS.get(self, (-math.inf, math.inf))


_BOUNDS = {
    Prediction.NON_NEGATIVE: (0.0, math.inf),
    Prediction.PROBABILITY: (0.0, 1.0),
    Prediction.GREY: (0.0, GREY_PEAK),
}


class TrueValues(enum.Enum):
    """What the labels of each split must be for a metric to be defined."""

    ANY = "any"
    NON_NEGATIVE = "at least 0"
    BINARY = "0 or 1"
    BOTH_CLASSES = "0 and 1, both in every target column"
    VARIED = "not all the same"
    WHOLE_VARIED = "whole numbers, not all the same"
    GREY = "grey levels from 0 to 255"


class Targets(enum.Enum):
    """What a metric scores: one or more target columns, or the images or series of a target array."""

    COLUMN = "one target column"
    COLUMNS = "target columns"
    COLUMN_OR_ARRAY = "one target column or a target array"
    ARRAY = "a target array"

    @property
    def takes_array(self) -> bool:
        return self in (Targets.ARRAY, Targets.COLUMN_OR_ARRAY)


@dataclass(frozen=True)
class Metric:
    """One way to score predictions against labels.

    best, worst: the ends of the score's range. treatment: how clipping, ties and undefined scores are handled.
    """

    name: str
    prediction: Prediction
    truth: TrueValues
    targets: Targets
    best: float
    worst: float
    scorer: Scorer
    treatment: str

    @property
    def higher_is_better(self) -> bool:
        return self.best > self.worst

    def needs_row_sums(self, targets: int) -> bool:
        """Whether the values of a row are the probabilities of all classes, and so must sum to 1."""
        return self.name == "log_loss" and targets > 1

    @property
    def direction(self) -> str:
        """The direction in words: "higher is better" or "lower is better"."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    def is_better(self, score: float, other: float) -> bool:
        """Whether `score` is strictly better than `other`."""
        return score > other if self.higher_is_better else score < other

    def score(self, truth: Values, predicted: Values) -> float:
        """The score, in the metric's unit. It is infinite or NaN where predictions are so large that it overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self.scorer(truth, predicted))


def _sklearn(name: str, **options: Any) -> Scorer:
    """A scorer of `sklearn.metrics`, imported only when it is first called: the import takes over a second."""

    def scorer(truth: Shaped[np.ndarray, " n *t"], predicted: Shaped[np.ndarray, " n *p"]) -> float:
        from sklearn import metrics

        return getattr(metrics, name)(truth, predicted, **options)

    return scorer


def _single_column(scorer: Callable[[Any, Any], float]) -> Scorer:
    """A scorer by a function that takes arrays of shape [n]."""
    return lambda truth, predicted: scorer(truth[:, 0], predicted[:, 0])


def _flattened(scorer: Scorer) -> Scorer:
    """A scorer over all values together: it passes [n, t] as [n * t, 1]."""
    return lambda truth, predicted: scorer(truth.reshape(-1, 1), predicted.reshape(-1, 1))


def _binary_accuracy(truth: Values, predicted: Values) -> float:
    return float(np.mean((predicted[:, 0] > 0.5) == truth[:, 0]))


def _log_loss(truth: Values, predicted: Values) -> float:
    """The log loss. One column holds the probability of 1; several hold one per class, with one-hot labels."""
    if predicted.shape[1] == 1:
        return _sklearn("log_loss", labels=[0.0, 1.0])(truth[:, 0], predicted[:, 0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The y_\w+ values do not sum to one")
        classes = range(predicted.shape[1])
        return _sklearn("log_loss", labels=classes)(truth.argmax(axis=1), predicted)


def _map_at_5(truth: Values, predicted: Values) -> float:
    """The mean average precision: with one true label per row, the inverse of the label's first rank, or 0."""
    ranks = (
        next((rank for rank, label in enumerate(labels.split()[:MAX_RANKED], 1) if label == true), None)
        for true, labels in zip(truth[:, 0], predicted[:, 0], strict=True)
    )
    return sum(1 / rank for rank in ranks if rank) / len(truth)


def _correlation(name: str) -> Scorer:
    """A correlation of `scipy.stats`; 0 for constant predictions, where it is undefined."""

    def scorer(truth: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"]) -> float:
        from scipy import stats

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            found = float(getattr(stats, name)(truth, predicted).statistic)
        constant = bool(np.all(predicted == predicted[0]))
        return 0.0 if constant else found

    return scorer


def _psnr(truth: Values, predicted: Values) -> float:
    """The mean over rows of 10 log10(peak^2 / mean squared error), in decibels, each capped at PSNR_CAP."""
    squared = np.mean((truth - predicted) ** 2, axis=1)
    smallest = GREY_PEAK**2 / 10 ** (PSNR_CAP / 10)
    return float(np.mean(10 * np.log10(GREY_PEAK**2 / np.maximum(squared, smallest))))


_INFINITY = math.inf
_UNDEFINED_IS_ZERO = "a constant submission, whose correlation is undefined, scores 0"
_TIES_AS_HALF = "ties between a 0 and a 1 count one half"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            Prediction.CLASS,
            TrueValues.ANY,
            Targets.COLUMN,
            1.0,
            0.0,
            _single_column(_sklearn("accuracy_score")),
            "share of rows with the very class; nothing is clipped",
        ),
        Metric(
            "binary_accuracy",
            Prediction.PROBABILITY,
            TrueValues.BINARY,
            Targets.COLUMN,
            1.0,
            0.0,
            _binary_accuracy,
            "a probability above 0.5 says 1, one of exactly 0.5 says 0",
        ),
        Metric(
            "macro_f1",
            Prediction.CLASS,
            TrueValues.ANY,
            Targets.COLUMN,
            1.0,
            0.0,
            _single_column(_sklearn("f1_score", average="macro", zero_division=0.0)),
            "mean over the classes that occur in truth or predictions; F1 is 0 where it is undefined",
        ),
        Metric(
            "auc",
            Prediction.NUMBER,
            TrueValues.BOTH_CLASSES,
            Targets.COLUMN,
            1.0,
            0.0,
            _single_column(_sklearn("roc_auc_score")),
            f"any number ranks, not only probabilities; {_TIES_AS_HALF}",
        ),
        Metric(
            "mean_column_auc",
            Prediction.NUMBER,
            TrueValues.BOTH_CLASSES,
            Targets.COLUMNS,
            1.0,
            0.0,
            _sklearn("roc_auc_score", average="macro"),
            f"unweighted mean of the columns' AUC; {_TIES_AS_HALF}",
        ),
        Metric(
            "log_loss",
            Prediction.PROBABILITY,
            TrueValues.BINARY,
            Targets.COLUMNS,
            0.0,
            _INFINITY,
            _log_loss,
            "nats; probabilities are clipped to [eps, 1 - eps], eps = 2.2e-16; with a column per class a row"
            " must sum to 1 (within 1.1e-5) and is not rescaled",
        ),
        Metric(
            "mae",
            Prediction.NUMBER,
            TrueValues.ANY,
            Targets.COLUMN_OR_ARRAY,
            0.0,
            _INFINITY,
            _flattened(_sklearn("mean_absolute_error")),
            "nothing is clipped; of an array, the mean over all its values",
        ),
        Metric(
            "rmse",
            Prediction.NUMBER,
            TrueValues.ANY,
            Targets.COLUMN_OR_ARRAY,
            0.0,
            _INFINITY,
            _flattened(_sklearn("root_mean_squared_error")),
            "nothing is clipped; of an array, the root of the mean over all its values",
        ),
        Metric(
            "mcrmse",
            Prediction.NUMBER,
            TrueValues.ANY,
            Targets.COLUMNS,
            0.0,
            _INFINITY,
            _sklearn("root_mean_squared_error"),
            "unweighted mean of the columns' RMSE; nothing is clipped",
        ),
        Metric(
            "rmsle",
            Prediction.NON_NEGATIVE,
            TrueValues.NON_NEGATIVE,
            Targets.COLUMN,
            0.0,
            _INFINITY,
            _single_column(_sklearn("root_mean_squared_log_error")),
            "of log(1 + y); predictions below 0 are refused, not clipped",
        ),
        Metric(
            "mean_column_rmsle",
            Prediction.NON_NEGATIVE,
            TrueValues.NON_NEGATIVE,
            Targets.COLUMNS,
            0.0,
            _INFINITY,
            _sklearn("root_mean_squared_log_error"),
            "unweighted mean of the columns' RMSLE; predictions below 0 are refused, not clipped",
        ),
        Metric(
            "map_at_5",
            Prediction.RANKING,
            TrueValues.ANY,
            Targets.COLUMN,
            1.0,
            0.0,
            _map_at_5,
            "mean of 1 / rank of the true label; a sixth label and further ones, and repetitions, are ignored"
            " (a repetition keeps its rank)",
        ),
        Metric(
            "qwk",
            Prediction.WHOLE,
            TrueValues.WHOLE_VARIED,
            Targets.COLUMN,
            1.0,
            -1.0,
            _single_column(_sklearn("cohen_kappa_score", weights="quadratic")),
            "Cohen's kappa, squared distances between the places of two ratings among all that occur in truth"
            " or predictions; fractions are refused, not rounded",
        ),
        Metric(
            "pearson",
            Prediction.NUMBER,
            TrueValues.VARIED,
            Targets.COLUMN,
            1.0,
            -1.0,
            _single_column(_correlation("pearsonr")),
            _UNDEFINED_IS_ZERO,
        ),
        Metric(
            "spearman",
            Prediction.NUMBER,
            TrueValues.VARIED,
            Targets.COLUMN,
            1.0,
            -1.0,
            _single_column(_correlation("spearmanr")),
            f"ties share their mean rank; {_UNDEFINED_IS_ZERO}",
        ),
        Metric(
            "psnr",
            Prediction.GREY,
            TrueValues.GREY,
            Targets.ARRAY,
            PSNR_CAP,
            0.0,
            _psnr,
            "decibels against a peak of 255, mean over images; an image's own is capped at 100",
        ),
    )
}
"""All metrics by name."""
