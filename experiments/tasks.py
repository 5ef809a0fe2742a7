"""Lists, prepares, checks and creates tasks, and grades submissions.

    python -m experiments.tasks list [NAME ...] [--suite=offline] [--markdown]
    python -m experiments.tasks prepare [NAME ...] [--suite=offline] [--micro]
    python -m experiments.tasks check [NAME ...] [--suite=offline] [--micro]
    python -m experiments.tasks grade NAME FILE
    python -m experiments.tasks explore [NAME ...] [--search=tpe] [--executions=100] [--cache_dir=DIR]
    python -m experiments.tasks gains [NAME ...] [--suite=offline] [--numbers=first] [--cache_dir=DIR]
    python -m experiments.tasks constant [--suite=offline] [--numbers=first] [--cache_dir=DIR]
    python -m experiments.tasks new DIR --csv=FILE --target=COLUMN --metric=NAME
    python -m experiments.tasks metrics

NAME is a folder in --tasks_dir, or the path (with a "/") of a task folder anywhere; without a NAME, all tasks of
--suite. `check` runs the starter and the reference solution (--references/NAME.py), grades both, and looks for leaks; a
task's m_init and m_best are the public scores printed here, unless it states another source. Checks that do not apply
are printed with the reason. `grade` prints a submission's scores on the public, the private and all test rows.
`explore` searches the space of pipelines, at random or by Optuna, for what is reachable from a starter; its executions
are kept in --cache_dir, which any number of explorations and runs may share (config.sandbox.cache_dir), so the same
command resumes after an interruption.
`gains` runs what each single operation makes of a starter, writes --gains, and says which operations are strong on
too many tasks. `constant` chooses the best sequence of five operations on a suite's held-in tasks, says what it brings
on the held-out ones, and writes --constant. Both use the same store, and exit with 1 where a suite breaks its rule.
`new` creates a task folder from a CSV file, whose cells it keeps as text, and prints what it dropped or changed.
`metrics` describes the inputs of each metric, and how it treats clipping and ties.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from absl import flags

from experiments.cli.program import refuse_unread, run_program
from mlagent_jax.controls.candidates import NUMBERS as NUMBERS_TRIED
from mlagent_jax.controls.constant_gains import CONSTANT_LIMIT, ConstantGains, write_constant_gains
from mlagent_jax.controls.executions import Executions
from mlagent_jax.controls.explore import explore
from mlagent_jax.controls.forward_selection import ConstantConfig, played, select_sequence
from mlagent_jax.controls.operation_gains import (
    LARGE,
    digest,
    read_gains,
    shares,
    single_gains,
    strong,
    write_gains,
)
from mlagent_jax.controls.pipeline_search import SEARCHES
from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically
from mlagent_jax.grading.grade import Invalid, grade, grade_whole
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.packages import default_cache_dir
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.sandbox.cache import CachedSandbox, store_in
from mlagent_jax.sandbox.open import open_sandbox
from mlagent_jax.tasks.checks import check_micro, check_task
from mlagent_jax.tasks.listing import describe, markdown_table, plain_table, summaries
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.suites import suite_names
from mlagent_jax.tasks.user_table.new_task import NewTask, write_new_task

_REPOSITORY = Path(__file__).parents[1]
TASKS_DIR = flags.DEFINE_string("tasks_dir", str(_REPOSITORY / "tasks"), "Folder of task folders.")
SUITE = flags.DEFINE_string("suite", "all", "Tasks if no NAME is given: all, offline, or those of a folder.")
DATA_ROOT = flags.DEFINE_string(
    "data_root", "", "Prepared data; by default `data` in the user's cache folder."
)
REFERENCES = flags.DEFINE_string(
    "references", str(_REPOSITORY / "tests" / "references"), "Folder of reference solutions."
)
MICRO = flags.DEFINE_bool("micro", False, "Small versions, with at most 100 training and 100 test rows.")
MARKDOWN = flags.DEFINE_bool("markdown", False, "list: as a table for a Markdown document.")
SEARCH = flags.DEFINE_enum("search", "random", SEARCHES, "explore: how pipelines are chosen.")
EXECUTIONS = flags.DEFINE_integer("executions", 50, "explore: scripts run for each task.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "explore: of the search.")
CACHE_DIR = flags.DEFINE_string(
    "cache_dir",
    "",
    "explore, gains, constant: folder of executions; by default `executions` in the user's cache folder.",
)
SCRIPTS = flags.DEFINE_string(
    "scripts", "", "explore: folder for the best script of each task; none by default."
)
NUMBERS = flags.DEFINE_enum(
    "numbers",
    "first",
    NUMBERS_TRIED,
    "gains, constant: which of the numbers that an operation proposes are tried.",
)
SHORTLIST = flags.DEFINE_integer(
    "shortlist", 10, "constant: candidates, the best alone, that are tried after the first round; 0 for all."
)
GAINS = flags.DEFINE_string(
    "gains", str(_REPOSITORY / "tasks" / "gains.json"), "gains: file of what single operations bring."
)
CONSTANT = flags.DEFINE_string(
    "constant",
    str(_REPOSITORY / "tasks" / "constant.json"),
    "constant: file of what the best constant sequence brings.",
)
CSV = flags.DEFINE_string("csv", "", "new: the table.")
TARGET = flags.DEFINE_string("target", "", "new: the column to predict.")
METRIC = flags.DEFINE_string("metric", "", "new: the metric.")
POSITIVE = flags.DEFINE_string("positive", "", "new: for a metric of 0 and 1, the target's value for 1.")
ENCODING = flags.DEFINE_string("encoding", "utf-8-sig", "new: of the table.")
MISSING = flags.DEFINE_multi_string(
    "missing", [], "new: text of a missing value, such as NA; may be given several times."
)
DELIMITER = flags.DEFINE_string("delimiter", ",", "new: between the table's columns.")


_OF_TASKS = ("tasks_dir", "suite", "data_root", "micro")
READS = {
    "list": (*_OF_TASKS, "markdown"),
    "prepare": _OF_TASKS,
    "check": (*_OF_TASKS, "references"),
    "grade": ("tasks_dir", "data_root", "micro"),
    "explore": (*_OF_TASKS, "search", "executions", "seed", "cache_dir", "scripts"),
    "gains": (*_OF_TASKS, "numbers", "cache_dir", "gains"),
    "constant": (*_OF_TASKS, "numbers", "shortlist", "cache_dir", "constant"),
    "new": ("csv", "target", "metric", "positive", "encoding", "delimiter", "missing"),
    "metrics": (),
}
"""The commands, and the flags of each."""


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
        case "gains":
            return _gains(_names(arguments, tasks_dir), tasks_dir, data_root)
        case "constant":
            return _constant(_names(arguments, tasks_dir), tasks_dir, data_root)
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
            f"--suite={SUITE.value} cannot be combined with the tasks {' '.join(arguments)}; give one of the two"
        )
    return list(arguments) or suite_names(SUITE.value, tasks_dir)


def _prepare(names: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    """Goes on with the others if one cannot be prepared."""
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
    left_out = f"; {skipped} do not apply, for the reasons above" if skipped else ""
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
    with closing(_cached_sandbox(data_root)) as sandbox:
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
        print(_paid(sandbox))
    return 0


def _gains(names: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    if _prepare(names, tasks_dir, data_root):
        return 1
    path = Path(GAINS.value)
    with closing(_cached_sandbox(data_root)) as sandbox:
        for name in names:
            task = load_task(name, tasks_dir, data_root, MICRO.value)
            found = single_gains(task, sandbox, NUMBERS.value)
            write_gains(path, NUMBERS.value, {task.name: found})
            brought = sorted(shares(found, task.m_best).items(), key=lambda one: -one[1])[:5]
            best = ", ".join(f"{operation} {share:.0%}" for operation, share in brought)
            print(f"{task.name}: {len(found.operations)} operations; best alone: {best}", flush=True)
        print(_paid(sandbox))
    stored = read_gains(path)[1]
    tasks = {name: load_task(name, tasks_dir, data_root, MICRO.value) for name in names}
    found_strong = strong({name: shares(stored[name], task.m_best) for name, task in tasks.items()})
    for operation, where in found_strong.items():
        print(f"{operation} brings more than {LARGE:.0%} on {len(where)} tasks: {', '.join(where)}")
    return 1 if found_strong else 0


def _constant(names: Sequence[str], tasks_dir: Path, data_root: Path) -> int:
    if _prepare(names, tasks_dir, data_root):
        return 1
    tasks = [load_task(name, tasks_dir, data_root, MICRO.value) for name in names]
    by_split = {split: [task for task in tasks if task.split == split] for split in ("held_in", "held_out")}
    if not all(by_split.values()):
        raise UserError(f"constant needs held-in and held-out tasks, and got {', '.join(names)}")
    config = ConstantConfig(numbers=NUMBERS.value, shortlist=SHORTLIST.value)
    with closing(_cached_sandbox(data_root)) as sandbox:
        executions = Executions(sandbox)
        chosen = select_sequence(by_split["held_in"], executions, catalogue().values(), config)
        print("\n".join(chosen.sequence), flush=True)
        reached = played(chosen.sequence, [task for group in by_split.values() for task in group], executions)
        print(_paid(sandbox))
    scripts = {task.name: digest(task.starter, config.numbers) for task in tasks}
    found = ConstantGains(config, chosen.sequence, scripts, reached)
    command = f"python -m experiments.tasks constant --suite={SUITE.value}"
    write_constant_gains(Path(CONSTANT.value), command, found)
    m_best = {task.name: task.m_best for task in tasks}
    for name, one in reached.items():
        public, private = one.shares(m_best[name])
        print(f"{name}: public {public:.0%}, private {private:.0%} of the way to m_best")
    means = {split: found.mean_shares(m_best, [task.name for task in by_split[split]]) for split in by_split}
    for split, (public, private) in means.items():
        print(f"{split}: public {public:.1%}, private {private:.1%}")
    return 1 if max(means["held_out"]) >= CONSTANT_LIMIT else 0


def _cached_sandbox(data_root: Path) -> CachedSandbox:
    store = Path(CACHE_DIR.value).expanduser() if CACHE_DIR.value else default_cache_dir() / "executions"
    backend = open_sandbox("auto", 1, data_root / "public", allow_unisolated=False, writes_free_code=False)
    return CachedSandbox(backend, store_in(store))


def _paid(sandbox: CachedSandbox) -> str:
    return f"{sandbox.misses} scripts were run, {sandbox.hits} results were in the store"


def _new(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise UserError("new takes the folder to create: new DIR --csv=FILE --target=COLUMN --metric=NAME")
    task = NewTask(
        folder=Path(arguments[0]),
        table=Path(CSV.value),
        target=TARGET.value,
        metric=METRIC.value,
        positive=POSITIVE.value,
        encoding=ENCODING.value,
        delimiter=DELIMITER.value,
        missing=tuple(MISSING.value),
    )
    for line in write_new_task(task):
        print(line)
    path = arguments[0] if "/" in arguments[0] else f"./{arguments[0]}"
    print(f"created {path}; now run `python -m experiments.tasks check {path}`")


if __name__ == "__main__":
    run_program(main, positional=True)
