"""Exploration-enriched fine-tuning on the expert's episodes: packed rows, loss on action tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.experiment import Experiment
from experiments.stages.stage import run_on_all
from mlagent_jax.parallel import distributed
from mlagent_jax.sft.batches import cut_counts
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.text.chat import Encoded, encode_chat

STAGE = "sft"


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _fine_tune)


def _fine_tune(experiment: Experiment) -> dict[str, Any]:
    settings = experiment.settings
    if settings.rl.start == "base":
        return {"skipped": "config.rl.start is 'base'"}
    expert = distributed.on_main(lambda: experiment.chats(experiment.expert_trajectories(STAGE)))
    sequences = [encode_chat(experiment.tokenizer, chat) for chat in expert]
    return fine_tune(STAGE, experiment, settings.sft, sequences)


def fine_tune(
    stage: str, experiment: Experiment, config: SFTConfig, sequences: Sequence[Encoded]
) -> dict[str, Any]:
    """Fine-tunes and exports the model of a stage, and returns the stage's summary."""
    params = train(
        config,
        experiment.trained_model,
        experiment.initial_params(),
        sequences,
        experiment.workdir.stage(stage),
        experiment.mesh,
        experiment.tracking,
    )
    experiment.export(stage, params)
    cut, dropped = cut_counts(sequences, config.row_length)
    return {
        "parameters": experiment.model.num_parameters,
        "trajectories": len(sequences),
        "trajectories_cut": cut,
        "trajectories_dropped": dropped,
        "mean_tokens": round(sum(len(sequence.tokens) for sequence in sequences) / len(sequences)),
    }
