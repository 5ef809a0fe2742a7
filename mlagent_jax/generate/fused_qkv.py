"""Layers that compute queries, keys and values as one product.

A step with few rows takes as long as reading the kernels, and those of keys and values are too small to be read at the
full memory bandwidth. (Fusing the gate and up projections of the MLP as well gained nothing with SmolLM2-135M on a
CPU.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import Adapter
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import Attention, Block, Linear, axes_of

_FUSED = ("q_proj", "k_proj", "v_proj")


class FusedAdapter(nnx.Module):
    """The adapters of some of the three projections; their results are in the order of the fused kernel's columns."""

    def __init__(self, adapters: Mapping[str, Adapter | None], sizes: tuple[int, ...], groups: int):
        self.sizes, self.groups = sizes, groups
        for name, adapter in adapters.items():
            setattr(self, name, adapter)

    def __call__(self, x: Float[Array, "*B D"]) -> Float32[Array, "*B QKV"]:
        adapters = (getattr(self, name) for name in _FUSED)
        parts = [
            jnp.zeros((*x.shape[:-1], size)) if adapter is None else adapter(x)
            for adapter, size in zip(adapters, self.sizes, strict=True)
        ]
        return _concatenate_groups(self.groups, *parts)


class FusedAttention(Attention):
    """`Attention` with one kernel [D, (N + 2K) H] in place of three.

    Its columns are in groups, one for each device of the mesh's tensor axis, with that device's heads of all three.
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

    def project(
        self, x: Float[Array, "*B D"]
    ) -> tuple[Float[Array, "*B NH"], Float[Array, "*B KH"], Float[Array, "*B KH"]]:
        y = self.qkv_proj(x)
        grouped = y.reshape(*y.shape[:-1], self.groups, -1)
        parts = jax.lax.split(grouped, [size // self.groups for size in self.sizes], axis=grouped.ndim - 1)
        q, k, v = (part.reshape(*y.shape[:-1], -1) for part in parts)
        return q, k, v


class FusedBlock(Block):
    def __init__(self, config: Qwen2Config, groups: int, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.attention = FusedAttention(config, groups, rngs)


def fuse_qkv(layer: Params, groups: int) -> Params:
    """The parameters of a FusedBlock that computes the same as a Block with the parameters `layer`."""
    attention = dict(layer["attention"])
    parts = {name: dict(attention.pop(name)) for name in _FUSED}
    adapters = {name: part.pop("adapter") for name, part in parts.items() if "adapter" in part}
    fused = jax.tree.map(partial(_concatenate_groups, groups), *parts.values())
    if adapters:
        fused["adapter"] = adapters
    return layer | {"attention": attention | {"qkv_proj": fused}}


def _concatenate_groups(groups: int, *arrays: Float[Array, "*B _"]) -> Float[Array, "*B QKV"]:
    """Concatenates the arrays' columns: those of all arrays for the first group, then for the second, and so on."""
    grouped = [array.reshape(*array.shape[:-1], groups, -1) for array in arrays]
    return jnp.concatenate(grouped, axis=-1).reshape(*arrays[0].shape[:-1], -1)


def fused_block(config: Qwen2Config, groups: int, layer: Params) -> FusedBlock:
    """A FusedBlock with these parameters, a result of `fuse_qkv`."""
    module: FusedBlock = nnx.merge(_definition(config, groups), layer)
    return module


def fused_axes(config: Qwen2Config, groups: int) -> Params:
    """The tree of a FusedBlock's parameters with a tuple of logical axes for each array."""
    return axes_of(_abstract(config, groups))


@lru_cache
def _definition(config: Qwen2Config, groups: int) -> nnx.GraphDef[FusedBlock]:
    return nnx.graphdef(_abstract(config, groups))


def _abstract(config: Qwen2Config, groups: int) -> FusedBlock:
    return nnx.eval_shape(lambda: FusedBlock(config, groups, nnx.Rngs(0)))
