"""Does RL learn to improve tasks that it has not seen? Nine tasks to learn from, ten held out, five seeds, K = 16.

    python -m experiments.run --config=experiments/configs/learning.py --workdir=runs/learning
    python -m experiments.figures.learning runs/learning

Each seed has its own ideas, expert episodes, training and evaluation, in WORKDIR/seed_N. Agents that nothing trains are
evaluated once, by the first. All share one store of executions, so a second run of a script costs nothing. The second
command writes experiments/results/learning.md. Target: one seed in 2 hours on 2 idle cores, with an empty store.

Criteria, fixed before the experiment is run. Each compares means over the tasks of a split of the normalised gain (the
way from the starter to m_best) over the seeds, each trained agent at the temperature chosen for it on the validation
tasks. One is met if a one-sided t test over the seeds, adjusted by Holm's method for all of them, is below 0.05.

- held-in: SFT + PPO above SFT
- held-out: SFT + PPO above SFT
- held-in: SFT + PPO above Best constant
- held-out: SFT + PPO above Best constant
- held-in: SFT + PPO level with Bandit, less 5 points at most
- held-out: SFT + PPO level with Bandit, less 5 points at most
- held-in: SFT + PPO above Expert
- held-in: SFT + PPO, reworded keeps two thirds of SFT + PPO
- held-out: SFT + PPO, reworded keeps two thirds of SFT + PPO

Settings are tuned on the held-in and the validation tasks alone. The held-out tasks are evaluated once, and what comes
out is published, whatever it is.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart
from mlagent_jax.evaluation.criteria import Criterion
from mlagent_jax.packages import default_cache_dir
from mlagent_jax.tasks.suites import OFFLINE

CRITERIA = (
    Criterion("held_in", "ppo", "sft"),
    Criterion("held_out", "ppo", "sft"),
    Criterion("held_in", "ppo", "constant"),
    Criterion("held_out", "ppo", "constant"),
    Criterion("held_in", "ppo", "bandit", margin=0.05),
    Criterion("held_out", "ppo", "bandit", margin=0.05),
    Criterion("held_in", "ppo", "expert"),
    Criterion("held_in", "ppo_reworded", "ppo", thirds=2),
    Criterion("held_out", "ppo_reworded", "ppo", thirds=2),
)


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.seeds = (0, 1, 2, 3, 4)
    config.tasks.held_in, config.tasks.held_out = OFFLINE[:9], OFFLINE[9:]
    config.tasks.validation = ("foods", "diamonds")
    config.sandbox.cache_dir = str(default_cache_dir() / "executions")
    config.sandbox.cache_mb = 16_384.0
    config.collect.episodes_per_task = 40
    config.collect.filtered_share = 0.25
    config.sft.steps = 400
    config.ppo.updates = 40
    config.evaluate.episodes = 16
    config.evaluate.agents = (
        *("starter", "random", "constant", "bandit", "random_search", "optuna"),
        *("expert", "expert_without_slips", "sft", "sft_filtered", "ppo", "ppo_shuffled"),
    )
    config.evaluate.temperatures = (0.0, 0.3, 0.6, 0.8, 1.0)
    config.evaluate.validation_episodes = 6
    config.evaluate.variants = ("greedy", "reworded")
    return config
