"""The functions that a PPO update compiles, with the shapes it calls them with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlagent_jax.generate.decode import decode
from mlagent_jax.generate.prefill import prefill
from mlagent_jax.generate.sampler import Sampler, compile_copy
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, replicated
from mlagent_jax.planner.flops import decode_flops, executed_training_flops, forward_flops, training_flops
from mlagent_jax.planner.programs import Program, Work, bytes_per_device, shaped
from mlagent_jax.planner.traffic import decode_bytes, forward_bytes, training_bytes
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.loop import check
from mlagent_jax.ppo.rollout import ActionSample, Rollout
from mlagent_jax.ppo.step import Learners
from mlagent_jax.ppo.update import UNMEASURED, UNTRAINED, Functions, compile_update


def ppo_programs(config: PPOConfig, model: Qwen2Config, sampler: Sampler, mesh: Mesh) -> list[Program]:
    """Sampling (on the first device, as the loop does it), then what is measured and learnt on the whole mesh.

    Counts are for an update whose rollouts fill one row each, which is the most there can be.
    Raises UserError for settings that the PPO loop refuses.
    """
    check(config, sampler, mesh)
    functions = compile_update(config, model, mesh)
    return [*_sampling(config, model, sampler, functions, mesh), *_learning(config, model, functions, mesh)]


def _sampling(
    config: PPOConfig, model: Qwen2Config, sampler: Sampler, functions: Functions, mesh: Mesh
) -> list[Program]:
    """For the longest prompts."""
    states = functions.states
    training = {"actor": states.actor, "critic": states.critic, "reference": states.actor.params}
    copy = compile_copy(model.dtype, mesh)
    one = make_mesh(MeshConfig(), mesh.devices.ravel()[:1].tolist())
    here = replicated(one)
    place = lambda tree: jax.tree.map(  # noqa: E731
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), tree
    )
    params = place(jax.eval_shape(copy, abstract_params(model)))
    B, P, M = sampler.batch_size, sampler.buckets[-1], sampler.max_new_tokens
    tokens, lengths, seeds, scalar = place(
        (
            jax.ShapeDtypeStruct((B, P), np.int32),
            jax.ShapeDtypeStruct((B,), np.int32),
            jax.ShapeDtypeStruct((B,), np.uint32),
            jax.ShapeDtypeStruct((), np.float32),
        )
    )
    cache, hidden = place(jax.eval_shape(lambda *a: prefill(model, M, *a), params, tokens, lengths))
    method = SamplingParams(config.temperature).method
    batches = ceil(config.batch_size / B)
    reading = forward_flops(model, B, P, predicted=0)
    writing = decode_flops(model, B, P + M // 2)
    return [
        Program(
            name="ppo copy for the sampler",
            function=copy,
            arguments=(states.actor.params,),
            parts={"parameters": states.actor.params},
            beside={
                "optimiser": (states.actor.opt_state, states.critic.opt_state),
                "critic": states.critic.params,
                "reference": states.actor.params,
            },
            devices=mesh.size,
            work=Work(memory_bytes=2 * bytes_per_device(params)),
        ),
        Program(
            name=f"ppo prefill, {B} prompts of {P}",
            function=prefill,
            arguments=(model, M, params, tokens, lengths),
            parts={"parameters": params},
            beside=training,
            devices=1,
            work=Work(reading.total, reading.total, forward_bytes(model, B * P, tensor=1, logits=False)),
            times=batches,
        ),
        Program(
            name=f"ppo decode, {B} x {M} tokens",
            function=decode,
            arguments=(
                *(model, M, sampler.stop_ids, method, params),
                *(cache, hidden, lengths, seeds, scalar, scalar),
            ),
            parts={"parameters": params, "cache": cache},
            beside=training,
            devices=1,
            work=Work(M * writing.total, M * writing.total, M * decode_bytes(model, B, P + M / 2)),
            times=batches,
        ),
    ]


def _learning(config: PPOConfig, model: Qwen2Config, functions: Functions, mesh: Mesh) -> list[Program]:
    states = functions.states
    params = Learners(states.actor.params, states.critic.params)
    optimisers = (states.actor.opt_state, states.critic.opt_state)
    gradients = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding), params
    )
    shape = (config.micro_rows, config.row_length)
    example = _example_rows(config)
    measured_rows = shaped(_without(example, UNMEASURED), shape, batch_sharding(mesh))
    measured = jax.eval_shape(functions.measure, params, params.actor, measured_rows)
    trained_rows = shaped(_without(example | measured, UNTRAINED), shape, batch_sharding(mesh))
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
            function=functions.measure,
            arguments=(params, params.actor, measured_rows),
            parts={"parameters": params, "reference": params.actor, "batch": measured_rows},
            beside={"optimiser": optimisers},
            devices=mesh.size,
            work=Work(measuring, measuring, (1 + bodies) * forward_bytes(model, tokens, tensor)),
            times=passes,
        ),
        Program(
            name="ppo gradients",
            function=functions.gradients,
            arguments=(params, gradients, trained_rows),
            parts={"parameters": params, "gradients": gradients, "batch": trained_rows},
            beside={"optimiser": optimisers, "reference": params.actor},
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
            function=functions.apply,
            arguments=(states, gradients, True),
            parts={"parameters": params, "optimiser": optimisers, "gradients": gradients},
            beside={"reference": params.actor},
            devices=mesh.size,
            work=Work(memory_bytes=2 * bytes_per_device(states) + bytes_per_device(gradients)),
            times=minibatches * config.epochs,
        ),
    ]


def _example_rows(config: PPOConfig) -> dict[str, np.ndarray]:
    """A batch as the loop makes it, for its names and dtypes."""
    rollout = Rollout(np.zeros(2, np.int32), (ActionSample((1, 2), (0.0,), 0.0, "", False),))
    return make_batch(replace(config, row_length=2, micro_rows=1), [rollout], update=0).arrays


def _without(arrays: dict[str, Any], names: Sequence[str] | frozenset[str]) -> dict[str, Any]:
    return {name: arrays[name] for name in sorted(arrays) if name not in names}
