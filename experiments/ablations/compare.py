"""Compares finished runs: one row for each variant, with its difference from the first.

    python -m experiments.ablations.compare full=runs/full no-sft=runs/no_sft no-stepwise=runs/no_stepwise
    python -m experiments.ablations.compare SFT@sft=runs/0,runs/1,runs/2 PPO@ppo=runs/0,runs/1,runs/2

LABEL=DIR[,DIR...] names runs that differ in nothing but their seed; LABEL@AGENT takes another evaluated agent
than --agent. What the intervals cover is printed below the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.command_line import run_program
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.comparison import Variant, compare
from mlagent_jax.evaluation.scores import SPLITS
from mlagent_jax.files import write_atomically

AGENT = flags.DEFINE_string(
    "agent", "ppo", "Which evaluated agent stands for a run, unless LABEL@AGENT says so."
)
OUT = flags.DEFINE_string("out", None, "Also write everything as JSON to this file.")

HEADER = ("variant", "runs", "held-in gain %", "difference", "held-out gain %", "difference")


def main(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        raise UserError(
            "name runs to compare as LABEL=DIR[,DIR...]; the first is what the others differ from"
        )
    found = compare([parse_variant(argument, AGENT.value) for argument in argv[1:]])
    if OUT.value:
        write_atomically(Path(OUT.value), json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(table(found))
    return 0


def parse_variant(text: str, agent: str) -> Variant:
    """Reads "LABEL=DIR,DIR" or "LABEL@AGENT=DIR,DIR". Raises UserError."""
    name, equals, folders = text.partition("=")
    label, _, own_agent = name.partition("@")
    if not (equals and label and folders):
        raise UserError(f"{text!r} is not of the form LABEL=DIR[,DIR...] or LABEL@AGENT=DIR[,DIR...]")
    return Variant(label, own_agent or agent, tuple(Path(folder) for folder in folders.split(",")))


def table(found: Mapping[str, Any]) -> str:
    """The comparison as text of aligned columns."""
    rows = [HEADER]
    for row in found["rows"]:
        cells = [row["label"], str(len(row["workdirs"]))]
        for split in SPLITS:
            cells += [_percent(row.get(split)), _percent(row.get(f"{split}_difference"))]
        rows.append(tuple(cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    tasks = ", ".join(f"{name} ({split.replace('_', '-')})" for name, split in found["tasks"].items())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(
        [*lines, "", f"Differences are from {found['reference']}. Tasks: {tasks}.", found["interval_covers"]]
    )


def _percent(values: Mapping[str, Any] | None) -> str:
    interval = values and values["relative_gain"]
    if not interval:
        return "-"
    mean, low, high = (
        None if interval[name] is None else 100 * interval[name] for name in ("mean", "low", "high")
    )
    return f"{mean:+.2f}" + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]")


if __name__ == "__main__":
    run_program(main, words=True)
