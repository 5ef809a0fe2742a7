"""Without exploration-enriched fine-tuning: RL from the base model, as in the paper's table.

The base here is a small model with random weights, which cannot produce a valid action: expect it to learn nothing.

    python -m experiments.run --config=experiments/ablations/no_sft.py --workdir=runs/no_sft --from=runs/full:collect
"""

from ml_collections import ConfigDict

from experiments.ablations import full


def get_config() -> ConfigDict:
    config = full.get_config()
    config.rl.start = "base"
    config.evaluate.agents = ("starter", "ppo")
    return config
