"""A control: PPO whose rewards are permuted within each batch before advantages, so that it must not improve.

What it gains over SFT all the same comes from something other than the reward, such as a sharper distribution.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.experiment import Experiment
from experiments.stages.ppo import train_policy
from experiments.stages.stage import run_on_all

STAGE = "ppo_shuffled"


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _train)


def _train(experiment: Experiment) -> dict[str, Any]:
    return train_policy(STAGE, experiment, replace(experiment.settings.ppo, shuffle_rewards=True))
