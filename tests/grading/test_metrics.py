"""Metrics against scikit-learn and scipy called directly, and against values worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mlagent_jax.grading.metrics import METRICS, Prediction, Targets, TrueValues


def column(*values):
    return np.array(values)[:, None]


def one_hot(rows, classes):
    return np.eye(classes)[rows]


HAND = [
    # metric, truth, predicted, score
    ("accuracy", column("a", "b", "a", "b"), column("a", "b", "b", "b"), 3 / 4),
    # Exactly 0.5 counts as 0.
    ("binary_accuracy", column(1.0, 0.0, 1.0, 0.0), column(0.51, 0.5, 0.5, 0.9), 2 / 4),
    # a: precision 1, recall 1/2, F1 2/3; b: precision 2/3, recall 1, F1 4/5.
    ("macro_f1", column("a", "b", "a", "b"), column("a", "b", "b", "b"), (2 / 3 + 4 / 5) / 2),
    # c is predicted but never true: its F1 of 0 counts.
    ("macro_f1", column("a", "b"), column("a", "c"), 1 / 3),
    # 4 pairs of a 1 and a 0: 2 in order, 1 tied.
    ("auc", column(1.0, 0.0, 1.0, 0.0), column(0.9, 0.5, 0.5, 0.6), (1 + 1 + 0.5 + 0) / 4),
    # Columns with AUC 1 and 1/2.
    (
        "mean_column_auc",
        np.array([[1.0, 1.0], [0.0, 0.0]]),
        np.array([[9.0, 0.3], [-2.0, 0.3]]),
        (1 + 0.5) / 2,
    ),
    ("log_loss", column(1.0, 0.0), column(0.8, 0.4), -(math.log(0.8) + math.log(0.6)) / 2),
    # A wrong prediction made with certainty costs -log of the float64 epsilon 2^-52, as in scikit-learn.
    ("log_loss", column(1.0), column(0.0), 52 * math.log(2)),
    ("log_loss", column(1.0), column(1.0), 0.0),
    ("log_loss", np.array([[1.0, 0.0, 0.0]]), np.array([[0.5, 0.25, 0.25]]), math.log(2)),
    ("mae", column(1.0, 5.0), column(2.0, 3.0), 1.5),
    ("rmse", column(1.0, 5.0), column(2.0, 3.0), math.sqrt(2.5)),
    # For an array, over all values: errors 3, 0, 3, 2.
    ("rmse", np.zeros((2, 2)), np.array([[3.0, 0.0], [3.0, 2.0]]), math.sqrt(22 / 4)),
    ("mae", np.zeros((2, 2)), np.array([[3.0, 0.0], [3.0, 2.0]]), 2.0),
    # Column by column: errors 3, 3 and 0, 2.
    ("mcrmse", np.zeros((2, 2)), np.array([[3.0, 0.0], [3.0, 2.0]]), (3 + math.sqrt(2)) / 2),
    ("rmsle", column(math.e - 1, 0.0), column(math.e**3 - 1, 0.0), math.sqrt(2.0)),
    (
        "mean_column_rmsle",
        np.array([[math.e - 1, 0.0], [0.0, 0.0]]),
        np.array([[math.e**3 - 1, 0.0], [0.0, 0.0]]),
        math.sqrt(2.0) / 2,
    ),
    # First at rank 1, 3 and 5, none, and only sixth.
    (
        "map_at_5",
        column("w", "w", "w", "w", "w"),
        column("w x", "a b w", "a b c d w", "a", "a b c d e w"),
        (1 + 1 / 3 + 1 / 5) / 5,
    ),
    # A repeated label keeps its first rank and takes up both places.
    ("map_at_5", column("w", "x"), column("w w", "a a x"), (1 + 1 / 3) / 2),
    # Observed disagreement 1/4 of distance 1; expected by the margins (2, 1, 1) and (1, 2, 1): 20/16.
    ("qwk", column(1.0, 1.0, 2.0, 3.0), column(1.0, 2.0, 2.0, 3.0), 1 - (1 / 4) / (20 / 16)),
    # Only the ratings that occur have places: 1 and 6 are as near as 1 and 2.
    ("qwk", column(1.0, 6.0, 1.0), column(1.0, 6.0, 6.0), 0.4),
    ("qwk", column(1.0, 2.0), column(2.0, 2.0), 0.0),
    ("pearson", column(1.0, 2.0, 3.0), column(2.0, 4.0, 6.0), 1.0),
    ("pearson", column(0.0, 0.0, 1.0, 1.0), column(0.0, 1.0, 1.0, 2.0), 1 / math.sqrt(2)),
    ("pearson", column(1.0, 2.0), column(7.0, 7.0), 0.0),
    ("spearman", column(1.0, 2.0, 3.0), column(-5.0, 0.0, 1e9), 1.0),
    # Ranks 1, 2, 3 against 1.5, 1.5, 3.
    ("spearman", column(1.0, 2.0, 3.0), column(0.0, 0.0, 1.0), 1.5 / math.sqrt(2 * 1.5)),
    ("spearman", column(1.0, 2.0), column(7.0, 7.0), 0.0),
    # One image wrong by 255 everywhere, 0 dB; one perfect, 100 dB.
    ("psnr", np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([[255.0, 255.0], [9.0, 9.0]]), 50.0),
    ("psnr", np.zeros((1, 4)), np.array([[25.5, 25.5, 25.5, 25.5]]), 20.0),
]


@pytest.mark.parametrize(("name", "truth", "predicted", "expected"), HAND)
def test_scores_as_by_hand(name, truth, predicted, expected):
    assert METRICS[name].score(truth, predicted) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_metric_has_a_hand_worked_value():
    assert {name for name, *_ in HAND} == set(METRICS)


def quadratic_kappa(truth, predicted):
    return sk.cohen_kappa_score(truth, predicted, weights="quadratic")


RNG = np.random.default_rng(3)
TRUTH, PREDICTED = RNG.uniform(0, 3, (2, 200))
PAIRS = RNG.uniform(0, 3, (2, 200, 3))
WORDS = np.array([["low", "mid", "high"][int(value)] for value in TRUTH])
OTHER_WORDS = np.array([["low", "mid", "high"][int(value)] for value in PREDICTED])
P = PAIRS[1] / PAIRS[1].sum(axis=1, keepdims=True)
KINDS = RNG.integers(0, 3, 200)
LIBRARY = {
    "accuracy": (WORDS, OTHER_WORDS, sk.accuracy_score(WORDS, OTHER_WORDS)),
    "binary_accuracy": (TRUTH > 1, PREDICTED / 3, sk.accuracy_score(TRUTH > 1, PREDICTED > 1.5)),
    "macro_f1": (WORDS, OTHER_WORDS, sk.f1_score(WORDS, OTHER_WORDS, average="macro")),
    "auc": (TRUTH > 1, PREDICTED, sk.roc_auc_score(TRUTH > 1, PREDICTED)),
    "mean_column_auc": (
        PAIRS[0] > 1,
        PAIRS[1],
        np.mean([sk.roc_auc_score(PAIRS[0][:, i] > 1, PAIRS[1][:, i]) for i in range(3)]),
    ),
    "log_loss": (TRUTH > 1, PREDICTED / 3, sk.log_loss(TRUTH > 1, PREDICTED / 3)),
    "log_loss of classes": (one_hot(KINDS, 3), P, sk.log_loss(KINDS, P)),
    "mae": (TRUTH, PREDICTED, sk.mean_absolute_error(TRUTH, PREDICTED)),
    "rmse": (TRUTH, PREDICTED, sk.root_mean_squared_error(TRUTH, PREDICTED)),
    "rmse of arrays": (*PAIRS, sk.root_mean_squared_error(PAIRS[0].ravel(), PAIRS[1].ravel())),
    "mcrmse": (
        *PAIRS,
        np.mean([sk.root_mean_squared_error(PAIRS[0][:, i], PAIRS[1][:, i]) for i in range(3)]),
    ),
    "rmsle": (TRUTH, PREDICTED, math.sqrt(sk.mean_squared_log_error(TRUTH, PREDICTED))),
    "mean_column_rmsle": (
        *PAIRS,
        np.mean([sk.root_mean_squared_log_error(PAIRS[0][:, i], PAIRS[1][:, i]) for i in range(3)]),
    ),
    "qwk": (TRUTH.round(), PREDICTED.round(), quadratic_kappa(TRUTH.round(), PREDICTED.round())),
    "pearson": (TRUTH, PREDICTED, np.corrcoef(TRUTH, PREDICTED)[0, 1]),
    "spearman": (
        TRUTH.round(1),
        PREDICTED.round(1),
        np.corrcoef(stats.rankdata(TRUTH.round(1)), stats.rankdata(PREDICTED.round(1)))[0, 1],
    ),
    "map_at_5": (WORDS, OTHER_WORDS, sk.accuracy_score(WORDS, OTHER_WORDS)),  # of lists of one label
    "psnr": (
        *PAIRS,
        np.mean(
            [20 * np.log10(255 / sk.root_mean_squared_error(*pair)) for pair in zip(*PAIRS, strict=True)]
        ),
    ),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_scores_as_the_libraries_on_random_values(name):
    truth, predicted, expected = LIBRARY[name]
    ours = METRICS[name.split()[0]].score(*(v if v.ndim == 2 else v[:, None] for v in (truth, predicted)))
    assert ours == pytest.approx(expected, rel=1e-9)


def test_direction_follows_the_range():
    down = {name for name, metric in METRICS.items() if not metric.higher_is_better}
    assert down == {"log_loss", "mae", "rmse", "mcrmse", "rmsle", "mean_column_rmsle"}
    assert METRICS["mae"].direction == "lower is better"
    assert METRICS["mae"].is_better(1.0, 2.0)
    assert not METRICS["auc"].is_better(0.5, 0.5)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_submission_has_the_best_score_and_all_stay_in_range(name):
    metric = METRICS[name]
    truth, predicted, _ = LIBRARY[name]
    truth, predicted = (v if v.ndim == 2 else v[:, None] for v in (truth, predicted))
    as_predicted = truth if metric.prediction.is_text else truth.astype(float)
    assert metric.score(truth, as_predicted) == pytest.approx(metric.best, abs=1e-12)
    low, high = sorted((metric.best, metric.worst))
    assert low <= metric.score(truth, predicted) <= high


def test_log_loss_of_classes_bears_a_class_that_does_not_occur():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.2, 0.5, 0.3]])
    assert METRICS["log_loss"].score(one_hot([0, 1], 3), probabilities) == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", ["mae", "rmse", "rmsle"])
def test_absurd_predictions_give_an_infinite_or_huge_score_not_an_error(name):
    assert METRICS[name].score(column(1.0, 1.0), column(1e308, 1e308)) > 100


def test_every_metric_says_how_it_treats_clipping_and_ties():
    for metric in METRICS.values():
        assert len(metric.treatment) > 20
        assert isinstance(metric.prediction, Prediction)
        assert isinstance(metric.truth, TrueValues)
        assert isinstance(metric.targets, Targets)
