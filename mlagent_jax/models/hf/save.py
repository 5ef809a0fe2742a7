"""Writing a Hugging Face checkpoint from wherever the parameters lie, never gathering more than one tensor."""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager, ExitStack
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.errors import UserError
from mlagent_jax.finite import NotFiniteError, is_finite_on_host
from mlagent_jax.folders import replaced_folder
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf.checkpoint import CONFIG, DTYPES, some
from mlagent_jax.models.hf.names import HfTensor, hf_tensors
from mlagent_jax.models.hf.shards import MAX_SHARD_BYTES, TensorSpec, plan_shards, write_index, write_shard
from mlagent_jax.models.lora import Factors, LoRAConfig, factors_of, merged_kernel
from mlagent_jax.models.qwen2 import Params, abstract_params
from mlagent_jax.parallel import distributed
from mlagent_jax.text.tokenizer import Tokenizer, check_vocabulary

GENERATION_CONFIG = "generation_config.json"
_log = logging.getLogger("mlagent_jax")

# What an export may consist of, ours or another program's: a folder with anything else is not replaced.
_EXPORTED = (
    CONFIG,
    GENERATION_CONFIG,
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "sentencepiece.model",
)


def save_hf(
    folder: str | Path,
    config: Qwen2Config,
    params: Params,
    tokenizer: Tokenizer | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a checkpoint that `transformers` loads: config.json, safetensors and, with a tokenizer, its files
    and generation_config.json.

    params: as `init_params` makes them, on any mesh; all its processes must call this, and the first writes.
    dtype: of the exported tensors, "float32", "bfloat16" or "float16"; config.param_dtype by default. Adapters are
        merged into their kernels, one tensor at a time, and float32 is the default then: kernels in bfloat16 would
        lose most of a small change.
    The folder appears whole or not at all; an older export in its place stays until this one is complete.

    Raises NotFiniteError for weights that are not finite, or not any more in `dtype`; UserError for a dtype that is
    none of these, a tokenizer larger than the vocabulary, and a folder that holds something else than an export;
    ValueError for parameters that are not the config's.
    """
    folder = Path(folder)
    dtype = dtype or ("float32" if config.lora else config.param_dtype)
    if dtype not in DTYPES.values():
        raise UserError(f"cannot export as {dtype!r}; choose one of {', '.join(DTYPES.values())}")
    if tokenizer is not None:
        check_vocabulary(tokenizer, config.vocab_size, str(folder))
    leaves = _checked(config, params)
    if config.lora and dtype != "float32":
        _log.warning("%s: adapters are merged into %s; changes below its rounding are lost", folder, dtype)
    plain = config.replace(lora=None, param_dtype=dtype)
    tensors = {tensor.name: tensor for tensor in hf_tensors(plain)}
    shards = plan_shards([TensorSpec(t.name, t.shape, dtype) for t in tensors.values()], max_shard_bytes)
    fetch = _Fetch(leaves, dtype, config.lora)
    failure: Exception | None = None
    with ExitStack() as replacement:
        aside = distributed.on_main(lambda: replacement.enter_context(replaced_export(folder)))
        for name, specs in shards.items():
            fetched = (fetch(tensors[spec.name]) for spec in specs)
            if distributed.is_main() and failure is None:
                try:
                    write_shard(aside / name, specs, map(_finite_on_host, specs, fetched))
                except Exception as error:  # told to all below: they wait for this process at every tensor
                    failure = error
            for _ in fetched:
                pass

        def finish() -> None:
            if failure is not None:
                raise failure
            write_index(aside, shards)
            write_description(aside, plain, tokenizer)
            replacement.close()

        distributed.on_main(finish)


def write_description(folder: Path, config: Qwen2Config, tokenizer: Tokenizer | None) -> None:
    """What lies beside the weights: config.json and, with a tokenizer, its files and the ids that end a turn."""
    (folder / CONFIG).write_text(json.dumps(config.to_hf(), indent=2) + "\n")
    if tokenizer is not None:
        stops = {
            "eos_token_id": list(tokenizer.stop_ids),
            "pad_token_id": tokenizer.pad_id,
        }
        (folder / GENERATION_CONFIG).write_text(json.dumps(stops, indent=2) + "\n")
        tokenizer.save(folder)


class _Fetch:
    """One tensor in the checkpoint's layout and dtype, where the main process can read it whole; adapters merged."""

    def __init__(self, leaves: dict[tuple[str, ...], jax.Array], dtype: str, lora: LoRAConfig | None):
        self._leaves = leaves
        self._dtype = jnp.dtype(dtype)
        self._lora = lora
        self._compiled: dict[tuple[str, ...], Any] = {}

    def __call__(self, tensor: HfTensor) -> jax.Array:
        leaf, factors = self._leaves[tensor.path], factors_of(self._leaves, tensor.path)
        if tensor.path not in self._compiled:
            self._compiled[tensor.path] = self._compile(tensor, leaf)
        # Waited for, so that tensors do not pile up on the devices of a process that doesn't write.
        result: jax.Array = self._compiled[tensor.path](leaf, factors, tensor.layer).block_until_ready()
        return result

    def _compile(self, tensor: HfTensor, leaf: jax.Array) -> Any:
        def theirs(leaf: jax.Array, factors: Factors | None, layer: jax.Array | None) -> jax.Array:
            def of_layer(x: jax.Array) -> jax.Array:
                return x if layer is None else jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)

            x = of_layer(leaf)
            if self._lora and factors:
                a, b = factors
                x = merged_kernel(self._lora, x, (of_layer(a), of_layer(b)))
            return (x.T if tensor.transposed else x).astype(self._dtype)

        # From several processes every device gets the whole tensor; one process can read its devices' parts.
        everywhere = None
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            assert isinstance(leaf.sharding, NamedSharding)
            everywhere = NamedSharding(leaf.sharding.mesh, P())
        return jax.jit(theirs, out_shardings=everywhere)


def _finite_on_host(spec: TensorSpec, array: jax.Array) -> np.ndarray:
    host = np.asarray(array if array.is_fully_addressable else array.addressable_data(0))
    if not is_finite_on_host(host):
        raise NotFiniteError(
            f"cannot export: {spec.name} holds a number that is not finite as {spec.dtype}; training diverged, or the "
            "dtype's range is too small for these weights"
        )
    return host


def _checked(config: Qwen2Config, params: Params) -> dict[tuple[str, ...], jax.Array]:
    leaves = flatten_dict(params)
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    expected = {path: tuple(leaf.shape) for path, leaf in flatten_dict(abstract_params(config)).items()}
    wrong = [
        f"{'/'.join(path)} is {shapes.get(path, 'absent')}, not {expected.get(path, 'part of the model')}"
        for path in sorted(shapes.keys() | expected.keys())
        if shapes.get(path) != expected.get(path)
    ]
    if wrong:
        raise ValueError(f"these parameters are not of this config: {some(wrong)}")
    return leaves


def replaced_export(folder: Path) -> AbstractContextManager[Path]:
    """`replaced_folder` for an export. Raises UserError where `folder` holds anything else than an older one."""
    if folder.exists():
        if not folder.is_dir():
            raise UserError(f"cannot export to {folder}: it is not a folder")
        foreign = [
            path.name
            for path in sorted(folder.iterdir())
            if not path.is_file() or not any(fnmatch(path.name, pattern) for pattern in _EXPORTED)
        ]
        if foreign:
            raise UserError(
                f"{folder} holds {some(foreign)}, which an export would remove; "
                "choose a new folder or an older export's"
            )
    return replaced_folder(folder)
