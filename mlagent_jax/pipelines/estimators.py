"""The estimators of the space, and what a second model is like."""

from __future__ import annotations

from mlagent_jax.pipelines.option import (
    ALL,
    IMAGE,
    PAGES,
    PAIR,
    SERIES,
    TABLE,
    TEXT,
    CategoricalParam,
    NumericParam,
    Option,
)

_USE = "(Use|Fit|Switch to|Replace the model by) "
_WEIGHTS = CategoricalParam(("balanced",))
_PENALTY = NumericParam((0.1, 1, 10, 100), 1e-6, 1e6, whole=False)
_COST = NumericParam((0.01, 0.1, 1, 10), 1e-6, 1e6, whole=False)
_TREES = NumericParam((50, 100, 200), 1, 2000)
_DEPTH = NumericParam((4, 8, 16), 1, 100)
_LEAF = NumericParam((2, 5, 10), 1, 1000)
_SHARE = NumericParam((0.2, 0.5), 0.01, 1, whole=False, percent=True)
_SEED = "random_state=0"
_FOREST = {
    "n_estimators": _TREES,
    "max_depth": _DEPTH,
    "min_samples_leaf": _LEAF,
    "max_features": _SHARE,
    "class_weight": _WEIGHTS,
}


def _estimator(name, call, said, params, kinds=ALL, base=(), fixed="") -> Option:
    return Option("estimator", name, call, _USE + said, kinds, params, base, fixed=fixed)


ESTIMATORS = (
    _estimator(
        "ridge",
        ("RidgeClassifier", "Ridge"),
        "(a ridge model|ridge) with alpha = {alpha}",
        {"alpha": _PENALTY, "class_weight": _WEIGHTS},
    ),
    _estimator(
        "lasso", ("", "Lasso"), "(a lasso|the lasso) with alpha = {alpha}", {"alpha": _PENALTY}, TABLE | PAIR
    ),
    _estimator(
        "logistic",
        ("LogisticRegression", ""),
        "logistic regression (with|at) C = {C}",
        {"C": _COST, "class_weight": _WEIGHTS},
        fixed="max_iter=500",
    ),
    _estimator(
        "linear_svm",
        ("LinearSVC", "LinearSVR"),
        "a linear (support vector machine|SVM) with C = {C}",
        {"C": _COST, "class_weight": _WEIGHTS},
        ALL - PAGES,
        fixed=_SEED,
    ),
    _estimator(
        "svm",
        ("SVC", "SVR"),
        "(a kernel|an RBF) support vector machine with C = {C}",
        {"C": _COST, "class_weight": _WEIGHTS},
        ALL - PAGES - TEXT,
    ),
    _estimator(
        "neighbors",
        ("KNeighborsClassifier", "KNeighborsRegressor"),
        "(the {n_neighbors} nearest neighbors|{n_neighbors} nearest neighbors)",
        {"n_neighbors": NumericParam((1, 3, 5, 15), 1, 200), "weights": CategoricalParam(("distance",))},
        ALL - PAGES,
    ),
    _estimator(
        "tree",
        ("DecisionTreeClassifier", "DecisionTreeRegressor"),
        "(a decision tree|a single tree) of depth {max_depth}",
        {"max_depth": _DEPTH, "min_samples_leaf": _LEAF, "class_weight": _WEIGHTS},
        fixed=_SEED,
    ),
    _estimator(
        "forest",
        ("RandomForestClassifier", "RandomForestRegressor"),
        "a random forest (of|with) {n_estimators} trees",
        _FOREST,
        fixed=_SEED,
    ),
    _estimator(
        "extra_trees",
        ("ExtraTreesClassifier", "ExtraTreesRegressor"),
        "{n_estimators} extremely (randomized|random) trees",
        _FOREST,
        fixed=_SEED,
    ),
    _estimator(
        "boosting",
        ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
        "(gradient boosting|boosted trees) with {max_iter} iterations",
        {
            "max_iter": NumericParam((50, 100, 200), 1, 2000),
            "learning_rate": NumericParam((0.03, 0.1, 0.3), 1e-4, 1, whole=False),
            "max_leaf_nodes": NumericParam((8, 16, 64), 2, 500),
            "min_samples_leaf": _LEAF,
            "loss": CategoricalParam(("absolute_error", "poisson")),
            "class_weight": _WEIGHTS,
        },
        ALL - IMAGE,
        fixed=_SEED,
    ),
    _estimator(
        "bayes",
        ("MultinomialNB", ""),
        "(multinomial|plain) naive Bayes with alpha = {alpha}",
        {"alpha": NumericParam((0.01, 0.1, 1), 1e-6, 100, whole=False)},
        TEXT,
    ),
    _estimator(
        "complement_bayes",
        ("ComplementNB", ""),
        "(complement naive Bayes|naive Bayes of complements) with alpha = {alpha}",
        {"alpha": NumericParam((0.01, 0.1, 1), 1e-6, 100, whole=False)},
        TEXT,
    ),
    _estimator(
        "perceptron",
        ("MLPClassifier", "MLPRegressor"),
        "(a neural network|a perceptron) of {hidden_layer_sizes} hidden units",
        {"hidden_layer_sizes": NumericParam((50, 100), 1, 1000), "alpha": _PENALTY},
        ALL - TEXT,
        fixed=f"early_stopping=True; {_SEED}",
    ),
    _estimator(
        "centroid",
        ("NearestCentroid", ""),
        "the nearest (mean of a class|class mean|centroid)",
        {},
        IMAGE | SERIES,
    ),
)

# What a second model is like, and what `tuned` tries.
SECOND: dict[str, dict[str, float]] = {
    "forest": {"n_estimators": 100},
    "boosting": {"max_iter": 100},
    "neighbors": {"n_neighbors": 5},
    "logistic": {"C": 1.0},
    "ridge": {"alpha": 1.0},
}
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
