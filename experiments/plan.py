"""Says before anything is rented whether a run fits a machine, and how long its steps take at the least.

    python -m experiments.plan --config=experiments/configs/sft_qwen2_5_7b.py --target=h100-8 --stages=sft
    python -m experiments.plan --config=... --target=v5e-32 --suggest --json=plan.json --config.mesh.sequence=2
    python -m experiments.plan --table          # every target, both 7B configurations: launch/README.md

Compiles the trainers' own functions for the target's compiler, on any Linux machine and without the target
(pip install -e '.[plan]'). A 7B takes minutes. Exit status 1, with the reason, if it does not fit with 10% to spare.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import config_file
from experiments.command_line import refuse_unread, run_program
from experiments.plan_table import make_table
from experiments.planning import STAGES, Attempt, plan_stages, suggest
from experiments.preflight import ordered_stages
from experiments.settings import Settings
from mlagent_jax.files import write_atomically
from mlagent_jax.planner.plan import gib
from mlagent_jax.planner.report import render
from mlagent_jax.planner.targets import TARGETS, find_target, prepare
from mlagent_jax.planner.versions import versions

config_file.define_flags()
TARGET = flags.DEFINE_string("target", "", f"Kind and number of chips: {', '.join(TARGETS)}.")
STAGES_FLAG = flags.DEFINE_list("stages", list(STAGES), "Which stages' functions to compile, in this order.")
JSON = flags.DEFINE_string("json", "", "File to write the plan to, with versions.")
SUGGEST = flags.DEFINE_bool("suggest", False, "If it does not fit, try what may, and say what does.")
TABLE = flags.DEFINE_bool(
    "table", False, "Fill the table in launch/README.md; what is planned already is kept."
)
TARGETS_FLAG = flags.DEFINE_list("targets", list(TARGETS), "Which targets --table plans, in this order.")


def main(argv: Sequence[str]) -> int:
    del argv
    of_a_plan = ["config", "target", "stages", "json", "suggest"]
    of_a_plan += [name for name in flags.FLAGS if name.startswith("config.")]
    command, takes = ("--table", ["targets"]) if TABLE.value else ("a plan without --table", of_a_plan)
    refuse_unread(command, takes, [*of_a_plan, "targets"])
    prepare()
    if TABLE.value:
        make_table([find_target(name) for name in TARGETS_FLAG.value], _tell)
        return 0
    return _plan()


def _plan() -> int:
    config = config_file.given_config()
    Settings.from_config(config)
    target, stages = find_target(TARGET.value), ordered_stages(STAGES_FLAG.value, STAGES)
    plan, changes = plan_stages(config, target, stages, _tell)
    print(render(plan))
    if changes:
        print(f"Planned with: {_flags(changes)}")
    attempts = suggest(config, target, stages, _tell) if SUGGEST.value and not plan.fits else []
    for attempt in attempts:
        print(_describe(attempt))
    if JSON.value:
        told = {
            "versions": versions(target.platform),
            "config": config.to_dict(),
            "stages": stages,
            "changes": dict(changes),
            "plan": plan.to_dict(),
            "attempts": [attempt.to_dict() for attempt in attempts],
        }
        write_atomically(Path(JSON.value), json.dumps(told, indent=1, default=str) + "\n")
    if not plan.fits:
        if not SUGGEST.value:
            print("--suggest tries what may fit.")
        return 1
    return 0


def _describe(attempt: Attempt) -> str:
    if attempt.problem:
        return f"does not fit: {attempt.name} ({attempt.problem})"
    bound, no_overlap = attempt.plan.seconds
    needs = f"{gib(attempt.plan.needed)} a device; {bound:.3g} s a step at the least ({no_overlap:.3g} s)"
    return f"FITS: {attempt.name}: {_flags(attempt.changes)}\n      {needs}"


def _flags(changes: Mapping[str, Any]) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_program(main)
