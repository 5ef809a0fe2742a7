"""The embedded expert: it explores, like a careful person, and knows no answers.

It tries the ideas that it is primed with and then operations drawn at random among those that apply, each from the
best script so far, keeps what helps and mends what fails. Slips are separate, and `NO_SLIPS` has none. Its plan for an
episode follows from the episode's seed, what it draws and its slips from seed and step. What it knows of results is in
`progress`. Its responses are terse and of few forms, so that a small model can learn them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlagent_jax.agent import progress
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.progress import Progress
from mlagent_jax.agent.repertoire import repair
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import (
    COPY_FILE,
    EDIT,
    EXECUTE,
    FINAL_ANSWER,
    INSPECT,
    LIST_FILES,
    UNDERSTAND,
)
from mlagent_jax.environment.workspace import STARTER
from mlagent_jax.pipelines.instructions import axis_of, lines, perform
from mlagent_jax.pipelines.pipeline import Pipeline, PipelineError, goal_of, kind_of
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.sampling import random_operation

_EDITS = (3, 5)  # ideas tried in an episode, at least and at most
LAST_EDIT = 12  # steps after which it only finishes, so that an episode stays well below 15


@dataclass(frozen=True)
class Slips:
    """Chances, per step, of the mistakes it makes; those of a small model are of the same sorts."""

    bad_json: float = 0.02
    unknown_tool: float = 0.02
    wrong_script: float = 0.02
    repeat: float = 0.03
    stale_script: float = 0.04  # edits the script before last instead of the best
    bad_idea: float = 0.08
    finish_early: float = 0.04


NO_SLIPS = Slips(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class _Plan:
    """How an episode begins, and how many ideas are tried in it."""

    looks: tuple[Action, ...]
    edits: int


@dataclass(frozen=True)
class ScriptedExpert:
    """Implements `Policy`. `thought`: six fields, or only the last two."""

    slips: Slips = field(default_factory=Slips)
    thought: bool = True
    name: str = "expert"
    writes_free_code: bool = False

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        return [Response(self._say(situation)) for situation in situations]

    def _say(self, situation: Situation) -> str:
        rng = random.Random(f"expert/{situation.seed}/{len(situation.steps)}")
        seen = progress.read_progress(situation)
        thought, action = self._decide(situation, seen, rng)
        slip = rng.random()
        if slip < self.slips.unknown_tool:
            action = Action(_MISNAMED[action.tool], action.arguments)
        text = render(action, _thoughts(seen, thought) if self.thought else None)
        if self.slips.unknown_tool <= slip < self.slips.unknown_tool + self.slips.bad_json:
            text = text[:-1]  # without its last brace
        return text

    def _decide(self, situation: Situation, seen: Progress, rng: random.Random) -> tuple[str, Action]:
        plan = _plan(situation)
        step = len(situation.steps)
        if step < len(plan.looks):
            return "Look first.", plan.looks[step]
        mend = repair(situation.steps[-1].output) if seen.failed_script and rng.random() < 0.5 else ""
        if mend and mend not in seen.tried and step < LAST_EDIT:
            return "Mend it.", _edit(seen, seen.failed_script, mend)
        waiting = [idea for idea in situation.ideas if idea not in seen.tried]
        early = bool(seen.tried) and rng.random() < self.slips.finish_early
        enough = not waiting and len(seen.tried) >= plan.edits
        if enough or early or step >= LAST_EDIT:
            return self._finish(seen, early)
        idea = waiting[0] if waiting else _own_idea(situation, seen, rng)
        if not idea:
            return self._finish(seen, early)
        return self._try(situation, seen, idea, rng)

    def _try(self, situation: Situation, seen: Progress, idea: str, rng: random.Random) -> tuple[str, Action]:
        source = seen.best
        primed = idea in situation.ideas
        if not primed and rng.random() < self.slips.bad_idea:
            idea = rng.choice(_lines(situation))
        if seen.tried and rng.random() < self.slips.repeat:
            idea = seen.tried[-1]
        if rng.random() < self.slips.stale_script:
            source = seen.scripts[-1]
        if rng.random() < self.slips.wrong_script:
            source = "model.py"
        axis = axis_of(idea)
        return f"Try {'an' if not axis else f'a {axis}'} idea.", _edit(seen, source, idea)

    def _finish(self, seen: Progress, early: bool) -> tuple[str, Action]:
        if seen.standing != seen.best and not early:
            return "Run the best again.", Action(EXECUTE, {"script_name": seen.best})
        return "Done.", Action(FINAL_ANSWER, {"final_answer": f"Best is {seen.best}."})


def _plan(situation: Situation) -> _Plan:
    rng = random.Random(f"expert/{situation.seed}/plan")
    looks = rng.sample(_LOOKS, rng.choices((0, 1, 2), (4, 5, 1))[0])
    return _Plan(tuple(looks), max(rng.randint(*_EDITS), len(situation.ideas)))


def _lines(situation: Situation) -> tuple[str, ...]:
    """Every instruction for the kind of task; () for a kind that is not known."""
    kind = kind_of(situation.task.kind)
    return lines(kind, goal_of(situation.task.kind)) if kind else ()


def _own_idea(situation: Situation, seen: Progress, rng: random.Random) -> str:
    """An operation that changes the best script, drawn at random; "" if there is none.

    Of a script that is no pipeline's it cannot tell, and draws any for the kind of task.
    """
    pipeline = _pipeline_of(situation, seen.best)
    if pipeline is None:
        untried = [line for line in _lines(situation) if line not in seen.tried]
        return rng.choice(untried) if untried else ""
    while True:
        operation, values, _ = random_operation(pipeline, rng)
        idea = operation.say(values, rng.choice(operation.taught))
        if idea not in seen.tried:
            return idea


def _pipeline_of(situation: Situation, script: str) -> Pipeline | None:
    """What a script of the workspace is, told from the starter and the edits made so far; None if it cannot be."""
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
            known[str(given["save_name"])] = perform(source, str(given["edit_instruction"]))
        except PipelineError:
            known.pop(str(given["save_name"]), None)  # another coder's work
    return known.get(script)


_LOOKS = (
    Action(LIST_FILES, {"dir_path": "."}),
    Action(LIST_FILES, {"dir_path": "data"}),
    Action(INSPECT, {"script_name": STARTER, "start_line_number": 1, "end_line_number": 30}),
    Action(UNDERSTAND, {"file_name": STARTER, "things_to_look_for": "the model and its inputs"}),
    Action(EXECUTE, {"script_name": STARTER}),
    Action(COPY_FILE, {"source": STARTER, "destination": "backup.py"}),
)


def _edit(seen: Progress, source: str, idea: str) -> Action:
    save_name = f"train_{len(seen.scripts)}.py"
    return Action(EDIT, {"script_name": source, "edit_instruction": idea, "save_name": save_name})


_MISNAMED = {
    LIST_FILES: "List Directory",
    COPY_FILE: "Copy",
    INSPECT: "Read File",
    EXECUTE: "Run Script",
    UNDERSTAND: "Ask",
    EDIT: "Edit Script",
    FINAL_ANSWER: "Submit",
}

_REFLECTIONS = {
    "start": "Nothing is done yet.",
    "look": "I have looked.",
    "better": "That was better.",
    "worse": "That was worse.",
    "same": "That changed nothing.",
    "failed": "That failed.",
    "invalid": "My answer was invalid.",
}


def _thoughts(seen: Progress, thought: str) -> Thoughts:
    scored = seen.last in ("better", "worse", "same")
    fact = ("A new best." if seen.new_best else "Not a new best.") if scored else "None."
    return Thoughts(_REFLECTIONS[seen.last], f"Best is {seen.best}.", fact, thought)
