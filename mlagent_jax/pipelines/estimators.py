"""The estimators of the space, and what tuning tries of each."""

from __future__ import annotations

from mlagent_jax.pipelines.grammar import placeholders
from mlagent_jax.pipelines.option import (
    ALL,
    IMAGE,
    PAGES,
    PAIR,
    SEED,
    SERIES,
    TABLE,
    TEXT,
    CategoricalParam,
    NumericParam,
    Option,
)

_USE = "(Use|Fit|Switch to|Replace the model by) "
_PARAMS: dict[str, NumericParam | CategoricalParam] = {
    "alpha": NumericParam((0.1, 1, 10, 100), 1e-6, 1e6),
    "C": NumericParam((0.01, 0.1, 1, 10), 1e-6, 1e6),
    "n_neighbors": NumericParam((1, 3, 5, 15), 1, 200),
    "n_estimators": NumericParam((50, 100, 200), 1, 2000),
    "max_iter": NumericParam((50, 100, 200), 1, 2000),
    "learning_rate": NumericParam((0.03, 0.1, 0.3), 1e-4, 1),
    "max_depth": NumericParam((4, 8, 16), 1, 100),
    "max_leaf_nodes": NumericParam((8, 16, 64), 2, 500),
    "min_samples_leaf": NumericParam((2, 5, 10), 1, 1000),
    "max_features": NumericParam((0.2, 0.5), 0.01, 1, percent=True),
    "hidden_layer_sizes": NumericParam((50, 100), 1, 1000),
    "weights": CategoricalParam(("distance",)),
    "loss": CategoricalParam(("absolute_error", "poisson")),
    "class_weight": CategoricalParam(("balanced",)),
}
_FOREST = "n_estimators max_depth min_samples_leaf max_features class_weight"
_SMOOTHING = NumericParam((0.01, 0.1, 1), 1e-6, 100)


def _estimator(what, said, params="", kinds=ALL, fixed="", **own) -> Option:
    """params: names of those in `_PARAMS`. own: others."""
    found = {**{one: _PARAMS[one] for one in params.split()}, **own}
    number = next((found[one] for one in placeholders(said)), None)
    return Option(f"estimator.{what}", _USE + said, kinds, number, found, fixed=fixed)


ESTIMATORS = (
    _estimator(
        "ridge RidgeClassifier Ridge", "(a ridge model|ridge) with alpha = {alpha}", "alpha class_weight"
    ),
    _estimator("lasso - Lasso", "(a lasso|the lasso) with alpha = {alpha}", "alpha", TABLE | PAIR),
    _estimator(
        "logistic LogisticRegression -",
        "logistic regression (with|at) C = {C}",
        "C class_weight",
        fixed="max_iter=500",
    ),
    _estimator(
        "linear_svm LinearSVC LinearSVR",
        "a linear (support vector machine|SVM) with C = {C}",
        "C class_weight",
        ALL - PAGES,
        fixed=SEED,
    ),
    _estimator(
        "svm SVC SVR",
        "(a kernel|an RBF) support vector machine with C = {C}",
        "C class_weight",
        ALL - PAGES - TEXT,
    ),
    _estimator(
        "neighbors KNeighborsClassifier KNeighborsRegressor",
        "(the {n_neighbors} nearest neighbors|{n_neighbors} nearest neighbors)",
        "n_neighbors weights",
        ALL - PAGES,
    ),
    _estimator(
        "tree DecisionTreeClassifier DecisionTreeRegressor",
        "(a decision tree|a single tree) of depth {max_depth}",
        "max_depth min_samples_leaf class_weight",
        fixed=SEED,
    ),
    _estimator(
        "forest RandomForestClassifier RandomForestRegressor",
        "a random forest (of|with) {n_estimators} trees",
        _FOREST,
        fixed=SEED,
    ),
    _estimator(
        "extra_trees ExtraTreesClassifier ExtraTreesRegressor",
        "{n_estimators} extremely (randomized|random) trees",
        _FOREST,
        fixed=SEED,
    ),
    _estimator(
        "boosting HistGradientBoostingClassifier HistGradientBoostingRegressor",
        "(gradient boosting|boosted trees) with {max_iter} iterations",
        "max_iter learning_rate max_leaf_nodes min_samples_leaf loss class_weight",
        ALL - IMAGE,
        fixed=SEED,
    ),
    _estimator(
        "bayes MultinomialNB -",
        "(multinomial|plain) naive Bayes with alpha = {alpha}",
        kinds=TEXT,
        alpha=_SMOOTHING,
    ),
    _estimator(
        "complement_bayes ComplementNB -",
        "(complement naive Bayes|naive Bayes of complements) with alpha = {alpha}",
        kinds=TEXT,
        alpha=_SMOOTHING,
    ),
    _estimator(
        "perceptron MLPClassifier MLPRegressor",
        "(a neural network|a perceptron) of {hidden_layer_sizes} hidden units",
        "hidden_layer_sizes alpha",
        ALL - TEXT,
        fixed=f"early_stopping=True; {SEED}",
    ),
    _estimator(
        "centroid NearestCentroid -",
        "the nearest (mean of a class|class mean|centroid)",
        kinds=IMAGE | SERIES,
    ),
)

TUNED = {
    "ridge": '{"alpha": [0.1, 1, 10, 100]}',
    "lasso": '{"alpha": [0.1, 1, 10, 100]}',
    "logistic": '{"C": [0.01, 0.1, 1, 10]}',
    "linear_svm": '{"C": [0.01, 0.1, 1, 10]}',
    "svm": '{"C": [0.3, 1, 10, 100]}',
    "neighbors": '{"n_neighbors": [1, 3, 5, 15]}',
    "tree": '{"max_depth": [3, 6, 9, 12]}',
    "forest": '{"min_samples_leaf": [1, 3, 10]}',
    "extra_trees": '{"min_samples_leaf": [1, 3, 10]}',
    "boosting": '{"learning_rate": [0.03, 0.1, 0.3]}',
    "perceptron": '{"alpha": [0.0001, 0.01, 1]}',
    "centroid": '{"shrink_threshold": [None, 0.2]}',
    "bayes": '{"alpha": [0.01, 0.1, 1]}',
    "complement_bayes": '{"alpha": [0.01, 0.1, 1]}',
}
