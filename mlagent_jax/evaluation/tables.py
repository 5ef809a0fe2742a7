"""`scores.json` arranged as the report's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlagent_jax.evaluation.charts import COLOURS, Chart, Series, interval_rows, line_chart, strip_rows
from mlagent_jax.evaluation.scores import HEADLINE, SPLITS
from mlagent_jax.jsonl import Record

AGENT_TITLES = {
    "starter": "Starter",
    "random": "Random",
    "constant": "Best constant",
    "bandit": "Bandit",
    "random_search": "Random search",
    "optuna": "Optuna",
    "expert": "Expert",
    "expert_without_slips": "Expert without slips",
    "sft": "SFT",
    "sft_filtered": "Filtered SFT",
    "ppo": "SFT + PPO",
    "ppo_shuffled": "SFT + shuffled PPO",
    "llm": "Language model",
}
SPLIT_TITLES = {"held_in": "Held-in", "held_out": "Held-out"}
OUTCOME_ORDER = ("success", "neutral", "corner", "error", "malformed")


def agent_title(agent: str) -> str:
    base, _, variant = agent.rpartition("_")
    if agent not in AGENT_TITLES and base in AGENT_TITLES:
        return f"{AGENT_TITLES[base]}, {variant}"
    return AGENT_TITLES.get(agent, agent)


def matrix(scores: Mapping[str, Any]) -> list[Record]:
    """Each split's tasks and mean gains; each task has a cell (or None) per agent, and the best average."""
    rows = {(row["agent"], row["task"]): row for row in scores["per_task"]}
    splits = []
    for split in SPLITS:
        tasks = []
        for facts in scores["tasks"].values():
            if facts["split"] != split:
                continue
            cells = [rows.get((agent, facts["name"])) for agent in scores["agents"]]
            averages = [cell["avg"] for cell in cells if cell and cell["episodes"]]
            leading = (max if facts["higher_is_better"] else min)(averages, default=None)
            tasks.append({"facts": facts, "cells": cells, "leading": leading})
        if tasks:
            means = [_mean_of(scores, agent, split) for agent in scores["agents"]]
            splits.append({"name": split, "title": SPLIT_TITLES[split], "tasks": tasks, "means": means})
    return splits


def _mean_of(scores: Mapping[str, Any], agent: str, split: str) -> Record | None:
    return next((row for row in scores["means"] if (row["agent"], row["split"]) == (agent, split)), None)


def mean_tables(scores: Mapping[str, Any]) -> list[Record]:
    """The agents' means in each split, with their intervals of the relative gain as drawings."""
    tables = []
    for split in SPLITS:
        rows = [row for row in scores["means"] if row["split"] == split]
        if rows:
            tables.append(
                {
                    "title": SPLIT_TITLES[split],
                    "tasks": rows[0]["tasks"],
                    "rows": _with_drawing(rows, "relative_gain"),
                }
            )
    return tables


def execution_charts(scores: Mapping[str, Any]) -> list[Record]:
    """For each split the agents' gains by executions, without agents that have nothing executed."""
    return _gain_charts(scores, "execution_curves", "executions")


def best_of_charts(scores: Mapping[str, Any]) -> list[Record]:
    """For each split the agents' gains of the best of k episodes, without agents that have one episode."""
    return _gain_charts(scores, "best_of", "k")


def _gain_charts(scores: Mapping[str, Any], name: str, x: str) -> list[Record]:
    """For each split a line for each agent's curve that has more than a point."""
    charts = []
    for split in SPLITS:
        lines = [
            Series(
                agent_title(curve["agent"]),
                curve[x],
                [100 * gain for gain in curve["normalised_gain"]],
                colour=f"s{scores['agents'].index(curve['agent']) % COLOURS}",
            )
            for curve in scores[name]
            if curve["split"] == split and len(curve[x]) > 1 and curve["normalised_gain"]
        ]
        chart = line_chart(Chart(f"{SPLIT_TITLES[split]}: % of the way to m_best", x, lines))
        if chart:
            charts.append(chart)
    return charts


def difference_tables(scores: Mapping[str, Any]) -> list[Record]:
    """The differences in each split; those of the RL-trained agent come first, as leading."""
    leading = HEADLINE[0]
    tables = []
    for split in SPLITS:
        rows = [row for row in scores["differences"] if row["split"] == split]
        rows.sort(key=lambda row: row["agent"] != leading)
        if rows:
            drawn = _with_drawing(rows, "relative_gain")
            tables.append({"title": SPLIT_TITLES[split], "rows": drawn, "leading": leading})
    return tables


