"""Hyper-parameters under one name each, whatever the estimator calls them."""

from __future__ import annotations

import libcst as cst

from mlagent_jax.agent.edits import script
from mlagent_jax.environment.coder import CoderError

_MEANINGS = {
    "strength": "regularization strength",
    "iterations": "number of iterations",
    "rate": "learning rate",
    "depth": "tree depth",
    "leaf": "leaf size",
    "stop_early": "early stopping",
    "weight_neighbors": "neighbors to weight",
    "absolute_error": "absolute error loss",
    "poisson": "Poisson loss",
    "balance": "class weights",
}

_FORESTS = ("RandomForest", "ExtraTrees")
_LINEAR = ("Ridge", "Lasso", "ElasticNet")
_MARGINS = ("SVC", "SVR", "LinearSVC", "LinearSVR", "LogisticRegression")

_INVERSE = "inverse"  # the keyword holds the inverse of the value

# Knob -> families of estimators -> keyword, and its one value (None if it takes a number).
_KEYWORDS: dict[str, dict[tuple[str, ...], tuple[str, str | None]]] = {
    "strength": {
        _LINEAR: ("alpha", None),
        _MARGINS: ("C", _INVERSE),
        ("HuberRegressor", "MLP", "MultinomialNB", "ComplementNB", "SGD"): ("alpha", None),
        ("HistGradientBoosting",): ("l2_regularization", None),
        ("DecisionTree", *_FORESTS): ("ccp_alpha", None),
    },
    "iterations": {
        ("HistGradientBoosting", "MLP", *_MARGINS, "HuberRegressor", "Lasso", "ElasticNet"): (
            "max_iter",
            None,
        ),
        _FORESTS: ("n_estimators", None),
    },
    "rate": {("HistGradientBoosting",): ("learning_rate", None), ("MLP",): ("learning_rate_init", None)},
    "depth": {("HistGradientBoosting", "DecisionTree", *_FORESTS): ("max_depth", None)},
    "leaf": {("HistGradientBoosting", "DecisionTree", *_FORESTS): ("min_samples_leaf", None)},
    "stop_early": {("HistGradientBoosting", "MLP"): ("early_stopping", "True")},
    "weight_neighbors": {("KNeighbors",): ("weights", '"distance"')},
    "absolute_error": {
        ("HistGradientBoosting",): ("loss", '"absolute_error"'),
        ("DecisionTree", *_FORESTS): ("criterion", '"absolute_error"'),
    },
    "poisson": {
        ("HistGradientBoosting",): ("loss", '"poisson"'),
        ("DecisionTree", *_FORESTS): ("criterion", '"poisson"'),
    },
    "balance": {
        (
            "HistGradientBoosting",
            "DecisionTree",
            *_FORESTS,
            "SVC",
            "LinearSVC",
            "LogisticRegression",
            "RidgeClassifier",
        ): (
            "class_weight",
            '"balanced"',
        )
    },
}


def turn(estimator: cst.Call, knob: str, value: float | None) -> cst.Call:
    """The estimator with the knob set to `value` (None where the knob has one setting).

    Raises CoderError if the estimator has no such knob, naming those that do.
    """
    name, fixed = _keyword(estimator, knob)
    if fixed is not None and fixed != _INVERSE:
        return script.with_keywords(estimator, {name: fixed})
    number = value or 1.0
    return script.with_keywords(estimator, {name: f"{1 / number if fixed == _INVERSE else number:g}"})


def has(estimator: cst.Call, knob: str) -> bool:
    return _find(estimator, knob) is not None


def strengths(estimator: cst.Call) -> tuple[str, list[float]]:
    """Keyword of the regularisation strength and values worth trying. Raises CoderError as `turn` does."""
    name, _ = _keyword(estimator, "strength")
    return name, [0.001, 0.01, 0.1] if name == "ccp_alpha" else [0.1, 1, 10, 100]


def _keyword(estimator: cst.Call, knob: str) -> tuple[str, str | None]:
    setting = _find(estimator, knob)
    if setting is None:
        having = ", ".join(dict.fromkeys(name for family in _KEYWORDS[knob] for name in family[:2]))
        raise CoderError(f"{script.callee(estimator)} has no {_MEANINGS[knob]} to set, as {having} do")
    return setting


def _find(estimator: cst.Call, knob: str) -> tuple[str, str | None] | None:
    found = script.callee(estimator)
    for family, setting in _KEYWORDS[knob].items():
        if any(found in (name, f"{name}Classifier", f"{name}Regressor") for name in family):
            return setting
    return None
