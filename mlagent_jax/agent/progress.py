"""What an agent can know about its own progress, using only what it has been shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.trajectory import Step
from mlagent_jax.environment.state import Outcome
from mlagent_jax.environment.tools import EDIT, EXECUTE
from mlagent_jax.environment.workspace import STARTER
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.sandbox.interface import Status
from mlagent_jax.tasks.task import Task

_PRINTED = re.compile(r"validation [^:\n]*: *(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Progress:
    """The progress of an episode.

    best: the script with the best score seen. standing: the script whose submission counts now.
    last: the last result: "start", "look" (a valid action without a score), "better", "worse" or "same" (compared with
        the score before), "failed" or "invalid". new_best: whether the last step found `best`.
    tried: the edit instructions so far. scripts: those in the workspace, oldest first.
    failed_script: the script that the last step saved, if it failed.
    """

    best: str = STARTER
    standing: str = STARTER
    last: str = "start"
    new_best: bool = False
    tried: tuple[str, ...] = ()
    scripts: tuple[str, ...] = (STARTER,)
    failed_script: str = ""


def read_progress(situation: Situation) -> Progress:
    """The progress in a situation. Raises KeyError for a task with an unknown metric."""
    task, steps = situation.task, situation.steps
    # Feedback compares the first score with the starter's, so an agent that is shown scores knows that one too.
    score = best_score = steps[0].m_before if steps and task.show_public_score else None
    seen = Progress()
    for step in steps:
        edited, run = _scripts(step)
        scripts = (*seen.scripts, edited) if edited else seen.scripts
        seen = replace(seen, new_best=False, failed_script="", scripts=tuple(dict.fromkeys(scripts)))
        if step.action is not None and step.action.tool == EDIT:
            seen = replace(seen, tried=(*seen.tried, str(step.action.arguments.get("edit_instruction", ""))))
        before, new = score, shown_score(step, task) if run else None
        if new is not None:
            score = new
            seen = replace(seen, last=_compare(new, before, task), standing=run)
            if _compare(new, best_score, task) == "better":
                best_score = new
                seen = replace(seen, best=run, new_best=True)
        elif step.outcome is Outcome.MALFORMED:
            seen = replace(seen, last="invalid")
        elif step.outcome in (Outcome.ERROR, Outcome.CORNER):
            seen = replace(seen, last="failed", failed_script=edited)
        else:
            seen = replace(seen, last="look")
    return seen


def _scripts(step: Step) -> tuple[str, str]:
    """The script that the step wrote and the script that it ran; "" for none."""
    arguments = step.action.arguments if step.action is not None else {}
    tool = step.action.tool if step.action is not None else ""
    if tool == EDIT and step.diff:
        return str(arguments.get("save_name", "")), str(arguments.get("save_name", ""))
    return "", str(arguments.get("script_name", "")) if tool == EXECUTE else ""


def shown_score(step: Step, task: Task) -> float | None:
    """The score that the step showed for its script: the public score, or, if that is hidden, the one it printed."""
    if step.status != Status.OK or step.outcome not in (Outcome.SUCCESS, Outcome.NEUTRAL):
        return None
    if task.show_public_score:
        return step.m_after
    printed = _PRINTED.findall(step.output)
    return float(printed[-1]) if printed else None


def _compare(score: float, before: float | None, task: Task) -> str:
    if before is None:
        return "better"
    if score == before:
        return "same"
    return "better" if (score > before) == METRICS[task.metric].higher_is_better else "worse"
