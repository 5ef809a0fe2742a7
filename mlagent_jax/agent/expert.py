"""The built-in expert, which explores like a careful person and knows no answers.

It first tries the ideas that it is given, and then random operations that apply. It edits the best script so far, keeps
what helps, and fixes what fails. It also makes mistakes (`Slips`), unless it has `NO_SLIPS`. The episode's seed
determines its plan; seed and step determine its random operations and its slips. It knows the results that `progress`
sees in the feedback. Its responses are terse and follow a few patterns, so that a small model can learn them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlagent_jax.agent.known_pipelines import pipeline_of
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.progress import Progress, read_progress
from mlagent_jax.agent.progress_actions import closing_action, edit_action, final_action
from mlagent_jax.agent.repairs import repair
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
from mlagent_jax.pipelines.instructions import axis_of, lines
from mlagent_jax.pipelines.pipeline import kind_of, problem_type_of
from mlagent_jax.pipelines.sampling import random_operation

_EDITS = (3, 5)  # the smallest and the largest number of ideas in an episode
LAST_EDIT = 12  # from this step on it only finishes, so that episodes stay well below 15 steps


@dataclass(frozen=True)
class Slips:
    """The probability of each mistake per step. A small model makes mistakes of the same kinds."""

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
    """What an episode looks at first, and how many ideas it tries."""

    looks: tuple[Action, ...]
    edits: int


@dataclass(frozen=True)
class ScriptedExpert:
    """Implements `Policy`. thought: whether responses have all six fields, or only the last two."""

    slips: Slips = field(default_factory=Slips)
    thought: bool = True
    name: str = "expert"
    writes_free_code: bool = False

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        return [Response(self._respond(situation)) for situation in situations]

    def _respond(self, situation: Situation) -> str:
        rng = random.Random(f"expert/{situation.seed}/{len(situation.steps)}")
        seen = read_progress(situation)
        thought, action = self._decide(situation, seen, rng)
        slip = rng.random()
        if slip < self.slips.unknown_tool:
            action = Action(_MISNAMED[action.tool], action.arguments)
        text = render(action, _thoughts(seen, thought) if self.thought else None)
        if self.slips.unknown_tool <= slip < self.slips.unknown_tool + self.slips.bad_json:
            text = text[:-1]  # drops the closing brace
        return text

    def _decide(self, situation: Situation, seen: Progress, rng: random.Random) -> tuple[str, Action]:
        plan = _plan(situation)
        step = len(situation.steps)
        if step < len(plan.looks):
            return "Look first.", plan.looks[step]
        fix = repair(situation.steps[-1].output) if seen.failed_script and rng.random() < 0.5 else ""
        if fix and fix not in seen.tried and step < LAST_EDIT:
            return "Mend it.", edit_action(seen, seen.failed_script, fix)
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
            idea = rng.choice(_instructions(situation))
        if seen.tried and rng.random() < self.slips.repeat:
            idea = seen.tried[-1]
        if rng.random() < self.slips.stale_script:
            source = seen.scripts[-1]
        if rng.random() < self.slips.wrong_script:
            source = "model.py"
        axis = axis_of(idea)
        return f"Try {'an' if not axis else f'a {axis}'} idea.", edit_action(seen, source, idea)

    def _finish(self, seen: Progress, early: bool) -> tuple[str, Action]:
        if seen.standing != seen.best and not early:
            return "Run the best again.", closing_action(seen)
        return "Done.", final_action(seen)


def _plan(situation: Situation) -> _Plan:
    rng = random.Random(f"expert/{situation.seed}/plan")
    looks = rng.sample(_LOOKS, rng.choices((0, 1, 2), (4, 5, 1))[0])
    return _Plan(tuple(looks), max(rng.randint(*_EDITS), len(situation.ideas)))


def _instructions(situation: Situation) -> tuple[str, ...]:
    """Every instruction for the kind of task; () for an unknown kind."""
    kind = kind_of(situation.task.kind)
    return lines(kind, problem_type_of(situation.task.kind)) if kind else ()


def _own_idea(situation: Situation, seen: Progress, rng: random.Random) -> str:
    """A random instruction that changes the best script; "" if there is none.

    If that script is not a pipeline's, this is any instruction for the kind of task.
    """
    pipeline = pipeline_of(situation, seen.best)
    if pipeline is None:
        untried = [line for line in _instructions(situation) if line not in seen.tried]
        return rng.choice(untried) if untried else ""
    while True:
        operation, values, _ = random_operation(pipeline, rng)
        idea = operation.say(values, rng.choice(operation.train_wordings))
        if idea not in seen.tried:
            return idea


_LOOKS = (
    Action(LIST_FILES, {"dir_path": "."}),
    Action(LIST_FILES, {"dir_path": "data"}),
    Action(INSPECT, {"script_name": STARTER, "start_line_number": 1, "end_line_number": 30}),
    Action(UNDERSTAND, {"file_name": STARTER, "things_to_look_for": "the model and its inputs"}),
    Action(EXECUTE, {"script_name": STARTER}),
    Action(COPY_FILE, {"source": STARTER, "destination": "backup.py"}),
)


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
