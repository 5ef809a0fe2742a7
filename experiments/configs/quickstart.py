"""The whole loop on a laptop: six real tasks, a 1.7M-parameter Qwen2 trained from scratch, two CPU cores.

    python -m experiments.run --config=experiments/configs/quickstart.py --workdir=runs/quickstart

The expert, the coder and the idea writer are scripted stand-ins, and the policy is tiny: it shows that the system
learns, not what a 7B would learn. Expected time and figures: README.md.
"""

import dataclasses

from ml_collections import ConfigDict

from mlagent_jax.sandbox.containers.settings import DockerSettings


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.seeds = ()  # if any, one run per seed, compared at the end

    config.tasks = ConfigDict(
        {
            # A table, images and texts on each side, with scripts that take little time.
            "held_in": ("mlc_churn", "digits8", "election_tweets"),
            "held_out": ("computers", "emoji32", "tate"),
            "data_dir": "",
            "micro": False,
        }
    )
    config.sandbox = ConfigDict(
        {
            "backend": "auto",
            "workers": 2,
            "allow_unisolated": False,
            "docker": dataclasses.asdict(DockerSettings()),
            "ray_address": "",
            "ray_backend": "bubblewrap",
        }
    )
    config.episode = ConfigDict({"steps": 15, "seconds": 1800.0})
    config.prompt = ConfigDict({"style": "compact", "observation_chars": 240, "thought": True})
    # An idea that made things worse costs an episode no more than a step, since the best script can be run again. With
    # the full loss as its reward, the surest way to a better mean is to stop trying.
    config.reward = ConfigDict({"form": "linear", "low": -0.1, "ml_specific": True})
    config.models = ConfigDict(
        {
            "expert": {"backend": "scripted"},
            "coder": {"backend": "scripted"},
            "idea_writer": {"backend": "scripted"},
        }
    )

    config.ideas = ConfigDict({"version": "v2", "candidates": 40, "keep": 4})
    config.collect = ConfigDict({"episodes_per_task": 60, "batch": 32})

    config.model = ConfigDict(
        {
            "pretrained": "",
            # Most phrases are one token, so that what is to be learnt is which phrase, not how it is spelt.
            "vocab_size": 3072,
            "shape": {
                "hidden_size": 160,
                "intermediate_size": 480,
                "num_hidden_layers": 4,
                "num_attention_heads": 5,
                # One key head for five query heads makes a step cheaper and the cache a fifth of the size.
                "num_key_value_heads": 1,
                "tie_word_embeddings": True,
                "rope_theta": 10_000.0,
                # Four layers compile in seconds; unrolled, they train an eighth faster on a CPU.
                "scan_layers": False,
                "query_chunk": 64,
            },
        }
    )
    config.sampling = ConfigDict(
        {"max_new_tokens": 48, "batch": 32, "max_length": 768, "prefill_chunks": (64, 128, 256)}
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    config.sft = ConfigDict(
        {
            "row_length": 640,
            "batch_rows": 3,
            "micro_rows": 3,
            "epochs": 0.0,
            "steps": 200,
            # Without them the model knows its few episodes by heart, and has nothing to choose from at their states.
            "paraphrases": 3,
            "eval_fraction": 0.05,
            "eval_every": 50,
            "checkpoint_every": 25,
            "keep": 2,
            "optimiser": {
                "name": "muon",
                "learning_rate": 1.2e-2,
                "schedule": "cosine",
                "warmup_steps": 10,
                "final_fraction": 0.05,
                "weight_decay": 0.01,
            },
        }
    )
    config.rl = ConfigDict({"start": "sft", "rollouts": "states"})
    config.ppo = ConfigDict(
        {
            "updates": 24,
            "batch_size": 64,
            "minibatch_size": 64,
            "row_length": 768,
            "micro_rows": 4,
            "temperature": 0.8,
            "critic": "shared",
            "critic_start": "expert",
            "critic_ridge": 3e-4,
            "kl_coefficient": 0.05,
            "entropy_coefficient": 0.01,
            "actor_optimiser": {"name": "adamw", "learning_rate": 3e-4},
            "critic_optimiser": {"name": "adamw", "learning_rate": 1e-3},
        }
    )
    config.evaluate = ConfigDict(
        {"episodes": 8, "agents": ("starter", "random", "expert", "sft", "ppo"), "temperature": 0.8}
    )
    return config
