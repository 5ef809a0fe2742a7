"""Qwen2 / Qwen2.5 (arXiv 2407.10671, 2412.15115) in Flax NNX, used functionally.

Parameters are a nested dict of arrays, with all layers stacked along a leading axis L; the modules below only say
how they are made and used. `forward(config, params, ...)` is pure: jit it, differentiate it, donate to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import Adapter, join, partition
from mlagent_jax.models.remat import rematerialised
from mlagent_jax.nn.attention import attention
from mlagent_jax.nn.embedding import embedding_lookup
from mlagent_jax.nn.linear import linear
from mlagent_jax.nn.norm import rms_norm
from mlagent_jax.nn.rope import apply_rope, rope_tables
from mlagent_jax.parallel.rules import constrain

Params = dict[str, Any]
Rope = tuple[jax.Array, jax.Array]
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Linear(nnx.Module):
    """x [..., in] -> [..., out]; kernel [in, out], computed in the activations' dtype. `name` says if it is adapted.

    With an adapter the terms are added in float32 and rounded once: what it adds may be less than a rounding.
    """

    def __init__(
        self,
        config: Qwen2Config,
        name: str,
        shape: tuple[int, int],
        axes: tuple[str, str],
        bias: bool,
        rngs: nnx.Rngs,
    ):
        self.kernel = _normal(config, shape, axes, rngs)
        self.bias = _constant(config, shape[1:], axes[1:], 0.0) if bias else None
        lora = config.lora
        self.adapter = Adapter(lora, shape, axes, rngs) if lora and name in lora.targets else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(x.dtype)
        y = linear(x, kernel) if self.adapter is None else linear(x, kernel, jnp.float32) + self.adapter(x)
        if self.bias is not None:
            y += self.bias[...].astype(y.dtype)
        return y.astype(x.dtype)


class RMSNorm(nnx.Module):
    def __init__(self, config: Qwen2Config):
        self.eps = config.rms_norm_eps
        self.scale = _constant(config, (config.hidden_size,), ("embed",), 1.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.scale[...], self.eps)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions; how queries meet keys is the caller's `attend`."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        self.head_dim = config.head_dim
        D, H = config.hidden_size, config.head_dim
        heads, kv_heads = config.num_attention_heads * H, config.num_key_value_heads * H
        bias = config.attention_bias
        self.q_proj = Linear(config, "q_proj", (D, heads), ("embed", "heads"), bias, rngs)
        self.k_proj = Linear(config, "k_proj", (D, kv_heads), ("embed", "kv_heads"), bias, rngs)
        self.v_proj = Linear(config, "v_proj", (D, kv_heads), ("embed", "kv_heads"), bias, rngs)
        self.o_proj = Linear(config, "o_proj", (heads, D), ("heads", "embed"), False, rngs)

    def __call__(self, x: jax.Array, rope: Rope, attend: Attend) -> jax.Array:
        q, k, v = (y.reshape(*y.shape[:-1], -1, self.head_dim) for y in self.project(x))
        context = attend(apply_rope(q, *rope), apply_rope(k, *rope), v)
        return self.o_proj(context.reshape(*x.shape[:-1], -1))

    def project(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """x [..., D] -> queries [..., N*H], keys and values [..., K*H]."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        D, F = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(config, "gate_proj", (D, F), ("embed", "mlp"), False, rngs)
        self.up_proj = Linear(config, "up_proj", (D, F), ("embed", "mlp"), False, rngs)
        self.down_proj = Linear(config, "down_proj", (F, D), ("mlp", "embed"), False, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nnx.Module):
    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        self.input_norm = RMSNorm(config)
        self.attention = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = MLP(config, rngs)

    def __call__(self, x: jax.Array, rope: Rope, attend: Attend) -> jax.Array:
        """x [B,T,D], rope cos and sin [B,T,H/2]; attend(q [B,T,N,H], k [B,T,K,H], v) -> [B,T,N,H]."""
        x = x + self.attention(self.input_norm(x), rope, attend)
        return x + self.mlp(self.mlp_norm(x))


