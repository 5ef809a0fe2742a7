"""Which pipelines an agent's scripts are, as far as its own edits of the starter tell."""

from __future__ import annotations

import functools

from mlagent_jax.agent.policy import Situation
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.environment.workspace import STARTER
from mlagent_jax.pipelines.instructions import apply_instruction
from mlagent_jax.pipelines.pipeline import Pipeline, PipelineError
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.summary import summarise


def pipeline_of(situation: Situation, script: str) -> Pipeline | None:
    """The pipeline of a script, derived from the starter and the edits so far; None if it is not a pipeline's."""
    try:
        known = {STARTER: read(situation.task.starter)}
    except PipelineError:
        return None
    for step in situation.steps:
        given = step.action.arguments if step.action is not None and step.action.tool == EDIT else {}
        source = known.get(str(given.get("script_name", "")))
        if source is None or not step.diff:
            continue
        try:
            known[str(given["save_name"])] = apply_instruction(source, str(given["edit_instruction"]))
        except PipelineError:
            known.pop(str(given["save_name"]), None)  # another coder wrote it
    return known.get(script)


@functools.cache
def starter_summary(starter: str) -> str:
    """What the starter does, in one line; "" if it is not a pipeline's script."""
    try:
        return summarise(read(starter))
    except PipelineError:
        return ""
