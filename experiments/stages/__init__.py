"""The stages of a run, in order. Each reads what earlier stages wrote, and resumes where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable

from experiments.experiment import Experiment
from experiments.settings import TRAINED
from experiments.stages import collect, evaluate, ideas, ppo, ppo_shuffled, report, sft, sft_filtered

RUN_STAGE: dict[str, Callable[[Experiment], None]] = {
    "ideas": ideas.run,
    "collect": collect.run,
    "sft": sft.run,
    "sft_filtered": sft_filtered.run,
    "ppo": ppo.run,
    "ppo_shuffled": ppo_shuffled.run,
    "evaluate": evaluate.run,
    "report": report.run,
}
STAGES = tuple(RUN_STAGE)
# They run only if the evaluation has the agents that they train.
OPTIONAL = (sft_filtered.STAGE, ppo_shuffled.STAGE)
SANDBOXED = ("collect", "ppo", "ppo_shuffled", "evaluate")  # the stages that run scripts
TRACKED = (*TRAINED, "evaluate")  # the stages that log to trackers
