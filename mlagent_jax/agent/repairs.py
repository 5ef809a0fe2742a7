"""What the scripted expert knows about errors: which operation fixes a script that failed with one."""

from __future__ import annotations

import re

from mlagent_jax.pipelines.operations import catalogue

# A pattern in the last lines of a failed run, and the operation that fixes it.
_REPAIRS = (
    (r"contains NaN|missing values", "gaps.median"),
    (r"could not convert string|non-numeric data", "encoding.one_hot"),
    (r"Negative values", "scaling.range"),
    (r"[Ss]parse (data|matrices|input)", "reduction.topics"),
    (r"predict_proba", "ensemble.none"),
    (r"non-negative y", "loss.squared"),
    (r"0 feature", "reduction.none"),
)


def repair(output: str) -> str:
    """The edit instruction that fixes a script which failed with this output; "" if none is known."""
    known = next((identity for pattern, identity in _REPAIRS if re.search(pattern, output[-400:])), "")
    if not known:
        return ""
    operation = catalogue()[known]
    return operation.say(list(operation.param_grid())[-1])
