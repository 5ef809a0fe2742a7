"""Causal self-attention within segments, with a choice of backends.

All backends compute the same function: token i attends to token j of its row when j <= i and both have the same
segment id. Padding has the segment id 0. It attends to padding only, so its outputs stay finite.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mlagent_jax.nn.chunked_attention import CHECKPOINT_NAME, chunked_attention
from mlagent_jax.nn.cudnn_attention import cudnn_attention
from mlagent_jax.nn.masks import causal_segment_mask
from mlagent_jax.nn.splash_attention import splash_attention
from mlagent_jax.parallel.rules import constrain, spec

# q [B,T,N,H], k [B,T,K,H] and v [B,T,K,H] -> context [B,T,N,H].
AttentionFn = Callable[[Array, Array, Array], Array]

_HEADS = ("heads", "kv_heads", "kv_heads")  # logical axes of q, k and v
BACKENDS = ("xla", "xla_chunked", "cudnn", "splash")


def check_backend(name: str) -> None:
    """Raises ValueError for an unknown backend."""
    if name not in BACKENDS:
        raise ValueError(f"unknown attention backend {name!r}; choose one of {', '.join(BACKENDS)}")


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    backend: str,
    query_chunk: int = 128,
    mesh: Mesh | None = None,
) -> Float[Array, "B T N H"]:
    """Grouped-query attention: N must be a multiple of K.

    backend: "xla" (all scores at once, the reference to read), "xla_chunked" (blocks of `query_chunk` queries with a
        backward pass of its own; several times faster on a CPU, and linear in memory), "cudnn" (NVIDIA GPUs from
        Ampere on, in bfloat16 or float16) or "splash" (TPUs).
    mesh: each device computes whole rows for its share of the heads, which are split over the mesh axes tensor and
        sequence. This is DeepSpeed-Ulysses (arXiv 2309.14509): every backend sees whole rows, and the causal half of
        the work is spread evenly.

    Raises ValueError for an unknown backend.
    """
    check_backend(backend)

    def local(
        q: Float[Array, "B T N H"],
        k: Float[Array, "B T K H"],
        v: Float[Array, "B T K H"],
        segment_ids: Int[Array, "B T"],
    ) -> Float[Array, "B T N H"]:
        if backend == "xla_chunked":
            return chunked_attention(q, k, v, segment_ids, query_chunk)
        if backend == "cudnn":
            return cudnn_attention(q, k, v, segment_ids)
        if backend == "splash":
            return splash_attention(q, k, v, segment_ids)
        return plain_attention(q, k, v, segment_ids)

    if mesh is None:
        return local(q, k, v, segment_ids)
    # Constrained before and after: otherwise the split of the heads propagates to the projections, and XLA gathers
    # their inputs.
    q, k, v = (
        constrain(x, ("batch", "time", heads, None), mesh) for x, heads in zip((q, k, v), _HEADS, strict=True)
    )
    if k.shape[2] % (mesh.shape["tensor"] * mesh.shape["sequence"]):
        # There are fewer key heads than devices, and each device needs the keys of its own queries.
        k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    heads, rows = spec(("batch", None, "attention_heads", None)), spec(("batch", None))
    # JAX cannot check over which axes a Pallas kernel's results vary.
    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
    )
    return constrain(sharded(q, k, v, segment_ids), ("batch", "time", "heads", None), mesh)


def plain_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """All scores [B,K,N/K,T,T] at once; float32 from the scores to the context."""
    B, T, N, H = q.shape
    K = k.shape[2]
    q = q.reshape(B, T, K, N // K, H) * H**-0.5
    scores = jnp.einsum("bqkgh,bskh->bkgqs", q, k, preferred_element_type=jnp.float32)
    mask = causal_segment_mask(segment_ids, slice(0, T), slice(0, T))
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    context = jnp.einsum("bkgqs,bskh->bqkgh", weights, v.astype(weights.dtype))
    context = context.astype(v.dtype).reshape(B, T, N, H)
    return checkpoint_name(context, CHECKPOINT_NAME)
