"""Does PPO improve on SFT? The quickstart with three seeds, more updates and more episodes, compared over the seeds.

    python -m experiments.run --config=experiments/configs/learning.py --workdir=runs/learning

Each seed has its own ideas, expert episodes, training and evaluation, in WORKDIR/seed_N. The comparison over the seeds
is printed at the end and stored in WORKDIR/comparison.json. Expected time and result: README.md.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.seeds = (0, 1, 2)
    config.ppo.updates = 60
    config.evaluate.episodes = 16
    return config
