"""Lists, prepares and checks tasks.

    python -m experiments.tasks list
    python -m experiments.tasks prepare [NAME ...]
    python -m experiments.tasks check [NAME ...]


NAME is a folder of --tasks_dir, or the path (with a "/") of a task folder anywhere; without one, all of
--tasks_dir. `check` runs the starter and the reference solution (--references/NAME.py), grades both, and
looks for leaks; m_best of a task is the reference's public score as printed here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from experiments.task_checks import check_task
from mlagent_jax.environment.metrics import METRICS
from mlagent_jax.environment.packages import default_cache_dir
from mlagent_jax.environment.preparation import find_prepared, prepare_task
from mlagent_jax.environment.task_file import list_tasks, read_task_file
from mlagent_jax.environment.task_loader import load_task
from mlagent_jax.errors import UserError
from mlagent_jax.sandbox.open import open_sandbox

_REPOSITORY = Path(__file__).parents[1]
TASKS_DIR = flags.DEFINE_string("tasks_dir", str(_REPOSITORY / "tasks"), "Folder of task folders.")
DATA_ROOT = flags.DEFINE_string(
    "data_root", "", "Prepared data; by default `data` in the user's cache folder."
)
REFERENCES = flags.DEFINE_string(
    "references", str(_REPOSITORY / "tests" / "references"), "Folder of reference solutions."
)


def main(argv: Sequence[str]) -> int:
    command, names = (argv[1], list(argv[2:])) if len(argv) > 1 else ("", [])
    tasks_dir = Path(TASKS_DIR.value)
    data_root = Path(DATA_ROOT.value).expanduser() if DATA_ROOT.value else default_cache_dir() / "data"
    names = names or list_tasks(tasks_dir)
    try:
        match command:
            case "list":
                _list(names, tasks_dir, data_root)
            case "prepare":
                _prepare(names, tasks_dir, data_root)
            case "check":
                return _check(names, tasks_dir, data_root)
            case _:
                raise UserError(f"{command!r} is not a command; there are list, prepare and check")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _list(names: Sequence[str], tasks_dir: Path, data_root: Path) -> None:
    for name in names:
        task = read_task_file(name, tasks_dir)
        arrow = "higher" if METRICS[task.metric].higher_is_better else "lower"
        state = "prepared" if find_prepared(task, data_root) else "not prepared"
        print(
            f"{task.name:<12} {task.split:<8} {task.kind:<20} {task.metric} ({arrow} is better)"
            f"  m_best {task.m_best}  {state}"
        )


def _prepare(names: Sequence[str], tasks_dir: Path, data_root: Path) -> None:
    for name in names:
        print(f"{name}: {prepare_task(name, tasks_dir, data_root)}", flush=True)


def _check(names: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    _prepare(names, tasks_dir, data_root)
    tasks = [load_task(name, tasks_dir, data_root) for name in names]
    failures = 0
    sandbox = open_sandbox("auto", 1, data_root / "public", allow_unisolated=False, writes_free_code=False)
    try:
        for task in tasks:
            print(f"\n{task.name}: {task.metric}, m_best {task.m_best}", flush=True)
            for check in check_task(task, Path(REFERENCES.value) / f"{task.name}.py", sandbox):
                print(f"  {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}", flush=True)
                failures += not check.passed
    finally:
        sandbox.close()
    print(f"\n{failures} checks failed" if failures else "\nall checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    app.run(main)
