"""The functions that a PPO update compiles, with the shapes it calls them with."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.programs import compile_programs, empty_chunk, empty_slots, shards_of
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import join, partition
from mlagent_jax.parallel.mesh import batch_sharding, replicated
from mlagent_jax.planner.flops import decode_flops, executed_training_flops, forward_flops, training_flops
from mlagent_jax.planner.programs import Program, Work, bytes_per_device, shaped
from mlagent_jax.planner.traffic import cache_bytes, forward_bytes, training_bytes
from mlagent_jax.ppo.actor_critic import params_of
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.compilation import CompiledUpdate, compile_update
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.loop import check
from mlagent_jax.ppo.rollout import ActionSample, Rollout
from mlagent_jax.ppo.step import EXPERIENCE_INPUTS, LOSS_INPUTS


def ppo_programs(
    config: PPOConfig, model: Qwen2Config, engine: EngineConfig, max_new_tokens: int, mesh: Mesh
) -> list[Program]:
    """Sampling, then what is measured and learnt, all on the whole mesh.

    Counts are for an update whose rollouts fill one row each, which is the most there can be.
    Raises UserError for settings that the PPO loop refuses.
    """
    check(config, engine, mesh)
    functions = compile_update(config, model, mesh)
    sampling = _sampling(config, model, engine, max_new_tokens, functions, mesh)
    return [*sampling, *_learning(config, model, functions, mesh)]


def _sampling(
    config: PPOConfig,
    model: Qwen2Config,
    engine: EngineConfig,
    max_new_tokens: int,
    functions: CompiledUpdate,
    mesh: Mesh,
) -> list[Program]:
    """For the longest prompts, as many at once as the cache holds."""
    states = functions.states
    whole = join(states.actor.params, functions.reference if model.lora else {})
    training = {
        "optimiser": (states.actor.opt_state, states.critic.opt_state),
        "critic": states.critic.params,
    }
    # Beside an actor of adapters, which is sampled with the frozen weights, the reference has but its own of these.
    reference = partition(functions.reference)[0]
    beside = training | {"actor": states.actor.params, "reference": functions.reference}
    # One step a call, since a loop that may end at any step is counted as one by the planner.
    engine = replace(engine, steps=1)
    programs = compile_programs(model, engine, mesh)
    weights, cache = programs.weights, programs.cache
    shards = shards_of(mesh)
    slots, chunk = shards * engine.slots_on(shards), engine.chunks[-1]
    everywhere = replicated(mesh)
    place = lambda tree: jax.tree.map(  # noqa: E731
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree
    )
    prompt = engine.max_length - max_new_tokens
    at_once = min(slots, shards * ((engine.pages_on(shards) - 2) // engine.pages_of(engine.max_length)))
    batches = ceil(config.batch_size / at_once)
    reading = forward_flops(model, shards, chunk, predicted=0)
    writing = decode_flops(model, at_once, prompt + max_new_tokens // 2)
    rows_of_one = at_once / mesh.size  # heads are split too
    weight_bytes = bytes_per_device(weights)
    return [
        Program(
            name="ppo weights for sampling",
            function=programs.load,
            arguments=(whole,),
            parts={"parameters": whole},
            beside=training | {"reference": reference},
            devices=mesh.size,
            work=Work(memory_bytes=bytes_per_device(whole) + weight_bytes),
        ),
        Program(
            name=f"ppo prefill, {shards} x {chunk} tokens",
            function=programs.prefill,
            arguments=(weights, cache, place(empty_chunk(engine, shards, chunk))),
            parts={"parameters": weights, "cache": cache},
            beside=beside,
            devices=mesh.size,
            work=Work(
                reading.total,
                reading.total,
                forward_bytes(model, chunk, tensor=mesh.shape["tensor"], logits=False),
            ),
            times=ceil(config.batch_size / shards) * ceil(prompt / chunk),
        ),
        Program(
            name=f"ppo decode, {slots} x 1 token",
            function=programs.decode,
            arguments=(weights, cache, place(empty_slots(engine, slots))),
            parts={"parameters": weights, "cache": cache},
            beside=beside,
            devices=mesh.size,
            work=Work(
                writing.total,
                writing.total,
                weight_bytes + rows_of_one * cache_bytes(model, prompt + max_new_tokens / 2),
            ),
            times=batches * max_new_tokens,
        ),
    ]


def _learning(config: PPOConfig, model: Qwen2Config, functions: CompiledUpdate, mesh: Mesh) -> list[Program]:
    states = functions.states
    params = params_of(states)
    optimisers = (states.actor.opt_state, states.critic.opt_state)
    gradients = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding), params
    )
    shape = (config.micro_rows, config.row_length)
    example = _example_rows(config)
    experience_rows = shaped(_chosen(example, EXPERIENCE_INPUTS), shape, batch_sharding(mesh))
    reference, frozen = functions.reference, functions.reference if model.lora else {}
    experience = jax.eval_shape(functions.compute_experience, params, reference, experience_rows)
    loss_rows = shaped(_chosen(example | experience, LOSS_INPUTS), shape, batch_sharding(mesh))
    forward = forward_flops(model, *shape)
    bodies = (
        2 if config.critic == "separate" else 1
    )  # trunks that are trained; a value head costs next to nothing
    critic = forward_flops(model, *shape, predicted=0)
    tokens, tensor = config.micro_rows * config.row_length / mesh.size, mesh.shape["tensor"]
    passes = ceil(config.batch_size / config.micro_rows)
    minibatches = ceil(config.batch_size / config.minibatch_size)
    measuring = 2 * forward.total + (bodies - 1) * critic.total
    training = training_flops(model, forward) + (bodies - 1) * training_flops(model, critic)
    executed = executed_training_flops(model, forward) + (bodies - 1) * executed_training_flops(model, critic)
    return [
        Program(
            name="ppo log-probs and values",
            function=functions.compute_experience,
            arguments=(params, reference, experience_rows),
            parts={"parameters": params, "reference": reference, "batch": experience_rows},
            beside={"optimiser": optimisers},
            devices=mesh.size,
            work=Work(measuring, measuring, (1 + bodies) * forward_bytes(model, tokens, tensor)),
            times=passes,
        ),
        Program(
            name="ppo gradients",
            function=functions.accumulate_gradients,
            arguments=(params, frozen, gradients, loss_rows),
            parts={"parameters": (params, frozen), "gradients": gradients, "batch": loss_rows},
            beside={"optimiser": optimisers} | ({} if frozen else {"reference": reference}),
            devices=mesh.size,
            work=Work(
                training,
                executed,
                bodies * training_bytes(model, tokens, tensor) + 2 * bytes_per_device(gradients),
            ),
            times=passes * config.epochs,
        ),
        Program(
            name="ppo apply",
            function=functions.apply_gradients,
            arguments=(states, gradients, True),
            parts={"parameters": params, "optimiser": optimisers, "gradients": gradients},
            beside={"reference": reference},
            devices=mesh.size,
            work=Work(memory_bytes=2 * bytes_per_device(states) + bytes_per_device(gradients)),
            times=minibatches * config.epochs,
        ),
    ]


def _example_rows(config: PPOConfig) -> dict[str, np.ndarray]:
    """A batch as the loop makes it, for its names and dtypes."""
    rollout = Rollout(np.zeros(2, np.int32), (ActionSample((1, 2), (0.0,), 0.0, "", False),))
    return make_batch(replace(config, row_length=2, micro_rows=1), [rollout], update=0).arrays


def _chosen(arrays: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: arrays[name] for name in names}
