"""Which axis of which array is split over which axis of the mesh: all the sharding rules are here.

Models name the axes of their parameters and activations; nothing else in the project speaks of mesh axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor", "sequence")

RULES: Mapping[str, str | tuple[str, ...] | None] = {
    # Parameters. Devices that share a row's time split the parameters between them too.
    "layers": None,
    "embed": ("fsdp", "sequence"),
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    # Activations. Within attention time is whole, and the heads are split instead.
    "batch": ("data", "fsdp"),
    "time": "sequence",
    "attention_heads": ("tensor", "sequence"),
    # While generating a step has one token a row, so there is no time to split: rows are, over all but the heads.
    "slots": ("data", "fsdp", "sequence"),
}
Names = Sequence[str | None]


def spec(names: Names) -> P:
    """The PartitionSpec of an array whose axes have these names; None for an axis that is never split."""
    return P(*(None if name is None else RULES[name] for name in names))


def constrain(x: jax.Array, names: Names, mesh: Mesh | None) -> jax.Array:
    """Tells XLA how `x` lies on the mesh, and its cotangent too; without a mesh nothing."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(names)))
