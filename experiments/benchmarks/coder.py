"""How many of a coder's edits run: single edits of the starters, each executed in the sandbox and graded.

    python -m experiments.benchmarks.coder --config=experiments/configs/quickstart.py --workdir=DIR --edits=10 \
        --config.tasks.held_in=ames,emoji32 --config.tasks.held_out= --config.models.coder.backend=local

Any coder can be measured: local, an endpoint, a checkpoint, or the scripted one, which carries out all of them. The
instructions are random operations of the space of pipelines that change the starter, the same ones for each coder.
Answers and executions are kept in the work directory, so the same command goes on where it was interrupted. Whether a
script does what it was told to is not measured: only that it changed, ran, and submitted what could be graded.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from absl import flags, logging

from experiments.cli import config_flags
from experiments.cli.program import run_program
from experiments.experiment import Experiment
from experiments.settings import Settings, SettingsError
from experiments.workdir import Workdir
from mlagent_jax.agent.env_runner import Turn
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.response import Thoughts, render
from mlagent_jax.agent.trajectory import Step
from mlagent_jax.environment.state import Action, Outcome
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.environment.workspace import STARTER
from mlagent_jax.errors import UserError
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.sampling import random_operation
from mlagent_jax.tasks.task import Task

config_flags.define_flags()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for answers and executions.", required=True)
EDITS = flags.DEFINE_integer("edits", 10, "Edits of each task's starter.", lower_bound=1)
_SHOWN_CHARS = 90
_DRAWS = 100  # for each instruction; the last of a few hundred are seldom drawn


@dataclass(frozen=True)
class Edit:
    """An instruction carried out. operation: the one that it asks for. seconds: of the answer and the execution."""

    task: Task
    operation: str
    instruction: str
    step: Step
    seconds: float

    @property
    def ran(self) -> bool:
        return self.step.outcome is Outcome.SUCCESS

    @property
    def improved(self) -> bool:
        return self.ran and METRICS[self.task.metric].is_better(self.step.m_after, self.step.m_before)

    @property
    def result(self) -> str:
        if self.ran:
            return f"{self.step.m_before:.4g} -> {self.step.m_after:.4g}"
        lines = self.step.feedback.strip().splitlines() or [""]
        return f"{self.step.outcome.value}: {lines[-1]}"


def instructions(task: Task, count: int, seed: int) -> list[tuple[str, str]]:
    """Operations that change the starter, and an instruction for each.

    Raises PipelineError if it is no pipeline, and UserError if it has fewer instructions.
    """
    rng, starter = random.Random(f"{seed}/{task.name}"), read(task.starter)
    found: dict[str, str] = {}
    for _ in range(_DRAWS * count):
        if len(found) == count:
            break
        operation, values, _ = random_operation(starter, rng)
        found.setdefault(operation.say(values, rng.choice(operation.train_wordings)), operation.id)
    if len(found) < count:
        raise UserError(
            f"--edits={count}, but {task.name} has about {len(found)} instructions; ask for fewer"
        )
    return [(operation, instruction) for instruction, operation in found.items()]


def measure(experiment: Experiment, tasks: Sequence[Task], count: int) -> Iterator[Edit]:
    """Carries out `count` edits of each task's starter."""
    thoughts = Thoughts("", "", "", "") if experiment.settings.prompt.thought else None
    for task in tasks:
        (state,) = experiment.env_runner.initial_states([task.name])
        for operation, instruction in instructions(task, count, experiment.settings.seed):
            action = Action(
                EDIT, {"script_name": STARTER, "edit_instruction": instruction, "save_name": "edited.py"}
            )
            began = time.monotonic()
            turn = Turn(Situation(task, ()), state)
            (step,) = experiment.env_runner.apply([turn], [Response(render(action, thoughts))])
            yield Edit(task, operation, instruction, step, time.monotonic() - began)


def main(argv: Sequence[str]) -> int:
    del argv
    logging.set_verbosity(logging.INFO)
    settings, workdir = Settings.from_config(config_flags.given_config()), Workdir.at(WORKDIR.value)
    if settings.seeds:
        raise SettingsError("config.seeds is set, but the edits have one seed; set config.seed instead")
    with workdir.claimed(settings), Experiment(settings, workdir) as experiment:
        experiment.models.check(["coder"])
        experiment.require_sandbox()
        found = []
        for edit in measure(experiment, experiment.tasks_of("evaluate"), EDITS.value):
            found.append(edit)
            print(
                f"{edit.task.name} {edit.operation}: {edit.instruction}\n    {edit.result[:_SHOWN_CHARS]}"
                f" ({edit.seconds:.1f} s)",
                flush=True,
            )
        print(table(found, experiment.coder.name))
    return 0


def table(edits: Sequence[Edit], coder: str) -> str:
    """How many edits ran and how many improved the starter, by task and in all.

    Edits that an infrastructure failure met say nothing of the coder, and only their number is shown.
    """
    counted = [edit for edit in edits if edit.step.outcome is not Outcome.INFRASTRUCTURE]
    lines = [f"\n{coder:<24}{'edits':>8}{'ran':>8}{'better':>8}"]
    for name in [*dict.fromkeys(edit.task.name for edit in counted), "all"]:
        some = [edit for edit in counted if name in (edit.task.name, "all")]
        lines.append(
            f"{name:<24}{len(some):>8}{sum(e.ran for e in some):>8}{sum(e.improved for e in some):>8}"
        )
    outcomes = Counter(edit.step.outcome.value for edit in edits)
    return "\n".join([*lines, ", ".join(f"{name} {count}" for name, count in outcomes.most_common())])


if __name__ == "__main__":
    run_program(main)
