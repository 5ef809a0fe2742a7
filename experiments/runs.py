"""Lists, shows, compares and removes runs. All is read from their work directories, so nothing can be out of date.

    python -m experiments.runs list [FOLDER ...]
    python -m experiments.runs show DIR
    python -m experiments.runs compare DIR DIR [DIR ...]
    python -m experiments.runs rm DIR [DIR ...] --yes

`list` finds the runs below the folders, by default `runs`. `show` prints a run's stages, scores and costs. `compare`
prints the settings in which runs differ, and the mean gains of their agents. `rm` deletes work directories that no
process uses; without --yes it says what it would delete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from experiments.cli.program import refuse_unread, run_program
from experiments.workdir import Workdir
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation import llm_costs
from mlagent_jax.evaluation.numbers import NONE, format_gain
from mlagent_jax.evaluation.read_run import read_json, read_run
from mlagent_jax.evaluation.registry import (
    Entry,
    differing_settings,
    find_runs,
    is_run,
    mean_gains,
    read_entry,
)
from mlagent_jax.evaluation.report import headline_facts, stage_rows
from mlagent_jax.evaluation.scores import HEADLINE, SPLITS
from mlagent_jax.evaluation.tables import SPLIT_TITLES, agent_title
from mlagent_jax.evaluation.text_tables import aligned, headline_table
from mlagent_jax.run_folder import RunFolder

YES = flags.DEFINE_bool("yes", False, "rm: really delete.")
_DEFAULT = "runs"


def main(argv: Sequence[str]) -> int:
    if len(argv) < 2 or argv[1] not in COMMANDS:
        given = f"{argv[1]!r} is not a command" if len(argv) > 1 else "no command is given"
        raise UserError(f"{given}; the commands are {', '.join(COMMANDS)}")
    command, *names = argv[1:]
    refuse_unread(command, takes=("yes",) if command == "rm" else (), of=("yes",))
    return COMMANDS[command]([Path(name).expanduser() for name in names])


def _list(folders: Sequence[Path]) -> int:
    entries = [read_entry(found) for folder in folders or [Path(_DEFAULT)] for found in find_runs(folder)]
    if not entries:
        print("There are no runs here.")
        return 0
    heads = [
        "run",
        "begun",
        "commit",
        "seed",
        "finished",
        *(f"{SPLIT_TITLES[split].lower()} gain" for split in SPLITS),
    ]
    print("\n".join(aligned([[*heads, "dollars"], *map(_row, entries)])))
    return 0


def _row(entry: Entry) -> list[str]:
    if entry.problem:
        return [str(entry.folder), f"cannot be read: {entry.problem}", *[""] * (4 + len(SPLITS))]
    agent = next((name for name in HEADLINE if name in entry.gains), None) or next(iter(entry.gains), None)
    return [
        str(entry.folder),
        entry.begun[:16].replace("T", " "),
        entry.commit or NONE,
        NONE if entry.seed is None else str(entry.seed),
        ", ".join(entry.finished) or "nothing yet",
        *(_gain(entry.gains[agent].get(split) if agent else None, agent) for split in SPLITS),
        f"{entry.dollars:.2f}" if entry.dollars else NONE,
    ]


def _gain(gain: float | None, agent: str | None) -> str:
    return NONE if gain is None or agent is None else f"{format_gain(gain)} ({agent_title(agent)})"


def _show(folders: Sequence[Path]) -> int:
    if len(folders) != 1:
        raise UserError("show takes the work directory of one run")
    run = read_run(_checked(folders[0]))
    lines = aligned([[name, str(value)] for name, value in headline_facts(run)])
    lines += [
        "",
        *aligned([[row["name"], _state(row), row["detail"] + row["left_out"]] for row in stage_rows(run)]),
    ]
    for row in llm_costs.rows(run):
        lines.append(f"language models, {row['role']}: ${row['dollars']:.2f}, {row['calls']} calls")
    print("\n".join(lines))
    if run.scores:
        print(f"\n{headline_table(run.scores)}")
    return 0


def _state(row: dict[str, object]) -> str:
    return "finished" if row["done"] else ("begun" if row["detail"] else "not begun")


def _compare(folders: Sequence[Path]) -> int:
    if len(folders) < 2:
        raise UserError("compare takes the work directories of two runs or more")
    runs = [RunFolder(_checked(folder)) for folder in folders]
    names = [str(folder) for folder in folders]
    settings = differing_settings([read_json(run.config) for run in runs])
    if settings:
        print("\n".join(aligned([["setting", *names], *([name, *values] for name, values in settings)])))
    else:
        print("All settings are the same.")
    gains = [mean_gains(scores) if (scores := read_json(run.scores)) else {} for run in runs]
    for split in SPLITS:
        agents = dict.fromkeys(agent for each in gains for agent in each)
        rows = [
            [
                agent_title(agent),
                *(format_gain(each.get(agent, {}).get(split)) if agent in each else NONE for each in gains),
            ]
            for agent in agents
        ]
        if rows:
            print(
                "\n"
                + "\n".join(aligned([[f"{SPLIT_TITLES[split].lower()}, mean relative gain", *names], *rows]))
            )
    if any(gains):
        print("\nHow sure differences are: python -m experiments.ablations.compare")
    return 0


def _remove(folders: Sequence[Path]) -> int:
    if not folders:
        raise UserError("rm takes the work directories of runs")
    checked = [Workdir.at(str(_checked(folder))) for folder in folders]  # all before any is deleted
    for folder in folders:
        if folder.is_symlink():
            raise UserError(f"{folder} is a link to {folder.resolve()}; name that folder itself")
    for workdir in checked:
        size = sum(path.lstat().st_size for path in workdir.root.rglob("*") if path.is_file()) / 2**20
        if YES.value:
            with workdir.locked():
                shutil.rmtree(workdir.root)
        print(f"{'deleted' if YES.value else 'would delete'} {workdir.root}, {size:,.0f} MiB")
    if not YES.value:
        print("Nothing was deleted; give --yes to do it.")
    return 0


def _checked(folder: Path) -> Path:
    """Raises UserError if it is not the work directory of a run."""
    if not is_run(folder):
        raise UserError(
            f"{folder} is not the work directory of a run: it lacks config.json or environment.json; `list` finds them"
        )
    return folder


COMMANDS: dict[str, Callable[[Sequence[Path]], int]] = {
    "list": _list,
    "show": _show,
    "compare": _compare,
    "rm": _remove,
}

if __name__ == "__main__":
    run_program(main, positional=True)
