"""What each idea of the scripted catalogue is worth: one edit of each starter, run and graded.

    python -m experiments.benchmarks.edits --tasks=ames,digits8 --output=edits.json

Prints a table per task: gain of the public score as a share of the way from starter to m_best, seconds, how
the run ended, the idea. Data must be prepared (`python -m experiments.tasks prepare`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from absl import flags

from experiments.cli.program import run_program
from experiments.configs.quickstart import get_config
from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.agent.edits import catalogue
from mlagent_jax.environment.coder import CoderError
from mlagent_jax.files import write_atomically
from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.sandbox.interface import Job, Sandbox, Status
from mlagent_jax.sandbox.open import open_sandbox
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.packages import default_cache_dir
from mlagent_jax.tasks.task import Task

_TASKS_DIR = Path(__file__).parents[2] / "tasks"

_QUICKSTART = get_config().tasks  # whose starters the scripted coder can edit

TASKS = flags.DEFINE_list("tasks", [*_QUICKSTART.held_in, *_QUICKSTART.held_out], "Names of tasks.")
AXES = flags.DEFINE_list("axes", list(catalogue.AXES), "Axes of ideas.")
AFTER = flags.DEFINE_list("after", [], "Ideas to apply to the starter before each idea.")
DATA_ROOT = flags.DEFINE_string("data_root", "", "Prepared data; the user's cache by default.")
WORKERS = flags.DEFINE_integer("workers", 1, "Scripts that run at once.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")


@dataclass(frozen=True)
class Measured:
    """gain: 1.0 is the whole way from the starter to m_best; None without a graded submission."""

    task: str
    axis: str
    idea: str
    status: str
    gain: float | None
    score: float | None
    seconds: float
    said: str


def measure(task: Task, sandbox: Sandbox, base: str, m_init: float, axis: str, idea: str) -> Measured:
    try:
        script = ScriptedCoder().edit(base, idea) if idea else base
    except CoderError as error:
        return Measured(task.name, axis, idea, "coder", None, None, 0.0, str(error))
    job = Job({"train.py": script.encode()}, "train.py", task.data_dir, task.data_digest, task.limits)
    start = time.monotonic()
    result = sandbox.run(job)
    seconds = time.monotonic() - start
    lines = result.output.strip().splitlines() or [""]
    if result.status is not Status.OK:
        return Measured(task.name, axis, idea, result.status, None, None, seconds, lines[-1])
    verdict = grade(task, result.files.get("submission.csv"))
    if not isinstance(verdict, Graded):
        return Measured(task.name, axis, idea, "invalid", None, None, seconds, verdict.reason)
    gain = (verdict.public - m_init) / (task.m_best - m_init)
    return Measured(task.name, axis, idea, "ok", gain, verdict.public, seconds, lines[-1])


def measure_task(
    task: Task, sandbox: Sandbox, axes: Sequence[str], after: Sequence[str]
) -> Iterator[Measured]:
    starter = measure(task, sandbox, task.starter, 0.0, "", "")
    if starter.score is None:
        raise RuntimeError(f"the starter of {task.name} does not submit: {starter.said}")
    base = task.starter
    for idea in after:
        base = ScriptedCoder().edit(base, idea)
    ideas = [("", "")] + [(axis, idea) for axis in axes for idea in catalogue.ideas(task.kind, axis)]
    m_init = starter.score
    with ThreadPoolExecutor(WORKERS.value) as pool:
        yield from pool.map(lambda pair: measure(task, sandbox, base, m_init, *pair), ideas)


def main(argv: Sequence[str]) -> None:
    del argv
    data_root = Path(DATA_ROOT.value) if DATA_ROOT.value else default_cache_dir() / "data"
    results = []
    sandbox = open_sandbox("auto", WORKERS.value, data_root, allow_unisolated=False, writes_free_code=False)
    try:
        for name in TASKS.value:
            task = load_task(name, _TASKS_DIR, data_root)
            print(
                f"\n{task.name} ({task.kind}, {task.metric})\n   gain   score    s  status   axis      idea"
            )
            for row in measure_task(task, sandbox, AXES.value, AFTER.value):
                gain = "      -" if row.gain is None else f"{row.gain:7.3f}"
                score = "      -" if row.score is None else f"{row.score:7.4g}"
                said = "" if row.status == "ok" else f"  [{row.said[:70]}]"
                print(
                    f"{gain} {score} {row.seconds:4.1f}  {row.status:8} {row.axis:9} {row.idea}{said}",
                    flush=True,
                )
                results.append(row)
    finally:
        sandbox.close()
    if OUTPUT.value:
        write_atomically(Path(OUTPUT.value), json.dumps([asdict(row) for row in results], indent=1) + "\n")


if __name__ == "__main__":
    run_program(main)
