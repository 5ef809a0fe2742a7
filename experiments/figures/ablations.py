"""Writes a page for each group of a sweep into experiments/results, from its finished seeds, with its picture.

    python -m experiments.figures.ablations runs/ablations
    python -m experiments.figures.ablations runs/ablations --only=components --suite=experiments/ablations/suite.py

A page is made from its summary, GROUP.json, which is stored beside it. The same summary gives the same bytes.
`--results=DIR` writes elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli.program import run_program
from experiments.figures.ablation_pages import write
from experiments.figures.imports import ROOT
from experiments.sweeps.jobs import plan
from experiments.sweeps.suite import load_suite
from experiments.sweeps.summary import finished_seeds, summarise
from mlagent_jax.errors import UserError

SUITE = flags.DEFINE_string("suite", "experiments/ablations/suite.py", "The suite that was run.")
ONLY = flags.DEFINE_list("only", [], "Groups to write; all that have a finished seed if none is named.")
RESULTS = flags.DEFINE_string("results", str(ROOT / "experiments" / "results"), "Folder of the pages.")


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        raise UserError("name the work directory of one sweep")
    root, suite = Path(argv[1]).expanduser(), load_suite(SUITE.value)
    asked = [suite.group(name) for name in ONLY.value]
    groups = asked or [group for group in suite.groups if finished_seeds(suite, group, root)]
    if not groups:
        raise UserError(f"no group of {SUITE.value} has a finished seed in {root}: run experiments.sweep")
    plan(suite, groups, suite.seeds, root)  # refuses runs that are not the suite's
    found = [summarise(suite, group, root) | {"suite": SUITE.value} for group in groups]
    for summary in found:
        write(summary, Path(RESULTS.value))
        print(f"wrote {Path(RESULTS.value) / summary['name']}.md, .svg and .json")
    return 0


if __name__ == "__main__":
    run_program(main, positional=True)
