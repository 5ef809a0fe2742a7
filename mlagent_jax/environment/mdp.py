"""The MDP of ML-engineering (arXiv 2505.23723, section 3): from a state and an action to a transition.

`Environment.step` keeps nothing between calls, so any stored state can be stepped from, in any order and from many
threads. Its result depends only on its arguments and on the sandbox, whose results are cached by content.

What stays in the workspace after a run:
- An edited script stays even if it failed, as in a real workspace.
- Files that a script wrote stay if the script ended by itself, successfully or not. Those of a run that was killed at a
  limit do not stay, since how far it got depends on timing, and a state must not. Files that the next job could not
  have, or that are too many or too large, do not stay either; feedback tells the agent.
- The submission is removed before every run, so that an old one is never graded as new. Afterwards it is the last
  valid one. So a submission in a workspace is always the one whose scores the state carries.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mlagent_jax.environment import feedback, tools
from mlagent_jax.environment.coder import Coder, CoderError, CoderUnavailableError
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import INVALID_OUTPUT, Action, EnvState, Malformed, Outcome, Transition
from mlagent_jax.environment.workspace import (
    DATA,
    MAX_FILE_BYTES,
    STARTER,
    Files,
    WorkspaceError,
    clean_path,
    inspect_lines,
    list_files,
    missing,
    read_bytes,
    read_text,
    with_file,
    writable_path,
)
from mlagent_jax.errors import UserError
from mlagent_jax.fields import setting
from mlagent_jax.grading.grade import Graded, Invalid
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.grading.parsers import ParserUnavailableError
from mlagent_jax.sandbox.interface import Job, Limits, Result, Sandbox, Status
from mlagent_jax.tasks.task import Task

Arguments = dict[str, Any]  # of a tool call, which `tools.check` has accepted
Grader = Callable[[Task, bytes | None], Graded | Invalid]

_STARTER_ATTEMPTS = 3
_MIN_WALL_SECONDS = 1.0


class StarterError(UserError):
    """The starter of a task does not run, or its submission is not valid, so no episode can start."""


class _SandboxFault(Exception):
    """The sandbox failed, not the program in it."""


@dataclass(frozen=True)
class EpisodeLimits:
    """The paper's 15 steps and 30 minutes. `seconds` counts the execution time of scripts."""

    steps: int = setting(15, at_least=1)
    seconds: float = setting(1800.0, above=0)


@dataclass(frozen=True)
class _Run:
    """One execution: its result, the workspace after it, and the grading of its submission.

    grade: None if the script failed. wrote: whether it wrote a submission.
    """

    result: Result
    limits: Limits
    files: Files
    grade: Graded | Invalid | None
    wrote: bool = False

    @property
    def ended_well(self) -> bool:
        """Whether the script ran to its end with exit code 0. Its submission may still be invalid."""
        return self.result.status is Status.OK

    @property
    def status(self) -> str:
        """The status that trajectories store; see `Transition.status`."""
        return INVALID_OUTPUT if self.wrote and isinstance(self.grade, Invalid) else self.result.status.value


@dataclass(frozen=True)
class _ActionResult:
    """What an action does. files, run: None if the action changes no file, or runs nothing."""

    outcome: Outcome
    feedback: str
    files: Files | None = None
    diff: str = ""
    run: _Run | None = None
    done: str = ""


