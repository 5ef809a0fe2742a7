"""What the results of each stage depend on: other stages, and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEEDS: dict[str, tuple[str, ...]] = {
    "ideas": (),
    "collect": ("ideas",),
    "sft": ("ideas", "collect"),
    "sft_filtered": ("ideas", "collect"),
    "ppo": ("ideas", "collect", "sft"),
    "ppo_shuffled": ("ideas", "collect", "sft"),
}
"""The stages whose results another run can take, each with those before it that it is made from."""

# Sections and fields that a stage reads itself. Collection also trains the tokenizer, of a model without a pretrained
# one, on the episodes and their paraphrases. Rewards are computed anew from the scores that were collected.
_TUNING = ("sft", "model", "tasks.sft", "rl.start")
_RL = ("ppo", "rl", "reward", "sampling", "tasks.rl")
_READ = {
    "ideas": ("seed", "ideas", "tasks.collect", "tasks.micro", "models.idea_writer"),
    "collect": (
        *("collect.episodes_per_task", "episode", "prompt", "sandbox", "models.expert", "models.coder"),
        *("model.pretrained", "model.vocab_size", "sft.paraphrases", "sft.seed"),
    ),
    "sft": _TUNING,
    "sft_filtered": (*_TUNING, "collect.filtered_share"),
    "ppo": _RL,
    "ppo_shuffled": _RL,
    "evaluate": (
        *("evaluate", "models.agent", "seeds"),
        *("tasks.held_in", "tasks.held_out", "tasks.evaluate", "tasks.validation"),
    ),
}


def read_by(stage: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's settings that a stage depends on by itself, not by the stages before it.

    definition: see `Settings.definition`.
    """
    prefixes = [f"config.{name}" for name in _READ[stage]]
    return {
        name: value
        for name, value in definition.items()
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
    }
