"""Reading a Hugging Face checkpoint onto a mesh: each process reads only what its devices hold."""

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

from mlagent_jax.finite import is_finite_on_host
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf.checkpoint import (
    CONFIG,
    DTYPES,
    HfCheckpointError,
    StoredTensor,
    read_json,
    some,
    stored_tensors,
)
from mlagent_jax.models.hf.names import HfTensor, hf_tensors
from mlagent_jax.models.qwen2 import Params, abstract_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, param_shardings


def load_config(folder: str | Path, **execution: Any) -> Qwen2Config:
    """The model that `folder/config.json` describes; `execution` sets fields of the config that are ours.

    Raises HfCheckpointError naming what in it is absent, wrong or not implemented.
    """
    path = Path(folder) / CONFIG
    try:
        config = Qwen2Config.from_hf(read_json(path))
    except (TypeError, ValueError) as error:
        raise HfCheckpointError(f"{path}: {error}") from error
    return config.replace(**execution)


def load_hf(folder: str | Path, mesh: Mesh | None = None, **execution: Any) -> tuple[Qwen2Config, Params]:
    """Reads a Qwen2 or Llama checkpoint, one file or sharded, straight onto the mesh.

    mesh: parameters are split over it by the rules of `parallel.mesh`; all its processes must call this and
        see the folder. None: they lie whole on this process's first device.
    execution: fields of the config that are ours. Parameters are cast to config.param_dtype.

    The host holds one tensor at a time, and of it only what its devices need. Raises HfCheckpointError naming
    file and tensor that are missing, unexpected, misshapen, unreadable or of a dtype that is not implemented,
    before anything is read, and one that holds NaN or infinity; UserError where the model does not divide by the mesh.
    """
    folder = Path(folder)
    config = load_config(folder, **execution)
    stored = stored_tensors(folder)
    tensors = hf_tensors(config)
    _check(folder, tensors, stored, config)
    mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
    shardings = flatten_dict(param_shardings(config, mesh))
    leaves = flatten_dict(abstract_params(config))
    # The largest first: what a read needs beside its result is largest while there is least else.
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
        f"{at.file}: {tensor.name} is stored as {at.dtype}, which is none of {', '.join(DTYPES)}"
        for tensor, at in found
        if at.dtype not in DTYPES
    ]
    known = {tensor.name for tensor in tensors}
    unexpected = [
        f"{at.file}: {name} {list(at.shape)}"
        for name, at in stored.items()
        if name not in known and not _ignored(name, config)
    ]
    problems = [f"absent from the files: {some(absent)}"] if absent else []
    problems += [f"wrong shape: {some(shapes)}"] if shapes else []
    problems += [f"unknown dtype: {some(dtypes)}"] if dtypes else []
    problems += [f"not part of the model that {CONFIG} describes: {some(unexpected)}"] if unexpected else []
    if problems:
        raise HfCheckpointError(f"cannot load {folder}: {'; '.join(problems)}")


def _ignored(name: str, config: Qwen2Config) -> bool:
    """Buffers that old exporters wrote, and a tied matrix written twice."""
    return name.endswith("rotary_emb.inv_freq") or (config.tie_word_embeddings and name == "lm_head.weight")


def _read_leaf(
    leaf: jax.ShapeDtypeStruct,
    sharding: NamedSharding,
    tensors: Sequence[HfTensor],
    stored: Mapping[str, StoredTensor],
) -> jax.Array:
    """One array of ours, made of one tensor, or of one for each layer."""
    spec = (*sharding.spec, *(None,) * (len(leaf.shape) - len(sharding.spec)))
    transposed = tensors[0].transposed

    def oriented(x: jax.Array) -> jax.Array:
        return (x.T if transposed else x).astype(leaf.dtype)

    def on_device(tensor: HfTensor, axes: Sequence[Any]) -> jax.Array:
        theirs = NamedSharding(sharding.mesh, P(*(axes[::-1] if transposed else axes)))
        return _read(stored[tensor.name], theirs)

    if tensors[0].layer is None:
        return jax.jit(oriented, out_shardings=sharding)(on_device(tensors[0], spec))

    def insert(stacked: jax.Array, layer: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(stacked, oriented(x), layer, axis=0)

    # Donated, so that there is never a second copy of the stack.
    insert = jax.jit(insert, donate_argnums=0, out_shardings=sharding)
    stacked = jax.jit(lambda: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=sharding)()
    for tensor in tensors:
        stacked = insert(stacked, tensor.layer, on_device(tensor, spec[1:])).block_until_ready()
    return stacked


def _read(tensor: StoredTensor, sharding: NamedSharding) -> jax.Array:
    """The tensor as stored, laid out by `sharding`; devices with the same part share one read."""
    parts: dict[str, np.ndarray] = {}

    def part(index: Any) -> np.ndarray:
        key = str(index)  # slices cannot be hashed
        if key not in parts:
            parts[key] = tensor.read(index)
            if not is_finite_on_host(parts[key]):
                raise HfCheckpointError(
                    f"{tensor.file}: {tensor.name} holds numbers that are not finite (NaN or infinity): nothing can "
                    "be computed with such weights; take another checkpoint, or export this one anew"
                )
        return parts[key]

    return jax.make_array_from_callback(tensor.shape, sharding, part, dtype=DTYPES[tensor.dtype])
