"""Layers whose queries, keys and values are one product.

A step of few rows takes as long as reading the kernels, and those of keys and values are too small to be read at the
memory's speed. (With SmolLM2-135M on a CPU, making one of an MLP's halves gained nothing beyond this.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import Adapter
from mlagent_jax.models.qwen2 import Attention, Block, Linear, Params, axes_of

_FUSED = ("q_proj", "k_proj", "v_proj")


class FusedAdapter(nnx.Module):
    """The adapters of some of the three, whose results lie as the columns of the one kernel do."""

    def __init__(self, adapters: Mapping[str, Adapter | None], sizes: tuple[int, ...], groups: int):
        self.sizes, self.groups = sizes, groups
        for name, adapter in adapters.items():
            setattr(self, name, adapter)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., (N + 2K) H] float32."""
        adapters = (getattr(self, name) for name in _FUSED)
        parts = [
            jnp.zeros((*x.shape[:-1], size)) if adapter is None else adapter(x)
            for adapter, size in zip(adapters, self.sizes, strict=True)
        ]
        return _side_by_side(self.groups, *parts)


class FusedAttention(Attention):
    """`Attention` with one kernel [D, (N + 2K) H] for three.

    Its columns lie in a group for each device of the mesh's tensor axis, with that device's heads of every part.
    """

    def __init__(self, config: Qwen2Config, groups: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.sizes = tuple(each.kernel.shape[1] for each in (self.q_proj, self.k_proj, self.v_proj))
        self.groups = groups
        adapters = {name: getattr(self, name).adapter for name in _FUSED}
        del self.q_proj, self.k_proj, self.v_proj
        shape, axes = (config.hidden_size, sum(self.sizes)), ("embed", "heads")
        self.qkv_proj = Linear(config, "qkv_proj", shape, axes, config.attention_bias, rngs)
        if any(adapters.values()):
            self.qkv_proj.adapter = nnx.data(FusedAdapter(adapters, self.sizes, groups))  # type: ignore[assignment]

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
    attention = dict(layer["attention"])
    parts = {name: dict(attention.pop(name)) for name in _FUSED}
    adapters = {name: part.pop("adapter") for name, part in parts.items() if "adapter" in part}
    fused = jax.tree.map(partial(_side_by_side, groups), *parts.values())
    if adapters:
        fused["adapter"] = adapters
    return layer | {"attention": attention | {"qkv_proj": fused}}


def _side_by_side(groups: int, *arrays: jax.Array) -> jax.Array:
    """Columns of every array for the first group, then for the second, and so on."""
    grouped = [array.reshape(*array.shape[:-1], groups, -1) for array in arrays]
    return jnp.concatenate(grouped, axis=-1).reshape(*arrays[0].shape[:-1], -1)


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
