"""Comparisons of finished runs, such as the paper's component ablation (arXiv 2505.23723 v2, table 2)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.agent.trajectory_log import latest_trajectories
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation import bootstrap, scores
from mlagent_jax.evaluation.read_run import read_json
from mlagent_jax.evaluation.tables import agent_title
from mlagent_jax.evaluation.text_tables import comparison_table
from mlagent_jax.files import write_atomically
from mlagent_jax.run_folder import RunFolder

VALUES = ("relative_gain", "normalised_gain", "valid_rate")  # rewards differ by what was ablated
OVER_RUNS = (
    "Student's interval over independent runs. It covers the training seed and the randomness of episodes, not other "
    "tasks or data splits."
)


@dataclass(frozen=True)
class Variant:
    """One row: runs that differ only in their seed, and the evaluated agent whose scores are compared."""

    label: str
    agent: str
    workdirs: tuple[Path, ...]


@dataclass(frozen=True)
class _Run:
    seed: int
    facts: Mapping[str, Mapping[str, Any]]
    one_outcome: bool
    episodes: Mapping[str, Sequence[Trajectory]]


def compare(variants: Sequence[Variant], **options: Any) -> dict[str, Any]:
    """Means of each variant, and its differences from the first one, by split.

    With one run per variant the intervals are over episodes (`bootstrap.COVERS`), with several over runs (`OVER_RUNS`).
    Differences pair episodes by task and index, and runs by seed. options: of `bootstrap.stratified_mean`.
    Raises UserError for a run that has not been evaluated, lacks the agent, or has other tasks or starters than the
    others, and for variants with different seeds.
    """
    runs = {variant: [_read(path, variant.agent) for path in variant.workdirs] for variant in variants}
    _check(runs)
    reference = runs[variants[0]]
    several = len(reference) > 1
    facts = reference[0].facts
    rows = []
    for variant, group in runs.items():
        row: dict[str, Any] = {
            "label": variant.label,
            "agent": variant.agent,
            "workdirs": [str(path) for path in variant.workdirs],
            "seeds": [run.seed for run in group],
        }
        for split in [
            name for name in scores.SPLITS if any(task["split"] == name for task in facts.values())
        ]:
            means = [scores.split_means(split, run.facts, run.episodes, **options) for run in group]
            changes = [
                scores.split_differences(
                    *(split, ours.facts, ours.episodes, theirs.episodes),
                    (ours.one_outcome, theirs.one_outcome),
                    **options,
                )
                for ours, theirs in zip(group, reference, strict=True)
            ]
            if group[0].one_outcome:
                means = means[:1]  # a spread of none over the seeds would look like certainty
            row[split] = {name: _joined([mean[name] for mean in means]) for name in VALUES}
            if group is not reference:
                row[f"{split}_difference"] = {
                    name: _joined([change[name] for change in changes]) for name in VALUES
                }
        rows.append(row)
    return {
        "reference": variants[0].label,
        "tasks": {name: task["split"] for name, task in facts.items()},
        "interval_covers": OVER_RUNS if several else bootstrap.COVERS,
        "rows": rows,
    }


def compare_seeds(runs: Sequence[RunFolder], out: Path) -> str:
    """Compares the agents of `HEADLINE` over runs of several seeds: writes `out`, and returns a table in plain text.

    Returns one sentence instead if one of the two was not evaluated. Raises UserError if a run was not evaluated.
    """
    agent, baseline = scores.HEADLINE
    evaluated = [(read_json(run.scores) or {"agents": scores.HEADLINE})["agents"] for run in runs]
    missing = [name for name in scores.HEADLINE if any(name not in agents for agents in evaluated)]
    if missing:
        return (
            f"{agent_title(agent)} is not compared with {agent_title(baseline)}, since {' and '.join(missing)} was not "
            "evaluated: name both in config.evaluate.agents"
        )
    folders = tuple(run.root for run in runs)
    found = compare([Variant(agent_title(name), name, folders) for name in (baseline, agent)])
    write_atomically(out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return comparison_table(found)


def _read(workdir: Path, agent: str) -> _Run:
    folder = RunFolder(workdir)
    found, config = read_json(folder.scores), read_json(folder.config)
    if found is None or config is None:
        missing = (folder.config if config is None else folder.scores).relative_to(workdir)
        raise UserError(f"{workdir} has no {missing}: finish the run first, up to its evaluate stage")
    if agent not in found["agents"]:
        raise UserError(f"{workdir} evaluated {', '.join(found['agents'])}, but not {agent!r}")
    trajectories = latest_trajectories(folder.evaluation_trajectories, missing_ok=True)
    one_outcome = agent in found["one_outcome"]
    return _Run(
        seed=config.get("seed", 0),
        facts=found["tasks"],
        one_outcome=one_outcome,
        episodes=scores.unmasked(
            (each for each in trajectories.values() if each.agent == agent), one_outcome
        ),
    )


def _check(runs: Mapping[Variant, Sequence[_Run]]) -> None:
    first, reference = next(iter(runs.items()))
    for variant, group in runs.items():
        seeds, expected_seeds = [run.seed for run in group], [run.seed for run in reference]
        if seeds != expected_seeds:
            raise UserError(
                f"{variant.label} has runs of seeds {seeds}, but {first.label} of {expected_seeds}: runs are "
                "compared seed by seed, so give the same seeds in the same order"
            )
        for run, workdir in zip(group, variant.workdirs, strict=True):
            if run.facts.keys() != reference[0].facts.keys():
                raise UserError(
                    f"{workdir} was evaluated on other tasks than {first.workdirs[0]}: compare runs of the same tasks"
                )
            for name, task in run.facts.items():
                expected = reference[0].facts[name]["m_init"]
                if not math.isclose(task["m_init"], expected, rel_tol=1e-9):
                    raise UserError(
                        f"{workdir}: the starter of {name!r} scores {task['m_init']}, but {expected} in "
                        f"{first.workdirs[0]}: the runs are of different data or starters"
                    )


def _joined(intervals: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The interval of a single run, or one over the means of several runs; None if one of them has no mean."""
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    if len(known) == 1:
        return dict(known[0])
    means = [interval["mean"] for interval in known]
    return asdict(bootstrap.student_mean(means)) | {"runs": means}
