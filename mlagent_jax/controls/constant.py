"""A control that always asks for the same operations, whatever comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.progress import read_progress
from mlagent_jax.agent.progress_actions import edit_action
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import FINAL_ANSWER

_THOUGHTS = Thoughts("None.", "Play the sequence.", "None.", "Take its next operation.")


@dataclass(frozen=True)
class ConstantPolicy:
    """Implements `Policy`. sequence: instructions, one for each step; an edit runs the edited script.

    Each edits the last script that ran, so an operation that does not apply, or fails, changes nothing.
    thought: whether responses have all six fields.
    """

    sequence: tuple[str, ...]
    thought: bool = True
    name: str = "constant"
    writes_free_code: bool = False

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        thoughts = _THOUGHTS if self.thought else None
        return [Response(render(self._action(situation), thoughts)) for situation in situations]

    def _action(self, situation: Situation) -> Action:
        step = len(situation.steps)
        if step >= len(self.sequence):
            return Action(FINAL_ANSWER, {"final_answer": "The sequence is played."})
        seen = read_progress(situation)
        return edit_action(seen, seen.standing, self.sequence[step])
