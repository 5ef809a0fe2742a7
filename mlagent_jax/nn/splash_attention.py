"""Attention on TPUs: JAX's splash kernel, with segment ids."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    SegmentIds,
    make_splash_mha_single_device,
)
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask import MultiHeadMask

from mlagent_jax.nn.chunked_attention import SAVED
from mlagent_jax.nn.padding import pad_time

_LANES = 128  # a block is a multiple of this
_BLOCK = 512


def splash_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, interpret: bool = False
) -> jax.Array:
    """Shapes as in `nn.attention.attention`; T is padded to whole blocks. For one device, or in `jax.shard_map`.

    interpret: run the kernel as plain JAX, on any device; for tests.
    """
    T, N, H = q.shape[1:]
    block = min(_BLOCK, T + -T % _LANES)
    (q, k, v), segment_ids = pad_time((q * H**-0.5, k, v), segment_ids, block)
    padded = q.shape[1]
    kernel = make_splash_mha_single_device(
        MultiHeadMask([CausalMask((padded, padded))] * N),
        block_sizes=BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        residual_checkpoint_name=SAVED,
        interpret=interpret,
    )

    def row(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array) -> jax.Array:
        return kernel(q, k, v, segment_ids=SegmentIds(ids, ids))

    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(jax.vmap(row)(q, k, v, segment_ids), 1, 2)[:, :T]
