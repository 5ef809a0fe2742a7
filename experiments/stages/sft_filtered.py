"""A control: fine-tuning on the best of the expert's episodes, with as many steps as on all of them.

What PPO gains over SFT may be no more than a preference for what scored well. This is that preference without RL.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.experiment import Experiment
from experiments.stages.sft import SFTData, fine_tune
from experiments.stages.stage import run_on_all
from mlagent_jax.exploration.expert_data import best_episodes
from mlagent_jax.parallel import distributed
from mlagent_jax.sft.loop import total_steps

STAGE = "sft_filtered"


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _fine_tune)


def _fine_tune(experiment: Experiment) -> dict[str, Any]:
    config = experiment.settings.sft
    every, best = distributed.on_main(lambda: _data(experiment))
    steps = total_steps(config, every.sequences, every.paraphrases)
    summary = fine_tune(STAGE, experiment, replace(config, steps=steps), best)
    return summary | {"of_trajectories": len(every.sequences)}


def _data(experiment: Experiment) -> tuple[SFTData, SFTData]:
    expert = experiment.expert_trajectories(STAGE, "sft")
    best = best_episodes(experiment.tasks_of("sft"), expert, experiment.settings.collect.filtered_share)
    return SFTData.of(experiment, expert), SFTData.of(experiment, best)
