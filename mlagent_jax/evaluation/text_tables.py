"""Tables of scores in plain text, for terminals, and as rows for trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlagent_jax.evaluation.numbers import NONE, format_gain, format_score
from mlagent_jax.evaluation.scores import ONE_OUTCOME, SPLITS
from mlagent_jax.evaluation.tables import agent_title, matrix
from mlagent_jax.jsonl import Record

SCORE_COLUMNS = (
    "task",
    "split",
    "metric",
    "agent",
    "episodes",
    "avg",
    "best",
    "relative_gain",
    "valid_rate",
    "executions",
)
_COMPARISON_COLUMNS = ("variant", "runs", "held-in gain %", "difference", "held-out gain %", "difference")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row, its cells in columns of equal width; all rows have as many cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def headline_table(scores: Mapping[str, Any]) -> str:
    """The report's table of scores: for each task and agent the average and its gain, and the mean gains.

    scores: `scores.json`.
    """
    agents = scores["agents"]
    rows = [["task", "metric", *map(agent_title, agents)]]
    for split in matrix(scores):
        rows.append([split["title"], "", *[""] * len(agents)])
        for task in split["tasks"]:
            facts = task["facts"]
            direction = "↑" if facts["higher_is_better"] else "↓"
            cells = [_cell(cell, scores["k"]) for cell in task["cells"]]
            rows.append([f"  {facts['name']}", f"{facts['metric']} {direction}", *cells])
        rows.append(["  mean gain", "", *map(_mean_gain, split["means"])])
        rows.append(["  executions", "", *map(_mean_executions, split["means"])])
    head, *lines = aligned(rows)
    note = (
        f"Private scores: avg@{scores['k']} and its relative gain over the starter. "
        "Executions are those of an episode. "
        f"{100 * scores['confidence']:g}% intervals in brackets, over episodes."
    )
    if scores["one_outcome"]:
        note += f" One outcome: {ONE_OUTCOME}"
    return "\n".join([head, "-" * max(map(len, [head, *lines])), *lines, "", note])


def _cell(cell: Record | None, k: int) -> str:
    if cell is None:
        return NONE
    if not cell["episodes"]:
        return f"all {cell['masked']} masked"
    few = f" ({cell['episodes']} episodes)" if cell["episodes"] < k and not cell["one_outcome"] else ""
    return f"{format_score(cell['avg'])} {format_gain(cell['relative_gain'])}{few}"


def _mean_gain(mean: Record | None) -> str:
    interval = mean and mean["relative_gain"]
    if not interval:
        return "not all tasks"
    if mean and mean["one_outcome"]:
        return f"{format_gain(interval['mean'])} (one outcome)"
    bounds = (
        ""
        if interval["low"] is None
        else f" [{format_gain(interval['low'])}, {format_gain(interval['high'])}]"
    )
    return format_gain(interval["mean"]) + bounds


def _mean_executions(mean: Record | None) -> str:
    interval = mean and mean["executions"]
    return f"{interval['mean']:.1f}" if interval else NONE


def score_rows(scores: Mapping[str, Any]) -> list[list[Any]]:
    """A row for each agent on each task, with the cells of SCORE_COLUMNS; None where there is no number."""
    rows = []
    for row in scores["per_task"]:
        facts = scores["tasks"][row["task"]]
        known = {**row, "split": facts["split"], "metric": facts["metric"]}
        rows.append([known.get(column) for column in SCORE_COLUMNS])
    return rows


TEMPERATURE_COLUMNS = ("agent", "temperature", "chosen", "gain", "episodes")


def temperature_rows(scores: Mapping[str, Any]) -> list[list[Any]]:
    """A row for each temperature that each trained agent was tried at, with the cells of TEMPERATURE_COLUMNS."""
    return [
        [agent, row["temperature"], row["temperature"] == choice["chosen"], row["gain"], row["episodes"]]
        for agent, choice in scores["temperatures"].items()
        for row in choice["tried"]
    ]


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """comparison: that of `comparison.compare`."""
    rows = [_COMPARISON_COLUMNS]
    for row in comparison["rows"]:
        cells = [row["label"], str(len(row["workdirs"]))]
        for split in SPLITS:
            cells += [_percent(row.get(split)), _percent(row.get(f"{split}_difference"))]
        rows.append(tuple(cells))
    head, *lines = aligned(rows)
    tasks = ", ".join(f"{name} ({split.replace('_', '-')})" for name, split in comparison["tasks"].items())
    note = f"Differences are from {comparison['reference']}. Tasks: {tasks}."
    rule = "-" * max(map(len, [head, *lines]))
    return "\n".join([head, rule, *lines, "", note, comparison["interval_covers"]])


def _percent(values: Mapping[str, Any] | None) -> str:
    interval = values and values["relative_gain"]
    if not interval:
        return "-"
    mean, low, high = (
        None if interval[name] is None else 100 * interval[name] for name in ("mean", "low", "high")
    )
    return f"{mean:+.2f}" + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]")
