"""Source text of estimators, for the problem at hand."""

from __future__ import annotations

import libcst as cst

from mlagent_jax.agent.edits import script
from mlagent_jax.agent.edits.entry import Values
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


def kind(problem: Problem) -> str:
    """How scikit-learn's class names end."""
    return "Classifier" if problem.target == "classification" else "Regressor"


def estimator(template: str, problem: Problem, values: Values) -> str:
    """The template with {Kind} and the values filled in."""
    numbers = {name: f"{value:g}" for name, value in values.items()}
    source = template.format(Kind=kind(problem), **numbers)
    if problem.data == "image" and source.startswith("HistGradientBoosting"):
        call = script.expect(script.expression(source), cst.Call)
        source = script.source_of(script.with_keywords(call, _THRIFTY))
    return source
