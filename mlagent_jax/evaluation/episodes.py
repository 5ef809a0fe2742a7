"""Trajectories for the report's browser: a small index, and compressed chunks that are opened on demand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from mlagent_jax.agent.response import ALL_FIELDS
from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.evaluation.embed import packed_json, shortened
from mlagent_jax.evaluation.scores import mean_step_reward
from mlagent_jax.jsonl import Record

MAX_TEXT = 20_000  # characters of one output, feedback, diff or response
CHUNK_STEPS = 200
PPO = "ppo"


def build(
    stages: Iterable[tuple[str, Sequence[Trajectory]]], rollouts: Sequence[Record] = ()
) -> tuple[list[Record], list[str]]:
    """Index entries and compressed chunks of the trajectories of each (stage, trajectories), and of PPO's rollouts.

    An entry's "chunk" and "at" locate its steps. A chunk holds episodes of one agent on one task, with at most
    `CHUNK_STEPS` steps, so opening one takes milliseconds however large the run is.
    rollouts: lines of PPO's rollouts.jsonl; those of one update on one task are shown as one entry.
    """
    groups: dict[tuple[str, str, str], list[tuple[Record, list[Record]]]] = {}
    for stage, trajectories in stages:
        for each in sorted(trajectories, key=lambda trajectory: trajectory.index):
            steps = [_step(step) for step in each.steps]
            groups.setdefault((stage, each.agent, each.task), []).append((_entry(stage, each), steps))
    for (update, task), records in _by_update(rollouts).items():
        entry = _rollout_entry(update, task, records)
        groups.setdefault((PPO, PPO, task), []).append((entry, [_rollout_step(each) for each in records]))

    index: list[Record] = []
    chunks: list[str] = []
    for group in groups.values():
        waiting: list[list[Record]] = []
        for entry, steps in group:
            if waiting and sum(map(len, waiting)) + len(steps) > CHUNK_STEPS:
                chunks.append(packed_json(waiting))
                waiting = []
            index.append(entry | {"chunk": len(chunks), "at": len(waiting)})
            waiting.append(steps)
        chunks.append(packed_json(waiting))
    return index, chunks


def _entry(stage: str, trajectory: Trajectory) -> Record:
    return {
        "stage": stage,
        "agent": trajectory.agent,
        "task": trajectory.task,
        "index": trajectory.index,
        "seed": trajectory.seed,
        "ideas": list(trajectory.ideas),
        "outcomes": [step.outcome.value for step in trajectory.steps],
        "init_public": trajectory.m_init_public,
        "init_private": trajectory.m_init_private,
        "public": trajectory.public_score,
        "private": trajectory.private_score,
        "curve": [step.after.public_score for step in trajectory.steps],
        "valid": trajectory.valid,
        "ended": trajectory.ended,
        "reward": mean_step_reward(trajectory),
    }


def _step(step: Step) -> Record:
    logprobs = step.logprobs or ()
    return {
        "fields": labelled_fields(shortened(step.response, MAX_TEXT)),
        "response": shortened(step.response, MAX_TEXT),
        "tool": step.action.tool if step.action else None,
        "arguments": [[name, _text(value)] for name, value in step.action.arguments.items()]
        if step.action
        else [],
        "outcome": step.outcome.value,
        "status": step.status,
        "cached": step.cached,
        "reward": step.reward,
        "m_before": step.m_before,
        "m_after": step.m_after,
        "private_before": step.before.private_score,
        "private_after": step.after.private_score,
        "graded": step.after.graded,
        "seconds": step.after.seconds - step.before.seconds,
        "snapshots": [step.before.snapshot, step.after.snapshot],
        "tokens": len(step.tokens) if step.tokens is not None else None,
        "logprob": sum(logprobs) / len(logprobs) if logprobs else None,
        "diff": shortened(step.diff, MAX_TEXT),
        "output": shortened(step.output, MAX_TEXT),
        "feedback": shortened(step.feedback, MAX_TEXT),
    }


def _by_update(rollouts: Iterable[Record]) -> dict[tuple[int, str], list[Record]]:
    groups: dict[tuple[int, str], list[Record]] = {}
    for record in rollouts:
        groups.setdefault((record["step"], record["task"]), []).append(record)
    return groups


def _rollout_entry(update: int, task: str, records: Sequence[Record]) -> Record:
    rewards = [record["reward"] for record in records if record["reward"] is not None]
    return {
        "stage": PPO,
        "agent": PPO,
        "task": task,
        "index": update,
        "outcomes": [record["outcome"] for record in records],
        "reward": sum(rewards) / len(rewards) if rewards else None,
    }


def _rollout_step(record: Record) -> Record:
    """One sampled action; "origin" is the trajectory and step (from 0) whose state it started from."""
    response = shortened(record["response"], MAX_TEXT)
    return {
        "origin": [record["trajectory"], record["index"]],
        "fields": labelled_fields(response),
        "response": response,
        "outcome": record["outcome"],
        "reward": record["reward"],
        "m_before": record["m_before"],
        "m_after": record["m_after"],
        "tokens": record["tokens"],
        "snapshots": [record["snapshot_before"], record["snapshot_after"]],
    }


def _text(value: object) -> str:
    return shortened(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1), MAX_TEXT
    )


def labelled_fields(response: str) -> list[tuple[str, str]]:
    """The labelled parts of a response, even of a malformed one; text before the first label has the label "".

    A label is found as the parser does: its first occurrence after the label that precedes it in the format.
    """
    found: list[tuple[str, int, int]] = []
    position = 0
    for label in ALL_FIELDS:
        match = re.compile(rf"^[ \t]*{re.escape(label)}[ \t]*:", re.MULTILINE).search(response, position)
        if match:
            found.append((label, match.start(), match.end()))
            position = match.end()
    ends = [start for _, start, _ in found] + [len(response)]
    lead = response[: ends[0]].strip()
    fields = [("", lead)] if lead else []
    return fields + [
        (label, response[end : ends[at + 1]].strip()) for at, (label, _, end) in enumerate(found)
    ]
