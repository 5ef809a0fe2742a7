"""Controls that search the space of pipelines anew in each episode, at random or by Optuna.

A search does not talk: its instructions are whole scripts, for a `VerbatimCoder`. Everything else is as for any agent,
so each candidate costs a step and an execution, and the best one by what the agent is shown is submitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.progress import read_progress, shown_score
from mlagent_jax.agent.progress_actions import closing_action, edit_action
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.controls.candidates import starter_pipeline
from mlagent_jax.controls.valid_search import ValidSearch
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.tasks.task import Task

SEARCHES = {"random_search": "random", "optuna": "tpe"}
"""By the agent's name, the search of `pipeline_search`."""

_THOUGHTS = Thoughts("None.", "Search.", "None.", "Try the next pipeline.")


@dataclass(frozen=True)
class SearchPolicy:
    """Implements `Policy`. name: of `SEARCHES`. steps: of an episode. thought: whether responses have all six fields.

    The search's seed is the episode's. Raises UserError for a task whose starter is no pipeline's.
    """

    name: str
    steps: int
    thought: bool = True
    writes_free_code: bool = False
    # Where each episode's search stands. An episode's situation alone determines it, but replaying it takes long.
    _searches: dict[tuple[str, int], ValidSearch] = field(default_factory=dict, repr=False, compare=False)

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        thoughts = _THOUGHTS if self.thought else None
        return [Response(render(self._action(situation), thoughts)) for situation in situations]

    def _action(self, situation: Situation) -> Action:
        seen = read_progress(situation)
        script = self._script(situation) if len(situation.steps) < self.steps - 1 else ""
        if script:
            return edit_action(seen, seen.scripts[0], script)
        self._searches.pop((situation.task.name, situation.seed), None)
        return closing_action(seen)

    def _script(self, situation: Situation) -> str:
        task = situation.task
        scores = [
            shown_score(step, task)
            for step in situation.steps
            if step.action is not None and step.action.tool == EDIT
        ]
        search = self._searches.get((task.name, situation.seed))
        if search is not None and scores and search.given == len(scores):
            search.tell(scores[-1])
        else:
            search = self._begun(task, situation.seed)
            for score in scores:
                search.next()
                search.tell(score)
        self._searches[task.name, situation.seed] = search
        return search.next()

    def _begun(self, task: Task, seed: int) -> ValidSearch:
        starter = starter_pipeline(task.name, task.starter, self.name)
        return ValidSearch(SEARCHES[self.name], task, starter, seed)