class Environment:
    """The environment of one task. Thread-safe if the sandbox and the coder are."""

    def __init__(
        self,
        task: Task,
        sandbox: Sandbox,
        store: SnapshotStore,
        coder: Coder,
        grader: Grader,
        limits: EpisodeLimits | None = None,
    ) -> None:
        self.task = task
        self.limits = limits or EpisodeLimits()
        self._sandbox = sandbox
        self._store = store
        self._coder = coder
        self._grader = grader
        self._initial: EnvState | None = None
        self._initial_lock = threading.Lock()
        self._higher_is_better = METRICS[task.metric].higher_is_better
        self._calls: dict[str, Callable[[EnvState, Files, Arguments, str], _ActionResult]] = {
            tools.LIST_FILES: self._list_files,
            tools.COPY_FILE: self._copy_file,
            tools.INSPECT: self._inspect,
            tools.EXECUTE: self._execute_script,
            tools.UNDERSTAND: self._understand,
            tools.EDIT: self._edit_script,
            tools.FINAL_ANSWER: self._final_answer,
        }

    def initial_state(self) -> EnvState:
        """The state after the starter has run and been graded; its scores are m_init. Raises StarterError."""
        with self._initial_lock:
            if self._initial is None:
                self._initial = self._run_starter()
            return self._initial

    def step(self, state: EnvState, action: Action | Malformed, lease: str = "") -> Transition:
        """Takes one action.

        lease: of the episode, if there is one; see `Job.lease`. The result does not depend on it.

        Raises:
            ValueError: the episode of this state has ended.
            SnapshotError: the workspace of this state is lost.
        """
        if state.done:
            raise ValueError(f"this episode has ended ({state.done}); no action can follow")
        if isinstance(action, Action):
            action = tools.check(action) or action
        if isinstance(action, Malformed):
            return self._transition(state, _ActionResult(Outcome.MALFORMED, action.feedback))
        files = self._store.get(state.snapshot)
        try:
            result = self._calls[action.tool](state, files, dict(action.arguments), lease)
        except WorkspaceError as error:
            result = _ActionResult(Outcome.ERROR, f"{feedback.BAD_CALL} {error}.")
        except CoderError as error:
            result = _ActionResult(Outcome.ERROR, f"{feedback.CODER_FAILED} {error}")
        except (CoderUnavailableError, _SandboxFault) as error:
            m = state.public_score
            return Transition(state, Outcome.INFRASTRUCTURE, str(error), m_before=m, m_after=m)
        return self._transition(state, result)

    def release(self, lease: str) -> None:
        """Tells the sandbox that no further step will use this lease."""
        self._sandbox.release(lease)

    def _list_files(self, state: EnvState, files: Files, arguments: Arguments, lease: str) -> _ActionResult:
        names = "\n".join(list_files(files, arguments["dir_path"], self.task.data_dir))
        return _ActionResult(Outcome.NEUTRAL, feedback.clip_lines(names, feedback.MAX_OUTPUT_CHARS))

    def _copy_file(self, state: EnvState, files: Files, arguments: Arguments, lease: str) -> _ActionResult:
        source, destination = clean_path(arguments["source"]), writable_path(arguments["destination"])
        content = read_bytes(files, source, self.task.data_dir)
        after = with_file(files, destination, content)
        return _ActionResult(Outcome.NEUTRAL, f"Copied {source} to {destination}.", after)

    def _inspect(self, state: EnvState, files: Files, arguments: Arguments, lease: str) -> _ActionResult:
        first, last = arguments["start_line_number"], arguments["end_line_number"]
        lines = inspect_lines(files, arguments["script_name"], first, last, self.task.data_dir)
        return _ActionResult(Outcome.NEUTRAL, feedback.clip(lines, feedback.MAX_OUTPUT_CHARS))

    def _understand(self, state: EnvState, files: Files, arguments: Arguments, lease: str) -> _ActionResult:
        text = read_text(files, arguments["file_name"], self.task.data_dir)
        report = self._coder.understand(text, arguments["things_to_look_for"])
        return _ActionResult(Outcome.NEUTRAL, feedback.clip(report, feedback.MAX_OUTPUT_CHARS))

    def _final_answer(self, state: EnvState, files: Files, arguments: Arguments, lease: str) -> _ActionResult:
        return _ActionResult(Outcome.NEUTRAL, "", done="final_answer")

    def _execute_script(
        self, state: EnvState, files: Files, arguments: Arguments, lease: str
    ) -> _ActionResult:
        """The outcome is neutral if the script succeeds: it may just look at the data and submit nothing."""
        run = self._run(state, files, clean_path(arguments["script_name"]), lease)
        text = feedback.join(feedback.execution(run.result, run.limits), self._score_text(state, run))
        outcome = Outcome.NEUTRAL if run.ended_well else _failure(run.result)
        return _ActionResult(outcome, text, run.files, run=run)

    def _edit_script(self, state: EnvState, files: Files, arguments: Arguments, lease: str) -> _ActionResult:
        source, target = clean_path(arguments["script_name"]), writable_path(arguments["save_name"])
        if not target.endswith(".py"):
            raise WorkspaceError(
                f"an edited script is run, so save_name must end with .py, not be {target!r}"
            )
        old = read_text(files, source, self.task.data_dir)
        new = self._coder.edit(old, arguments["edit_instruction"])
        edited = with_file(files, target, _encode(new))
        diff = _diff(old, new, source, target)
        if not diff:
            return _ActionResult(Outcome.NEUTRAL, f"Saved to {target}; the edit changed nothing.", edited)
        run = self._run(state, edited, target, lease)
        text = feedback.join(
            feedback.saved(target, diff),
            feedback.execution(run.result, run.limits),
            self._score_text(state, run),
        )
        if not run.ended_well:
            outcome = _failure(run.result)
        else:
            outcome = Outcome.SUCCESS if isinstance(run.grade, Graded) else Outcome.ERROR
        return _ActionResult(outcome, text, run.files, diff, run)

    def _run(self, state: EnvState | None, files: Files, script: str, lease: str = "") -> _Run:
        """Runs a script and grades its submission.

        Raises WorkspaceError if there is no such script, and _SandboxFault if the infrastructure failed.
        """
        inputs = {path: content for path, content in files.items() if path != self.task.submission}
        if script not in inputs:
            raise WorkspaceError(missing(inputs, script, "script"))
        limits = self._limits(state)
        result = self._sandbox.run(
            Job(
                inputs, script, self.task.data_dir, self.task.data_digest, limits, lease, self.task.submission
            )
        )
        if result.status is Status.SANDBOX_ERROR:
            raise _SandboxFault(result.error)
        if result.status.is_corner_case:
            return _Run(result, limits, files, None)
        after = {path: content for path, content in result.files.items() if _is_kept(path)}
        written = after.pop(self.task.submission, None)
        grade = self._grade(written) if result.status is Status.OK else None
        standing = written if isinstance(grade, Graded) else files.get(self.task.submission)
        if standing is not None:
            after[self.task.submission] = standing
        return _Run(result, limits, after, grade, written is not None)

    def _grade(self, written: bytes | None) -> Graded | Invalid:
        """The scores of the submission, or why it is invalid. Raises _SandboxFault."""
        try:
            return self._grader(self.task, written)
        except ParserUnavailableError as error:
            raise _SandboxFault(str(error)) from error

    def _limits(self, state: EnvState | None) -> Limits:
        """The limits of the task, with no more time than the episode has left."""
        limits = self.task.limits
        left = self.limits.seconds - (state.seconds if state else 0.0)
        return replace(limits, wall_seconds=min(limits.wall_seconds, max(left, _MIN_WALL_SECONDS)))

    def _score_text(self, state: EnvState, run: _Run) -> str:
        """What the agent is told about its submission."""
        if run.grade is None:
            return ""
        if isinstance(run.grade, Invalid):
            return feedback.invalid_submission(run.grade.reason)
        if not self.task.show_public_score:
            return "Submission accepted."
        score, before = run.grade.public, state.public_score
        return feedback.comparison(self.task.metric, score, before, self._higher_is_better)

    def _transition(self, state: EnvState, result: _ActionResult) -> Transition:
        after = replace(state, steps=state.steps + 1)
        if result.files is not None:
            after = replace(after, snapshot=self._store.put(result.files))
        run = result.run
        if run is not None:
            after = replace(after, seconds=state.seconds + run.result.wall_seconds)
            if isinstance(run.grade, Graded):
                scores = run.grade
                after = replace(after, public_score=scores.public, private_score=scores.private, graded=True)
        return Transition(
            state=replace(after, done=result.done or self._limit_reached(after)),
            outcome=result.outcome,
            feedback=result.feedback,
            m_before=state.public_score,
            m_after=after.public_score,
            diff=result.diff,
            output=run.result.output if run else "",
            status=run.status if run else "",
            cached=run.result.cached if run else False,
        )

    def _limit_reached(self, state: EnvState) -> str:
        if state.steps >= self.limits.steps:
            return "step_limit"
        return "time_limit" if state.seconds >= self.limits.seconds else ""

    def _run_starter(self) -> EnvState:
        name = self.task.name
        run = self._attempt_starter()
        if not run.ended_well:
            problem = feedback.clip(feedback.execution(run.result, run.limits), 600)
        elif isinstance(run.grade, Graded):
            snapshot = self._store.put(run.files)
            return EnvState(snapshot, run.grade.public, run.grade.private)
        else:
            problem = feedback.invalid_submission(run.grade.reason if run.grade else "")
        raise StarterError(
            f"the starter of task {name} must run and write a valid submission; fix its {STARTER}: {problem}"
        )

    def _attempt_starter(self) -> _Run:
        faults = []
        for _ in range(_STARTER_ATTEMPTS):
            try:
                return self._run(None, {STARTER: self.task.starter.encode()}, STARTER)
            except _SandboxFault as fault:
                faults.append(str(fault))
        raise StarterError(
            f"the sandbox failed {len(faults)} times on the starter of task {self.task.name}: {faults[-1]}"
        )


def _failure(result: Result) -> Outcome:
    return Outcome.CORNER if result.status.is_corner_case else Outcome.ERROR


def _is_kept(path: str) -> bool:
    return path.split("/")[0] != DATA and "__pycache__" not in path.split("/")


def _encode(script: str) -> bytes:
    try:
        content = script.encode()
    except UnicodeEncodeError as error:
        raise CoderError(f"the edited script is not text: {error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise CoderError(f"the edited script has {len(content)} bytes; at most {MAX_FILE_BYTES} are allowed")
    return content


def _diff(old: str, new: str, source: str, target: str) -> str:
    """The unified diff; "" if nothing changed."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), source, target, lineterm="")
    return "\n".join(lines)
