"""Tables that list tasks: what each one is, how it is scored, and whether its data are prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from mlagent_jax.grading.metrics import METRICS, Metric
from mlagent_jax.tasks.preparation import find_prepared
from mlagent_jax.tasks.task_file import TaskFile, read_task_file


@dataclass(frozen=True)
class TaskSummary:
    """One row of the table.

    rows, size: training / test rows, and megabytes that scripts see; "" if the data are not prepared.
    m_init: has a mark if it does not come from running this starter.
    noise: of m_init, over seeds and over public rows; has a mark if the latter is large beside m_best - m_init.
    notes: what the marks mean.
    """

    name: str
    split: str
    kind: str
    metric: str
    m_init: str
    noise: str
    m_best: str
    rows: str
    size: str
    prepared: str
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(getattr(self, field.name) for field in fields(self) if field.name != "notes")


MARK = "†"
NOISY = "‡"
MAX_STANDARD_ERROR = 0.03  # of the way from m_init to m_best
HEADERS = (
    *("task", "split", "kind", "metric", "starter", "± seeds / rows", "m_best"),
    *("train / test rows", "MB", "data"),
)


def summaries(
    names: Sequence[str], tasks_dir: Path, data_root: Path, micro: bool = False
) -> list[TaskSummary]:
    """One summary per task, in the given order. Raises TaskError, and PreparationError for damaged data."""
    found = []
    for name in names:
        task = read_task_file(name, tasks_dir)
        prepared = find_prepared(task, data_root, micro)
        rows = size = ""
        if prepared is not None:
            counts = prepared.counts
            test = sum(counts.get(split, 0) for split in ("public", "private", "unscored"))
            rows = f"{counts['train']:,} / {test:,}"
            files = (path for path in prepared.public_dir.rglob("*") if path.is_file())
            size = f"{sum(path.stat().st_size for path in files) / 1e6:.1f}"
        noise, notes = _noise(task)
        if task.m_init_source:
            notes = (f"{MARK} m_init is {task.m_init_source}", *notes)
        found.append(
            TaskSummary(
                task.name,
                task.split.replace("_", "-"),
                task.kind,
                f"{task.metric} {'↑' if METRICS[task.metric].higher_is_better else '↓'}",
                "" if task.m_init is None else f"{task.m_init:g}{f' {MARK}' if task.m_init_source else ''}",
                noise,
                f"{task.m_best:g}",
                rows,
                size,
                "prepared" if prepared else "not prepared",
                notes,
            )
        )
    return found


def _noise(task: TaskFile) -> tuple[str, tuple[str, ...]]:
    """The noise of m_init, and a note if a standard error is large beside what can be gained."""
    if task.noise is None or task.m_init is None:
        return "", ()
    shown = f"{task.noise.seeds:.2g} / {task.noise.rows:.2g}"
    if task.noise.rows <= MAX_STANDARD_ERROR * abs(task.m_best - task.m_init):
        return shown, ()
    note = f"{NOISY} one standard error of the public rows is more than {MAX_STANDARD_ERROR:.0%} of the way from the"
    return f"{shown} {NOISY}", (f"{note} starter to m_best",)


def plain_table(rows: Sequence[TaskSummary]) -> str:
    table = [HEADERS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADERS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return "\n".join([*(line.rstrip() for line in lines), *_notes(rows)])


def markdown_table(rows: Sequence[TaskSummary]) -> str:
    """Leaves out the last column, which is true of one machine only."""
    lines = [HEADERS[:-1], ("---",) * (len(HEADERS) - 1), *(row.cells[:-1] for row in rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *_notes(rows)])


def _notes(rows: Sequence[TaskSummary]) -> list[str]:
    """An empty line, and one line for each meaning of a mark."""
    notes = dict.fromkeys(note for row in rows for note in row.notes)
    return ["", *notes] if notes else []


def describe(metric: Metric) -> str:
    """A description of one metric in two lines."""
    low, high = sorted((metric.best, metric.worst))
    return (
        f"{metric.name}: {metric.direction}, from {low:g} to {high:g}; of {metric.targets.value};"
        f" predictions: {metric.prediction.value}; true values: {metric.truth.value}\n    {metric.treatment}"
    )
