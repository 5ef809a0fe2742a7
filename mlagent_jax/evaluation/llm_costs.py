"""What the language models of a run's roles have cost, for the report."""

from __future__ import annotations

from mlagent_jax.evaluation.read_run import Run
from mlagent_jax.jsonl import Record
from mlagent_jax.llm.usage import RoleUsage


def rows(run: Run) -> list[Record]:
    """A row for each role that has asked a model, and one for all if there are several; none without any."""
    models = (run.config or {}).get("models", {})
    found: list[Record] = [
        {"role": role.replace("_", " "), "model": models.get(role, {}).get("model", ""), **vars(usage)}
        for role, usage in run.llm_usage.items()
    ]
    if len(found) > 1:
        sums = {name: sum(row[name] for row in found) for name in vars(RoleUsage())}
        found.append({"role": "all", "model": "", **sums})
    return found
