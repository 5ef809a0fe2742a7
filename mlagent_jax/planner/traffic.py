"""The bytes that a device must move to and from its memory, whatever is fused.

Each pass over the layers reads all weights once, in the dtype of computation, and writes and reads the activations
between matrix products. Attention is a fused kernel, so scores never leave the chip.
"""

from __future__ import annotations

import jax.numpy as jnp

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.planner.flops import REMATERIALISED, layer_weights

_FP32 = 4


def forward_bytes(model: Qwen2Config, tokens: float, tensor: int, logits: bool = True) -> float:
    """tokens: of one device, with evenly split activations. tensor: the number of devices a weight is split over."""
    size = _itemsize(model)
    weights = model.num_hidden_layers * layer_weights(model) * size / tensor
    between = tokens * model.num_hidden_layers * _between_products(model) * size * 2
    head = model.hidden_size * model.vocab_size * size / tensor + tokens * model.vocab_size * _FP32 * 2
    return weights + between + (head if logits else 0)


def training_bytes(model: Qwen2Config, tokens: float, tensor: int) -> float:
    """Forward pass, backward pass (twice as much), and what is rematerialised."""
    again = REMATERIALISED[model.remat].layers
    return (3 + again) * forward_bytes(model, tokens, tensor)


def cache_bytes(model: Qwen2Config, context: float) -> float:
    """The keys and values that one row of a decoding step reads."""
    keys = 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim
    return context * keys * _itemsize(model)


def _itemsize(model: Qwen2Config) -> int:
    return int(jnp.dtype(model.dtype).itemsize)


def _between_products(model: Qwen2Config) -> int:
    """Elements per token that go from one product of a layer to the next."""
    D, F, H = model.hidden_size, model.intermediate_size, model.head_dim
    N, K = model.num_attention_heads, model.num_key_value_heads
    return 4 * D + 2 * N * H + 2 * K * H + 3 * F
