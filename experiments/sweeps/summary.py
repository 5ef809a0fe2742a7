"""What a group of a sweep has shown: its rows compared over the seeds, and tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.sweeps.suite import Group, Suite
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.comparison import Variant, compare
from mlagent_jax.evaluation.criteria import LEVEL, holm
from mlagent_jax.evaluation.provenance import Provenance
from mlagent_jax.evaluation.read_run import Run, read_run
from mlagent_jax.evaluation.scores import SPLITS
from mlagent_jax.jsonl import Record
from mlagent_jax.run_folder import RunFolder

VALUE = "relative_gain"
# What the first row does, compared with another.
MORE, LESS, NO_DIFFERENCE, FEW = "gains more", "gains less", "no difference shown", "too few seeds"
NO_GAIN = "no gain to compare"
LEAST_SEEDS = 3


def finished_seeds(suite: Suite, group: Group, root: Path) -> list[int]:
    """The seeds with which every variant of the group has been evaluated."""
    names = {row.variant for row in group.rows}
    return [seed for seed in suite.seeds if all(_run(root, name, seed).scores.exists() for name in names)]


def summarise(suite: Suite, group: Group, root: Path) -> Record:
    """All that the group's page is made of, as JSON. Raises UserError if no seed has finished.

    The runs have to be the suite's, see `jobs.plan`.
    """
    seeds = finished_seeds(suite, group, root)
    if not seeds:
        raise UserError(
            f"no seed of group {group.name} has finished in {root}: run experiments.sweep with --only={group.name}"
        )
    found = compare(
        [
            Variant(row.label, row.agent, tuple(_run(root, row.variant, seed).root for seed in seeds))
            for row in group.rows
        ]
    )
    rows: list[Record] = [
        {"label": row.label, "paper": row.paper}
        | {split: _gains(result, split) for split in SPLITS if split in result}
        for row, result in zip(group.rows, found["rows"], strict=True)
    ]
    _test([row[split] for row in rows[1:] for split in SPLITS if split in row])
    variants = dict.fromkeys(row.variant for row in group.rows)
    runs = {name: [read_run(_run(root, name, seed).root) for seed in seeds] for name in variants}
    provenance = asdict(Provenance.of(run for group_runs in runs.values() for run in group_runs))
    del provenance["commands"]  # each is in its run's folder, and names paths of its machine
    return {
        "name": group.name,
        "title": group.title,
        "claim": group.claim,
        "source": group.source,
        "note": group.note,
        "seeds": seeds,
        "planned_seeds": list(suite.seeds),
        "model": _model(runs),
        "tasks": found["tasks"],
        "covers": found["interval_covers"],
        "rows": rows,
        "provenance": provenance,
        "hours": {name: Provenance.of(each).hours for name, each in runs.items()},
    }


def _run(root: Path, variant: str, seed: int) -> RunFolder:
    return RunFolder(root / variant / f"seed_{seed}")


def _model(runs: Mapping[str, Sequence[Run]]) -> Record:
    """The policy's parameters, where a stage has counted them, and what it starts from, "" for random weights."""
    (first, *_), *_ = runs.values()
    counts = (run.summaries.get("sft", {}).get("parameters") for group in runs.values() for run in group)
    pretrained = ((first.config or {}).get("model") or {}).get("pretrained") or ""
    return {
        "parameters": next((count for count in counts if count), None),
        "pretrained": Path(pretrained).name,
    }


def _gains(result: Record, split: str) -> Record:
    """difference: what the first row gains more; absent in the first row itself."""
    gains: Record = {"gain": result[split][VALUE], "valid_rate": result[split]["valid_rate"]}
    change = result.get(f"{split}_difference")
    if change is not None:
        gains["difference"] = _negated(change[VALUE])
    return gains


def _negated(interval: Record | None) -> Record | None:
    if interval is None:
        return None
    low, high = interval["low"], interval["high"]
    found: Record = {
        "mean": -interval["mean"],
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }
    if "runs" in interval:
        found["runs"] = [-value for value in interval["runs"]]
    return found


def _test(cells: Sequence[Record]) -> None:
    """Adds to each cell a two-sided p, adjusted by Holm's method over them all, and a verdict."""
    tested = []
    for cell in cells:
        difference = cell["difference"]
        cell["p"] = _p_value((difference or {}).get("runs", ()))
        cell["verdict"] = NO_DIFFERENCE if cell["p"] is not None else FEW if difference else NO_GAIN
        if cell["p"] is not None:
            tested.append(cell)
    for cell, adjusted in zip(tested, holm([cell["p"] for cell in tested]), strict=True):
        cell["p"] = adjusted
        if adjusted < LEVEL:
            cell["verdict"] = MORE if cell["difference"]["mean"] > 0 else LESS


def _p_value(runs: Sequence[float]) -> float | None:
    """Of a paired t test over the seeds; None for fewer than `LEAST_SEEDS`, whose spread says next to nothing."""
    if len(runs) < LEAST_SEEDS:
        return None
    if len(set(runs)) == 1:
        return 1.0 if runs[0] == 0 else 0.0
    from scipy import stats  # takes 0.5 s to import

    return float(stats.ttest_1samp(runs, 0.0).pvalue)
