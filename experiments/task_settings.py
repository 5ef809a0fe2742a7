"""Which tasks a run has, and which of them each stage works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.fields import setting
from mlagent_jax.tasks.fingerprint import fingerprint
from mlagent_jax.tasks.task_file import read_task_file

_SCORED = ("held_in", "held_out")
# What the tasks of a stage must be among, and what they are if they are not given.
_PART_OF = {"collect": ("held_in",), "sft": ("collect",), "rl": ("held_in",), "evaluate": _SCORED}
_DEFAULTS = {**_PART_OF, "rl": ("collect",)}


@dataclass(frozen=True)
class TaskSettings:
    """held_in, held_out: names of folders in `folder`, or paths of task folders anywhere.

    collect: held-in tasks that ideas and expert episodes are made for; all if they are not given.
    sft, rl: tasks that the model is trained on; those of `collect` if they are not given. No `rl` task is no RL.
    evaluate: held-in and held-out tasks that are scored; all if they are not given.
    validation: tasks on which temperatures are chosen, see `EvaluateSettings`. They never count in a score.
    data_dir: prepared data; "" for `mlagent-jax` in the user's cache folder.
    micro: use the small version of each task, with at most 100 training and 100 test rows.
    """

    held_in: tuple[str, ...] = setting(filled=True, distinct=True)
    held_out: tuple[str, ...] = setting(distinct=True)
    collect: tuple[str, ...] = setting(filled=True, distinct=True)
    sft: tuple[str, ...] = setting(filled=True, distinct=True)
    rl: tuple[str, ...] = setting(distinct=True)
    evaluate: tuple[str, ...] = setting(filled=True, distinct=True)
    validation: tuple[str, ...] = setting((), distinct=True)
    folder: str = setting(str(Path(__file__).parents[1] / "tasks"), filled=True, defines_run=False)
    data_dir: str = setting("", defines_run=False)
    micro: bool = False

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for split in (*_SCORED, "validation"):
            for task in getattr(self, split):
                if not task:
                    raise UserError(f"config.tasks.{split} has '', which is not a task's name")
                name = Path(task).name
                if name in names:
                    raise UserError(
                        f"config.tasks.{split} has {task!r}, and {names[name]} has a task {name!r} too; name it once"
                    )
                names[name] = f"config.tasks.{split}"
        for part, wholes in _PART_OF.items():
            known = set().union(*(self.names(whole) for whole in wholes))
            for task in getattr(self, part):
                if Path(task).name not in known:
                    raise UserError(
                        f"config.tasks.{part} has {task!r}, which is not in "
                        f"{' or '.join(f'config.tasks.{whole}' for whole in wholes)}; add it there, or leave it out"
                    )

    def names(self, part: str) -> set[str]:
        """The names of a split's tasks, or of those that a stage works on."""
        return {Path(task).name for task in getattr(self, part)}

    def fingerprints(self) -> dict[str, str]:
        """Of every task, by its name. Raises TaskError for a folder that is not a task."""
        folder, tasks = Path(self.folder), (*self.held_in, *self.held_out, *self.validation)
        files = [read_task_file(task, folder) for task in tasks]
        return {file.name: fingerprint(file, self.micro) for file in files}


def derive(tasks: Any) -> None:
    """Sets the tasks of stages for which none are given. tasks: the values of the section."""
    if not isinstance(tasks, dict):
        return
    for part, wholes in _DEFAULTS.items():
        given: list[Any] = [tasks.get(whole) for whole in wholes]
        # A wrong value is reported for the field where it was given, not for those derived from it.
        if all(isinstance(one, tuple | list) for one in given):
            tasks.setdefault(part, tuple(dict.fromkeys(task for one in given for task in one)))


def conflicts(tasks: TaskSettings, agents: tuple[str, ...], rl_reads_expert: bool) -> list[str]:
    """agents: those that are evaluated. rl_reads_expert: whether RL starts from what the expert did."""
    found = []
    not_collected = sorted(tasks.names("rl") - tasks.names("collect"))
    if not_collected and rl_reads_expert:
        found.append(
            f"config.tasks.rl has {not_collected[0]!r}, which is not in config.tasks.collect, but RL needs its "
            "episodes (config.rl.rollouts is 'states', or config.ppo.critic_start 'expert'); add it there, or leave it "
            "out"
        )
    for agent in ("ppo", "ppo_shuffled") if not tasks.rl else ():
        if agent in agents:
            found.append(
                f"config.evaluate.agents has {agent!r}, but config.tasks.rl is empty, so nothing is trained by RL; "
                f"leave {agent!r} out"
            )
    return found
