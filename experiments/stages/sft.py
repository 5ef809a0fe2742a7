"""Exploration-enriched fine-tuning on the expert's episodes: packed rows, loss on action tokens only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.experiment import Experiment
from experiments.stages.stage import run_on_all
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.parallel import distributed
from mlagent_jax.sft.batches import cut_counts
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.text.chat import Encoded, Message, encode_chat

STAGE = "sft"


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _fine_tune)


def _fine_tune(experiment: Experiment) -> dict[str, Any]:
    settings = experiment.settings
    if settings.rl.start == "base":
        return {"skipped": "config.rl.start is 'base'"}
    data = distributed.on_main(lambda: SFTData.of(experiment, experiment.expert_trajectories(STAGE, "sft")))
    return fine_tune(STAGE, experiment, settings.sft, data)


@dataclass(frozen=True)
class SFTData:
    """sequences: one for each trajectory that is not masked. paraphrases: of each, `sft.paraphrases` copies."""

    sequences: list[Encoded]
    paraphrases: list[list[Encoded]]

    @classmethod
    def of(cls, experiment: Experiment, trajectories: Iterable[Trajectory]) -> SFTData:
        kept = [trajectory for trajectory in trajectories if not trajectory.is_masked]
        paraphrases = [_encoded(experiment, experiment.paraphrases(trajectory)) for trajectory in kept]
        return cls(_encoded(experiment, experiment.chats(kept)), paraphrases)


def _encoded(experiment: Experiment, chats: Iterable[Sequence[Message]]) -> list[Encoded]:
    return [encode_chat(experiment.tokenizer, chat) for chat in chats]


def fine_tune(stage: str, experiment: Experiment, config: SFTConfig, data: SFTData) -> dict[str, Any]:
    """Fine-tunes and exports the model of a stage, and returns the stage's summary."""
    sequences = data.sequences
    params = train(
        config,
        experiment.trained_model,
        experiment.initial_params(),
        sequences,
        experiment.workdir.stage(stage),
        experiment.mesh,
        experiment.tracking,
        data.paraphrases,
    )
    experiment.export(stage, params)
    cut, dropped = cut_counts(sequences, config.row_length)
    return {
        "parameters": experiment.model.num_parameters,
        "trajectories": len(sequences),
        "paraphrases": sum(map(len, data.paraphrases)),
        "trajectories_cut": cut,
        "trajectories_dropped": dropped,
        "mean_tokens": round(sum(len(sequence.tokens) for sequence in sequences) / len(sequences)),
    }
