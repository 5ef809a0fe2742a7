"""Gain along training: mean relative gains of the policy after some updates, and the hours until then.

The paper's figure 4 (arXiv 2505.23723 v2) has them against accelerator-hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation.scores import SPLITS, split_means, unmasked
from mlagent_jax.jsonl import Record

_MARK = "@"


def along_training_name(stage: str, update: int) -> str:
    """The agent whose episodes are those of the policy after `update` updates."""
    return f"{stage}{_MARK}{update}"


def gains_along_training(
    facts: Mapping[str, Mapping[str, Any]],
    trajectories: Iterable[Trajectory],
    metrics: Sequence[Record],
    **options: Any,
) -> list[Record]:
    """A record for each evaluation, in order: "step" (updates done), "hours", and for each split "SPLIT", "SPLIT_low"
    and "SPLIT_high" in per cent, where all of its tasks have an episode.

    facts: the "tasks" of `scores.json`. metrics: those that training logged; evaluations do not count in the hours.
    options: of `bootstrap.stratified_mean`.
    """
    by_update: dict[int, list[Trajectory]] = {}
    for trajectory in trajectories:
        by_update.setdefault(int(trajectory.agent.rpartition(_MARK)[2]), []).append(trajectory)
    seconds = {int(record["step"]): float(record["timing_s/step"]) for record in metrics}
    splits = [split for split in SPLITS if any(task["split"] == split for task in facts.values())]
    records = []
    for update in sorted(by_update):
        until = sum(each for step, each in seconds.items() if step <= update)
        record: Record = {"step": update, "hours": until / 3600}
        for split in splits:
            gain = split_means(split, facts, unmasked(by_update[update]), **options)["relative_gain"]
            if gain is not None:
                record[split] = 100 * gain["mean"]
                record |= {
                    f"{split}_{end}": 100 * gain[end] for end in ("low", "high") if gain[end] is not None
                }
        records.append(record)
    return records
