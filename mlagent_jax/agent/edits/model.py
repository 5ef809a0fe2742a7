"""Edits on the model axis: which estimator is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import libcst as cst

from mlagent_jax.agent.edits import pipeline
from mlagent_jax.agent.edits.entry import (
    ALL,
    CLASSIFICATION,
    DENSE,
    IMAGE,
    REGRESSION,
    TABULAR,
    TEXT,
    Edit,
    Number,
    Values,
)
from mlagent_jax.agent.edits.estimators import install
from mlagent_jax.agent.edits.script import Problem

_COMBINED = (r"average|vote|ensemble|bag|stack|tune|cross",)  # belongs to the learning axis


def _use(sources: Mapping[str, str]) -> Callable[[cst.Module, Problem, Values], cst.Module]:
    """Puts an estimator in place; `sources` by target, or `both` with {Kind} for Classifier or Regressor."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        template = sources.get(problem.target) or sources["both"]
        return pipeline.write(module, install(pipeline.read(module), template, problem, values))

    return apply


def _model(
    id: str,
    wording: str,
    keywords: str,
    numbers: Mapping[str, Number] | None = None,
    kinds: frozenset[str] = ALL,
    unless: tuple[str, ...] = (),
    **sources: str,
) -> Edit:
    words = tuple(keywords.split(" & "))
    return Edit(id, "model", kinds, wording, _use(sources), words, (*_COMBINED, *unless), numbers or {})


def _count(*offered: float, high: float) -> Number:
    return Number(offered, 1, high)


def _real(*offered: float) -> Number:
    return Number(offered, 1e-4, 1e5, whole=False)


_PACKAGES = r"xgb|xgboost|light|cat ?boost|ada ?boost"

