"""Llama and Qwen2 models in GGUF files (llama.cpp's format), read as Hugging Face tensors.

Needs the extra `gguf`. Names and layouts follow gguf-py and convert_hf_to_gguf.py of
https://github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf.names import hf_tensors

ARCHITECTURES = ("llama", "qwen2")
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_ROWS_AT_A_TIME = 4096  # when the embedding and output matrices are compared
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
    """A GGUF file that cannot be imported; the message names the reason and the values that are possible."""


class GGUFModel:
    """One memory-mapped file; each tensor is dequantised when it is read."""

    def __init__(self, path: str | Path):
        """Raises GGUFError where `path` is not a GGUF file, or its architecture is not implemented."""
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise GGUFError(
                "importing a GGUF file needs the package gguf: pip install 'mlagent-jax[gguf]'"
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
                f"{path} has the architecture {self._architecture!r}; only {', '.join(ARCHITECTURES)} can be imported"
            )

    @cached_property
    def config(self) -> Qwen2Config:
        """Raises GGUFError naming the metadata that is missing or not implemented."""
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
                # Stored as float32; the intended value is the shortest decimal that rounds to it.
                rms_norm_eps=float(
                    str(np.float32(self._required(f"{kind}.attention.layer_norm_rms_epsilon")))
                ),
                tie_word_embeddings=_OUTPUT not in self._tensors or self.output_repeats_embedding,
                attention_bias=kind == "qwen2",
            )
        except (TypeError, ValueError) as error:
            raise GGUFError(f"{self._path}: {error}") from error

    @cached_property
    def output_difference(self) -> float:
        """The norm of output matrix minus embedding, as a share of the embedding's norm."""
        difference = norm = 0.0
        for start in range(0, int(self._tensors[_EMBEDDING].shape[1]), _ROWS_AT_A_TIME):
            one, other = (self._rows(name, start, start + _ROWS_AT_A_TIME) for name in (_EMBEDDING, _OUTPUT))
            difference += float(np.sum((one - other) ** 2, dtype=np.float64))
            norm += float(np.sum(one**2, dtype=np.float64))
        return math.sqrt(difference / norm) if norm else math.sqrt(difference)

    @cached_property
    def output_repeats_embedding(self) -> bool:
        """Whether the output matrix is a copy of the embedding; some converters write a tied model's matrix twice.

        The copies may be quantised differently. They count as the same where they differ by no more than the error of
        their quantisation; two matrices that were trained separately differ by more than their own norm.
        """
        one, other = self._tensors[_EMBEDDING], self._tensors[_OUTPUT]
        if list(one.shape) != list(other.shape):
            return False
        lost = _quantisation_error(one.tensor_type) + _quantisation_error(other.tensor_type)
        return self.output_difference <= lost

    @property
    def notes(self) -> list[str]:
        """Decisions about this file that the user should know of."""
        if _OUTPUT not in self._tensors:
            return []
        kinds = [self._tensors[name].tensor_type for name in (_EMBEDDING, _OUTPUT)]
        found = (
            f"{_OUTPUT} ({kinds[1].name}) differs from {_EMBEDDING} ({kinds[0].name}) by "
            f"{self.output_difference:.2%} of its norm"
        )
        if not self.config.tie_word_embeddings:
            return [f"{found}: imported as untied, with both matrices"]
        return [
            f"{found}, no more than their quantisation explains: imported as tied, with the values of "
            f"{self._shared}"
        ]

    def check(self) -> None:
        """Raises GGUFError unless the file holds exactly the tensors of its config, with their shapes."""
        expected = {gguf_name(tensor.name): tensor.shape for tensor in hf_tensors(self.config)}
        absent = [name for name in expected if name not in self._tensors]
        repeated = {_OUTPUT} if self.config.tie_word_embeddings else set()
        unknown = [name for name in self._tensors if name not in expected and name not in repeated]
        if absent or unknown:
            raise GGUFError(
                f"{self._path} lacks {absent[:4]} and has {unknown[:4]}, which are not part of the model"
            )
        for name, shape in expected.items():
            found = tuple(int(n) for n in self._tensors[name].shape[::-1])
            if found != shape:
                raise GGUFError(
                    f"{self._path}: {name} is {list(found)}, but the metadata imply {list(shape)}"
                )

    def read(self, hf_name: str) -> Float32[np.ndarray, " ..."]:
        """The tensor with this Hugging Face name, in Hugging Face's layout and float32."""
        name = gguf_name(hf_name)
        values = self._rows(self._shared if name == _EMBEDDING else name)
        heads = {"q_proj": self.config.num_attention_heads, "k_proj": self.config.num_key_value_heads}
        module = hf_name.split(".")[-2]
        if self._architecture == "llama" and module in heads:
            values = _to_half_split(values, heads[module])
        return values

    @property
    def _shared(self) -> str:
        """The tensor from which the embedding is read; of two copies, the one with the smaller quantisation error."""
        names = (
            [_EMBEDDING, _OUTPUT]
            if _OUTPUT in self._tensors and self.config.tie_word_embeddings
            else [_EMBEDDING]
        )
        return min(names, key=lambda name: _quantisation_error(self._tensors[name].tensor_type))

    def _rows(self, name: str, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, " ..."]:
        """Rows of a matrix (or a whole vector), dequantised to float32."""
        from gguf import dequantize

        tensor = self._tensors[name]
        shape = [int(n) for n in tensor.shape[::-1]]
        try:
            values = dequantize(tensor.data[start:stop], tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError as error:
            raise GGUFError(
                f"{self._path}: {name} is quantised as {tensor.tensor_type.name}, which cannot be read"
            ) from error
        return values.reshape([-1, *shape[1:]])

    def _required(self, key: str) -> Any:
        if key not in self.metadata:
            raise GGUFError(f"{self._path} lacks {key} in its metadata")
        return self.metadata[key]


def _quantisation_error(kind: Any) -> float:
    """A bound on the quantisation error of weights stored as this type, as a share of their norm.

    The error of b bits on blocks of normal numbers is 1.3 to 1.5 parts in 2^b; the bound is twice that.
    """
    from gguf import GGML_QUANT_SIZES

    exact = {"F64": 0.0, "F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8}
    if kind.name in exact:
        return exact[kind.name]
    weights, size = GGML_QUANT_SIZES[kind]
    return 2.8 / 2 ** (8 * size // weights)


def gguf_name(hf_name: str) -> str:
    """ "model.layers.3.self_attn.q_proj.bias" -> "blk.3.attn_q.bias"."""
    if hf_name in _TOP:
        return _TOP[hf_name]
    layer, rest = hf_name.removeprefix("model.layers.").split(".", 1)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER[module]}.{kind}"


def _to_half_split(kernel: Float32[np.ndarray, "NH ..."], heads: int) -> Float32[np.ndarray, "NH ..."]:
    """Reorders each head's rows from llama.cpp's layout of Llama's queries and keys to Hugging Face's.

    llama.cpp puts the two elements of a rotated pair next to each other; Hugging Face puts the first elements of all
    pairs before the second ones.
    """
    pairs = kernel.reshape(heads, kernel.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(kernel.shape)
