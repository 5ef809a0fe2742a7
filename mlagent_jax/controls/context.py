"""What a bandit knows of a pipeline: the kind of data, what is learnt, and which choices are made."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mlagent_jax.pipelines.estimators import ESTIMATORS
from mlagent_jax.pipelines.metrics import problem_type
from mlagent_jax.pipelines.pipeline import EVERY, KINDS, NUMERIC, OPTIONAL_SLOTS, Pipeline

_ESTIMATORS = tuple(option.name for option in ESTIMATORS)
FEATURES = (
    "any pipeline",
    *(f"kind {kind}" for kind in KINDS),
    "classification",
    "rows are cut",
    "columns are named",
    "only numeric columns",
    "all columns",
    "pixels are cut",
    "several views",
    *(f"{slot} is set" for slot in OPTIONAL_SLOTS),
    "much is held out",
    "refitted to all rows",
    *(f"estimator {name}" for name in _ESTIMATORS),
)
_MUCH = 0.3  # of the rows, held out


def context_of(pipeline: Pipeline) -> Float[np.ndarray, " features"]:
    """The `FEATURES` that are true of a pipeline, as a vector of length one."""
    true = [
        True,
        *(pipeline.facts.kind == kind for kind in KINDS),
        problem_type(pipeline.facts.metric) == "classification",
        pipeline.rows is not None,
        isinstance(pipeline.columns, tuple) and bool(pipeline.columns),
        pipeline.columns == NUMERIC,
        pipeline.columns == EVERY,
        pipeline.pixels is not None,
        len(pipeline.views) > 1,
        *(getattr(pipeline, slot) is not None for slot in OPTIONAL_SLOTS),
        pipeline.holdout > _MUCH,
        pipeline.refit,
        *(pipeline.estimator.name == name for name in _ESTIMATORS),
    ]
    vector = np.array(true, np.float64)
    return vector / np.linalg.norm(vector)
