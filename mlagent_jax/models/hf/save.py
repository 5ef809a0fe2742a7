"""Writing a Hugging Face checkpoint from parameters on any mesh, gathering one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from fnmatch import fnmatch
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from mlagent_jax.errors import UserError
from mlagent_jax.finite import NotFiniteError, is_finite_on_host
from mlagent_jax.folders import replaced_folder
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf.checkpoint import CONFIG, DTYPES, abbreviated
from mlagent_jax.models.hf.names import HfTensor, hf_tensors
from mlagent_jax.models.hf.shards import MAX_SHARD_BYTES, TensorSpec, plan_shards, write_index, write_shard
from mlagent_jax.models.lora import Factors, LoRAConfig, factors_of, merged_kernel
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.jitted import Jitted
from mlagent_jax.text.tokenizer import Tokenizer, check_vocabulary

GENERATION_CONFIG = "generation_config.json"

Leaf = Float[Array, "..."] | Float[np.ndarray, "..."]
Leaves = dict[tuple[str, ...], Leaf]  # parameters by their paths

# The files of an export, ours or another program's. A folder with anything else in it is not replaced.
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
    """Writes a checkpoint that `transformers` can load.

    It consists of config.json, safetensors files and, with a tokenizer, its files and generation_config.json.

    params: the tree of `init_params`, on any mesh. All its processes must call this; the first one writes.
    dtype: of the exported tensors, "float32", "bfloat16" or "float16"; config.param_dtype by default. Adapters are
        merged into their kernels, one tensor at a time. The default is then float32, since kernels in bfloat16 would
        lose most of a small change.

    The folder is written completely or not at all; an older export in its place is kept until this one is complete.

    Raises NotFiniteError for weights that are not finite, or not in the range of `dtype`; UserError for another dtype,
    a tokenizer larger than the vocabulary, and a folder that holds anything but an export; ValueError for parameters
    that do not match the config.
    """
    folder = Path(folder)
    dtype = dtype or ("float32" if config.lora else config.param_dtype)
    _check(folder, config, tokenizer, dtype)
    leaves = _checked_leaves(config, params)
    if config.lora and dtype != "float32":
        logging.warning("%s: adapters are merged into %s; changes below its rounding are lost", folder, dtype)
    plain = config.replace(lora=None, param_dtype=dtype)
    tensors = {tensor.name: tensor for tensor in hf_tensors(plain)}
    shards = plan_shards([TensorSpec(t.name, t.shape, dtype) for t in tensors.values()], max_shard_bytes)
    with ExitStack() as replacement:
        aside = distributed.on_main(lambda: replacement.enter_context(replaced_export(folder)))
        failure = _write_shards(aside, shards, tensors, _Fetch(leaves, dtype, config.lora))

        def finish() -> None:
            if failure is not None:
                raise failure
            write_index(aside, shards)
            write_description(aside, plain, tokenizer)
            replacement.close()

        distributed.on_main(finish)


def _check(folder: Path, config: Qwen2Config, tokenizer: Tokenizer | None, dtype: str) -> None:
    """Raises UserError for another dtype, and for a tokenizer larger than the vocabulary."""
    if dtype not in DTYPES.values():
        raise UserError(f"cannot export as {dtype!r}; choose one of {', '.join(DTYPES.values())}")
    if tokenizer is not None:
        check_vocabulary(tokenizer, config.vocab_size, str(folder))


def _write_shards(
    folder: Path, shards: Mapping[str, list[TensorSpec]], tensors: Mapping[str, HfTensor], fetch: _Fetch
) -> Exception | None:
    """Writes the files of tensors, on the main process; all processes must call this.

    An error is returned, not raised, since the other processes wait here at every tensor.
    """
    failure: Exception | None = None
    for name, specs in shards.items():
        fetched = (fetch(tensors[spec.name]) for spec in specs)
        if distributed.is_main() and failure is None:
            try:
                write_shard(folder / name, specs, map(_finite_on_host, specs, fetched))
            except Exception as error:
                failure = error
        for _ in fetched:
            pass
    return failure


def write_description(folder: Path, config: Qwen2Config, tokenizer: Tokenizer | None) -> None:
    """Writes config.json and, with a tokenizer, its files and the ids that end a turn."""
    (folder / CONFIG).write_text(json.dumps(config.to_hf(), indent=2) + "\n")
    if tokenizer is not None:
        stops = {
            "eos_token_id": list(tokenizer.stop_ids),
            "pad_token_id": tokenizer.pad_id,
        }
        (folder / GENERATION_CONFIG).write_text(json.dumps(stops, indent=2) + "\n")
        tokenizer.save(folder)


class _Fetch:
    """Computes one tensor in the checkpoint's layout and dtype, with adapters merged, readable by the main process."""

    def __init__(self, leaves: Leaves, dtype: str, lora: LoRAConfig | None):
        self._leaves = leaves
        self._dtype = jnp.dtype(dtype)
        self._lora = lora
        self._compiled: dict[tuple[str, ...], Jitted[..., Float[Array, ...]]] = {}

    def __call__(self, tensor: HfTensor) -> Float[Array, ...]:
        leaf, factors = self._leaves[tensor.path], factors_of(self._leaves, tensor.path)
        if tensor.path not in self._compiled:
            self._compiled[tensor.path] = self._compile(tensor, leaf)
        # Blocks, so that tensors do not pile up on the devices of processes that do not write.
        return self._compiled[tensor.path](leaf, factors, tensor.layer).block_until_ready()

    def _compile(self, tensor: HfTensor, leaf: Leaf) -> Jitted[..., Float[Array, ...]]:
        def to_checkpoint(
            leaf: Float[Array, ...], factors: Factors | None, layer: Int[Array, ""] | None
        ) -> Float[Array, ...]:
            def of_layer(x: Float[Array, ...]) -> Float[Array, ...]:
                return x if layer is None else jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)

            x = of_layer(leaf)
            if self._lora and factors:
                a, b = factors
                x = merged_kernel(self._lora, x, (of_layer(a), of_layer(b)))
            return (x.T if tensor.transposed else x).astype(self._dtype)

        # With several processes every device gets the whole tensor; a single process can read all parts anyway.
        everywhere = None
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            assert isinstance(leaf.sharding, NamedSharding)
            everywhere = NamedSharding(leaf.sharding.mesh, P())
        return jax.jit(to_checkpoint, out_shardings=everywhere)


