"""The safetensors files of a checkpoint: which tensors they hold, and reading parts of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open

from mlagent_jax.errors import UserError
from mlagent_jax.text import checkpoint_files

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # safetensors' name -> numpy's


class HfCheckpointError(UserError):
    """A checkpoint that cannot be read or does not match its config.json; the message names file, tensor and reason."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. dtype: safetensors' name of it."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    def read(self, index: tuple[slice, ...]) -> Shaped[np.ndarray, ...]:
        """Reads only the part at `index`, in the stored dtype. Raises HfCheckpointError."""
        # The file is opened for this read only: mapped pages count as this process's memory.
        with _open(self.file) as file:
            part: Shaped[np.ndarray, ...] = file.get_slice(self.name)[index]
        return part


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors in the checkpoint's files, by name; reads only the headers.

    Raises HfCheckpointError for a file that is missing, damaged or does not match the index.
    """
    if not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            raise HfCheckpointError(f"no {WEIGHTS} or {INDEX} in {folder}")
        return _header(folder / WEIGHTS)
    index = _weight_map(folder / INDEX)
    headers = {}
    for name in sorted(set(index.values())):
        if not (folder / name).exists():
            lost = [tensor for tensor, file in index.items() if file == name]
            raise HfCheckpointError(f"{folder / name} is missing; {INDEX} says it holds {abbreviated(lost)}")
        headers[name] = _header(folder / name)
    for tensor, name in index.items():
        if tensor not in headers[name]:
            raise HfCheckpointError(
                f"{folder / name} does not hold {tensor}, though {INDEX} says so; the files are not from one export"
            )
    for name, header in headers.items():
        unknown = [tensor for tensor in header if index.get(tensor) != name]
        if unknown:
            raise HfCheckpointError(
                f"{folder / name} holds {abbreviated(unknown)}, which {INDEX} does not list; "
                "the files are not from one export"
            )
    return {tensor: headers[name][tensor] for tensor, name in index.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Raises HfCheckpointError where `path` does not contain a JSON object."""
    if not path.is_file():
        raise HfCheckpointError(
            f"there is no {path.name} in {path.parent}; name the folder of a Hugging Face checkpoint"
        )
    return checkpoint_files.read_json(path, HfCheckpointError)


def abbreviated(names: Iterable[str], shown: int = 4) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _weight_map(path: Path) -> Mapping[str, str]:
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise HfCheckpointError(f"{path} lacks weight_map, which says which file holds which tensor")
    for tensor, name in index.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise HfCheckpointError(f"{path} places {tensor} in {name!r}, which is not a file name")
    return index


def _header(path: Path) -> dict[str, StoredTensor]:
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: StoredTensor(name, path, tuple(part.get_shape()), part.get_dtype())
            for name, part in slices.items()
        }


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise HfCheckpointError(f"{path} is truncated, damaged or not a safetensors file: {error}") from error
