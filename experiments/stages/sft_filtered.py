"""A control: fine-tuning on the best of the expert's episodes, with as many steps as on all of them.

What PPO gains over SFT may be no more than a preference for what scored well. This is that preference without RL.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.experiment import Experiment
from experiments.stages.sft import fine_tune
from experiments.stages.stage import run_on_all
from mlagent_jax.exploration.expert_data import best_episodes
from mlagent_jax.parallel import distributed
from mlagent_jax.sft.loop import total_steps
from mlagent_jax.text.chat import Message, encode_chat

STAGE = "sft_filtered"

Chats = list[list[Message]]


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _fine_tune)


def _fine_tune(experiment: Experiment) -> dict[str, Any]:
    config = experiment.settings.sft
    all_chats, best_chats = distributed.on_main(lambda: _chats(experiment))
    every, best = (
        [encode_chat(experiment.tokenizer, chat) for chat in chats] for chats in (all_chats, best_chats)
    )
    steps = total_steps(config, every)
    return fine_tune(STAGE, experiment, replace(config, steps=steps), best) | {"of_trajectories": len(every)}


def _chats(experiment: Experiment) -> tuple[Chats, Chats]:
    expert = experiment.expert_trajectories(STAGE)
    best = best_episodes(experiment.held_in, expert, experiment.settings.collect.filtered_share)
    return experiment.chats(expert), experiment.chats(best)
