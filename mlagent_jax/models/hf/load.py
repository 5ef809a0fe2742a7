"""Loading a Hugging Face checkpoint onto a mesh: each process reads only the parts that its devices hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from mlagent_jax.finite import is_finite_on_host
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf.checkpoint import (
    CONFIG,
    DTYPES,
    HfCheckpointError,
    StoredTensor,
    abbreviated,
    read_json,
    stored_tensors,
)
from mlagent_jax.models.hf.names import HfTensor, hf_tensors
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh


def load_config(folder: str | Path, **execution: Any) -> Qwen2Config:
    """The model that `folder/config.json` describes; `execution` sets our own fields of the config.

    Raises HfCheckpointError naming what in the file is missing, wrong or not implemented.
    """
    path = Path(folder) / CONFIG
    try:
        config = Qwen2Config.from_hf(read_json(path))
    except (TypeError, ValueError) as error:
        raise HfCheckpointError(f"{path}: {error}") from error
    return config.replace(**execution)


def load_hf(folder: str | Path, mesh: Mesh | None = None, **execution: Any) -> tuple[Qwen2Config, Params]:
    """Reads a Qwen2 or Llama checkpoint, in one file or sharded, directly onto the mesh.

    mesh: parameters are sharded over it by the rules of `parallel.rules`. All its processes must call this, and must be
        able to read the folder. None: everything is put on this process's first device.
    execution: our own fields of the config. Parameters are cast to config.param_dtype.

    The host holds one tensor at a time, and only the parts that its devices need. Raises HfCheckpointError for tensors
    that are missing, unexpected, of the wrong shape or of an unknown dtype, before anything is read, and for one that
    cannot be read or holds NaN or infinity; UserError where the model does not divide by the mesh.
    """
    folder = Path(folder)
    config = load_config(folder, **execution)
    stored = stored_tensors(folder)
    tensors = hf_tensors(config)
    _check(folder, tensors, stored, config)
    mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
    shardings = flatten_dict(param_shardings(config, mesh))
    leaves = flatten_dict(abstract_params(config))
    # The largest first: temporary memory is then largest while least else is loaded.
    for path in sorted(leaves, key=lambda path: -math.prod(leaves[path].shape)):
        parts = [tensor for tensor in tensors if tensor.path == path]
        leaves[path] = _read_leaf(leaves[path], shardings[path], parts, stored)
    return config, unflatten_dict(leaves)


def _check(
    folder: Path, tensors: Sequence[HfTensor], stored: Mapping[str, StoredTensor], config: Qwen2Config
) -> None:
    absent = [tensor.name for tensor in tensors if tensor.name not in stored]
    found = [(tensor, stored[tensor.name]) for tensor in tensors if tensor.name in stored]
    shapes = [
        f"{at.file}: {tensor.name} is {list(at.shape)}, but {CONFIG} implies {list(tensor.shape)}"
        for tensor, at in found
        if at.shape != tensor.shape
    ]
    dtypes = [
        f"{at.file}: {tensor.name} is stored as {at.dtype}, which is not one of {', '.join(DTYPES)}"
        for tensor, at in found
        if at.dtype not in DTYPES
    ]
    known = {tensor.name for tensor in tensors}
    unexpected = [
        f"{at.file}: {name} {list(at.shape)}"
        for name, at in stored.items()
        if name not in known and not _ignored(name, config)
    ]
    problems = [f"missing from the files: {abbreviated(absent)}"] if absent else []
    problems += [f"wrong shape: {abbreviated(shapes)}"] if shapes else []
    problems += [f"unknown dtype: {abbreviated(dtypes)}"] if dtypes else []
    problems += (
        [f"not part of the model that {CONFIG} describes: {abbreviated(unexpected)}"] if unexpected else []
    )
    if problems:
        raise HfCheckpointError(f"cannot load {folder}: {'; '.join(problems)}")


def _ignored(name: str, config: Qwen2Config) -> bool:
    """Buffers of old exporters, and the second copy of a tied matrix."""
    return name.endswith("rotary_emb.inv_freq") or (config.tie_word_embeddings and name == "lm_head.weight")


def _read_leaf(
    leaf: jax.ShapeDtypeStruct,
    sharding: NamedSharding,
    tensors: Sequence[HfTensor],
    stored: Mapping[str, StoredTensor],
) -> Float[Array, ...]:
    """One of our arrays, made of one tensor, or of one tensor for each layer."""
    spec = (*sharding.spec, *(None,) * (len(leaf.shape) - len(sharding.spec)))
    transposed = tensors[0].transposed

    def to_our_layout(x: Float[Array, "*stored"]) -> Float[Array, "*ours"]:
        return (x.T if transposed else x).astype(leaf.dtype)

    def on_device(tensor: HfTensor, axes: Sequence[Any]) -> Float[Array, "*stored"]:
        stored_sharding = NamedSharding(sharding.mesh, P(*(axes[::-1] if transposed else axes)))
        return _read(stored[tensor.name], stored_sharding)

    if tensors[0].layer is None:
        return jax.jit(to_our_layout, out_shardings=sharding)(on_device(tensors[0], spec))

    def insert(
        stacked: Float[Array, " L *ours"], layer: Int[Array, ""], x: Float[Array, "*stored"]
    ) -> Float[Array, " L *ours"]:
        return jax.lax.dynamic_update_index_in_dim(stacked, to_our_layout(x), layer, axis=0)

    # The stack is donated, so that there is never a second copy of it.
    insert = jax.jit(insert, donate_argnums=0, out_shardings=sharding)
    stacked = jax.jit(lambda: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=sharding)()
    for tensor in tensors:
        stacked = insert(stacked, tensor.layer, on_device(tensor, spec[1:])).block_until_ready()
    return stacked


def _read(tensor: StoredTensor, sharding: NamedSharding) -> Float[Array, ...]:
    """The tensor as it is stored, with this sharding; devices that hold the same part share one read."""
    parts: dict[str, Float[np.ndarray, ...]] = {}

    def part(index: Any) -> Float[np.ndarray, ...]:
        key = str(index)  # slices cannot be hashed
        if key not in parts:
            parts[key] = tensor.read(index)
            if not is_finite_on_host(parts[key]):
                raise HfCheckpointError(
                    f"{tensor.file}: {tensor.name} holds numbers that are not finite (NaN or infinity), and such "
                    "weights cannot be used; take another checkpoint, or export this one again"
                )
        return parts[key]

    return jax.make_array_from_callback(tensor.shape, sharding, part, dtype=DTYPES[tensor.dtype])
