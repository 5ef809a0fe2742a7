"""One configuration under several seeds: a run for each, and SFT + PPO compared with SFT over them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from experiments.ablations.compare import table
from experiments.settings import Settings
from experiments.workdir import Workdir
from mlagent_jax.evaluation.comparison import Variant, compare
from mlagent_jax.evaluation.scores import HEADLINE
from mlagent_jax.evaluation.workdir import read_json
from mlagent_jax.files import write_atomically


def with_seed(settings: Settings, seed: int) -> Settings:
    """The settings of one of the runs; a stage that was given a seed of its own keeps it."""
    stages: dict[str, Any] = {
        name: dataclasses.replace(stage, seed=seed)
        for name, stage in (("sft", settings.sft), ("ppo", settings.ppo))
        if stage.seed == settings.seed
    }
    return dataclasses.replace(settings, seed=seed, seeds=(), **stages)


def compare_seeds(workdir: Workdir, seeds: tuple[int, ...]) -> str:
    """Writes `comparison.json` and returns it as a table of text, or a sentence where there is nothing to compare.

    Raises UserError if a run is not evaluated.
    """
    folders = tuple(workdir.of_seed(seed).root for seed in seeds)
    scores = [read_json(folder / "evaluate" / "scores.json") or {"agents": HEADLINE} for folder in folders]
    missing = [agent for agent in HEADLINE if any(agent not in each["agents"] for each in scores)]
    if missing:
        return (
            f"SFT + PPO is not compared with SFT, since {' and '.join(missing)} was not evaluated: name both in "
            "config.evaluate.agents"
        )
    found = compare([Variant("SFT", "sft", folders), Variant("SFT + PPO", "ppo", folders)])
    write_atomically(workdir.root / "comparison.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    return table(found)
