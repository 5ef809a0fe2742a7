"""Source text of estimators, for the problem at hand."""

from __future__ import annotations

from dataclasses import replace

import libcst as cst

from mlagent_jax.agent.edits import script
from mlagent_jax.agent.edits.entry import Values
from mlagent_jax.agent.edits.pipeline import Pipeline
from mlagent_jax.agent.edits.script import Problem

# Boosting grows a tree per class and iteration and looks at every pixel, which takes minutes: so small trees, few
# bins, and no iterations that hardly lower the loss.
_THRIFTY = {
    "early_stopping": "True",
    "max_bins": "8",
    "max_leaf_nodes": "8",
    "n_iter_no_change": "3",
    "tol": "0.01",
    "validation_fraction": "None",
}


_LIKE_SCALED_INPUTS = ("KNeighbors",)
_LIKE_ALL_SCALED = ("SVC", "SVR", "LinearSVC", "LinearSVR", "MLP", "SGD")


def kind(problem: Problem) -> str:
    """How scikit-learn's class names end."""
    return "Classifier" if problem.target == "classification" else "Regressor"


def install(pipeline: Pipeline, template: str, problem: Problem, values: Values) -> Pipeline:
    """The pipeline with this estimator, and with the scaling that its class needs, unless there is some already."""
    source = estimator(template, problem, values)
    pipeline = pipeline.with_estimator(source)
    if source.startswith((*_LIKE_SCALED_INPUTS, *_LIKE_ALL_SCALED)) and problem.data == "tabular":
        pipeline = pipeline if pipeline.has("scale") else pipeline.with_step("StandardScaler()")
    if source.startswith(_LIKE_ALL_SCALED) and problem.target == "regression" and not pipeline.target:
        pipeline = replace(pipeline, target={"transformer": "StandardScaler()"})
    return pipeline


def estimator(template: str, problem: Problem, values: Values) -> str:
    """The template with {Kind} and the values filled in."""
    numbers = {name: f"{value:g}" for name, value in values.items()}
    source = template.format(Kind=kind(problem), **numbers)
    if problem.data == "image" and source.startswith("HistGradientBoosting"):
        call = script.expect(script.expression(source), cst.Call)
        source = script.source_of(script.with_keywords(call, _THRIFTY))
    return source
