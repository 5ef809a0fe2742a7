"""The device mesh, and which axis of which array is split over it: all the sharding rules are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import logical_axes

AXES = ("data", "fsdp", "tensor")

# Logical axis of a parameter -> mesh axis. Rows of a batch go over data and fsdp together.
RULES: Mapping[str, str | None] = {
    "layers": None,
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
}
BATCH = ("data", "fsdp")


@dataclass(frozen=True)
class MeshConfig:
    """Degrees of parallelism; one of them may be -1 for "all devices that are left".

    data: copies of the model. fsdp: parameters, gradients and optimiser state split. tensor: heads and
    feed-forward split.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1

    def validate(self) -> None:
        """Raises UserError naming the field and its value."""
        for name in AXES:
            if getattr(self, name) < 1 and getattr(self, name) != -1:
                raise UserError(f"mesh.{name} is {getattr(self, name)}, but must be -1 or at least 1")
        if [getattr(self, name) for name in AXES].count(-1) > 1:
            raise UserError("only one of mesh.data, mesh.fsdp and mesh.tensor may be -1")


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all `devices` (every process's, by default) with axes data, fsdp, tensor.

    Raises UserError where the degrees do not multiply to their number.
    """
    config.validate()
    devices = jax.devices() if devices is None else devices
    degrees = [getattr(config, name) for name in AXES]
    known = int(np.prod([degree for degree in degrees if degree != -1]))
    degrees = [len(devices) // known if degree == -1 else degree for degree in degrees]
    if int(np.prod(degrees)) != len(devices):
        raise UserError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} does not make up the "
            f"{len(devices)} devices present; set one of them to -1"
        )
    # jax.make_mesh's default axis types changed between versions, so they are stated.
    return jax.make_mesh(tuple(degrees), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def check_model_fits(config: Qwen2Config, mesh: Mesh) -> None:
    """Raises UserError where a sharded size of the model does not divide by the mesh."""
    sizes = {
        "num_attention_heads": (config.num_attention_heads, "tensor"),
        "num_key_value_heads": (config.num_key_value_heads, "tensor"),
        "intermediate_size": (config.intermediate_size, "tensor"),
        "vocab_size": (config.vocab_size, "tensor"),
        "hidden_size": (config.hidden_size, "fsdp"),
    }
    for name, (size, axis) in sizes.items():
        if size % mesh.shape[axis]:
            fitting = [str(n) for n in range(1, min(size, 64) + 1) if size % n == 0]
            raise UserError(
                f"mesh.{axis} is {mesh.shape[axis]}, which does not divide the model's {name} {size}; "
                f"choose one of {', '.join(fitting)}"
            )


def param_shardings(config: Qwen2Config, mesh: Mesh) -> Any:
    """The tree of the model's parameters with a NamedSharding each, by `RULES`."""
    check_model_fits(config, mesh)
    return jax.tree.map(
        lambda names: NamedSharding(mesh, P(*(RULES[name] for name in names))),
        logical_axes(config),
        is_leaf=lambda node: isinstance(node, tuple),
    )


def optimiser_shardings(
    optimiser: optax.GradientTransformation, params: Any, shardings: Any, mesh: Mesh
) -> Any:
    """Shardings of `optimiser.init(params)`: each moment as its parameter, counters on every device.

    params: arrays or shapes. shardings: theirs.
    """
    state = jax.eval_shape(optimiser.init, params)
    # By path, not by `optax.tree.map_params`: that stops at the holes which muon leaves for AdamW's parameters.
    by_path = dict(jax.tree_util.tree_leaves_with_path(shardings))

    def of(path: tuple[Any, ...], _: Any) -> NamedSharding:
        starts = range(len(path))
        return next((by_path[path[start:]] for start in starts if path[start:] in by_path), replicated(mesh))

    return jax.tree_util.tree_map_with_path(of, state)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """For arrays [..., B, T] with `leading` axes before the rows B."""
    return NamedSharding(mesh, P(*(None,) * leading, BATCH))


def batch_degree(mesh: Mesh) -> int:
    """What the number of rows of a batch must be a multiple of."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH]))


def put(tree: Any, shardings: Any) -> Any:
    """Places arrays on the mesh; shardings is a prefix of the tree.

    tree: host arrays, the same on every process, or arrays that already lie on the mesh in some way; those
        that lie as they should are given back as they are.
    """

    def place(sharding: NamedSharding, subtree: Any) -> Any:
        def one(value: Any) -> jax.Array:
            if isinstance(value, jax.Array) and value.sharding == sharding:
                return value
            if isinstance(value, jax.Array) and not value.is_fully_addressable:
                return jax.jit(lambda x: x, out_shardings=sharding)(value)
            value = np.asarray(value)
            return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

        return jax.tree.map(one, subtree)

    return jax.tree.map(place, shardings, tree, is_leaf=lambda node: isinstance(node, NamedSharding))


def to_local(tree: Any, mesh: Mesh) -> Any:
    """Whole copies of sharded arrays on this process's first device, for work that only one process does.

    All processes must call it.
    """
    if mesh.size == 1:
        return tree
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)
