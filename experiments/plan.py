"""Checks whether a run fits a machine before it is rented, and gives a lower bound of the time of its steps.

    python -m experiments.plan --config=experiments/configs/sft_qwen2_5_7b.py --target=h100-8 --stages=sft
    python -m experiments.plan --config=... --target=v5e-32 --suggest --json=plan.json --config.mesh.sequence=2
    python -m experiments.plan --table          # every target, both 7B configurations: launch/README.md

Compiles the trainers' own functions with the target's compiler, on any Linux machine and without the target
(pip install -e '.[plan]'). A 7B takes minutes. If the run does not fit with 10% to spare, the exit status is 1 and the
reason is printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import config_flags
from experiments.cli.program import refuse_unread, run_program
from experiments.planning.plans import STAGES, Candidate, Changes, assignments, plan_stages, suggest
from experiments.planning.table import make_table
from experiments.settings import Settings
from experiments.stages.preflight import ordered_stages
from mlagent_jax.files import write_atomically
from mlagent_jax.planner.plan import gib
from mlagent_jax.planner.report import render
from mlagent_jax.planner.targets import TARGETS, find_target, prepare
from mlagent_jax.planner.versions import versions

config_flags.define_flags()
TARGET = flags.DEFINE_string("target", "", f"Kind and number of chips: {', '.join(TARGETS)}.")
STAGES_FLAG = flags.DEFINE_list("stages", list(STAGES), "Stages whose functions are compiled, in this order.")
JSON = flags.DEFINE_string("json", "", "File for the plan and the versions it was made with.")
SUGGEST = flags.DEFINE_bool("suggest", False, "If it does not fit, try other settings until one does.")
TABLE = flags.DEFINE_bool("table", False, "Fill the table in launch/README.md; existing plans are kept.")
TARGETS_FLAG = flags.DEFINE_list("targets", list(TARGETS), "Targets of --table, in this order.")


def main(argv: Sequence[str]) -> int:
    del argv
    of_a_plan = ["config", "target", "stages", "json", "suggest"]
    of_a_plan += [name for name in flags.FLAGS if name.startswith("config.")]
    command, takes = ("--table", ["targets"]) if TABLE.value else ("a plan without --table", of_a_plan)
    refuse_unread(command, takes, [*of_a_plan, "targets"])
    prepare()
    if TABLE.value:
        make_table([find_target(name) for name in TARGETS_FLAG.value], _report)
        return 0
    return _plan()


def _plan() -> int:
    config = config_flags.given_config()
    Settings.from_config(config)
    target, stages = find_target(TARGET.value), ordered_stages(STAGES_FLAG.value, STAGES)
    plan, changes = plan_stages(config, target, stages, _report)
    print(render(plan))
    if changes:
        print(f"Planned with: {_flags(changes)}")
    candidates = suggest(config, target, stages, _report) if SUGGEST.value and not plan.fits else []
    for candidate in candidates:
        print(_describe(candidate))
    if JSON.value:
        record = {
            "versions": versions(target.platform),
            "config": config.to_dict(),
            "stages": stages,
            "changes": dict(changes),
            "plan": plan.to_dict(),
            "attempts": [candidate.to_dict() for candidate in candidates],
        }
        write_atomically(Path(JSON.value), json.dumps(record, indent=1, default=str) + "\n")
    if not plan.fits:
        if not SUGGEST.value:
            print("--suggest tries settings that may fit.")
        return 1
    return 0


def _describe(candidate: Candidate) -> str:
    if candidate.problem:
        return f"does not fit: {candidate.name} ({candidate.problem})"
    bound, no_overlap = candidate.plan.seconds
    needs = f"{gib(candidate.plan.needed)} per device; at least {bound:.3g} s per step ({no_overlap:.3g} s)"
    return f"FITS: {candidate.name}: {_flags(candidate.changes)}\n      {needs}"


def _flags(changes: Changes) -> str:
    return " ".join(f"--config.{assignment}" for assignment in assignments(changes))


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_program(main)
