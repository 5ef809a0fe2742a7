"""The embedded expert: tries ideas one by one from the best script so far, like a careful person, with slips.

Its plan for an episode follows from the episode's seed, its slips from seed and step. What it knows of
results is in `progress`. Its responses are terse and of few forms, so that a small model can learn them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlagent_jax.agent import progress
from mlagent_jax.agent.edits import catalogue
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.progress import Progress
from mlagent_jax.agent.repertoire import bad_ideas, own_ideas, repair
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


@dataclass(frozen=True)
class _Plan:
    looks: tuple[Action, ...]
    ideas: tuple[str, ...]


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
        waiting = [idea for idea in plan.ideas if idea not in seen.tried]
        early = bool(seen.tried) and rng.random() < self.slips.finish_early
        if not waiting or early or step >= LAST_EDIT:
            return self._finish(seen, early)
        return self._try(situation, seen, waiting[0], rng)

    def _try(self, situation: Situation, seen: Progress, idea: str, rng: random.Random) -> tuple[str, Action]:
        source = seen.best
        primed = idea in situation.ideas
        if not primed and rng.random() < self.slips.bad_idea:
            idea = rng.choice(bad_ideas(situation.task.kind))
        if seen.tried and rng.random() < self.slips.repeat:
            idea = seen.tried[-1]
        if rng.random() < self.slips.stale_script:
            source = seen.scripts[-1]
        if rng.random() < self.slips.wrong_script:
            source = "model.py"
        axis = catalogue.axis_of(idea)
        return f"Try {'an' if not axis else f'a {axis}'} idea.", _edit(seen, source, idea)

    def _finish(self, seen: Progress, early: bool) -> tuple[str, Action]:
        if seen.standing != seen.best and not early:
            return "Run the best again.", Action(EXECUTE, {"script_name": seen.best})
        return "Done.", Action(FINAL_ANSWER, {"final_answer": f"Best is {seen.best}."})


def _plan(situation: Situation) -> _Plan:
    """How to begin and what to try: the primed ideas first, then some of its own."""
    rng = random.Random(f"expert/{situation.seed}/plan")
    looks = rng.sample(_LOOKS, rng.choices((0, 1, 2), (4, 5, 1))[0])
    own = [idea for idea in own_ideas(situation.task.kind) if idea not in situation.ideas]
    count = max(rng.randint(*_EDITS) - len(situation.ideas), 1)
    chosen = set(rng.sample(own, min(count, len(own))))
    # In the repertoire's order, as a person works: few different scripts, and a habit that can be learned.
    return _Plan(tuple(looks), (*situation.ideas, *(idea for idea in own if idea in chosen)))


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
