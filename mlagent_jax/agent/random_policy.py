"""A baseline that calls a random tool with plausible random arguments."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.progress import read_progress
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import (
    COPY_FILE,
    EDIT,
    EXECUTE,
    FINAL_ANSWER,
    INSPECT,
    LIST_FILES,
    TOOLS,
    UNDERSTAND,
)
from mlagent_jax.pipelines.instructions import lines
from mlagent_jax.pipelines.pipeline import kind_of, problem_type_of

_THOUGHTS = Thoughts("None.", "Act at random.", "None.", "Draw a tool.")


@dataclass(frozen=True)
class RandomPolicy:
    """Implements `Policy`. Seed and step determine the action. thought: whether responses have all six fields."""

    thought: bool = True
    name: str = "random"
    writes_free_code: bool = False

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        thoughts = _THOUGHTS if self.thought else None
        return [Response(render(_draw(situation), thoughts)) for situation in situations]


def _draw(situation: Situation) -> Action:
    rng = random.Random(f"random/{situation.seed}/{len(situation.steps)}")
    scripts = read_progress(situation).scripts
    script = rng.choice(scripts)
    start = rng.randint(1, 30)
    kind = situation.task.kind
    instructions = lines(kind_of(kind) or "table", problem_type_of(kind))
    arguments: dict[str, dict[str, object]] = {
        LIST_FILES: {"dir_path": rng.choice((".", "data"))},
        COPY_FILE: {"source": script, "destination": "copy.py"},
        INSPECT: {"script_name": script, "start_line_number": start, "end_line_number": start + 20},
        EXECUTE: {"script_name": script},
        UNDERSTAND: {"file_name": script, "things_to_look_for": "the model and its inputs"},
        EDIT: {
            "script_name": script,
            "edit_instruction": rng.choice(instructions),
            "save_name": f"train_{len(scripts)}.py",
        },
        FINAL_ANSWER: {"final_answer": "Done."},
    }
    tool = rng.choice(list(TOOLS))
    return Action(tool, arguments[tool])
