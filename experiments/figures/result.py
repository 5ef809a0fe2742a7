"""Draws a finished run, its learning curves and its table, for README.md: experiments/figures/quickstart.svg.

python -m experiments.figures.result runs/quickstart [--out=FILE]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.command_line import run_program
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.picture import write_picture

OUT = flags.DEFINE_string("out", str(Path(__file__).with_name("quickstart.svg")), "The picture to write.")


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        raise UserError("name the work directory of one finished run")
    print(f"wrote {write_picture(Path(argv[1]), Path(OUT.value))}")
    return 0


if __name__ == "__main__":
    run_program(main, words=True)
