"""What a training step takes and gives back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mlagent_jax.models.lora import partition
from mlagent_jax.parallel.mesh import optimiser_shardings, replicated, with_shardings
from mlagent_jax.training.rounding import round_stochastically


class TrainState(NamedTuple):
    """params and opt_state: trees of arrays. step: int32 scalar array, updates done.

    opt_state: of those parameters that are trained, the first part of `models.lora.partition`; in the dtypes that
        `training.optimisers` says, from the first step on.
    """

    params: Any
    opt_state: Any
    step: Any


def init_state(
    params: Any, shardings: Any, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """A state at step 0 around `params`, which lie on the mesh with `shardings`; moments are split alike.

    The state holds copies, so that it may be donated while `params` live on.
    """
    return jax.jit(
        lambda p: _first_state(p, optimiser),
        out_shardings=state_shardings(params, shardings, optimiser, mesh),
    )(params)


def take_step(optimiser: optax.GradientTransformation, state: TrainState, gradients: Any) -> TrainState:
    """One optimiser step of parameters that are all trained; every leaf keeps its dtype.

    Parameters in bfloat16 are rounded stochastically, by the number of the step: most updates are smaller than the
    distance to the next such number.
    """
    updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
    key = jax.random.fold_in(jax.random.key(0), state.step)
    leaves, tree = jax.tree.flatten(state.params)
    numbers = jax.tree.unflatten(tree, range(len(leaves)))
    params = jax.tree.map(
        lambda leaf, update, number: _moved(leaf, update, jax.random.fold_in(key, number)),
        state.params,
        updates,
        numbers,
    )
    return TrainState(params, opt_state, state.step + 1)


def _moved(leaf: jax.Array, update: jax.Array, key: jax.Array) -> jax.Array:
    after = leaf.astype(jnp.float32) + update
    return after if leaf.dtype == jnp.float32 else round_stochastically(after, key)


def state_shardings(
    params: Any, shardings: Any, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shardings for every leaf of a TrainState."""
    moments = optimiser_shardings(optimiser, partition(params)[0], shardings, mesh)
    return TrainState(shardings, moments, replicated(mesh))


def abstract_state(
    params: Any, shardings: Any, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """`init_state` as `jax.ShapeDtypeStruct`s with shardings, from params as shapes; allocates nothing."""
    state = jax.eval_shape(lambda p: _first_state(p, optimiser), params)
    return with_shardings(state, state_shardings(params, shardings, optimiser, mesh))


def _first_state(params: Any, optimiser: optax.GradientTransformation) -> TrainState:
    return TrainState(params, optimiser.init(partition(params)[0]), jnp.int32(0))
