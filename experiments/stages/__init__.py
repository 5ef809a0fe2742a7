"""The stages of a run, in order. Each reads what earlier stages wrote, and resumes where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable

from experiments.experiment import Experiment
from experiments.stages import collect, evaluate, ideas, ppo, report, sft

RUN_STAGE: dict[str, Callable[[Experiment], None]] = {
    "ideas": ideas.run,
    "collect": collect.run,
    "sft": sft.run,
    "ppo": ppo.run,
    "evaluate": evaluate.run,
    "report": report.run,
}
STAGES = tuple(RUN_STAGE)
SANDBOXED = ("collect", "ppo", "evaluate")  # the stages that run scripts
TRACKED = ("sft", "ppo", "evaluate")  # the stages that log to trackers
