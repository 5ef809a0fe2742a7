"""Which operations brought the gain: the final score of an episode, taken apart along what its final script came from.

The final script descends from the starter by edits. Each edit brings the difference between the scores of the script it
made and of the one it changed, so an episode's differences add up to its gain; what was tried and given up brings
nothing. An edit is known by the operation of the grammar that its instruction asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.environment.tools import COPY_FILE, EDIT, EXECUTE
from mlagent_jax.environment.workspace import STARTER
from mlagent_jax.evaluation.scores import SPLITS, normalised_gain
from mlagent_jax.jsonl import Record
from mlagent_jax.pipelines.instructions import parse_instruction
from mlagent_jax.pipelines.pipeline import PipelineError

OTHER = "other"  # what is no operation of the grammar, and scores that changed though the script did not

Part = tuple[str, float]  # an operation's id, and the change of the private score that it brought


@dataclass(frozen=True)
class _Script:
    """score: the last known one on its line of descent; it failed, or was never run, if it has none of its own."""

    score: float
    parts: tuple[Part, ...] = ()


def parts(trajectory: Trajectory) -> list[Part]:
    """The changes of an episode's final private score from m_init, in their order; they add up to its gain."""
    scripts = {STARTER: _Script(trajectory.m_init_private)}
    final = scripts[STARTER]
    for step in trajectory.steps:
        given = step.action.arguments if step.action is not None else {}
        tool = step.action.tool if step.action is not None else ""
        name = str(given.get("script_name", ""))
        if tool == COPY_FILE and str(given.get("source", "")) in scripts:
            scripts[str(given.get("destination", ""))] = scripts[str(given["source"])]
        elif tool == EDIT and step.diff:
            source = scripts.get(name, scripts[STARTER])
            score = step.after.private_score if _ran(step) else source.score
            made = _Script(score, (*source.parts, (_operation(given), score - source.score)))
            scripts[str(given.get("save_name", ""))] = made
            final = made if _ran(step) else final
        elif tool == EXECUTE and name in scripts and _ran(step):
            final = scripts[name]
    rest = trajectory.private_score - trajectory.m_init_private - sum(change for _, change in final.parts)
    return [*final.parts, (OTHER, rest)] if rest else list(final.parts)


def shares(facts: Mapping[str, Mapping[str, Any]], trajectories: Iterable[Trajectory]) -> list[Record]:
    """A row for each agent, split and operation of its final scripts: the mean normalised gain that it brought.

    facts: the "tasks" of `scores.json`. A row has "gain", of episodes in which the operation is not part of the final
    script 0; "share", of the agent's whole gain on the split, None if that is not positive; and "episodes", those whose
    final script holds it. Means are unweighted over tasks, without masked episodes, so the gains of an agent's rows add
    up to its mean normalised gain. Rows with the largest gain come first.
    """
    groups: dict[tuple[str, str], dict[str, list[Trajectory]]] = {}
    for each in trajectories:
        if not each.is_masked and each.task in facts and facts[each.task]["split"] in SPLITS:
            of_agent = groups.setdefault((each.agent, facts[each.task]["split"]), {})
            of_agent.setdefault(each.task, []).append(each)
    rows: list[Record] = []
    for (agent, split), by_task in groups.items():
        gains: dict[str, float] = {}
        episodes: dict[str, int] = {}
        for task, group in by_task.items():
            for each in group:
                found = parts(each)
                for operation in {name for name, _ in found}:
                    episodes[operation] = episodes.get(operation, 0) + 1
                for operation, change in found:
                    gain = normalised_gain(
                        facts[task]["m_init"] + change, facts[task]["m_init"], facts[task]["m_best"]
                    )
                    weight = len(group) * len(by_task)
                    gains[operation] = gains.get(operation, 0.0) + (gain or 0.0) / weight
        whole = sum(gains.values())
        rows += [
            {
                "agent": agent,
                "split": split,
                "operation": operation,
                "gain": gain,
                "share": gain / whole if whole > 0 else None,
                "episodes": episodes[operation],
            }
            for operation, gain in sorted(gains.items(), key=lambda item: (-item[1], item[0]))
        ]
    return rows


def _ran(step: Step) -> bool:
    """Whether the step ran a script whose submission was graded."""
    return step.status == "ok" and step.after.graded


def _operation(given: Mapping[str, Any]) -> str:
    try:
        found = parse_instruction(str(given.get("edit_instruction", "")))
    except PipelineError:
        return OTHER
    return found[0].id if found else OTHER
