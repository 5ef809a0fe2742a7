"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen model, and low-rank products beside its kernels that are trained.

A layer with an adapter computes x W + alpha/rank (x A) B, in training, sampling and evaluation alike; W is read, never
rewritten. In bfloat16 W + alpha/rank A B would be W again where the change is below a 256th of it: only exports for
other programs are merged (`models.hf.save`), and those in float32. Adapters lie in the tree of parameters under their
layer, as `adapter`, so that whatever walks or shards parameters finds them.
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
Factors = tuple[jax.Array, jax.Array]

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
    """x [..., in] -> [..., out] float32; A [in, rank] starts normal and B [rank, out] at zero, so it starts as nothing.

    Both are float32 whatever the model's own parameters are: they are few, and theirs are the small updates.
    """

    def __init__(self, config: LoRAConfig, shape: tuple[int, int], axes: tuple[str, str], rngs: nnx.Rngs):
        self.scale = config.alpha / config.rank
        start = jax.random.normal(rngs.params(), (shape[0], config.rank)) * shape[0] ** -0.5
        self.lora_a = nnx.Param(start, logical_axes=(axes[0], None))
        self.lora_b = nnx.Param(jnp.zeros((config.rank, shape[1])), logical_axes=(None, axes[1]))

    def __call__(self, x: jax.Array) -> jax.Array:
        low = linear(x, self.lora_a[...].astype(x.dtype))
        return self.scale * linear(low, self.lora_b[...].astype(x.dtype), jnp.float32)


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


def factors_of(flat: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> Factors | None:
    """A and B beside the array at this path of a flattened tree, if it is a kernel that has an adapter."""
    beside = (*path[:-1], _ADAPTER)
    if path[-1] != "kernel" or (*beside, "lora_a") not in flat:
        return None
    return flat[(*beside, "lora_a")], flat[(*beside, "lora_b")]


def merged_kernel(config: LoRAConfig, kernel: jax.Array, factors: Factors) -> jax.Array:
    """W + alpha/rank A B in float32: kernel [..., in, out] with A [..., in, rank] and B [..., rank, out]."""
    a, b = factors
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return kernel.astype(jnp.float32) + (config.alpha / config.rank) * product
