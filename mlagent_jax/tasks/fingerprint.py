"""What a task is, as a digest: where two differ, scores and trajectories are not of the same task."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from mlagent_jax.tasks.preparation import data_key
from mlagent_jax.tasks.task_file import TaskFile

# Where it lies, and what nothing but pages and reports shows.
_LEFT_OUT = ("folder", "m_best_source", "m_init", "m_init_source", "noise", "board", "needs_gpu")


def fingerprint(task: TaskFile, micro: bool = False) -> str:
    """The SHA-256 of all that an agent, a script, the grading or a reward can meet, with the recipe of its data."""
    fields = {name: value for name, value in dataclasses.asdict(task).items() if name not in _LEFT_OUT}
    text = json.dumps([fields, data_key(task, micro)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
