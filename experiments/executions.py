"""Runs scripts of a task and grades them, for explorations."""

from __future__ import annotations

from mlagent_jax.errors import UserError
from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.sandbox.interface import Job, Sandbox, Status
from mlagent_jax.tasks.task import Task


def execute(task: Task, sandbox: Sandbox, script: str) -> Graded | None:
    """The scores, None if the script gave none. Raises UserError if the sandbox failed."""
    job = Job(
        {"train.py": script.encode()},
        "train.py",
        task.data_dir,
        task.data_digest,
        task.limits,
        output=task.submission,
    )
    result = sandbox.run(job)
    if result.status is Status.SANDBOX_ERROR:
        raise UserError(f"the sandbox failed on task {task.name}: {result.error}; start again to go on")
    graded = grade(task, result.files.get(task.submission)) if result.status is Status.OK else None
    return graded if isinstance(graded, Graded) else None
