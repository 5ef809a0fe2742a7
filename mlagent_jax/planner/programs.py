"""A compiled function of a trainer, with its arguments and what else is on the devices while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
from jax.sharding import NamedSharding, Sharding
from jaxtyping import PyTree

from mlagent_jax.parallel.jitted import Jitted


@dataclass(frozen=True)
class Work:
    """The work of one run of a program. FLOPs are those of all devices.

    model_flops: what the model needs, as MFU counts it. executed_flops: with rematerialisation. memory_bytes: the least
    that one device moves to and from its memory.
    """

    model_flops: float = 0.0
    executed_flops: float = 0.0
    memory_bytes: float = 0.0


@dataclass(frozen=True)
class Program:
    """A jitted function with the shapes and shardings of its arguments; nothing is allocated.

    arguments: those of a call, static ones included. parts: trees among the arguments, by what they are, such as
    "parameters". devices: how many take part. runs_per_step: at most, in one optimiser step or PPO update. beside:
    trees that are not arguments, but are on the devices meanwhile.
    """

    name: str
    function: Jitted[..., Any]
    arguments: tuple[Any, ...]
    parts: Mapping[str, PyTree]
    devices: int
    work: Work
    runs_per_step: int = 1
    beside: Mapping[str, PyTree] = field(default_factory=dict)


def bytes_per_device(tree: PyTree) -> int:
    """The size of a tree of shapes with shardings on one device."""
    return sum(
        prod(_shard_shape(leaf)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if isinstance(leaf, jax.ShapeDtypeStruct)
    )


def _shard_shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    sharding = leaf.sharding
    return sharding.shard_shape(leaf.shape) if isinstance(sharding, Sharding) else leaf.shape


def shaped(
    arrays: Mapping[str, Any], shape: tuple[int, ...], sharding: NamedSharding
) -> dict[str, jax.ShapeDtypeStruct]:
    """The names and dtypes of `arrays`, all with this shape and sharding."""
    return {
        name: jax.ShapeDtypeStruct(shape, array.dtype, sharding=sharding) for name, array in arrays.items()
    }
