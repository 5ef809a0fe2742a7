"""A control that asks for the operation with the highest predicted reward, by what a bandit has learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from mlagent_jax.agent.known_pipelines import pipeline_of
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.progress import Progress, read_progress
from mlagent_jax.agent.progress_actions import closing_action, edit_action
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.controls.bandit_learning import applicable
from mlagent_jax.controls.candidates import Candidate
from mlagent_jax.controls.context import context_of
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import EDIT

_THOUGHTS = Thoughts(
    "None.", "Change the best script.", "None.", "Take the operation with the best prediction."
)


@dataclass(frozen=True)
class BanditPolicy:
    """Implements `Policy`. Edits the best script so far, greedily, until the last step, in which the best one counts.

    weights: see `LearntBandit`; an arm without any is predicted to earn 0, and ties go to the candidate that comes
        first. steps: of an episode. thought: whether responses have all six fields.
    """

    candidates: Sequence[Candidate]
    weights: Mapping[str, Float[ndarray, " features"]]
    steps: int
    thought: bool = True
    name: str = "bandit"
    writes_free_code: bool = False

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        thoughts = _THOUGHTS if self.thought else None
        return [Response(render(self._action(situation), thoughts)) for situation in situations]

    def _action(self, situation: Situation) -> Action:
        seen = read_progress(situation)
        instruction = self._best_untried(situation, seen) if len(situation.steps) < self.steps - 1 else ""
        return edit_action(seen, seen.best, instruction) if instruction else closing_action(seen)

    def _best_untried(self, situation: Situation, seen: Progress) -> str:
        """An operation that changes the best script and was not tried on it; "" if there is none."""
        pipeline = pipeline_of(situation, seen.best)
        if pipeline is None:
            return ""
        tried = _tried_on(situation, seen.best)
        context = context_of(pipeline)
        predicted = {
            name: float(self.weights[name] @ context) if name in self.weights else 0.0
            for name in (self.candidates[arm].instruction for arm in applicable(self.candidates, pipeline))
            if name not in tried
        }
        return max(predicted, key=predicted.__getitem__, default="")


def _tried_on(situation: Situation, script: str) -> set[str]:
    actions = [
        step.action for step in situation.steps if step.action is not None and step.action.tool == EDIT
    ]
    return {
        str(action.arguments.get("edit_instruction"))
        for action in actions
        if action.arguments.get("script_name") == script
    }
