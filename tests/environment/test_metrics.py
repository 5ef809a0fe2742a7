"""Metrics against scikit-learn called directly, and against values worked out by hand."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from mlagent_jax.environment.metrics import METRICS


def column(*values):
    return np.array(values)[:, None]


HAND = [
    # metric, truth, predicted, score
    ("accuracy", column("a", "b", "a", "b"), column("a", "b", "b", "b"), 3 / 4),
    # a: precision 1, recall 1/2, F1 2/3; b: precision 2/3, recall 1, F1 4/5.
    ("macro_f1", column("a", "b", "a", "b"), column("a", "b", "b", "b"), (2 / 3 + 4 / 5) / 2),
    # c is predicted and never true: its F1 is 0 and counts.
    ("macro_f1", column("a", "b"), column("a", "c"), 1 / 3),
    # 4 pairs of a 1 and a 0: 2 in order, 1 tied.
    ("auc", column(1.0, 0.0, 1.0, 0.0), column(0.9, 0.5, 0.5, 0.6), (1 + 1 + 0.5 + 0) / 4),
    ("log_loss", column(1.0, 0.0), column(0.8, 0.4), -(math.log(0.8) + math.log(0.6)) / 2),
    ("log_loss", column(1.0), column(0.0), -math.log(1e-15)),
    ("log_loss", column(1.0), column(1.0), -math.log(1 - 1e-15)),
    ("log_loss", np.array([[1.0, 0.0, 0.0]]), np.array([[0.2, 0.1, 0.1]]), -math.log(0.5)),
    ("log_loss", np.array([[0.0, 1.0]]), np.array([[0.0, 0.0]]), math.log(2)),
    ("mae", column(1.0, 5.0), column(2.0, 3.0), 1.5),
    ("rmse", column(1.0, 5.0), column(2.0, 3.0), math.sqrt(2.5)),
    ("rmsle", column(math.e - 1, 0.0), column(math.e**3 - 1, 0.0), math.sqrt(2.0)),
    # Several targets: the mean of the columns' errors.
    ("rmse", np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([[3.0, 0.0], [3.0, 2.0]]), (3 + math.sqrt(2)) / 2),
]


@pytest.mark.parametrize(("name", "truth", "predicted", "expected"), HAND)
def test_scores_as_by_hand(name, truth, predicted, expected):
    assert METRICS[name].score(truth, predicted) == pytest.approx(expected, rel=1e-9, abs=1e-14)


SKLEARN = {
    "mae": sk.mean_absolute_error,
    "rmse": sk.root_mean_squared_error,
    "rmsle": lambda y, p: math.sqrt(sk.mean_squared_log_error(y, p)),
    "auc": lambda y, p: sk.roc_auc_score(y > 1, p),
    "log_loss": lambda y, p: sk.log_loss(y > 1, p / 3),
    "accuracy": lambda y, p: sk.accuracy_score(y > 1, p > 1),
    "macro_f1": lambda y, p: sk.f1_score(y > 1, p > 1, average="macro"),
}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_scores_as_scikit_learn_on_random_values(name):
    rng = np.random.default_rng(3)
    truth, predicted = rng.uniform(0, 3, 200), rng.uniform(0, 3, 200)
    kinds = {
        "auc": (truth > 1, predicted),
        "log_loss": (truth > 1, predicted / 3),
        "accuracy": ((truth > 1).astype(str), (predicted > 1).astype(str)),
        "macro_f1": ((truth > 1).astype(str), (predicted > 1).astype(str)),
    }
    ours = METRICS[name].score(*(values[:, None] for values in kinds.get(name, (truth, predicted))))
    assert ours == pytest.approx(SKLEARN[name](truth, predicted), rel=1e-9)


def test_direction_follows_the_range():
    up = {name for name, metric in METRICS.items() if metric.higher_is_better}
    assert up == {"accuracy", "macro_f1", "auc"}


@pytest.mark.parametrize("name", ["mae", "rmse", "rmsle"])
def test_absurd_predictions_give_an_infinite_or_huge_score_not_an_error(name):
    assert METRICS[name].score(column(1.0, 1.0), column(1e308, 1e308)) > 100
