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
from mlagent_jax.agent.response import Thoughts
from mlagent_jax.agent.response import render as render_response
from mlagent_jax.controls.candidates import starter_pipeline
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.pipelines.search import Search, open_search
from mlagent_jax.pipelines.validity import validation_errors
from mlagent_jax.tasks.task import Task

SEARCHES = {"random_search": "random", "optuna": "tpe"}
"""By the agent's name, the search of `pipelines.search`."""

_ASKED = 50  # pipelines asked for, at most, for each execution: most that fail are known to fail beforehand
_THOUGHTS = Thoughts("None.", "Search.", "None.", "Try the next pipeline.")


class _Course:
    """A search on a task that is told each result before it is asked for the next pipeline."""

    def __init__(self, search: Search, task: Task) -> None:
        self._search = search
        self._sign = 1.0 if METRICS[task.metric].higher_is_better else -1.0
        self.given = 0

    def next(self) -> str:
        """The next script that may run; "" if none is found."""
        self.given += 1
        for _ in range(_ASKED):
            pipeline = self._search.ask()
            if not validation_errors(pipeline):
                return render(pipeline)
            self._search.tell(None)
        return ""

    def tell(self, score: float | None) -> None:
        self._search.tell(None if score is None else self._sign * score)


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
    _courses: dict[tuple[str, int], _Course] = field(default_factory=dict, repr=False, compare=False)

    def fits(self, situation: Situation) -> bool:
        return True

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        thoughts = _THOUGHTS if self.thought else None
        return [Response(render_response(self._action(situation), thoughts)) for situation in situations]

    def _action(self, situation: Situation) -> Action:
        seen = read_progress(situation)
        script = self._script(situation) if len(situation.steps) < self.steps - 1 else ""
        if script:
            return edit_action(seen, seen.scripts[0], script)
        self._courses.pop((situation.task.name, situation.seed), None)
        return closing_action(seen)

    def _script(self, situation: Situation) -> str:
        task = situation.task
        scores = [
            shown_score(step, task)
            for step in situation.steps
            if step.action is not None and step.action.tool == EDIT
        ]
        course = self._courses.get((task.name, situation.seed))
        if course is not None and scores and course.given == len(scores):
            course.tell(scores[-1])
        else:
            course = self._begun(task, situation.seed)
            for score in scores:
                course.next()
                course.tell(score)
        self._courses[task.name, situation.seed] = course
        return course.next()

    def _begun(self, task: Task, seed: int) -> _Course:
        starter = starter_pipeline(task.name, task.starter, self.name)
        columns = starter.columns if isinstance(starter.columns, tuple) else ()
        return _Course(open_search(SEARCHES[self.name], starter.facts, columns, seed), task)
