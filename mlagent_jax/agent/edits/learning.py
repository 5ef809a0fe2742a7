"""Edits on the learning axis: the target, the loss, regularisation, the split, ensembles."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import libcst as cst
from libcst import matchers as m

from mlagent_jax.agent.edits import knobs, pipeline, rows, script
from mlagent_jax.agent.edits.entry import ALL, CLASSIFICATION, REGRESSION, Edit, Number, Values
from mlagent_jax.agent.edits.estimators import estimator, install, kind
from mlagent_jax.agent.edits.script import Problem
from mlagent_jax.environment.coder import CoderError

Apply = Callable[[cst.Module, Problem, Values], cst.Module]


def _predict(**target: str) -> Apply:
    """Fits the model to a transformed target."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        model = pipeline.read(module)
        return pipeline.write(module, pipeline.Pipeline(model.estimator, model.steps, target))

    return apply


def _knob(knob: str, otherwise: str = "") -> Apply:
    """Turns a knob of the model; a model without it gives way to `otherwise`, or CoderError is raised."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        model = pipeline.read(module)
        if otherwise and not knobs.has(model.core(), knob):
            model = install(model, otherwise, problem, {})
        value = next(iter(values.values()), None)
        return pipeline.write(module, model.map_core(lambda call: knobs.turn(call, knob, value)))

    return apply


def _average(name: str, classification: str, regression: str = "") -> Apply:
    """Averages the model with another one; `regression` where it is of another class than for classification."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        template = classification if problem.target == "classification" or not regression else regression
        other = estimator(template, problem, values)
        return pipeline.write(
            module, pipeline.read(module).average_with(name, other, f"Voting{kind(problem)}")
        )

    return apply


def _wrap(wrapper: str, arguments: str = "") -> Apply:
    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        name = estimator(wrapper, problem, values)
        filled = estimator(arguments, problem, values)
        return pipeline.write(module, pipeline.read(module).wrapped(name, filled))

    return apply