EDITS = (
    _model(
        "boosting",
        "Use gradient boosted trees with {n} iterations",
        r"boost",
        {"n": _count(50, 100, 200, 400, high=1000)},
        unless=(_PACKAGES, r"learning rate|deviance|absolute"),
        both="HistGradientBoosting{Kind}(max_iter={n}, random_state=0)",
    ),
    _model(
        "forest",
        "Use a random forest with {n} trees",
        r"forest",
        {"n": _count(20, 50, 100, 200, high=1000)},
        unless=(r"depth|leaf|leaves",),
        both="RandomForest{Kind}(n_estimators={n}, random_state=0)",
    ),
    _model(
        "extra_trees",
        "Use extremely randomized trees with {n} estimators",
        r"extra|extremely & trees",
        {"n": _count(50, 100, 200, high=1000)},
        both="ExtraTrees{Kind}(n_estimators={n}, random_state=0)",
    ),
    _model(
        "tree",
        "Use a single decision tree of depth {d}",
        r"(decision|single|one|regression) (decision )?tree",
        {"d": _count(1, 3, 5, 10, 20, high=100)},
        both="DecisionTree{Kind}(max_depth={d}, random_state=0)",
    ),
    _model(
        "neighbors",
        "Use {k} nearest neighbors",
        r"neighbor|knn|kn neighbors",
        {"k": _count(1, 3, 5, 10, 30, 100, high=1000)},
        unless=(r"weight|distance",),
        both="KNeighbors{Kind}(n_neighbors={k})",
    ),
    _model(
        "svm",
        "Use an RBF support vector machine with C = {c}",
        r"support vector|svm|svc|svr",
        {"c": _real(0.1, 1, 10, 100)},
        unless=(r"linear|polynomial|degree",),
        classification="SVC(C={c})",
        regression="SVR(C={c})",
    ),
    _model(
        "linear_svm",
        "Use a linear support vector machine with C = {c}",
        r"linear & support vector|svm|svc|svr",
        {"c": _real(0.01, 0.1, 1, 10)},
        classification="LinearSVC(C={c}, random_state=0)",
        regression="LinearSVR(C={c}, random_state=0)",
    ),
    _model(
        "polynomial_svm",
        "Use a polynomial support vector machine of degree {d}",
        r"polynomial|degree & support vector|svm|svc|svr",
        {"d": _count(2, 3, high=10)},
        kinds=DENSE,
        classification='SVC(degree={d}, kernel="poly")',
        regression='SVR(degree={d}, kernel="poly")',
    ),
    _model(
        "ridge",
        "Use ridge regression with alpha = {a}",
        r"ridge|linear regression|l2 regression",
        {"a": _real(0.1, 1, 10, 100)},
        kinds=ALL,
        classification="RidgeClassifier(alpha={a})",
        regression="Ridge(alpha={a})",
    ),
    _model(
        "lasso",
        "Use lasso regression with alpha = {a}",
        r"lasso",
        {"a": _real(0.001, 0.1, 1)},
        kinds=REGRESSION,
        both="Lasso(alpha={a})",
    ),
    _model(
        "elastic_net",
        "Use an elastic net with alpha = {a}",
        r"elastic",
        {"a": _real(0.01, 0.1, 1)},
        kinds=REGRESSION,
        both="ElasticNet(alpha={a})",
    ),
    _model(
        "huber",
        "Use Huber regression, which resists outliers",
        r"huber",
        kinds=REGRESSION,
        both="HuberRegressor(max_iter=300)",
    ),
    _model(
        "logistic",
        "Use logistic regression with C = {c}",
        r"logistic",
        {"c": _real(0.1, 1, 10, 100)},
        both="LogisticRegression(C={c}, max_iter=300)",
    ),
    _model(
        "gradient_descent",
        "Use a linear model fitted by gradient descent with alpha = {a}",
        r"gradient descent|\bsgd\b",
        {"a": _real(0.0001, 0.001, 0.01)},
        both="SGD{Kind}(alpha={a}, random_state=0)",
    ),
    _model(
        "network",
        "Use a neural network with {n} hidden units",
        r"(neural|mlp|perceptron)",
        {"n": _count(16, 32, 64, 128, high=1024)},
        unless=(r"layers|convolution|deep",),
        both="MLP{Kind}(hidden_layer_sizes=[{n}], random_state=0)",
    ),
    _model(
        "deep_network",
        "Use a deep neural network with two layers of {n} units",
        r"(neural|mlp|perceptron|network) & (layers|deep)",
        {"n": _count(16, 64, high=512)},
        unless=(r"convolution",),
        both="MLP{Kind}(hidden_layer_sizes=[{n}, {n}], random_state=0)",
    ),
    _model(
        "gaussian_bayes",
        "Use Gaussian naive Bayes",
        r"gaussian & bayes",
        kinds=CLASSIFICATION & DENSE,
        both="GaussianNB()",
    ),
    _model(
        "multinomial_bayes",
        "Use multinomial naive Bayes with smoothing {a}",
        r"bayes",
        {"a": _real(0.01, 0.1, 1)},
        kinds=TEXT | IMAGE,
        unless=(r"gaussian|complement",),
        both="MultinomialNB(alpha={a})",
    ),
    _model(
        "complement_bayes",
        "Use complement naive Bayes",
        r"complement & bayes",
        kinds=TEXT & CLASSIFICATION,
        both="ComplementNB()",
    ),
    _model(
        "linear_discriminant",
        "Use linear discriminant analysis",
        r"linear discriminant|\blda\b",
        kinds=CLASSIFICATION & DENSE,
        both="LinearDiscriminantAnalysis()",
    ),
    _model(
        "quadratic_discriminant",
        "Use quadratic discriminant analysis",
        r"quadratic discriminant|\bqda\b",
        kinds=CLASSIFICATION & DENSE,
        both="QuadraticDiscriminantAnalysis()",
    ),
    _model(
        "centroid",
        "Assign each row to the nearest class centroid",
        r"centroid",
        kinds=CLASSIFICATION & DENSE,
        both="NearestCentroid()",
    ),
    # The next three fail where the package is not installed, as a person finds out by trying.
    _model(
        "xgboost",
        "Use XGBoost with {n} trees",
        r"xgb",
        {"n": _count(100, high=1000)},
        both="XGB{Kind}(n_estimators={n}, random_state=0)",
    ),
    _model(
        "lightgbm",
        "Use LightGBM with {n} leaves",
        r"light ?gbm|lgbm",
        {"n": _count(31, high=255)},
        kinds=TABULAR | TEXT,
        both="LGBM{Kind}(num_leaves={n}, random_state=0)",
    ),
    _model(
        "catboost",
        "Use CatBoost",
        r"cat ?boost",
        kinds=DENSE,
        both="CatBoost{Kind}(random_state=0, verbose=False)",
    ),
)
