"""Lists, prepares, checks, grades and makes tasks.

    python -m experiments.tasks list [NAME ...] [--suite=offline] [--markdown]
    python -m experiments.tasks prepare [NAME ...] [--suite=offline] [--micro]
    python -m experiments.tasks check [NAME ...] [--suite=offline] [--micro]
    python -m experiments.tasks grade NAME FILE
    python -m experiments.tasks explore [NAME ...] [--search=tpe] [--executions=100] [--store=FILE]
    python -m experiments.tasks new DIR --csv=FILE --target=COLUMN --metric=NAME
    python -m experiments.tasks metrics

NAME is a folder of --tasks_dir, or the path (with a "/") of a task folder anywhere; without one, all of
--suite. `check` runs the starter and the reference solution (--references/NAME.py), grades both, and
looks for leaks; m_init and m_best of a task are their public scores as printed here, where it names no other
source. What does not apply to a task is printed with the reason. `grade` prints the score
on the public, the private and all test rows of a submission file.
`explore` searches the space of pipelines for what is reachable from a starter, at random or by Optuna; its executions
are kept in --store, which any number of explorations may share at once, so that the same command goes on where it was
interrupted. `new` makes a task folder of a CSV file, whose cells stay the text that they are, and says what it left
out or changed.
`metrics` says of each metric what it takes and how it treats clipping and ties.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from absl import flags

from experiments.command_line import refuse_unread, run_program
from experiments.explore import explore
from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically
from mlagent_jax.grading.grade import Invalid, grade, grade_whole
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.pipelines.search import SEARCHES
from mlagent_jax.sandbox.cache import CachedSandbox
from mlagent_jax.sandbox.open import open_sandbox
from mlagent_jax.tasks.checks import check_micro, check_task
from mlagent_jax.tasks.listing import describe, markdown_table, plain_table, summaries
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.packages import default_cache_dir
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.suites import suite_names
from mlagent_jax.tasks.user_table.new_task import NewTask, write_new_task

_REPOSITORY = Path(__file__).parents[1]
TASKS_DIR = flags.DEFINE_string("tasks_dir", str(_REPOSITORY / "tasks"), "Folder of task folders.")
SUITE = flags.DEFINE_string("suite", "all", "Which tasks, where none is named: all, offline, or a folder's.")
DATA_ROOT = flags.DEFINE_string(
    "data_root", "", "Prepared data; by default `data` in the user's cache folder."
)
REFERENCES = flags.DEFINE_string(
    "references", str(_REPOSITORY / "tests" / "references"), "Folder of reference solutions."
)
MICRO = flags.DEFINE_bool("micro", False, "Small versions: at most 100 training and 100 test rows.")
MARKDOWN = flags.DEFINE_bool("markdown", False, "list: as a table for a Markdown document.")
SEARCH = flags.DEFINE_enum("search", "random", SEARCHES, "explore: how pipelines are chosen.")
EXECUTIONS = flags.DEFINE_integer("executions", 50, "explore: scripts run for each task.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "explore: of the search.")
STORE = flags.DEFINE_string(
    "store", "", "explore: file of executions; by default in the user's cache folder."
)
SCRIPTS = flags.DEFINE_string(
    "scripts", "", "explore: folder for the best script of each task; none by default."
)
CSV = flags.DEFINE_string("csv", "", "new: the table.")
TARGET = flags.DEFINE_string("target", "", "new: the column that is to be predicted.")
METRIC = flags.DEFINE_string("metric", "", "new: the metric.")
POSITIVE = flags.DEFINE_string("positive", "", "new: for a metric of 0 and 1, the target's value that is 1.")
ENCODING = flags.DEFINE_string("encoding", "utf-8-sig", "new: of the table.")
MISSING = flags.DEFINE_multi_string(
    "missing", [], "new: a cell that says that a value is missing, such as NA; may be given several times."
)
DELIMITER = flags.DEFINE_string("delimiter", ",", "new: between the table's columns.")


_OF_TASKS = ("tasks_dir", "suite", "data_root", "micro")
READS = {
    "list": (*_OF_TASKS, "markdown"),
    "prepare": _OF_TASKS,
    "check": (*_OF_TASKS, "references"),
    "grade": ("tasks_dir", "data_root", "micro"),
    "explore": (*_OF_TASKS, "search", "executions", "seed", "store", "scripts"),
    "new": ("csv", "target", "metric", "positive", "encoding", "delimiter", "missing"),
    "metrics": (),
}
"""The commands, and which flags each of them reads."""


def main(argv: Sequence[str]) -> int:
    command, arguments = (argv[1], list(argv[2:])) if len(argv) > 1 else ("", [])
    if command not in READS:
        raise UserError(f"{command!r} is not a command; there are {', '.join(READS)}")
    refuse_unread(
        command, READS[command], list(dict.fromkeys(name for names in READS.values() for name in names))
    )
    tasks_dir = Path(TASKS_DIR.value)
    data_root = Path(DATA_ROOT.value).expanduser() if DATA_ROOT.value else default_cache_dir() / "data"
    match command:
        case "list":
            rows = summaries(_names(arguments, tasks_dir), tasks_dir, data_root, MICRO.value)
            print(markdown_table(rows) if MARKDOWN.value else plain_table(rows))
        case "prepare":
            return _prepare(_names(arguments, tasks_dir), tasks_dir, data_root)
        case "check":
            return _check(_names(arguments, tasks_dir), tasks_dir, data_root)
        case "grade":
            return _grade(arguments, tasks_dir, data_root)
        case "explore":
            return _explore(_names(arguments, tasks_dir), tasks_dir, data_root)
        case "new":
            _new(arguments)
        case "metrics":
            if arguments:
                raise UserError(f"metrics takes no arguments, and got {' '.join(arguments)}")
            print("\n".join(describe(metric) for metric in METRICS.values()))
    return 0


def _names(arguments: Sequence[str], tasks_dir: Path) -> list[str]:
    if arguments and flags.FLAGS["suite"].present:
        raise UserError(
            f"--suite={SUITE.value} is not read beside the tasks {' '.join(arguments)}; give one of both"
        )
    return list(arguments) or suite_names(SUITE.value, tasks_dir)


def _prepare(names: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    """One that cannot be prepared does not keep the others from it."""
    failures = 0
    for name in names:
        try:
            print(f"{name}: {prepare_task(name, tasks_dir, data_root, micro=MICRO.value)}", flush=True)
        except UserError as error:
            failures += 1
            print(f"error: {error}", file=sys.stderr, flush=True)
    return 1 if failures else 0


def _check(names: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    if _prepare(names, tasks_dir, data_root):
        return 1
    tasks = [load_task(name, tasks_dir, data_root, MICRO.value) for name in names]
    failures = skipped = 0
    sandbox = open_sandbox("auto", 1, data_root / "public", allow_unisolated=False, writes_free_code=False)
    try:
        for task in tasks:
            print(f"\n{task.name}: {task.metric}, m_init {task.m_init}, m_best {task.m_best}", flush=True)
            reference = Path(REFERENCES.value) / f"{task.name}.py"
            checks = check_micro(task, sandbox) if MICRO.value else check_task(task, reference, sandbox)
            for check in checks:
                mark = {True: "ok  ", False: "FAIL", None: "-   "}[check.passed]
                print(f"  {mark} {check.name}: {check.detail}", flush=True)
                failures += check.passed is False
                skipped += check.passed is None
    finally:
        sandbox.close()
    left_out = f"; {skipped} do not apply, as said above" if skipped else ""
    print(
        f"\n{f'{failures} checks failed' if failures else 'all checks passed'}, {len(tasks)} tasks{left_out}"
    )
    return 1 if failures else 0


def _grade(arguments: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    if len(arguments) != 2:
        raise UserError("grade takes a task and a submission file: grade NAME FILE")
    name, file = arguments
    task = load_task(name, tasks_dir, data_root, MICRO.value)
    try:
        submission = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the submission {file}: {error}") from error
    graded, whole = grade(task, submission), grade_whole(task, submission)
    if isinstance(graded, Invalid) or isinstance(whole, Invalid):
        print(f"refused: {graded.reason if isinstance(graded, Invalid) else whole}")
        return 1
    for metric, score in whole.items():
        public, private = graded.also.get(metric, (graded.public, graded.private))
        print(f"{metric}: public {public:.6f}, private {private:.6f}, all rows {score:.6f}")
    return 0


def _explore(names: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    if _prepare(names, tasks_dir, data_root):
        return 1
    store = Path(STORE.value).expanduser() if STORE.value else default_cache_dir() / "executions.sqlite"
    backend = open_sandbox("auto", 1, data_root / "public", allow_unisolated=False, writes_free_code=False)
    with closing(CachedSandbox(backend, store)) as sandbox:
        for name in names:
            task = load_task(name, tasks_dir, data_root, MICRO.value)
            found = explore(task, sandbox, SEARCH.value, EXECUTIONS.value, SEED.value)
            reached = (found.best - found.starter) / (task.m_best - found.starter)
            print(
                f"{task.name}: {task.metric} {found.starter:.4f} -> {found.best:.4f}, {reached:.0%} of the way to"
                f" m_best {task.m_best:g}; {found.executions} executions, {found.failed} without a score,"
                f" {found.skipped} known to fail and not run",
                flush=True,
            )
            if SCRIPTS.value:
                write_atomically(Path(SCRIPTS.value) / f"{task.name}.py", found.script)
        print(f"{sandbox.misses} run, {sandbox.hits} found in {store}")
    return 0


def _new(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise UserError("new takes the folder to be made: new DIR --csv=FILE --target=COLUMN --metric=NAME")
    wanted = NewTask(
        folder=Path(arguments[0]),
        table=Path(CSV.value),
        target=TARGET.value,
        metric=METRIC.value,
        positive=POSITIVE.value,
        encoding=ENCODING.value,
        delimiter=DELIMITER.value,
        missing=tuple(MISSING.value),
    )
    for line in write_new_task(wanted):
        print(line)
    path = arguments[0] if "/" in arguments[0] else f"./{arguments[0]}"
    print(f"made {path}; now run `python -m experiments.tasks check {path}`")


if __name__ == "__main__":
    run_program(main, words=True)
