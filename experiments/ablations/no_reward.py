"""Without the ML-specific reward: 1 for an edit that improves the score, 0 for everything else.

python -m experiments.run --config=experiments/ablations/no_reward.py --workdir=runs/no_reward --from=runs/full:sft
"""

from ml_collections import ConfigDict

from experiments.ablations import full


def get_config() -> ConfigDict:
    config = full.get_config()
    config.reward.ml_specific = False
    return config
