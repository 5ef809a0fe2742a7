"""The quickstart in miniature: every stage in seconds. What it trains is too small to learn anything."""

from ml_collections import ConfigDict

from experiments.cli.config_flags import with_changes
from experiments.configs import quickstart
from experiments.settings import Settings


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.tasks.held_in = ("digits8",)
    config.tasks.held_out = ("hotel_rates",)
    config.collect.episodes_per_task = 10
    config.collect.batch = 3
    config.model.vocab_size = 500
    config.model.shape.hidden_size = 32
    config.model.shape.intermediate_size = 48
    config.model.shape.num_hidden_layers = 1
    config.model.shape.num_attention_heads = 2
    config.model.shape.num_key_value_heads = 2
    config.sampling.batch = 4
    config.sampling.max_new_tokens = 16
    config.sampling.prefill_chunks = (64, 256)
    config.sft.batch_rows = 2
    config.sft.micro_rows = 2
    config.sft.steps = 8
    config.sft.checkpoint_every = 2
    config.sft.eval_every = 4
    config.ppo.updates = 3
    config.ppo.batch_size = 6
    config.ppo.minibatch_size = 6
    config.ppo.micro_rows = 2
    config.evaluate.episodes = 2
    config.evaluate.agents = ("starter", "expert", "sft", "ppo")
    return config


def settings_with(**changes: object) -> Settings:
    """These settings with some changed, by their names below `config`."""
    return Settings.from_config(with_changes(get_config(), changes))
