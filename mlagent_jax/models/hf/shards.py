"""Writing safetensors files one tensor at a time, in shards with an index, as `transformers` reads them.

The library's own writer wants all tensors of a file at once, which is too much for a host's memory; the format
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

from mlagent_jax.models.hf.checkpoint import DTYPES, INDEX, WEIGHTS

MAX_SHARD_BYTES = 5 * 10**9  # what transformers splits at
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written; dtype is numpy's name, one of "float32", "bfloat16" and "float16"."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


def plan_shards(specs: Sequence[TensorSpec], max_bytes: int) -> dict[str, list[TensorSpec]]:
    """File name -> its tensors, in order; a shard exceeds `max_bytes` only by being one tensor that does."""
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


def write_shard(path: Path, specs: Sequence[TensorSpec], tensors: Iterable[np.ndarray]) -> None:
    """tensors: of the shapes and dtypes of `specs`, in their order; one is held at a time."""
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
    description += b" " * (-len(description) % 8)  # so that the numbers lie aligned
    with path.open("wb") as file:
        file.write(len(description).to_bytes(8, "little"))
        file.write(description)
        for spec, tensor in zip(specs, tensors, strict=True):
            if tensor.shape != spec.shape or tensor.dtype != jnp.dtype(spec.dtype):
                raise ValueError(f"{spec} was announced, but {tensor.dtype} {tensor.shape} came")
            file.write(np.ascontiguousarray(tensor).view(np.uint8).data)


def write_index(folder: Path, shards: dict[str, list[TensorSpec]]) -> None:
    """The index that says which tensor is in which file; none is needed for one file."""
    if len(shards) > 1:
        weight_map = {spec.name: name for name, shard in shards.items() for spec in shard}
        total = sum(spec.bytes for shard in shards.values() for spec in shard)
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")
