"""A baseline that changes nothing, so its score is the starter's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import FINAL_ANSWER

_ACTION = Action(FINAL_ANSWER, {"final_answer": "The starter stands."})
_THOUGHTS = Thoughts("Nothing was run.", "Keep the starter.", "Nothing to confirm.", "Answer at once.")


@dataclass(frozen=True)
class StarterPolicy:
    """Implements `Policy`. Gives its final answer at once. thought: whether responses have all six fields."""

    thought: bool = True
    name: str = "starter"
    writes_free_code: bool = False

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        return [Response(render(_ACTION, _THOUGHTS if self.thought else None)) for _ in situations]
