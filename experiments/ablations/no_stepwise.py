"""Without step-wise RL: PPO on whole episodes from the task description.

An update has as many actions as in the full system: a quarter of the sequences, with about four actions each.

    python -m experiments.run --config=experiments/ablations/no_stepwise.py --workdir=runs/no_stepwise --from=runs/full
"""

from ml_collections import ConfigDict

from experiments.ablations import full


def get_config() -> ConfigDict:
    config = full.get_config()
    config.rl.rollouts = "episodes"
    # Gains are over the best score so far: with "previous", as for single steps, losing a score and regaining it pays.
    config.reward.episode_baseline = "best"
    config.ppo.batch_size = config.ppo.batch_size // 4
    config.ppo.minibatch_size = config.ppo.minibatch_size // 4
    return config
