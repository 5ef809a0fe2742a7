"""All sharding rules: which logical axis of an array is split over which axes of the mesh.

Models give logical axes to their parameters and activations, and these rules map them to mesh axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Shaped

AXES = ("data", "fsdp", "tensor", "sequence")

RULES: Mapping[str, str | tuple[str, ...] | None] = {
    # Parameters. Devices that split a row over time split the parameters too.
    "layers": None,
    "embed": ("fsdp", "sequence"),
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    # Activations. Within attention, time is whole and the heads are split instead.
    "batch": ("data", "fsdp"),
    "time": "sequence",
    "attention_heads": ("tensor", "sequence"),
    # A decoding step has one token per row, so time cannot be split: rows are split over these axes instead.
    "slots": ("data", "fsdp", "sequence"),
}
LogicalAxes = Sequence[
    str | None
]  # a key of RULES for each axis of an array; None for one that is never split


def spec(axes: LogicalAxes) -> P:
    """The PartitionSpec of an array with these logical axes."""
    return P(*(None if axis is None else RULES[axis] for axis in axes))


def constrain(x: Shaped[Array, "*shape"], axes: LogicalAxes, mesh: Mesh | None) -> Shaped[Array, "*shape"]:
    """Constrains the sharding of `x`, and of its cotangent. Without a mesh it does nothing."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(axes)))
