"""The paper's step-wise PPO, from the model that `sft_qwen2_5_7b.py` fine-tunes.

    python -m experiments.plan --config=experiments/configs/ppo_qwen2_5_7b.py --target=h100-8 --stages=ppo
    python -m experiments.run --config=experiments/configs/ppo_qwen2_5_7b.py --workdir=runs/ppo_7b

Hardware: 8 GPUs with 80 GB, with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95. From arXiv 2505.23723, appendix C.1: 256 states
per update, one epoch over 10,000 states (39 updates), learning rates 1e-6 (actor) and 1e-5 (critic), KL coefficient
0.001. A state with its response is one sequence, so the batch is 256 sequences, however they are packed.

The rest are verl's defaults, which the authors used: clip 0.2 with dual clip 3, value clip 0.5, gamma and lambda 1, one
PPO epoch in one minibatch, mean over tokens, temperature 1, no entropy bonus, AdamW with weight decay 0.01, gradients
clipped to norm 1, a separate critic that starts as the SFT model. Known differences: weight decay applies to matrices
only, in verl to all parameters; advantages are divided by the biased standard deviation, in verl by the unbiased one.
That the KL is in the reward is our reading of the printed coefficient; current verl leaves it out by default.

The planner expects, on 8 H100, 30 GiB of each GPU while sampling, 50 GiB in the gradients, and at least 111 s per
update. Other targets: launch/README.md. This configuration has not been run yet.
"""

from ml_collections import ConfigDict

from experiments.configs import sft_qwen2_5_7b


def get_config() -> ConfigDict:
    config = sft_qwen2_5_7b.get_config()
    config.rl = ConfigDict({"start": "sft", "rollouts": "states"})
    config.ppo = ConfigDict(
        {
            "updates": 39,
            "batch_size": 256,
            "minibatch_size": 256,
            "epochs": 1,
            "row_length": 15_000,
            "micro_rows": 8,
            "temperature": 1.0,
            "gamma": 1.0,
            "lam": 1.0,
            "clip_low": 0.2,
            "clip_high": 0.2,
            "dual_clip": 3.0,
            "value_clip": 0.5,
            "aggregation": "token_mean",
            "entropy_coefficient": 0.0,
            "kl_coefficient": 0.001,
            "kl_in": "reward",
            "critic": "separate",
            "actor_optimiser": {"name": "adamw", "learning_rate": 1e-6, "weight_decay": 0.01},
            "critic_optimiser": {"name": "adamw", "learning_rate": 1e-5, "weight_decay": 0.01},
        }
    )
    config.evaluate.agents = ("starter", "expert", "sft", "ppo")
    return config
