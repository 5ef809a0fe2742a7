"""Attention on NVIDIA GPUs: cuDNN's fused kernels through `jax.nn.dot_product_attention`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlagent_jax.nn.padding import pad_time

_MULTIPLE = 8  # of T: with a mask cuDNN wants an even T, and its rows aligned to 16 bytes


def cudnn_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Shapes as in `nn.attention.attention`, in bfloat16 or float16. For one device, or in `jax.shard_map`.

    Rows that hold one document each go by their lengths alone; where one or more are packed, all go by a mask, which
    takes B*T*T*2 bytes while a layer runs (450 MB for a row of 15,000 tokens). cuDNN's packed layout would need no
    mask, but JAX offers it in no public function, for Hopper only, and up to 0.10 with wrong offsets for grouped
    heads (jax-ml/jax#39521).
    """
    T = q.shape[1]
    (q, k, v), segment_ids = pad_time((q, k, v), segment_ids, _MULTIPLE)
    first = segment_ids == segment_ids[:, :1]
    lengths = jnp.sum(first, axis=1, dtype=jnp.int32)
    follows = jnp.arange(segment_ids.shape[1]) >= lengths[:, None]
    one_document = jnp.all(first | (follows & (segment_ids <= 0)))

    def by_length(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            is_causal=True,
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            implementation="cudnn",
        )

    def by_mask(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        return jax.nn.dot_product_attention(q, k, v, mask=same, is_causal=True, implementation="cudnn")

    return jax.lax.cond(one_document, by_length, by_mask, q, k, v)[:, :T]
