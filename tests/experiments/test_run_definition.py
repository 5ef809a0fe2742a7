"""Which settings make another run, and which only say where and how fast it is done."""

from __future__ import annotations

from tiny import settings_with

from experiments.settings import Settings
from mlagent_jax.fields import flat, leaves

MEANS = {
    *(
        "sandbox.cache_dir",
        "sandbox.cache_mb",
        "sandbox.workers",
        "sandbox.ray_address",
        "sandbox.ray_backend",
        "sandbox.allow_unisolated",
    ),
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.sequence", "sft.micro_rows", "ppo.micro_rows"),
    *("models.budget", "models.replay", "models.cache_dir", "models.cache_mb", "models.coder.price.input"),
    *("models.coder.base_url", "models.coder.timeout_seconds", "models.coder.parallel"),
    *("models.agent.retries", "models.agent.api_key_variable", "tasks.data_dir", "tasks.folder"),
    *("sandbox.docker.engines", "sandbox.docker.call_seconds", "sft.log_every", "sft.keep", "ppo.keep"),
    *("model.shape.attention", "model.shape.remat", "collect.batch"),
}
DEFINES = {
    *("seed", "tasks.held_in", "tasks.micro", "reward.form", "prompt.thought", "model.shape.dtype"),
    *("model.shape.hidden_size", "sft.steps", "ppo.updates", "ppo.gamma", "evaluate.episodes"),
    *(
        "models.coder.model",
        "models.expert.temperature",
        "episode.seconds",
        "sampling.max_length",
        "model.lora.rank",
    ),
    *("tasks.validation", "collect.filtered_share", "evaluate.temperatures", "evaluate.variants"),
}


def test_what_only_says_where_and_how_fast_does_not_define_a_run():
    settings = settings_with(**{"model.lora.rank": 4, "model.shape.dtype": "float32"})
    defining = set(settings.definition())
    assert {f"config.{name}" for name in DEFINES} <= defining
    assert not {f"config.{name}" for name in MEANS} & defining
    assert set(dict(leaves(Settings))) >= MEANS | DEFINES
    assert defining - {"config.sandbox.backend"} <= set(flat(settings, "config"))


def test_containers_are_another_run_and_ray_is_not():
    host = settings_with().definition()
    same = [
        {"sandbox.backend": "bubblewrap"},
        {"sandbox.backend": "ray"},
        {"sandbox.docker.image": "unused:1"},
    ]
    others = [
        {"sandbox.backend": "docker"},
        {"sandbox.backend": "ray", "sandbox.ray_backend": "docker"},
        {"sandbox.backend": "docker", "sandbox.docker.image": "other:1"},
    ]
    assert all(settings_with(**changes).definition() == host for changes in same)
    definitions = [settings_with(**changes).definition() for changes in others]
    assert host not in definitions and definitions[0] == definitions[1] != definitions[2]
