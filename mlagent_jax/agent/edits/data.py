"""Edits on the data axis that suit any kind of task: rows, scaling, selection, projections."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import libcst as cst

from mlagent_jax.agent.edits import pipeline, rows, script
from mlagent_jax.agent.edits.entry import ALL, DENSE, REGRESSION, TABULAR, Edit, Number, Values
from mlagent_jax.agent.edits.script import Problem
from mlagent_jax.environment.coder import CoderError

Apply = Callable[[cst.Module, Problem, Values], cst.Module]


def fill(source: str, values: Values) -> str:
    return source.format(**{name: f"{value:g}" for name, value in values.items()})


def step(source: str) -> Apply:
    """Puts a step into the model's pipeline."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        return pipeline.write(module, pipeline.read(module).with_step(fill(source, values)))

    return apply


def fit_on(helper: str, argument: str = "") -> Apply:
    """Passes the rows that the model is fitted to through a helper function."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        third = fill(argument, {name: value / 100 for name, value in values.items()})
        return rows.fit_on(module, helper, third)

    return apply


def data_edit(
    id: str,
    wording: str,
    keywords: str,
    apply: Apply,
    numbers: Mapping[str, Number] | None = None,
    kinds: frozenset[str] = ALL,
    unless: tuple[str, ...] = (),
) -> Edit:
    return Edit(id, "data", kinds, wording, apply, tuple(keywords.split(" & ")), unless, numbers or {})


def _read_rows(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    """Reads the first n training rows, or all of them."""
    value = script.assigned(module, "train")
    if script.is_method(value, "head"):
        value = script.expect(script.expect(value, cst.Call).func, cst.Attribute).value
    source = script.source_of(value)
    if "read_csv" not in source:
        raise CoderError("found no 'train = pd.read_csv(...)' in the script")
    head = f".head({values['n']:g})" if "n" in values else ""
    return script.assign(module, "train", script.expression(source + head))


def _select(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    score = "f_classif" if problem.target == "classification" else "f_regression"
    return step(f"SelectKBest({score}, k={values['k']:g})")(module, problem, values)


def _components(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    kind = "TruncatedSVD" if problem.data == "text" else "PCA"
    return step(f"{kind}(n_components={values['k']:g}, random_state=0)")(module, problem, values)


EDITS = (
    data_edit(
        "all_rows",
        "Train on all rows of the training data",
        r"\ball\b.*\brows|full (training )?(data|set)",
        _read_rows,
        unless=(r"refit|labell?ed|validation",),
    ),
    data_edit(
        "first_rows",
        "Train on the first {n} rows only",
        r"first|only & rows",
        _read_rows,
        {"n": Number((40, 80, 160), 20, 100_000)},
        unless=(r"characters|letters|random",),
    ),
    data_edit(
        "part_of_rows",
        "Train on a random {p}% of the rows",
        r"random & %|percent|half & rows",
        fit_on("part_of", "{p}"),
        {"p": Number((20, 50, 80), 5, 95)},
    ),
    data_edit(
        "outliers",
        "Leave out the {p}% most extreme targets",
        r"(leave|drop|remove|outlier|extreme).* & target|outlier",
        fit_on("without_outliers", "{p}"),
        {"p": Number((1, 2, 10, 25), 0.1, 40, whole=False)},
        unless=(r"huber|resist",),
        kinds=REGRESSION,
    ),
    data_edit(
        "standardize",
        "Standardize the features",
        r"(standardiz|zero mean|unit variance).*(feature|input|column|pixel)",
        step("StandardScaler()"),
    ),
    data_edit(
        "unit_range",
        "Scale the features to the range 0 to 1",
        r"scale|min max & range|min max|0 to 1",
        step("MinMaxScaler()"),
        unless=(r"clip|predict",),
    ),
    data_edit(
        "largest",
        "Divide the features by their largest value",
        r"largest|max abs|maximum & feature",
        step("MaxAbsScaler()"),
    ),
    data_edit(
        "robust",
        "Scale the features by their quartiles",
        r"robust|quartile & scal",
        step("RobustScaler()"),
        kinds=DENSE,
    ),
    data_edit(
        "ranks",
        "Replace the features by their ranks",
        r"rank|quantile & feature",
        step("QuantileTransformer(n_quantiles=100, random_state=0)"),
        kinds=DENSE,
    ),
    data_edit("unit_length", "Scale each row to unit length", r"unit (length|norm)", step("Normalizer()")),
    # Forgets the import, as a hurried person does.
    data_edit(
        "row_sums",
        "Divide each row by its sum",
        r"row & sum",
        step("FunctionTransformer(normalize)"),
        unless=(r"column",),
        kinds=DENSE,
    ),
    data_edit(
        "select",
        "Keep the {k} features that best follow the target",
        r"keep|select & (best|top).*feature|feature.*(best|top)",
        _select,
        {"k": Number((2, 5, 20, 100), 1, 10_000)},
        unless=(r"word|column",),
    ),
    data_edit(
        "components",
        "Reduce the features to {k} components",
        r"component|pca|svd|latent|topic",
        _components,
        {"k": Number((2, 5, 20, 50), 1, 1000)},
    ),
    data_edit(
        "constant",
        "Drop features that hardly vary",
        r"constant|hardly vary|variance",
        step("VarianceThreshold(0.01)"),
        unless=(r"unit variance",),
    ),
    data_edit(
        "polynomial",
        "Add products of features up to degree {d}",
        r"product|polynomial|interaction & feature|degree",
        step("PolynomialFeatures(degree={d})"),
        {"d": Number((2, 3), 2, 4)},
        unless=(r"support vector|svm|svc|svr",),
        kinds=TABULAR,  # elsewhere there are too many features to multiply
    ),
    data_edit(
        "kernel",
        "Map the features to {k} random kernel features",
        r"kernel & feature",
        step("Nystroem(n_components={k}, random_state=0)"),
        {"k": Number((50, 200), 1, 2000)},
        unless=(r"support vector",),
        kinds=DENSE,
    ),
    data_edit(
        "clusters",
        "Add the distances to {k} cluster centers",
        r"cluster",
        step('make_union("passthrough", KMeans(n_clusters={k}, random_state=0))'),
        {"k": Number((5, 20), 2, 500)},
        kinds=DENSE,
    ),
)
