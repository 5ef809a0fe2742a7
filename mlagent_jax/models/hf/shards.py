"""Writing safetensors files one tensor at a time, in shards with an index that `transformers` can read.

The library's own writer needs all tensors of a file at once, which is too much for a host's memory. The format
(https://huggingface.co/docs/safetensors) is a length, a JSON header and the bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mlagent_jax.models.hf.checkpoint import DTYPES, INDEX, WEIGHTS

MAX_SHARD_BYTES = 5 * 10**9  # as in transformers
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written. dtype: numpy's name, "float32", "bfloat16" or "float16"."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


def plan_shards(specs: Sequence[TensorSpec], max_bytes: int) -> dict[str, list[TensorSpec]]:
    """The tensors of each file, by its name, in order; only a single tensor larger than `max_bytes` exceeds it."""
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.bytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    stem = WEIGHTS.removesuffix(".safetensors")
    return {f"{stem}-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def write_shard(path: Path, specs: Sequence[TensorSpec], tensors: Iterable[Float[np.ndarray, ...]]) -> None:
    """tensors: in the order of `specs`, with their shapes and dtypes; one is held at a time. Raises ValueError else."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        start, end = end, end + spec.bytes
        header[spec.name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [start, end],
        }
    description = json.dumps(header, separators=(",", ":")).encode()
    description += b" " * (-len(description) % 8)  # so that the tensors are aligned
    with path.open("wb") as file:
        file.write(len(description).to_bytes(8, "little"))
        file.write(description)
        for spec, tensor in zip(specs, tensors, strict=True):
            if tensor.shape != spec.shape or tensor.dtype != jnp.dtype(spec.dtype):
                raise ValueError(f"expected {spec}, got {tensor.dtype} {tensor.shape}")
            file.write(np.ascontiguousarray(tensor).view(np.uint8).data)


def write_index(folder: Path, shards: dict[str, list[TensorSpec]]) -> None:
    """Writes which tensor is in which file; a single file needs no index."""
    if len(shards) > 1:
        weight_map = {spec.name: name for name, shard in shards.items() for spec in shard}
        total = sum(spec.bytes for shard in shards.values() for spec in shard)
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")
