"""Layers whose queries, keys and values are one product.

A step of few rows takes as long as reading the kernels, and those of keys and values are too small to be read at the
memory's speed. (With SmolLM2-135M on a CPU, making one of an MLP's halves gained nothing beyond this.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Attention, Block, Linear, Params, axes_of


class FusedAttention(Attention):
    """`Attention` with one kernel [D, (N + 2K) H] for three.

    Its columns lie in a group for each device of the mesh's tensor axis, with that device's heads of every part.
    """

    def __init__(self, config: Qwen2Config, groups: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.sizes = tuple(each.kernel.shape[1] for each in (self.q_proj, self.k_proj, self.v_proj))
        self.groups = groups
        del self.q_proj, self.k_proj, self.v_proj
        shape, axes = (config.hidden_size, sum(self.sizes)), ("embed", "heads")
        self.qkv_proj = Linear(config, "qkv_proj", shape, axes, config.attention_bias, rngs)

    def project(self, x: jax.Array) -> tuple[jax.Array, ...]:
        y = self.qkv_proj(x)
        grouped = y.reshape(*y.shape[:-1], self.groups, -1)
        parts = jax.lax.split(grouped, [size // self.groups for size in self.sizes], axis=grouped.ndim - 1)
        return tuple(part.reshape(*y.shape[:-1], -1) for part in parts)


class FusedBlock(Block):
    def __init__(self, config: Qwen2Config, groups: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.attention = FusedAttention(config, groups, rngs)


def fuse(layer: Params, groups: int) -> Params:
    """The parameters of a FusedBlock that computes what a Block does with these."""

    def side_by_side(*arrays: jax.Array) -> jax.Array:
        grouped = [array.reshape(*array.shape[:-1], groups, -1) for array in arrays]
        return jnp.concatenate(grouped, axis=-1).reshape(*arrays[0].shape[:-1], -1)

    attention = dict(layer["attention"])
    parts = [attention.pop(name) for name in ("q_proj", "k_proj", "v_proj")]
    return layer | {"attention": attention | {"qkv_proj": jax.tree.map(side_by_side, *parts)}}


def fused_block(config: Qwen2Config, groups: int, layer: Params) -> FusedBlock:
    """As `models.qwen2.block`, of what `fuse` has made."""
    module: FusedBlock = nnx.merge(_definition(config, groups), layer)
    return module


def fused_axes(config: Qwen2Config, groups: int) -> Any:
    """The tree of a FusedBlock's parameters with a tuple of axis names for each array."""
    return axes_of(_abstract(config, groups))


@lru_cache
def _definition(config: Qwen2Config, groups: int) -> nnx.GraphDef[FusedBlock]:
    return nnx.graphdef(_abstract(config, groups))


def _abstract(config: Qwen2Config, groups: int) -> FusedBlock:
    return nnx.eval_shape(lambda: FusedBlock(config, groups, nnx.Rngs(0)))
