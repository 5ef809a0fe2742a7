"""Runs a suite of experiments: every variant with every seed, stages that they have in common once.

    python -m experiments.sweep --suite=experiments/ablations/suite.py --workdir=runs/ablations
    python -m experiments.sweep --suite=experiments/ablations/suite.py --workdir=runs/ablations --only=components
    python -m experiments.sweep --suite=... --workdir=... --dry_run

Each run is in WORKDIR/VARIANT/seed_N, with its output beside it. What is finished is left out, so the same command goes
on after an interruption. A run that fails is tried again; what needs it is left out, and named at the end.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli.program import run_program
from experiments.sweeps.jobs import Job, plan
from experiments.sweeps.runner import Sweep
from experiments.sweeps.suite import load_suite
from mlagent_jax.errors import UserError

SUITE = flags.DEFINE_string("suite", None, "Python file whose get_suite() returns the suite.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all its runs; the same folder resumes.")
ONLY = flags.DEFINE_list("only", [], "Groups to run; all if none is named.")
SEEDS = flags.DEFINE_list("seeds", [], "Some of the suite's seeds; all if none is named.")
PARALLEL = flags.DEFINE_integer("parallel", 1, "Runs at once.", lower_bound=1)
RETRIES = flags.DEFINE_integer("retries", 1, "Further tries of a run that fails.", lower_bound=0)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands that are left to run, and stop.")


def main(argv: Sequence[str]) -> int:
    del argv
    jobs = _planned()
    left = [job for job in jobs if not job.is_done]
    if DRY_RUN.value:
        print("\n".join(shlex.join(job.command) for job in left))
        return 0
    print(f"{len(jobs)} runs, {len(jobs) - len(left)} of them finished", flush=True)
    sweep = Sweep(jobs, PARALLEL.value, RETRIES.value)
    sweep.run()
    for job in sweep.failed:
        print(f"failed: {job.name}; its output is in {job.log}")
    for job in sweep.left_out:
        print(
            f"not run: {job.name}, since {job.needs.name if job.needs else 'what it needs'} is not finished"
        )
    return 1 if sweep.failed else 0


def _planned() -> list[Job]:
    if not SUITE.value:
        raise UserError("--suite is missing: name a suite, e.g. --suite=experiments/ablations/suite.py")
    if not WORKDIR.value:
        raise UserError(
            "--workdir is missing: name a folder to keep the runs in, e.g. --workdir=runs/ablations"
        )
    suite = load_suite(SUITE.value)
    groups = [suite.group(name) for name in ONLY.value] or suite.groups
    return plan(suite, groups, _seeds(suite.seeds), Path(WORKDIR.value).expanduser())


def _seeds(known: Sequence[int]) -> list[int]:
    found = []
    for text in SEEDS.value:
        if text not in map(str, known):
            raise UserError(f"--seeds has {text!r}, but the suite's seeds are {', '.join(map(str, known))}")
        found.append(int(text))
    return found or list(known)


if __name__ == "__main__":
    run_program(main)
