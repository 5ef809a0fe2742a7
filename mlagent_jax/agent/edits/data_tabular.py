"""Edits on the data axis for tables: columns, categories, gaps, skewed numbers."""

from __future__ import annotations

import libcst as cst

from mlagent_jax.agent.edits import pipeline, script
from mlagent_jax.agent.edits.data import Apply, data_edit, fill, fit_on, step
from mlagent_jax.agent.edits.entry import TABULAR, Edit, Number, Values
from mlagent_jax.agent.edits.script import Problem

_CATEGORIES = 'test.select_dtypes(exclude="number").columns.tolist()'


def _numbers(source: str) -> Apply:
    """Chooses the numeric columns; the categorical ones, if any are used, stay."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        extra = (
            f" + {_CATEGORIES}"
            if _CATEGORIES in script.source_of(script.assigned(module, "features"))
            else ""
        )
        return script.assign(module, "features", script.expression(fill(source, values) + extra))

    return apply


def _encode(encoder: str) -> Apply:
    """Adds the categorical columns, as numbers."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        features = script.source_of(script.assigned(module, "features"))
        if _CATEGORIES not in features:
            module = script.assign(module, "features", script.expression(f"{features} + {_CATEGORIES}"))
        chosen = 'make_column_selector(dtype_exclude="number")'
        continuous = ', target_type="continuous"' if problem.target == "regression" else ""
        filled = encoder.replace("{continuous}", continuous)
        source = f'make_column_transformer(({filled}, {chosen}), remainder="passthrough")'
        return pipeline.write(module, pipeline.read(module).with_step(source))

    return apply


def _raw_categories(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    """Adds the categorical columns and forgets that few estimators take text."""
    features = script.source_of(script.assigned(module, "features"))
    if _CATEGORIES in features:
        return module
    return script.assign(module, "features", script.expression(f"{features} + {_CATEGORIES}"))


def _edit(
    id: str, wording: str, keywords: str, apply: Apply, unless: tuple[str, ...] = (), **numbers: Number
) -> Edit:
    return data_edit(id, wording, keywords, apply, numbers, TABULAR, unless)


EDITS = (
    _edit(
        "all_numbers",
        "Use all numeric columns",
        r"(all|every).*(numeric|number|numerical)",
        _numbers('test.select_dtypes("number").columns.drop("id").tolist()'),
        (r"row number|\bid\b",),
    ),
    _edit(
        "correlated",
        "Use the {k} numeric columns most correlated with the target",
        r"correlat",
        _numbers("most_correlated(train, target, {k})"),
        k=Number((1, 3, 5, 10, 20), 1, 200),
    ),
    _edit(
        "with_id",
        "Use all numeric columns and the row number",
        r"row number|\bid\b",
        _numbers('test.select_dtypes("number").columns.tolist()'),
    ),
    _edit(
        "one_hot",
        "One hot encode the categorical columns",
        r"(one hot|dummy|dummies)",
        _encode('OneHotEncoder(handle_unknown="ignore", min_frequency=10, sparse_output=False)'),
    ),
    _edit(
        "ordinal",
        "Encode the categorical columns as integers",
        r"ordinal|integer|label encod",
        _encode('OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)'),
    ),
    _edit(
        "target_encode",
        "Encode the categorical columns by their mean target",
        r"(mean|average) target|target encod|target mean",
        _encode("TargetEncoder(random_state=0{continuous})"),
    ),
    _edit(
        "raw_categories",
        "Add the categorical columns",
        r"add & categor",
        _raw_categories,
        (r"encod|one hot|dummy|mean",),
    ),
    _edit(
        "median",
        "Fill gaps with the median",
        r"median & fill|gap|impute|missing",
        step('SimpleImputer(strategy="median")'),
    ),
    _edit(
        "zero_is_gap",
        "Treat zeros as gaps and fill them with the mean",
        r"zero & gap|missing",
        step("SimpleImputer(missing_values=0)"),
        (r"drop|remove",),
    ),
    _edit(
        "no_gaps",
        "Drop rows with zeros or gaps",
        r"drop|remove & row & gap|missing|zero",
        fit_on("without_gaps"),
    ),
    _edit(
        "log_features",
        "Take logarithms of the features",
        r"\blog(arithm)?s?\b & feature|input|column",
        step("FunctionTransformer(logged)"),
        (r"target",),
    ),
    _edit(
        "splines",
        "Expand each feature into splines with {k} knots",
        r"spline",
        step("SplineTransformer(n_knots={k})"),
        k=Number((3, 5, 10), 2, 50),
    ),
)
