"""How much of a starter's public score is luck: of its own random numbers, and of the test rows that were drawn."""

from __future__ import annotations

import re
import statistics

from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.grading.standard_error import public_standard_error
from mlagent_jax.sandbox.interface import Job, Sandbox
from mlagent_jax.tasks.rows import NotApplicableError
from mlagent_jax.tasks.task import Noise, Task

SEEDS = (1, 2, 3, 4, 5)
_SEED = re.compile(r"\brandom_state=\d+|(?<=default_rng\()\d+(?=\))")


def with_seed(script: str, seed: int) -> str:
    """The script with another number wherever it seeds a generator."""
    return _SEED.sub(lambda found: re.sub(r"\d+", str(seed), found[0]), script)


def measure_noise(task: Task, submission: bytes, score: float, sandbox: Sandbox) -> Noise:
    """Runs the starter with the seeds of `SEEDS` too; one that seeds nothing is not run again.

    submission, score: of the starter as it is. Raises NotApplicableError if it gives no score with another seed.
    """
    scores = [score]
    for script in (with_seed(task.starter, seed) for seed in SEEDS):
        if script == task.starter:
            break
        job = Job({"train.py": script.encode()}, "train.py", task.data_dir, task.data_digest, task.limits)
        graded = grade(task, sandbox.run(job).files.get(task.submission))
        if not isinstance(graded, Graded):
            raise NotApplicableError(f"the starter gives no score with another seed: {graded.reason}")
        scores.append(graded.public)
    source = (
        f"standard deviation over {1 + len(SEEDS)} seeds, and bootstrap of the public rows,"
        f" by `python -m experiments.tasks check {task.name}`"
    )
    return Noise(
        statistics.stdev(scores) if len(scores) > 1 else 0.0, public_standard_error(task, submission), source
    )
