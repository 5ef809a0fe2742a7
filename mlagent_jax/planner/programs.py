"""A compiled function of a trainer as the planner sees it: what it is called with, and what lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
from jax.sharding import NamedSharding, Sharding


@dataclass(frozen=True)
class Work:
    """Of one run of a program. FLOPs are of all devices, memory_bytes of one: to and from its memory, at least.

    model_flops: what the mathematics needs, as MFU counts it. executed_flops: with rematerialisation.
    """

    model_flops: float = 0.0
    executed_flops: float = 0.0
    memory_bytes: float = 0.0


@dataclass(frozen=True)
class Program:
    """A jitted function with the shapes and shardings of its arguments; nothing is allocated.

    arguments: as it is called, static ones included. parts: trees among the arguments by what they are, such as
    "parameters". beside: trees that are no arguments, but lie on the devices meanwhile. devices: that take part.
    times: how often it runs in one optimiser step or PPO update, at most.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    parts: Mapping[str, Any]
    devices: int
    work: Work
    times: int = 1
    beside: Mapping[str, Any] = field(default_factory=dict)


def bytes_per_device(tree: Any) -> int:
    """What a tree of shapes takes on one device, by their shardings."""
    return sum(
        prod(_shard_shape(leaf)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if isinstance(leaf, jax.ShapeDtypeStruct)
    )


def _shard_shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    sharding = leaf.sharding
    return sharding.shard_shape(leaf.shape) if isinstance(sharding, Sharding) else leaf.shape


def shaped(arrays: Mapping[str, Any], shape: tuple[int, ...], sharding: NamedSharding) -> dict[str, Any]:
    """Shapes with the names and dtypes of `arrays`, all of one shape and sharding."""
    return {
        name: jax.ShapeDtypeStruct(shape, array.dtype, sharding=sharding) for name, array in arrays.items()
    }
