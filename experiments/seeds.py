"""One configuration under several seeds: a run for each, and SFT + PPO compared with SFT over them."""

from __future__ import annotations

import json

from ml_collections import ConfigDict

from experiments.ablations.compare import table
from experiments.workdir import Workdir
from mlagent_jax.evaluation.comparison import Variant, compare
from mlagent_jax.evaluation.scores import HEADLINE
from mlagent_jax.evaluation.workdir import read_json
from mlagent_jax.files import write_atomically


def with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """The configuration of one of the runs."""
    single = ConfigDict(config.to_dict())
    single.seed, single.seeds = seed, ()
    return single


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
