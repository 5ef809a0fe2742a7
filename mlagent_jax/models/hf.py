"""Hugging Face checkpoints in and out: a folder with `config.json` and safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params, abstract_params

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"

# Path in one of our layers -> name in one of theirs. They store projections as [out, in], we as [in, out].
_LAYER: dict[tuple[str, ...], str] = {
    ("input_norm", "scale"): "input_layernorm.weight",
    ("mlp_norm", "scale"): "post_attention_layernorm.weight",
    **{("attention", f"{x}_proj", "kernel"): f"self_attn.{x}_proj.weight" for x in "qkvo"},
    **{("attention", f"{x}_proj", "bias"): f"self_attn.{x}_proj.bias" for x in "qkv"},
    **{("mlp", f"{x}_proj", "kernel"): f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
}
_TOP: dict[tuple[str, ...], str] = {
    ("embed",): "model.embed_tokens.weight",
    ("norm", "scale"): "model.norm.weight",
    ("lm_head",): "lm_head.weight",
}
_TRANSPOSED = ("kernel", "lm_head")


def load_hf(folder: str | Path, **execution: Any) -> tuple[Qwen2Config, Params]:
    """Reads a Qwen2 checkpoint, one file or sharded; `execution` sets fields of the config that are ours.

    Parameters are cast to config.param_dtype. Raises FileNotFoundError, and ValueError naming what in the
    configuration is not implemented, or which tensors are missing, unexpected, misshapen or unreadable.
    """
    folder = Path(folder)
    config = Qwen2Config.from_hf(_read_json(folder / "config.json"), **execution)
    tensors = _read_tensors(folder)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # some exporters write the tied matrix twice
    params: Params = {}
    missing, misshapen = [], []
    for path, leaf in _leaves(abstract_params(config)):
        parts = []
        for name in _hf_names(path, config):
            tensor = tensors.pop(name, None)
            if tensor is None:
                missing.append(name)
                continue
            part = tensor.T if path[-1] in _TRANSPOSED else tensor
            expected = leaf.shape[1:] if path[0] == "layers" else leaf.shape
            if part.shape != expected:
                wanted = expected[::-1] if path[-1] in _TRANSPOSED else expected
                misshapen.append(f"{name} is {tuple(tensor.shape)}, config.json implies {tuple(wanted)}")
            parts.append(part.astype(config.param_dtype))
        if not missing and not misshapen:
            _set(params, path, jnp.stack(parts) if path[0] == "layers" else parts[0])
    unexpected = [name for name in tensors if not name.endswith("rotary_emb.inv_freq")]
    for problem, names in (
        ("lacks", missing),
        ("has the wrong shape:", misshapen),
        ("has unexpected", unexpected),
    ):
        if names:
            raise ValueError(f"the checkpoint in {folder} {problem} {_some(names)}")
    return config, params


def save_hf(folder: str | Path, config: Qwen2Config, params: Params) -> None:
    """Writes `config.json` and `model.safetensors`, which `transformers` loads. A file appears whole or not at all.

    Raises ValueError for a config that Hugging Face's Qwen2 cannot express.
    """
    folder = Path(folder)
    description = json.dumps(config.to_hf(), indent=2) + "\n"
    tensors: dict[str, jax.Array] = {}
    for path, leaf in _leaves(params):
        parts = leaf if path[0] == "layers" else leaf[None]
        for name, part in zip(_hf_names(path, config), parts, strict=True):
            tensors[name] = part.T if path[-1] in _TRANSPOSED else part
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{_WEIGHTS}.{os.getpid()}"
    try:
        save_file(tensors, str(partial), metadata={"format": "pt"})
        partial.replace(folder / _WEIGHTS)
        partial.write_text(description)
        partial.replace(folder / "config.json")
    finally:
        partial.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object, not a {type(content).__name__}")
    return content


def _read_tensors(folder: Path) -> dict[str, jax.Array]:
    if (folder / _INDEX).exists():
        files = sorted(set(_read_json(folder / _INDEX)["weight_map"].values()))
    elif (folder / _WEIGHTS).exists():
        files = [_WEIGHTS]
    else:
        raise FileNotFoundError(f"no {_WEIGHTS} or {_INDEX} in {folder}")
    tensors: dict[str, jax.Array] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="flax") as file:
                tensors.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is damaged or not a safetensors file: {error}") from error
    return tensors


def _hf_names(path: tuple[str, ...], config: Qwen2Config) -> list[str]:
    """The tensor names of one of our arrays: one, or one for each layer."""
    if path[0] != "layers":
        return [_TOP[path]]
    return [f"model.layers.{i}.{_LAYER[path[1:]]}" for i in range(config.num_hidden_layers)]


def _leaves(tree: Params, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, node in tree.items():
        if isinstance(node, dict):
            yield from _leaves(node, (*prefix, name))
        else:
            yield (*prefix, name), node


def _set(tree: Params, path: tuple[str, ...], value: jax.Array) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _some(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return "; ".join(names[:shown]) + more
