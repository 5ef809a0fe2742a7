"""The device mesh, and the shardings of arrays on it by the rules of `parallel.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.parallel.rules import AXES, RULES, spec


@dataclass(frozen=True)
class MeshConfig:
    """Degrees of parallelism; one of them may be -1, for all devices that are left.

    data: replicas of the model. fsdp: parameters, gradients and optimiser state are sharded. tensor: heads and
    feed-forward are split. sequence: each row is split over time, for rows that are too long for one device; parameters
    are sharded over these devices as well.
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
    """A mesh of `devices` (by default, those of all processes) with the axes `AXES`.

    Raises UserError where the product of the degrees is not the number of devices.
    """
    config.validate()
    devices = jax.devices() if devices is None else devices
    degrees = [getattr(config, name) for name in AXES]
    known = int(np.prod([degree for degree in degrees if degree != -1]))
    degrees = [len(devices) // known if degree == -1 else degree for degree in degrees]
    if int(np.prod(degrees)) != len(devices):
        product = " x ".join(f"{name}={getattr(config, name)}" for name in AXES)
        raise UserError(
            f"mesh {product} does not match the {len(devices)} devices present; set one of them to -1"
        )
    # Not jax.make_mesh: on a TPU slice it refuses a degree that is not a product of the slice's own dimensions.
    arranged = mesh_utils.create_device_mesh(degrees, devices, allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch_fits(rows: int, length: int, mesh: Mesh, where: str) -> None:
    """Raises UserError where `rows` rows of `length` tokens cannot be split evenly over the mesh.

    where: the section of the configuration whose micro_rows and row_length they are, for the message.
    """
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


def optimiser_shardings(
    optimiser: optax.GradientTransformation, params: PyTree, shardings: PyTree[NamedSharding], mesh: Mesh
) -> PyTree[NamedSharding]:
    """Shardings of `optimiser.init(params)`: each moment as its parameter, counters replicated.

    params: arrays or shapes. shardings: of the parameters.
    """
    state = jax.eval_shape(optimiser.init, params)
    # By path, not by `optax.tree.map_params`, which fails at the masked nodes that muon has for AdamW's parameters.
    by_path = dict(jax.tree_util.tree_leaves_with_path(shardings))

    def sharding_of(path: tuple[Any, ...], _: Any) -> NamedSharding:
        starts = range(len(path))
        return next((by_path[path[start:]] for start in starts if path[start:] in by_path), replicated(mesh))

    return jax.tree_util.tree_map_with_path(sharding_of, state)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """The sharding of arrays [..., B, T] with `leading` axes before B."""
    return NamedSharding(mesh, spec((*(None,) * leading, "batch", "time")))


def batch_degree(mesh: Mesh) -> int:
    """The number of devices over which a batch's rows are split; that of the rows must be a multiple of it."""
    return int(np.prod([mesh.shape[axis] for axis in RULES["batch"] or ()]))


def with_shardings(shapes: PyTree, shardings: PyTree[NamedSharding]) -> PyTree[jax.ShapeDtypeStruct]:
    """The same shapes with these shardings."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def put(tree: PyTree, shardings: PyTree[NamedSharding]) -> PyTree[jax.Array]:
    """Puts arrays on the mesh with these shardings.

    tree: host arrays, the same on every process, or arrays that are on the mesh already; those with the right sharding
        are returned as they are. shardings: a prefix of the tree.
    """

    def put_subtree(sharding: NamedSharding, subtree: PyTree) -> PyTree[jax.Array]:
        def put_array(value: Any) -> jax.Array:
            if isinstance(value, jax.Array) and value.sharding == sharding:
                return value
            if isinstance(value, jax.Array) and not value.is_fully_addressable:
                return jax.jit(lambda x: x, out_shardings=sharding)(value)
            value = np.asarray(value)
            return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

        return jax.tree.map(put_array, subtree)

    return jax.tree.map(put_subtree, shardings, tree, is_leaf=lambda node: isinstance(node, NamedSharding))


def to_local(tree: PyTree, mesh: Mesh) -> PyTree[jax.Array]:
    """Whole copies of sharded arrays on this process's first device, for work that only one process does.

    All processes must call this.
    """
    if mesh.size == 1:
        return tree
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)
