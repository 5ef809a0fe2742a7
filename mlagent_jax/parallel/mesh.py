"""The device mesh, and how arrays lie on it by the rules of `parallel.rules`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import logical_axes
from mlagent_jax.parallel.rules import AXES, RULES, spec


@dataclass(frozen=True)
class MeshConfig:
    """Degrees of parallelism; one of them may be -1 for "all devices that are left".

    data: copies of the model. fsdp: parameters, gradients and optimiser state split. tensor: heads and
    feed-forward split. sequence: each row split over time, for rows too long for one device; parameters are split
    over these devices as well.
    """

    data: int = setting(1, at_least=1, or_value=-1)
    fsdp: int = setting(-1, at_least=1, or_value=-1)
    tensor: int = setting(1, at_least=1, or_value=-1)
    sequence: int = setting(1, at_least=1, or_value=-1)

    def validate(self) -> None:
        """Raises UserError naming the field and its value."""
        check(self, "mesh")
        if [getattr(self, name) for name in AXES].count(-1) > 1:
            raise UserError(f"only one of {', '.join(f'mesh.{name}' for name in AXES)} may be -1")


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all `devices` (every process's, by default) with the axes of `AXES`.

    Raises UserError where the degrees do not multiply to their number.
    """
    config.validate()
    devices = jax.devices() if devices is None else devices
    degrees = [getattr(config, name) for name in AXES]
    known = int(np.prod([degree for degree in degrees if degree != -1]))
    degrees = [len(devices) // known if degree == -1 else degree for degree in degrees]
    if int(np.prod(degrees)) != len(devices):
        product = " x ".join(f"{name}={getattr(config, name)}" for name in AXES)
        raise UserError(
            f"mesh {product} does not make up the {len(devices)} devices present; set one of them to -1"
        )
    # Not jax.make_mesh: on a TPU slice it refuses a degree that is no product of the slice's own sides.
    arranged = mesh_utils.create_device_mesh(degrees, devices, allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_model_fits(config: Qwen2Config, mesh: Mesh) -> None:
    """Raises UserError where a sharded size of the model does not divide by the mesh."""
    tensor, sequence = mesh.shape["tensor"], mesh.shape["sequence"]
    over_tensor = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
    sizes = {name: getattr(config, name) for name in over_tensor}
    _check_degree("mesh.tensor", tensor, sizes)
    heads = sizes["num_attention_heads"] // tensor
    _check_degree("mesh.sequence", sequence, {"num_attention_heads / mesh.tensor": heads})
    parts = mesh.shape["fsdp"] * sequence
    _check_degree("mesh.fsdp x mesh.sequence", parts, {"hidden_size": config.hidden_size})


def check_batch_fits(rows: int, length: int, mesh: Mesh, where: str) -> None:
    """Raises UserError where `rows` rows of `length` tokens, `where`.micro_rows and .row_length, do not divide."""
    if rows % batch_degree(mesh):
        raise UserError(
            f"{where}.micro_rows is {rows}, but rows are split over {batch_degree(mesh)} devices "
            "(mesh.data x mesh.fsdp); make it a multiple of that"
        )
    if length % mesh.shape["sequence"]:
        raise UserError(
            f"{where}.row_length is {length}, but rows are split over {mesh.shape['sequence']} devices "
            "(mesh.sequence); make it a multiple of that"
        )


def _check_degree(where: str, degree: int, sizes: dict[str, int]) -> None:
    failing = [f"{name} {size}" for name, size in sizes.items() if size % degree]
    if failing:
        common = math.gcd(*sizes.values())
        fitting = [str(n) for n in range(1, min(common, 128) + 1) if common % n == 0]
        raise UserError(
            f"{where} is {degree}, which does not divide the model's {' and '.join(failing)}; "
            f"choose one of {', '.join(fitting)}"
        )


def param_shardings(config: Qwen2Config, mesh: Mesh) -> Any:
    """The tree of the model's parameters with a NamedSharding each, by `RULES`."""
    check_model_fits(config, mesh)
    return jax.tree.map(
        lambda names: NamedSharding(mesh, spec(names)),
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
    return NamedSharding(mesh, spec((*(None,) * leading, "batch", "time")))


def batch_degree(mesh: Mesh) -> int:
    """What the number of rows of a batch must be a multiple of."""
    return int(np.prod([mesh.shape[axis] for axis in RULES["batch"] or ()]))


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
