"""The state of one network in training, and one optimiser step of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int32, Key

from mlagent_jax.models.lora import partition
from mlagent_jax.models.params import Params
from mlagent_jax.parallel.mesh import optimiser_shardings, replicated, with_shardings
from mlagent_jax.training.rounding import round_stochastically


class TrainState(NamedTuple):
    """Parameters and optimiser state; also a tree of their shapes, or of their shardings, in place of the arrays.

    opt_state: of the parameters that are trained, which are the first part of `models.lora.partition`.
    step: int32 scalar, the number of optimiser steps done.
    """

    params: Params
    opt_state: optax.OptState
    step: Int32[Array, ""]


def init_state(
    params: Params, shardings: Params, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """A state at step 0 with copies of `params`, which are on the mesh with `shardings`. Moments are sharded like them.

    The copies may be donated while `params` stay valid.
    """
    return jax.jit(
        lambda p: _state_at_step_0(p, optimiser),
        out_shardings=state_shardings(params, shardings, optimiser, mesh),
    )(params)


def take_step(optimiser: optax.GradientTransformation, state: TrainState, gradients: Params) -> TrainState:
    """One optimiser step of a state whose parameters are all trained. Every leaf keeps its dtype.

    Parameters in bfloat16 are rounded stochastically, with the step as seed: most updates are smaller than the distance
    to the next bfloat16 number.
    """
    updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
    key = jax.random.fold_in(jax.random.key(0), state.step)
    leaves, tree = jax.tree.flatten(state.params)
    numbers = jax.tree.unflatten(tree, range(len(leaves)))
    params = jax.tree.map(
        lambda leaf, update, number: _add_update(leaf, update, jax.random.fold_in(key, number)),
        state.params,
        updates,
        numbers,
    )
    return TrainState(params, opt_state, state.step + 1)


def _add_update(
    leaf: Float[Array, "*shape"], update: Float32[Array, "*shape"], key: Key[Array, ""]
) -> Float[Array, "*shape"]:
    updated = leaf.astype(jnp.float32) + update
    return updated if leaf.dtype == jnp.float32 else round_stochastically(updated, key)


def state_shardings(
    params: Params, shardings: Params, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shardings for every leaf of a TrainState."""
    moments = optimiser_shardings(optimiser, partition(params)[0], shardings, mesh)
    step: Any = replicated(mesh)  # in the place of an array, as in the other two trees
    return TrainState(shardings, moments, step)


def abstract_state(
    params: Params, shardings: Params, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """`init_state` of shapes: a tree of `jax.ShapeDtypeStruct`s with shardings. Allocates nothing."""
    state = jax.eval_shape(lambda p: _state_at_step_0(p, optimiser), params)
    return with_shardings(state, state_shardings(params, shardings, optimiser, mesh))


def _state_at_step_0(params: Params, optimiser: optax.GradientTransformation) -> TrainState:
    return TrainState(params, optimiser.init(partition(params)[0]), jnp.int32(0))
