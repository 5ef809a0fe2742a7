"""GGUF files (llama.cpp's format) of Llama and Qwen2 models, read as Hugging Face tensors.

Needs the extra `gguf`. Names and layouts: https://github.com/ggml-org/llama.cpp, gguf-py and convert_hf_to_gguf.py.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf.names import hf_tensors

ARCHITECTURES = ("llama", "qwen2")
_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class GGUFError(UserError):
    """A GGUF file cannot be imported; the message says what in it, and which values are possible."""


class GGUFModel:
    """One file, memory-mapped; tensors are dequantised as they are asked for."""

    def __init__(self, path: str | Path):
        """Raises GGUFError where `path` is no GGUF file or of an architecture that isn't implemented."""
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise GGUFError(
                "importing GGUF needs the package gguf: pip install 'mlagent-jax[gguf]'"
            ) from error
        self._path = Path(path)
        if not self._path.is_file():
            raise GGUFError(f"there is no file {path}")
        try:
            reader = GGUFReader(self._path)
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise GGUFError(f"{path} is truncated, damaged or not a GGUF file: {error}") from error
        self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._architecture = str(self._required("general.architecture"))
        if self._architecture not in ARCHITECTURES:
            raise GGUFError(
                f"{path} is of architecture {self._architecture!r}; only {', '.join(ARCHITECTURES)} can be imported"
            )

    @cached_property
    def config(self) -> Qwen2Config:
        """Raises GGUFError naming what is missing or not implemented."""
        kind = self._architecture
        for name, harmless in (("rope.scaling.type", "none"), ("expert_count", 0)):
            value = self.metadata.get(f"{kind}.{name}", harmless)
            if value != harmless:
                raise GGUFError(f"{self._path}: {kind}.{name} is {value!r}, which is not implemented")
        if "token_embd.weight" not in self._tensors:
            raise GGUFError(f"{self._path} lacks the tensor token_embd.weight")
        heads = int(self._required(f"{kind}.attention.head_count"))
        hidden = int(self._required(f"{kind}.embedding_length"))
        key_length = self.metadata.get(f"{kind}.attention.key_length", hidden // heads)
        rotated = self.metadata.get(f"{kind}.rope.dimension_count", key_length)
        if rotated != key_length:
            raise GGUFError(f"{self._path}: only {rotated} of {key_length} dimensions of a head are rotated")
        try:
            return Qwen2Config(
                vocab_size=int(self._tensors["token_embd.weight"].shape[1]),
                hidden_size=hidden,
                intermediate_size=int(self._required(f"{kind}.feed_forward_length")),
                num_hidden_layers=int(self._required(f"{kind}.block_count")),
                num_attention_heads=heads,
                num_key_value_heads=int(self.metadata.get(f"{kind}.attention.head_count_kv", heads)),
                head_dim=int(key_length),
                max_position_embeddings=int(self._required(f"{kind}.context_length")),
                rope_theta=float(self.metadata.get(f"{kind}.rope.freq_base", 10_000.0)),
                # Stored as float32; the shortest decimal that rounds to it is what was meant.
                rms_norm_eps=float(
                    str(np.float32(self._required(f"{kind}.attention.layer_norm_rms_epsilon")))
                ),
                tie_word_embeddings="output.weight" not in self._tensors,
                attention_bias=kind == "qwen2",
            )
        except (TypeError, ValueError) as error:
            raise GGUFError(f"{self._path}: {error}") from error

    def check(self) -> None:
        """Raises GGUFError unless the file holds exactly the tensors of its config, with their shapes."""
        expected = {gguf_name(tensor.name): tensor.shape for tensor in hf_tensors(self.config)}
        absent = [name for name in expected if name not in self._tensors]
        unknown = [name for name in self._tensors if name not in expected]
        if absent or unknown:
            raise GGUFError(
                f"{self._path} lacks {absent[:4]} and has {unknown[:4]}, which are not implemented"
            )
        for name, shape in expected.items():
            found = tuple(int(n) for n in self._tensors[name].shape[::-1])
            if found != shape:
                raise GGUFError(
                    f"{self._path}: {name} is {list(found)}, but its metadata imply {list(shape)}"
                )

    def read(self, hf_name: str) -> np.ndarray:
        """A tensor by its Hugging Face name and in that layout, float32."""
        from gguf import dequantize

        tensor = self._tensors[gguf_name(hf_name)]
        try:
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError as error:
            raise GGUFError(
                f"{self._path}: {tensor.name} is quantised as {tensor.tensor_type.name}, which cannot be read"
            ) from error
        values = values.reshape([int(n) for n in tensor.shape[::-1]])
        heads = {"q_proj": self.config.num_attention_heads, "k_proj": self.config.num_key_value_heads}
        module = hf_name.split(".")[-2]
        if self._architecture == "llama" and module in heads:
            values = _halves(values, heads[module])
        return values

    def _required(self, key: str) -> Any:
        if key not in self.metadata:
            raise GGUFError(f"{self._path} lacks {key} in its metadata")
        return self.metadata[key]


def gguf_name(hf_name: str) -> str:
    """ "model.layers.3.self_attn.q_proj.bias" -> "blk.3.attn_q.bias"."""
    if hf_name in _TOP:
        return _TOP[hf_name]
    layer, rest = hf_name.removeprefix("model.layers.").split(".", 1)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER[module]}.{kind}"


def _halves(kernel: np.ndarray, heads: int) -> np.ndarray:
    """[heads*H, in] with the rotated pairs of a head beside each other, as llama.cpp keeps Llama's queries and
    keys, to the first halves of all pairs before the second, as Hugging Face does."""
    pairs = kernel.reshape(heads, kernel.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(kernel.shape)
