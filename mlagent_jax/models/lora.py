"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen model with trained low-rank adapters beside its kernels.

A layer with an adapter computes x W + alpha/rank (x A) B in training, sampling and evaluation alike; W is never
rewritten. In bfloat16, W + alpha/rank A B would round to W wherever the change is below a 256th of it. So adapters are
merged only in exports for other programs (`models.hf.save`), and those are float32. An adapter is stored in the tree of
parameters under its layer, as `adapter`, so that code which walks or shards parameters finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Float32

from mlagent_jax.fields import check, setting
from mlagent_jax.models.params import Params
from mlagent_jax.nn.linear import linear

# A [..., in, rank] and B [..., rank, out] of an adapter.
Factors = tuple[Array, Array]

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ADAPTER = "adapter"
_TRAINED = (_ADAPTER, "head")  # what is trained beside a frozen model; the head is a critic's


@dataclass(frozen=True)
class LoRAConfig:
    """rank: of the adapters. alpha: they are scaled by alpha / rank. targets: the projections that have one."""

    rank: int = setting(16, at_least=1)
    alpha: float = setting(32.0, above=0)
    targets: tuple[str, ...] = setting(PROJECTIONS, choices=PROJECTIONS, filled=True, distinct=True)

    def __post_init__(self) -> None:
        check(self, "lora")


class Adapter(nnx.Module):
    """The scaled product with A [in, rank] and B [rank, out].

    A starts normal and B at zero, so a fresh adapter adds nothing. Both are float32, whatever the dtype of the model's
    own parameters: they are small, and so are their updates.
    """

    def __init__(self, config: LoRAConfig, shape: tuple[int, int], axes: tuple[str, str], rngs: nnx.Rngs):
        self.scale = config.alpha / config.rank
        start = jax.random.normal(rngs.params(), (shape[0], config.rank)) * shape[0] ** -0.5
        self.lora_a = nnx.Param(start, logical_axes=(axes[0], None))
        self.lora_b = nnx.Param(jnp.zeros((config.rank, shape[1])), logical_axes=(None, axes[1]))

    def __call__(self, x: Float[Array, "*B I"]) -> Float32[Array, "*B O"]:
        low = linear(x, self.lora_a[...].astype(x.dtype))
        return self.scale * linear(low, self.lora_b[...].astype(x.dtype), jnp.float32)


def partition(params: Mapping[str, Any]) -> tuple[Params, Params]:
    """Splits parameters into those that are trained and those that are frozen.

    With adapters, these are trained, and the value head if there is one; the rest is frozen. Without adapters,
    everything is trained and the frozen part is empty.
    """
    flat = flatten_dict(dict(params))
    if not any(_ADAPTER in path for path in flat):
        return dict(params), {}
    trained = {path: leaf for path, leaf in flat.items() if any(name in path for name in _TRAINED)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    return unflatten_dict(trained), unflatten_dict(frozen)


def join(trained: Params, frozen: Params) -> Params:
    """The inverse of `partition`."""
    joined: Params = unflatten_dict(flatten_dict(frozen) | flatten_dict(trained))
    return joined


def factors_of(flat: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> Factors | None:
    """A and B of the adapter beside the kernel at `path` of a flattened tree; None where there is none."""
    beside = (*path[:-1], _ADAPTER)
    if path[-1] != "kernel" or (*beside, "lora_a") not in flat:
        return None
    return flat[(*beside, "lora_a")], flat[(*beside, "lora_b")]


def merged_kernel(
    config: LoRAConfig, kernel: Float[Array, "*L I O"], factors: Factors
) -> Float32[Array, "*L I O"]:
    """W + alpha/rank A B, where W is `kernel`."""
    a, b = factors
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return kernel.astype(jnp.float32) + (config.alpha / config.rank) * product