def _tune(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    model = pipeline.read(module)
    name, choices = knobs.strengths(model.core())
    return pipeline.write(
        module, model.wrapped("GridSearchCV", f'{{"{name}": {choices}}}, cv={values["k"]:g}')
    )


def _refit(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    """Fits once more on all labelled rows, with whatever the first fit does to its rows."""
    fits = [node for node in module.body if rows.is_fit(node)]
    if not fits:
        raise CoderError("found no 'model.fit(X_fit, y_fit)' in the script")
    again = script.source_of(fits[0]).replace("X_fit", "X").replace("y_fit", "y").strip()
    again = f"\n# Validated; now the model may learn from the validation rows too.\n{again}\n"
    return script.insert_before(
        module, lambda node: script.is_assignment(node, "predictions"), again, "line 'predictions = ...'"
    )


def _split(change: Callable[[Values], Mapping[str, str]]) -> Apply:
    """Sets keyword arguments of train_test_split."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        for index, node in enumerate(module.body):
            for found in m.findall(node, m.Call(func=m.Name("train_test_split"))):
                call = script.expect(found, cst.Call)
                return script.replace_in(module, index, call, script.with_keywords(call, change(values)))
        raise CoderError("the script does not call train_test_split")

    return apply


def _clip(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    """Keeps predictions between the smallest and the largest target that the model was fitted to."""
    for part in ("X_valid", "X_test"):
        plain, clipped = f"model.predict({part})", f"np.clip(model.predict({part}), y_fit.min(), y_fit.max())"
        if clipped not in module.code:
            module = script.parse(module.code.replace(plain, clipped))
    return module


def _edit(
    id: str,
    wording: str,
    keywords: str,
    apply: Apply,
    numbers: Mapping[str, Number] | None = None,
    kinds: frozenset[str] = ALL,
    unless: tuple[str, ...] = (),
) -> Edit:
    return Edit(id, "learning", kinds, wording, apply, tuple(keywords.split(" & ")), unless, numbers or {})


_BOOSTING = "HistGradientBoosting{Kind}(max_iter=100, random_state=0)"
_NETWORK = "MLP{Kind}(hidden_layer_sizes=[64], random_state=0)"
_FOREST = "RandomForest{Kind}(n_estimators=50, random_state=0)"
_AVERAGE = r"average|vote|voting|ensemble|blend|combine"

EDITS = (
    _edit(
        "refit",
        "Refit the model on all labelled rows before predicting",
        r"refit|(fit|train) again|retrain",
        _refit,
    ),
    _edit(
        "log_target",
        "Predict the logarithm of the target",
        r"\blog(arithm)?\b|log1p & target|label|y\b",
        _predict(func="np.log1p", inverse_func="np.expm1"),
        kinds=REGRESSION,
    ),
    _edit(
        "sqrt_target",
        "Predict the square root of the target",
        r"square root|sqrt & target|label|y\b",
        _predict(func="np.sqrt", inverse_func="np.square"),
        kinds=REGRESSION,
    ),
    _edit(
        "scale_target",
        "Standardize the target",
        r"(standardiz|scale|normaliz).* (target|label)",
        _predict(transformer="StandardScaler()"),
        kinds=REGRESSION,
    ),
    _edit(
        "clip",
        "Clip the predictions to the range of the training target",
        r"clip & predict",
        _clip,
        kinds=REGRESSION,
    ),
    _edit(
        "strength",
        "Set the regularization strength to {s}",
        r"regulariz",
        _knob("strength"),
        {"s": Number((0.001, 0.01, 0.1, 1, 10, 100, 1000), 1e-6, 1e6, whole=False)},
        unless=(r"tune|search|cross|fold",),
    ),
    _edit(
        "tune",
        "Tune the regularization by {k} fold cross validation",
        r"(tune|search|choose|select) & regulariz|hyperparameter|cross|fold",
        _tune,
        {"k": Number((3, 5, 10), 2, 20)},
    ),
    _edit(
        "iterations",
        "Train a network for {n} iterations",
        r"(train|run) & (iteration|epoch|round)",
        _knob("iterations", otherwise=_NETWORK),
        {"n": Number((10, 50, 500), 1, 2000)},
        unless=(r"boost",),
    ),
    _edit(
        "rate",
        "Boost trees with a learning rate of {r}",
        r"learning rate",
        _knob("rate", otherwise=_BOOSTING),
        {"r": Number((0.01, 0.03, 0.1, 0.3, 1), 1e-6, 10, whole=False)},
    ),
    _edit(
        "depth",
        "Grow a forest of trees of depth {d}",
        r"(grow|limit|max|cap|restrict|set|forest).* & depth",
        _knob("depth", otherwise=_FOREST),
        {"d": Number((2, 4, 6, 12), 1, 100)},
        unless=(r"single|decision tree",),
    ),
    _edit(
        "leaf",
        "Grow a forest with {n} samples in each leaf",
        r"leaf|leaves & (sample|row|require|least|min)",
        _knob("leaf", otherwise=_FOREST),
        {"n": Number((2, 5, 20, 100), 1, 1000)},
    ),
    _edit(
        "stop_early",
        "Train a network and stop early",
        r"(stop|stopping).*early|early.*(stop|stopping)",
        _knob("stop_early", otherwise=_NETWORK),
    ),
    _edit(
        "weight_neighbors",
        "Weight the nearest neighbors by their distance",
        r"neighbor & (weight|distance)",
        _knob("weight_neighbors", otherwise="KNeighbors{Kind}()"),
    ),
    _edit(
        "absolute_error",
        "Boost trees on the absolute error",
        r"absolute",
        _knob("absolute_error", otherwise=_BOOSTING),
        kinds=REGRESSION,
    ),
    _edit(
        "poisson",
        "Boost trees on the Poisson deviance",
        r"poisson",
        _knob("poisson", otherwise=_BOOSTING),
        kinds=REGRESSION,
    ),
    _edit(
        "balance",
        "Balance the class weights",
        r"(balance|weight).*class|class.*(balance|weight)",
        _knob("balance"),
        kinds=CLASSIFICATION,
    ),
    _edit(
        "stratify",
        "Stratify the validation split by the target",
        r"stratif",
        _split(lambda values: {"stratify": "y"}),
    ),
    _edit(
        "valid_share",
        "Hold out {p}% of the rows for validation",
        r"(hold|keep|use|set).*(out|aside|validation) & %|percent & (validation|hold|aside)",
        _split(lambda values: {"test_size": f"{values['p'] / 100:g}"}),
        {"p": Number((5, 10, 20, 60), 1, 90)},
    ),
    _edit(
        "bag",
        "Bag {n} copies of the model",
        r"\bbag(ging|ged)?\b|bootstrap",
        _wrap("Bagging{Kind}", "n_estimators={n}, random_state=0"),
        {"n": Number((5, 10, 20), 2, 100)},
        unless=(r"bag of",),
    ),
    _edit(
        "adaboost",
        "Boost {n} copies of the model with AdaBoost",
        r"ada ?boost",
        _wrap("AdaBoost{Kind}", "n_estimators={n}, random_state=0"),
        {"n": Number((5, 10, 20), 2, 100)},
    ),
    _edit(
        "average_forest",
        "Average the model with a random forest",
        f"{_AVERAGE} & forest",
        _average("forest", "RandomForest{Kind}(n_estimators=100, random_state=0)"),
    ),
    _edit(
        "average_neighbors",
        "Average the model with nearest neighbors",
        f"{_AVERAGE} & neighbor",
        _average("neighbors", "KNeighbors{Kind}(n_neighbors=5)"),
    ),
    _edit(
        "average_linear",
        "Average the model with a linear model",
        f"{_AVERAGE} & linear|logistic|ridge",
        _average("linear", "LogisticRegression(max_iter=300)", "Ridge(alpha=1)"),
    ),
    _edit(
        "average_boosting",
        "Average the model with gradient boosting",
        f"{_AVERAGE} & boost",
        _average("boosting", "HistGradientBoosting{Kind}(max_iter=50, random_state=0)"),
    ),
    _edit(
        "calibrate",
        "Calibrate the class probabilities",
        r"calibrat",
        _wrap("CalibratedClassifierCV", "cv=3"),
        kinds=CLASSIFICATION,
    ),
)
