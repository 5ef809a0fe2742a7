"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen model, and low-rank products beside its kernels that are trained.

A layer with an adapter computes x W + alpha/rank (x A) B; W is read, never rewritten. Adapters lie in the tree of
parameters under their layer, as `adapter`, so that whatever walks or shards parameters finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from mlagent_jax.fields import check, setting
from mlagent_jax.nn.linear import linear

Params = dict[str, Any]

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ADAPTER = "adapter"
_ADDED = (_ADAPTER, "head")  # what is trained beside a frozen model; the head is a critic's


@dataclass(frozen=True)
class LoRAConfig:
    """rank: of the products. alpha: they are scaled by alpha / rank. targets: the layers that have one."""

    rank: int = setting(16, at_least=1)
    alpha: float = setting(32.0, above=0)
    targets: tuple[str, ...] = setting(PROJECTIONS, choices=PROJECTIONS, filled=True, distinct=True)

    def __post_init__(self) -> None:
        check(self, "lora")


class Adapter(nnx.Module):
    """x [..., in] -> [..., out]; A [in, rank] starts normal and B [rank, out] at zero, so it starts as nothing.

    Both are float32 whatever the model's own parameters are: they are few, and theirs are the small updates.
    """

    def __init__(self, config: LoRAConfig, shape: tuple[int, int], axes: tuple[str, str], rngs: nnx.Rngs):
        self.scale = config.alpha / config.rank
        start = jax.random.normal(rngs.params(), (shape[0], config.rank)) * shape[0] ** -0.5
        self.lora_a = nnx.Param(start, logical_axes=(axes[0], None))
        self.lora_b = nnx.Param(jnp.zeros((config.rank, shape[1])), logical_axes=(None, axes[1]))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.scale * linear(
            linear(x, self.lora_a[...].astype(x.dtype)), self.lora_b[...].astype(x.dtype)
        )


def partition(params: Mapping[str, Any]) -> tuple[Params, Params]:
    """What is trained and what is frozen: adapters, with a value head if there is one, and the rest; or all and
    nothing where there are no adapters.
    """
    flat = flatten_dict(dict(params))
    if not any(_ADAPTER in path for path in flat):
        return dict(params), {}
    trained = {path: leaf for path, leaf in flat.items() if any(name in path for name in _ADDED)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    return unflatten_dict(trained), unflatten_dict(frozen)


def join(trained: Params, frozen: Params) -> Params:
    """The tree of which these are the parts."""
    joined: Params = unflatten_dict(flatten_dict(frozen) | flatten_dict(trained))
    return joined


def merge(config: LoRAConfig, params: Params) -> Params:
    """The parameters of the plain model that computes the same: each product added to its kernel [L, in, out]."""
    adapters, base = partition(params)
    if not base:
        return params
    flat, products = flatten_dict(base), flatten_dict(adapters)
    for path in {path[:-2] for path in products}:
        a, b = (products[(*path, _ADAPTER, name)] for name in ("lora_a", "lora_b"))
        kernel = flat[(*path, "kernel")]
        update = (config.alpha / config.rank) * jnp.einsum("lir,lro->lio", a, b)
        flat[(*path, "kernel")] = (kernel.astype(jnp.float32) + update).astype(kernel.dtype)
    merged: Params = unflatten_dict(flat)
    return merged
