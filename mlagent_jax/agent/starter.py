"""The baseline that changes nothing: its score is the starter's."""

from __future__ import annotations

from collections.abc import Sequence

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import FINAL_ANSWER

_RESPONSE = render(
    Action(FINAL_ANSWER, {"final_answer": "The starter stands."}),
    Thoughts("Nothing was run.", "Keep the starter.", "Nothing to confirm.", "Answer at once."),
)


class StarterPolicy:
    """Gives the final answer as its first action."""

    name = "starter"
    writes_free_code = False

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        return [Response(_RESPONSE) for _ in situations]
