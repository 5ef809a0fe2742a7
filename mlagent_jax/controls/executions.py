"""Scripts of tasks, run and graded: what controls choose by and learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from mlagent_jax.environment.mdp import Grader
from mlagent_jax.environment.state import Outcome
from mlagent_jax.environment.workspace import STARTER
from mlagent_jax.errors import UserError
from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.sandbox.interface import Job, Sandbox, Status
from mlagent_jax.tasks.task import Task

_ATTEMPTS = 3


@dataclass(frozen=True)
class Execution:
    """outcome: as of an edit that wrote the script. score: the public score, None if the script gave none.

    private: the private score, which nothing may choose by or learn from.
    """

    outcome: Outcome
    score: float | None = None
    private: float | None = None


class Bar(Protocol):
    """Shows progress; `training.progress.ProgressBar` is one."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def advance(self, note: str = "") -> None: ...


class _NoBar:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def advance(self, note: str = "") -> None: ...


OpenBar = Callable[[str, int], Bar]
"""Called with what is shown and its length."""


def execute(task: Task, sandbox: Sandbox, script: str, grader: Grader = grade) -> Execution:
    """Runs a script as the only one of a workspace. Raises UserError if the sandbox fails, even when asked again."""
    files = {STARTER: script.encode()}
    job = Job(files, STARTER, task.data_dir, task.data_digest, task.limits, output=task.submission)
    for _ in range(_ATTEMPTS):
        result = sandbox.run(job)
        if result.status is not Status.SANDBOX_ERROR:
            break
    else:
        raise UserError(f"the sandbox failed on task {task.name}: {result.error}; start again to go on")
    if result.status.is_corner_case:
        return Execution(Outcome.CORNER)
    graded = grader(task, result.files.get(task.submission)) if result.status is Status.OK else None
    if isinstance(graded, Graded):
        return Execution(Outcome.SUCCESS, graded.public, graded.private)
    return Execution(Outcome.ERROR)


class Executions:
    """Runs each script of a task once, up to `threads` at a time.

    With a sandbox that remembers results, whatever is interrupted goes on where it stopped.

    Attributes:
        count: how many different scripts were run, or answered by the sandbox's memory.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        grader: Grader = grade,
        threads: int = 1,
        open_bar: OpenBar = lambda title, total: _NoBar(),
    ) -> None:
        self._sandbox, self._grader, self._threads = sandbox, grader, threads
        self._known: dict[tuple[str, str], Execution] = {}
        self.open_bar = open_bar

    @property
    def count(self) -> int:
        return len(self._known)

    def run(self, asked: Sequence[tuple[Task, str]], bar: Bar | None = None) -> list[Execution]:
        """The execution of each (task, script), in order. bar: advanced by each that is asked. Raises UserError."""
        missing: dict[tuple[str, str], Task] = {}
        for task, script in asked:
            if (task.name, script) not in self._known:
                missing[task.name, script] = task
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="executions")
        try:
            futures = {
                key: pool.submit(execute, task, self._sandbox, key[1], self._grader)
                for key, task in missing.items()
            }
            for task, script in asked:
                if (task.name, script) not in self._known:
                    self._known[task.name, script] = futures[task.name, script].result()
                if bar is not None:
                    bar.advance(task.name)
        finally:
            pool.shutdown(cancel_futures=True)
        return [self._known[task.name, script] for task, script in asked]
