"""Draws a finished run for README.md (experiments/figures/quickstart.svg) and tables it in experiments/README.md.

    python -m experiments.figures.result runs/quickstart

Both hold the same numbers. `--picture=FILE` draws to another file and leaves the pages alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.cli.program import run_program
from experiments.figures.imports import ROOT
from experiments.figures.markdown import interval_text, table_row
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation import learning_curves, picture, tables
from mlagent_jax.evaluation.numbers import format_score, format_signed
from mlagent_jax.evaluation.read_run import Run, read_run
from mlagent_jax.files import write_atomically

COMMAND = "python -m experiments.figures.result"
PICTURE = Path(__file__).with_name("quickstart.svg")
PAGE = ROOT / "experiments" / "README.md"
BEGIN, END = "<!-- quickstart: begin -->", "<!-- quickstart: end -->"
PICTURE_ONLY = flags.DEFINE_string("picture", "", "Draw to this file instead, and change no page.")


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        raise UserError("name the work directory of one finished run")
    run = read_run(Path(argv[1]))
    drawn = picture.render(run)  # before anything is written
    if PICTURE_ONLY.value:
        write_atomically(Path(PICTURE_ONLY.value), drawn)
        print(f"wrote {PICTURE_ONLY.value}")
        return 0
    page = with_summary(PAGE.read_text(encoding="utf-8"), summary(run))
    write_atomically(PICTURE, drawn)
    write_atomically(PAGE, page)
    print(f"wrote {PICTURE} and the table in {PAGE}")
    return 0


def with_summary(page: str, text: str) -> str:
    """The page with `text` between its markers. Raises UserError if they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{PAGE} lacks the lines {BEGIN} and {END}, between which the table goes")
    return f"{before}{begin}\n{text}\n{end}{after}"


def summary(run: Run) -> str:
    """The run's scores as a Markdown table, how the reward changed, and what PPO added to SFT."""
    assert run.scores is not None  # or it could not have been drawn
    agents = run.scores["agents"]
    lines = [
        table_row("task, metric", *map(tables.agent_title, agents)),
        table_row(*["---"] * (1 + len(agents))),
    ]
    for split in tables.matrix(run.scores):
        title = split["title"].lower()
        for task in split["tasks"]:
            facts = task["facts"]
            name = f"{facts['name']} ({title}), {facts['metric']} {'↑' if facts['higher_is_better'] else '↓'}"
            lines.append(
                table_row(name, *(format_score(cell["avg"]) if cell else "–" for cell in task["cells"]))
            )
        gains = (interval_text(mean["relative_gain"], " %") if mean else "–" for mean in split["means"])
        lines.append(table_row(f"mean relative gain, {title}", *gains))
    return "\n".join([*lines, "", *_sentences(run, run.scores)])


def _sentences(run: Run, scores: Mapping[str, Any]) -> list[str]:
    told = []
    change = learning_curves.reward_change(run.ppo_metrics)
    if change:
        first, last, mean, low, high = (
            format_signed(value, 3)
            for value in (
                change["first"],
                change["last"],
                *(change["interval"][end] for end in ("mean", "low", "high")),
            )
        )
        told.append(
            f"In PPO the mean step reward went from {first} (first third of the updates) to {last} (last third): a"
            f" change of {mean} [{low}, {high}]."
        )
    gains = [
        f"{each['split'].lower()} {interval_text(each['interval'], ' points')}"
        for each in tables.verdicts(scores)
        if each["value"] == "relative_gain"
    ]
    if gains:
        told.append(f"SFT + PPO minus SFT in relative gain: {', '.join(gains)}.")
    told.append(
        f"Means of {scores['k']} episodes. Made with {picture.made_with(run) or 'unrecorded versions'}."
    )
    return told


if __name__ == "__main__":
    run_program(main, positional=True)
