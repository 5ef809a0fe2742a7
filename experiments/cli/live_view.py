"""Episodes in a terminal as they happen: each instruction, what the coder made of it, what that printed and scored."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence

from rich.console import Console
from rich.status import Status
from rich.text import Text

from mlagent_jax.agent.episode import StepRecord
from mlagent_jax.agent.policy import Policy, Response, Situation
from mlagent_jax.agent.response import parse
from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.environment.coder import Coder
from mlagent_jax.environment.feedback import clip_lines, number
from mlagent_jax.environment.state import Action, Outcome
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.sandbox.outcome import clean_text
from mlagent_jax.tasks.task import Task

_DIFF_LINES = 20  # at each end
_OUTPUT_CHARS = 800
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class LiveView:
    """Shows one episode at a time, whose policy and coder are wrapped by `policy` and `coder`.

    thought: whether responses have all six fields.
    """

    def __init__(self, console: Console, tasks: Sequence[Task], thought: bool) -> None:
        self._console = console
        self._tasks = {task.name: task for task in tasks}
        self._thought = thought
        self._status: Status | None = None

    def policy(self, policy: Policy) -> Policy:
        return _ShownPolicy(policy, self)

    def coder(self, coder: Coder) -> Coder:
        return _ShownCoder(coder, self)

    def waits(self, for_what: str) -> None:
        """Shows what takes its time, until something else is shown."""
        self.done()
        self._status = self._console.status(Text(clean_text(for_what)))
        self._status.start()

    def done(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def chosen(self, situation: Situation, response: Response) -> None:
        """Shows the action that the agent has chosen."""
        self.done()
        task, action = situation.task, parse(response.text, self._thought)
        if not situation.steps:
            self._console.rule(Text(f"{task.name} ({task.split.replace('_', ' ')}): {task.brief}"))
        step = f"step {len(situation.steps) + 1}  "
        if not isinstance(action, Action):
            self._say(f"{step}{action.feedback}", "red")
        elif action.tool == EDIT:
            given = action.arguments
            self._say(f"{step}{given.get('script_name')} -> {given.get('save_name')}: ", "bold", end="")
            self._say(str(given.get("edit_instruction")), "bold yellow")
        else:
            said = ", ".join(str(value) for value in action.arguments.values())
            self._say(f"{step}{action.tool}: {said}", "bold")

    def wrote(self, before: str, after: str, seconds: float) -> None:
        """Shows what the coder has changed."""
        self.done()
        diff = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""))[2:]
        if len(diff) > 2 * _DIFF_LINES:
            diff[_DIFF_LINES:-_DIFF_LINES] = [f"... {len(diff) - 2 * _DIFF_LINES} lines more ..."]
        for line in diff:
            self._say(f"    {line}", _COLOURS.get(line[:1], "dim"))
        self._say(f"    written in {seconds:.1f} s" if diff else "    the coder has changed nothing", "dim")

    def stepped(self, record: StepRecord) -> None:
        """Shows what came of an action."""
        self.done()
        step, task = record.step, self._tasks[record.request.task]
        if step.output.strip():
            for line in clip_lines(step.output.strip(), _OUTPUT_CHARS).splitlines():
                self._say(f"    | {line}")
        if result := _result(step, task):
            self._say(f"    {result}", _colour(step, task))

    def ended(self, trajectory: Trajectory) -> None:
        """Shows what an episode has come to."""
        self.done()
        task = self._tasks[trajectory.task]
        public = f"public {number(trajectory.m_init_public)} -> {number(trajectory.public_score)}"
        private = f"private {number(trajectory.m_init_private)} -> {number(trajectory.private_score)}"
        self._say(f"{task.name}, {task.metric}: {public}, {private}, {trajectory.ended}\n", "bold")

    def _say(self, text: str, style: str = "", end: str = "\n") -> None:
        # What a model writes may hold sequences that a terminal obeys.
        self._console.print(Text(clean_text(text), style), end=end, soft_wrap=True)


class _ShownPolicy:
    """Implements `Policy`: another one, whose actions are shown."""

    def __init__(self, policy: Policy, view: LiveView) -> None:
        self.name = policy.name
        self.writes_free_code = policy.writes_free_code
        self.fits = policy.fits
        self._policy = policy
        self._view = view

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        self._view.waits(f"{self.name} chooses")
        responses = self._policy.respond(situations)
        for situation, response in zip(situations, responses, strict=True):
            self._view.chosen(situation, response)
        self._view.waits("the script runs")
        return responses


class _ShownCoder:
    """Implements `Coder`: another one, whose edits are shown."""

    def __init__(self, coder: Coder, view: LiveView) -> None:
        self.name = coder.name
        self.writes_free_code = coder.writes_free_code
        self.understand = coder.understand
        self._coder = coder
        self._view = view

    def edit(self, script: str, instruction: str) -> str:
        began = time.monotonic()
        self._view.waits(f"{self.name} writes")
        edited = self._coder.edit(script, instruction)
        self._view.wrote(script, edited, time.monotonic() - began)
        self._view.waits("the script runs")
        return edited


def _result(step: Step, task: Task) -> str:
    if step.outcome is Outcome.SUCCESS or (step.outcome is Outcome.NEUTRAL and step.status):
        return f"{task.metric} {number(step.m_before)} -> {number(step.m_after)}"
    lines = step.feedback.strip().splitlines()
    if step.outcome is Outcome.MALFORMED:
        return ""  # shown with the action
    if step.outcome is Outcome.NEUTRAL:
        return lines[0] if lines else ""
    return f"{step.outcome.value}: {lines[-1] if lines else ''}"


def _colour(step: Step, task: Task) -> str:
    if step.outcome in (Outcome.SUCCESS, Outcome.NEUTRAL):
        is_better = METRICS[task.metric].is_better(step.m_after, step.m_before)
        return "bold green" if is_better else ""
    return "red"
