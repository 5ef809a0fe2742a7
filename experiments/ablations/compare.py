"""Compares finished runs: one row for each variant, with its difference from the first variant.

    python -m experiments.ablations.compare full=runs/full no-sft=runs/no_sft no-stepwise=runs/no_stepwise
    python -m experiments.ablations.compare SFT@sft=runs/0,runs/1,runs/2 PPO@ppo=runs/0,runs/1,runs/2

LABEL=DIR[,DIR...] names runs that differ only in their seed; LABEL@AGENT selects another evaluated agent than --agent.
The table is followed by a note on what its intervals cover.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli.program import run_program
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.comparison import Variant, compare
from mlagent_jax.evaluation.text_tables import comparison_table
from mlagent_jax.files import write_atomically

AGENT = flags.DEFINE_string(
    "agent", "ppo", "Evaluated agent that is compared, unless LABEL@AGENT names another."
)
OUT = flags.DEFINE_string("out", None, "File for all results as JSON.")


def main(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        raise UserError("name runs to compare as LABEL=DIR[,DIR...]; the others are compared with the first")
    found = compare([parse_variant(argument, AGENT.value) for argument in argv[1:]])
    if OUT.value:
        write_atomically(Path(OUT.value), json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(comparison_table(found))
    return 0


def parse_variant(text: str, agent: str) -> Variant:
    """Parses "LABEL=DIR,DIR" or "LABEL@AGENT=DIR,DIR". Raises UserError."""
    name, equals, folders = text.partition("=")
    label, _, own_agent = name.partition("@")
    if not (equals and label and folders):
        raise UserError(f"{text!r} is not of the form LABEL=DIR[,DIR...] or LABEL@AGENT=DIR[,DIR...]")
    return Variant(label, own_agent or agent, tuple(Path(folder) for folder in folders.split(",")))


if __name__ == "__main__":
    run_program(main, positional=True)
