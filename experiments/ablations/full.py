"""The whole system at quickstart size, with which the ablations in this folder are compared.

python -m experiments.run --config=experiments/ablations/full.py --workdir=runs/full
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.evaluate.agents = ("starter", "sft", "ppo")
    return config
