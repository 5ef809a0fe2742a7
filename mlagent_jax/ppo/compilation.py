"""The jitted functions of a PPO update. They can be compiled for a mesh whose devices are absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import partition
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.models.value_head import value_head_axes
from mlagent_jax.nn.precision import AS_WRITTEN
from mlagent_jax.parallel.jitted import Jitted
from mlagent_jax.parallel.mesh import replicated, with_shardings
from mlagent_jax.parallel.rules import spec
from mlagent_jax.ppo import step
from mlagent_jax.ppo.actor_critic import (
    ActorCritic,
    Gradients,
    Optimisers,
    Parameters,
    Shardings,
    TrainStates,
)
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.step import Rows, Scalars, TokenArrays
from mlagent_jax.training.optimisers import make_optimiser
from mlagent_jax.training.state import abstract_state

InitCritic = Jitted[[Params], Params]
ComputeExperience = Jitted[[Parameters, Params, Rows], TokenArrays]
ZeroGradients = Jitted[[Parameters], Gradients]
AccumulateGradients = Jitted[[Parameters, Params, Gradients, Rows], tuple[Gradients, TokenArrays]]
ApplyGradients = Jitted[[TrainStates, Gradients, bool], tuple[TrainStates, Scalars]]


@dataclass(frozen=True)
class CompiledUpdate:
    """The functions of `ppo.step` under `jax.jit`, with settings, model and mesh filled in.

    accumulate_gradients donates the gradients so far, apply_gradients the states.
    states, reference: what the functions take, as `jax.ShapeDtypeStruct`s with shardings; no array is allocated.
    """

    init_critic: InitCritic
    compute_experience: ComputeExperience
    zero_gradients: ZeroGradients
    accumulate_gradients: AccumulateGradients
    apply_gradients: ApplyGradients
    optimisers: Optimisers
    states: TrainStates
    reference: Params


def optimiser_steps(config: PPOConfig) -> int:
    """How many optimiser steps a whole run takes."""
    return config.updates * config.epochs * -(-config.batch_size // config.minibatch_size)


def compile_update(config: PPOConfig, model: Qwen2Config, mesh: Mesh) -> CompiledUpdate:
    """The jitted functions for parameters sharded over `mesh`."""
    optimisers = _make_optimisers(config)
    shardings = _param_shardings(config, model, mesh)
    states = _abstract_states(config, model, shardings, optimisers, mesh)
    return CompiledUpdate(
        init_critic=_jit_init_critic(config, model, shardings),
        compute_experience=_jit_compute_experience(config, model, mesh),
        zero_gradients=jax.jit(step.zero_gradients, out_shardings=shardings),
        accumulate_gradients=_jit_accumulate_gradients(config, model, shardings, mesh),
        apply_gradients=_jit_apply_gradients(optimisers, states, mesh),
        optimisers=optimisers,
        states=states,
        reference=with_shardings(abstract_params(model), param_shardings(model, mesh)),
    )


def _jit_init_critic(config: PPOConfig, model: Qwen2Config, shardings: Shardings) -> InitCritic:
    def ppo_init_critic(actor: Params) -> Params:
        return step.init_critic(config, model, actor)

    return jax.jit(ppo_init_critic, out_shardings=shardings.critic)


def _jit_compute_experience(config: PPOConfig, model: Qwen2Config, mesh: Mesh) -> ComputeExperience:
    def ppo_compute_experience(params: Parameters, reference: Params, rows: Rows) -> TokenArrays:
        return step.compute_experience(config, model, params, reference, rows, mesh)

    return jax.jit(ppo_compute_experience, out_shardings=replicated(mesh), compiler_options=AS_WRITTEN)


def _jit_accumulate_gradients(
    config: PPOConfig, model: Qwen2Config, shardings: Shardings, mesh: Mesh
) -> AccumulateGradients:
    def ppo_accumulate_gradients(
        params: Parameters, frozen: Params, total: Gradients, rows: Rows
    ) -> tuple[Gradients, TokenArrays]:
        return step.accumulate_gradients(config, model, params, frozen, total, rows, mesh)

    return jax.jit(
        ppo_accumulate_gradients,
        donate_argnums=2,
        out_shardings=(shardings, replicated(mesh)),
        compiler_options=AS_WRITTEN,
    )


def _jit_apply_gradients(optimisers: Optimisers, states: TrainStates, mesh: Mesh) -> ApplyGradients:
    def ppo_apply_gradients(
        states: TrainStates, gradients: Gradients, train_actor: bool
    ) -> tuple[TrainStates, Scalars]:
        return step.apply_gradients(optimisers, states, gradients, train_actor)

    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, states)
    return jax.jit(
        ppo_apply_gradients,
        donate_argnums=0,
        static_argnums=2,
        out_shardings=(state_shardings, replicated(mesh)),
        compiler_options=AS_WRITTEN,
    )


def _make_optimisers(config: PPOConfig) -> Optimisers:
    steps = optimiser_steps(config)
    configs = ActorCritic(config.actor_optimiser, config.critic_optimiser)
    return configs.map(lambda optimiser: make_optimiser(optimiser, steps))


def _param_shardings(config: PPOConfig, model: Qwen2Config, mesh: Mesh) -> Shardings:
    """The shardings of the parameters that are trained."""
    actor = partition(param_shardings(model, mesh))[0]
    critic: dict[str, Any] = {
        "head": {name: NamedSharding(mesh, spec(axes)) for name, axes in value_head_axes().items()}
    }
    if config.critic == "separate":
        critic["trunk"] = {name: part for name, part in actor.items() if name != "lm_head"}
    return ActorCritic(actor, critic)


def _abstract_states(
    config: PPOConfig, model: Qwen2Config, shardings: Shardings, optimisers: Optimisers, mesh: Mesh
) -> TrainStates:
    actor = partition(abstract_params(model))[0]
    critic = jax.eval_shape(lambda params: step.init_critic(config, model, params), actor)
    return ActorCritic(
        abstract_state(actor, shardings.actor, optimisers.actor, mesh),
        abstract_state(critic, shardings.critic, optimisers.critic, mesh),
    )