def _finite_on_host(spec: TensorSpec, array: Float[Array, "*shape"]) -> Float[np.ndarray, "*shape"]:
    host = np.asarray(array if array.is_fully_addressable else array.addressable_data(0))
    if not is_finite_on_host(host):
        raise NotFiniteError(
            f"cannot export: {spec.name} holds a number that is not finite as {spec.dtype}; training diverged, or the "
            "range of that dtype is too small for these weights"
        )
    return host


def _checked_leaves(config: Qwen2Config, params: Params) -> Leaves:
    leaves = flatten_dict(params)
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    expected = {path: tuple(leaf.shape) for path, leaf in flatten_dict(abstract_params(config)).items()}
    wrong = [
        f"{'/'.join(path)} is {shapes.get(path, 'absent')}, not {expected.get(path, 'part of the model')}"
        for path in sorted(shapes.keys() | expected.keys())
        if shapes.get(path) != expected.get(path)
    ]
    if wrong:
        raise ValueError(f"these parameters do not match the config: {abbreviated(wrong)}")
    return leaves


def replaced_export(folder: Path) -> AbstractContextManager[Path]:
    """`replaced_folder` for an export. Raises UserError where `folder` holds anything but an older export."""
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
                f"{folder} holds {abbreviated(foreign)}, which an export would remove; "
                "choose a new folder or an older export's"
            )
    return replaced_folder(folder)
