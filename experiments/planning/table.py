"""Plans of both 7B configurations on every target: stored in launch/plans.json, and as a table in launch/README.md."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.planning.plans import Changes, assignments, plan_stages, suggest
from mlagent_jax.files import write_atomically
from mlagent_jax.planner.targets import TARGETS, Target
from mlagent_jax.planner.versions import versions

ROOT = Path(__file__).parents[2]
PLANS = ROOT / "launch/plans.json"
README = ROOT / "launch/README.md"
BEGIN, END = "<!-- plans: begin -->", "<!-- plans: end -->"
CONFIGS = {"sft_qwen2_5_7b": ["sft"], "ppo_qwen2_5_7b": ["ppo"]}


def make_table(targets: Sequence[Target], report: Callable[[str], None]) -> None:
    """Makes the plans that PLANS lacks for these versions and settings; writes after each, so it can be resumed."""
    plans: dict[str, Any] = json.loads(PLANS.read_text()) if PLANS.exists() else {}
    for target in targets:
        for name, stages in CONFIGS.items():
            config = importlib.import_module(f"experiments.configs.{name}").get_config()
            entry, key = f"{name} {target.name}", _key(config, target, stages)
            if plans.get(entry, {}).get("key") == key:
                report(f"{entry}: already planned")
                continue
            plans[entry] = {"key": key} | _planned(config, target, stages, report)
            write_atomically(PLANS, json.dumps(plans, indent=1, sort_keys=True) + "\n")
            write_atomically(README, with_table(README.read_text(), plans))


def with_table(readme: str, plans: dict[str, Any]) -> str:
    """The README with a table of the plans between its markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(plans)}\n{END}{after}"


def table(plans: dict[str, Any]) -> str:
    """The table in Markdown; targets without a plan are marked."""
    lines = [
        "| target | stage | fits | needed / device (GiB) | additional settings | minimum step time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    all_versions = set()
    for target in TARGETS:
        for name, stages in CONFIGS.items():
            stage, entry = stages[0], plans.get(f"{name} {target}")
            if entry is None:
                lines.append(f"| {target} | {stage} | not planned yet | | | |")
                continue
            all_versions.add(json.dumps(entry["versions"], sort_keys=True))
            lines.append(_row(target, stage, entry))
    notes = [
        "Made with " + ", ".join(f"{name} {value}" for name, value in json.loads(text).items() if value) + "."
        for text in sorted(all_versions)
    ]
    return "\n".join([*lines, "", *notes])


def _row(target: str, stage: str, entry: dict[str, Any]) -> str:
    plan, candidates = entry["plan"], entry["attempts"]
    fitting = next((candidate for candidate in candidates if not candidate["problem"]), None)
    if plan["fits"]:
        verdict, shown, settings = "yes", plan, _in_markdown(entry["changes"])
    elif fitting:
        verdict, shown = "with other settings", fitting["plan"]
        settings = (
            f"{fitting['name']}: {_in_markdown(fitting['changes'])}; as configured, {plan['problems'][0]}"
        )
    else:
        return (
            f"| {target} | {stage} | no | | none of {len(candidates)} alternatives fits; as configured, "
            f"{plan['problems'][0]} | |"
        )
    needed, capacity = (
        max(program["bytes"][name] for program in shown["programs"]) for name in ("needed", "capacity")
    )
    memory = f"{needed / 2**30:.1f} of {capacity / 2**30:.1f}"
    seconds = f"{shown['step_seconds']['bound']:.0f} s ({shown['step_seconds']['no_overlap']:.0f} s)"
    return f"| {target} | {stage} | {verdict} | {memory} | {settings} | {seconds} |"


def _in_markdown(changes: Changes) -> str:
    return " ".join(f"`{assignment}`" for assignment in assignments(changes))


def _planned(
    config: ConfigDict, target: Target, stages: list[str], report: Callable[[str], None]
) -> dict[str, Any]:
    plan, changes = plan_stages(config, target, stages, report)
    candidates = [] if plan.fits else suggest(config, target, stages, report)
    return {
        "versions": versions(target.platform),
        "changes": dict(changes),
        "plan": plan.to_dict(),
        "attempts": [candidate.to_dict() for candidate in candidates],
    }


def _key(config: ConfigDict, target: Target, stages: list[str]) -> str:
    """A hash of the settings and versions behind a plan.

    It does not cover our own code: after a change there, delete the entry to have it planned again.
    """
    sections = ["model", "mesh", *stages] + (["sampling"] if "ppo" in stages else [])
    settings = {name: config.to_dict()[name] for name in sections}
    text = json.dumps([settings, stages, versions(target.platform)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