class Qwen2(nnx.Module):
    """The trunk with its embeddings; `layers` is one Block whose every parameter has a leading axis L."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        V, D = config.vocab_size, config.hidden_size

        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap(in_axes=(0,), out_axes=0, transform_metadata={nnx.PARTITION_NAME: None})
        def stack(layer_rngs: nnx.Rngs) -> Block:
            return Block(config, layer_rngs)

        self.embed = _normal(config, (V, D), ("vocab", "embed"), rngs)
        self.layers = stack(rngs)
        self.norm = RMSNorm(config)
        self.lm_head = (
            None if config.tie_word_embeddings else _normal(config, (D, V), ("embed", "vocab"), rngs)
        )


def init_params(config: Qwen2Config, seed: int) -> Params:
    """Fresh parameters: normal with `initializer_range`, norms 1, biases 0."""
    params: Params = nnx.to_pure_dict(nnx.state(Qwen2(config, nnx.Rngs(seed)), nnx.Param))
    return params


def init_adapters(config: Qwen2Config, seed: int) -> Params:
    """The part of `init_params` that `config.lora` adds; nothing else is made."""
    return jax.jit(lambda: partition(init_params(config, seed))[0])()


def with_adapters(config: Qwen2Config, params: Params, seed: int) -> Params:
    """`params` with the adapters that `config.lora` asks for: their own, or fresh ones."""
    if config.lora is None or partition(params)[1]:
        return params
    return join(init_adapters(config, seed), params)


def abstract_params(config: Qwen2Config) -> Params:
    """The tree of `init_params` as `jax.ShapeDtypeStruct`s; allocates nothing."""
    abstract = nnx.eval_shape(lambda: Qwen2(config, nnx.Rngs(0)))
    params: Params = nnx.to_pure_dict(nnx.state(abstract, nnx.Param))
    return params


def logical_axes(config: Qwen2Config) -> Params:
    """The tree of `init_params` with a tuple of axis names for each array.

    Names: "layers", "vocab", "embed" (D), "heads" (N*H), "kv_heads" (K*H), "mlp" (F).
    """
    axes = axes_of(nnx.eval_shape(lambda: Qwen2(config, nnx.Rngs(0))))
    axes["layers"] = jax.tree.map(
        lambda names: ("layers", *names), axes["layers"], is_leaf=lambda node: isinstance(node, tuple)
    )
    return axes


def axes_of(module: nnx.Module) -> Params:
    """The tree of a module's parameters with a tuple of axis names for each array."""
    axes: Params = nnx.to_pure_dict(
        jax.tree.map(
            lambda variable: variable.get_metadata("logical_axes"),
            nnx.state(module, nnx.Param),
            is_leaf=lambda node: isinstance(node, nnx.Variable),
        )
    )
    return axes


def forward(
    config: Qwen2Config,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The last hidden states, after the final norm.

    tokens, positions, segment_ids: [B,T] int. Positions count from 0 in each segment; segment id 0 is padding,
    whose outputs are finite and meaningless. Returns [B,T,D] in config.dtype; times `unembedding` gives logits.
    mesh: what the arrays lie on, so that XLA is told where activations go.
    """

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(
            q, k, v, segment_ids, backend=config.attention, query_chunk=config.query_chunk, mesh=mesh
        )

    rope = rope_tables(positions, config.head_dim, config.rope_theta)

    def layer(x: jax.Array, layer_params: Params) -> tuple[jax.Array, None]:
        x = constrain(x, ("batch", "time", None), mesh)
        return block(config, layer_params)(x, rope, attend), None

    run_layer = rematerialised(layer, config.remat)
    x = embed(config, params, tokens, mesh)
    if config.scan_layers:
        x, _ = jax.lax.scan(run_layer, x, params["layers"])
    else:
        for layer_params in unstack_layers(config, params):
            x, _ = run_layer(x, layer_params)
    return final_norm(config, params, x)


def unembedding(config: Qwen2Config, params: Params) -> jax.Array:
    """The matrix [D,V] that turns hidden states into logits, tied or not, in config.dtype."""
    matrix = params["embed"].T if config.tie_word_embeddings else params["lm_head"]
    return matrix.astype(config.dtype)


def embed(config: Qwen2Config, params: Params, tokens: jax.Array, mesh: Mesh | None = None) -> jax.Array:
    """tokens [B,T] int -> [B,T,D] in config.dtype."""
    return embedding_lookup(params["embed"], tokens, config.dtype, mesh)


def final_norm(config: Qwen2Config, params: Params, x: jax.Array) -> jax.Array:
    return rms_norm(x, params["norm"]["scale"], config.rms_norm_eps)


def unstack_layers(config: Qwen2Config, params: Params) -> list[Params]:
    """The stacked layers [L, ...] as L separate trees."""
    L = config.num_hidden_layers
    split = jax.tree.map(
        lambda stacked: [part[0] for part in jax.lax.split(stacked, (1,) * L)], params["layers"]
    )
    is_list = lambda node: isinstance(node, list)  # noqa: E731
    return [jax.tree.map(lambda parts, i=i: parts[i], split, is_leaf=is_list) for i in range(L)]


def block(config: Qwen2Config, layer_params: Params) -> Block:
    """One layer with its parameters in place; call it with (x, rope, attend)."""
    module: Block = nnx.merge(_block_definition(config), layer_params)
    return module


@lru_cache
def _block_definition(config: Qwen2Config) -> nnx.GraphDef[Block]:
    return nnx.graphdef(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))


def _normal(config: Qwen2Config, shape: tuple[int, ...], axes: tuple[str, ...], rngs: nnx.Rngs) -> nnx.Param:
    values = config.initializer_range * jax.random.normal(rngs.params(), shape, jnp.float32)
    return nnx.Param(values.astype(config.param_dtype), logical_axes=axes)


def _constant(config: Qwen2Config, shape: tuple[int, ...], axes: tuple[str, ...], value: float) -> nnx.Param:
    return nnx.Param(jnp.full(shape, value, config.param_dtype), logical_axes=axes)