def _with_drawing(rows: Sequence[Record], value: str) -> list[Record]:
    """The rows, each with a "drawing": its interval on a common axis, or None if there is no mean."""
    intervals = [row[value] for row in rows if row[value]]
    drawing = interval_rows(("", each["mean"], each["low"], each["high"]) for each in intervals)
    drawn = iter(drawing["rows"] if drawing else ())
    zero = drawing["zero"] if drawing else 0
    return [row | {"drawing": next(drawn) | {"zero": zero} if row[value] else None} for row in rows]


def verdicts(scores: Mapping[str, Any]) -> list[Record]:
    """The differences between the agents of `HEADLINE`, each with its verdict; none if one of the agents is missing."""
    agent, baseline = HEADLINE
    found = []
    for row in scores["differences"]:
        if (row["agent"], row["baseline"]) != (agent, baseline):
            continue
        for value, name in (("relative_gain", "relative gain"), ("mean_step_reward", "mean step reward")):
            interval = row[value]
            if interval:
                found.append(
                    {
                        "agent": agent,
                        "baseline": baseline,
                        "split": SPLIT_TITLES[row["split"]],
                        "value": value,
                        "name": name,
                        "interval": interval,
                        "verdict": "one outcome" if row["one_outcome"] else verdict(interval),
                    }
                )
    return found


def no_verdict(scores: Mapping[str, Any]) -> str:
    """Why there are no `verdicts`, or ""."""
    agent, baseline = HEADLINE
    missing = [name for name in HEADLINE if name not in scores["agents"]]
    if missing:
        return f"No verdict on {agent} against {baseline}: {' and '.join(missing)} was not evaluated."
    return (
        ""
        if verdicts(scores)
        else f"No verdict on {agent} against {baseline}: they have no episodes of the same task and index."
    )


def verdict(interval: Mapping[str, float | None]) -> str:
    """ "better", "worse", "no clear difference", or "too few episodes"."""
    low, high = interval["low"], interval["high"]
    if low is None or high is None:
        return "too few episodes"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no clear difference"


def task_details(
    scores: Mapping[str, Any], evaluated: Mapping[tuple[str, str], Sequence[float]]
) -> list[Record]:
    """Each task's facts and the agents' rows, with the private scores of their episodes on a common axis.

    evaluated: private scores of the unmasked episodes, by (agent, task). Better scores are further right.
    """
    details = []
    for name, facts in scores["tasks"].items():
        rows = [row for row in scores["per_task"] if row["task"] == name]
        groups = [evaluated.get((row["agent"], name), ()) for row in rows]
        marks = [mark for mark in (facts["m_init"], facts["m_best"]) if mark is not None]
        strips = strip_rows(groups, marks, higher_is_better=facts["higher_is_better"])
        details.append(
            {
                "facts": facts,
                "rows": [row | {"strip": strip} for row, strip in zip(rows, strips["rows"], strict=True)],
                "marks": dict(zip(("m_init", "m_best")[-len(marks) :], strips["marks"], strict=True)),
            }
        )
    return details


def temperatures(scores: Mapping[str, Any]) -> list[Record]:
    """For each trained agent whose temperature was chosen: what each one gained on the validation tasks."""
    return [
        {"agent": agent, "chosen": choice["chosen"], "tried": choice["tried"]}
        for agent, choice in scores.get("temperatures", {}).items()
    ]


def attribution(shares: Sequence[Record], operations: int = 12) -> list[Record]:
    """For each split a table of operations by agent: those that brought or cost any agent most, best first.

    shares: of `attribution.shares`. A cell is the mean normalised gain that the operation brought the agent.
    """
    found = []
    for split in SPLITS:
        rows = [row for row in shares if row["split"] == split]
        agents = list(dict.fromkeys(row["agent"] for row in rows if row["gain"]))
        gains = {(row["operation"], row["agent"]): row["gain"] for row in rows}
        largest: dict[str, float] = {}
        for row in rows:
            largest[row["operation"]] = max(largest.get(row["operation"], 0.0), abs(row["gain"]))
        shown = sorted(largest, key=lambda name: (-largest[name], name))[:operations]
        if agents:
            found.append(
                {
                    "title": SPLIT_TITLES[split],
                    "agents": agents,
                    "rows": [(name, [gains.get((name, agent)) for agent in agents]) for name in shown],
                    "left_out": len(largest) - len(shown),
                }
            )
    return found


def outcome_bar(row: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(outcome, start, width) of a bar of width 100."""
    bar, start = [], 0.0
    for outcome in OUTCOME_ORDER:
        width = 100.0 * (row["outcome_fractions"].get(outcome) or 0.0)
        if width:
            bar.append((outcome, round(start, 2), round(width, 2)))
        start += width
    return bar
