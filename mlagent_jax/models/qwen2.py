"""Qwen2 / Qwen2.5 (arXiv 2407.10671, 2412.15115) in Flax NNX, used functionally.

Parameters are a nested dict of arrays, with all layers stacked along a leading axis L. The modules below only define
how parameters are initialised and used. `forward(config, params, ...)` is a pure function, to be jitted and
differentiated.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import Adapter, join, partition
from mlagent_jax.models.params import Params
from mlagent_jax.models.remat import rematerialised
from mlagent_jax.nn.attention import AttentionFn, attention
from mlagent_jax.nn.embedding import embedding_lookup
from mlagent_jax.nn.linear import linear
from mlagent_jax.nn.norm import rms_norm
from mlagent_jax.nn.rope import apply_rope, rope_tables
from mlagent_jax.parallel.rules import constrain

Rope = tuple[Float32[Array, "*B half"], Float32[Array, "*B half"]]  # cos and sin for half of a head each


class Linear(nnx.Module):
    """x @ kernel + bias, with kernel [in, out], computed in the dtype of x. `name` decides whether it has an adapter.

    With an adapter, the terms are added in float32 and rounded once, since the adapter may add less than one rounding.
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

    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        kernel = self.kernel[...].astype(x.dtype)
        y = linear(x, kernel) if self.adapter is None else linear(x, kernel, jnp.float32) + self.adapter(x)
        if self.bias is not None:
            y += self.bias[...].astype(y.dtype)
        return y.astype(x.dtype)


class RMSNorm(nnx.Module):
    def __init__(self, config: Qwen2Config):
        self.eps = config.rms_norm_eps
        self.scale = _constant(config, (config.hidden_size,), ("embed",), 1.0)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return rms_norm(x, self.scale[...], self.eps)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions; the caller supplies the attention function."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        self.head_dim = config.head_dim
        D, H = config.hidden_size, config.head_dim
        heads, kv_heads = config.num_attention_heads * H, config.num_key_value_heads * H
        bias = config.attention_bias
        self.q_proj = Linear(config, "q_proj", (D, heads), ("embed", "heads"), bias, rngs)
        self.k_proj = Linear(config, "k_proj", (D, kv_heads), ("embed", "kv_heads"), bias, rngs)
        self.v_proj = Linear(config, "v_proj", (D, kv_heads), ("embed", "kv_heads"), bias, rngs)
        self.o_proj = Linear(config, "o_proj", (heads, D), ("heads", "embed"), False, rngs)

    def __call__(
        self, x: Float[Array, "*B D"], rope: Rope, attention_fn: AttentionFn
    ) -> Float[Array, "*B D"]:
        q, k, v = (y.reshape(*y.shape[:-1], -1, self.head_dim) for y in self.project(x))
        context = attention_fn(apply_rope(q, *rope), apply_rope(k, *rope), v)
        return self.o_proj(context.reshape(*x.shape[:-1], -1))

    def project(
        self, x: Float[Array, "*B D"]
    ) -> tuple[Float[Array, "*B NH"], Float[Array, "*B KH"], Float[Array, "*B KH"]]:
        """Queries, keys and values."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        D, F = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(config, "gate_proj", (D, F), ("embed", "mlp"), False, rngs)
        self.up_proj = Linear(config, "up_proj", (D, F), ("embed", "mlp"), False, rngs)
        self.down_proj = Linear(config, "down_proj", (F, D), ("mlp", "embed"), False, rngs)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nnx.Module):
    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        self.input_norm = RMSNorm(config)
        self.attention = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = MLP(config, rngs)

    def __call__(
        self, x: Float[Array, "B T D"], rope: Rope, attention_fn: AttentionFn
    ) -> Float[Array, "B T D"]:
        x = x + self.attention(self.input_norm(x), rope, attention_fn)
        return x + self.mlp(self.mlp_norm(x))


class Qwen2(nnx.Module):
    """The whole model; `layers` is one Block in which every parameter has a leading axis L."""

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
    """Random parameters: normal with standard deviation `initializer_range`, norms 1, biases 0."""
    params: Params = nnx.to_pure_dict(nnx.state(Qwen2(config, nnx.Rngs(seed)), nnx.Param))
    return params


def init_adapters(config: Qwen2Config, seed: int) -> Params:
    """Only those parameters of `init_params` that `config.lora` adds."""
    return jax.jit(lambda: partition(init_params(config, seed))[0])()


def with_adapters(config: Qwen2Config, params: Params, seed: int) -> Params:
    """`params` with the adapters that `config.lora` asks for: those it has already, or new ones."""
    if config.lora is None or partition(params)[1]:
        return params
    return join(init_adapters(config, seed), params)


def abstract_params(config: Qwen2Config) -> Params:
    """The tree of `init_params` as `jax.ShapeDtypeStruct`s; allocates nothing."""
    abstract = nnx.eval_shape(lambda: Qwen2(config, nnx.Rngs(0)))
    params: Params = nnx.to_pure_dict(nnx.state(abstract, nnx.Param))
    return params


def logical_axes(config: Qwen2Config) -> Params:
    """The tree of `init_params` with a tuple of logical axes for each array.

    Axes: "layers", "vocab", "embed" (D), "heads" (N*H), "kv_heads" (K*H), "mlp" (F).
    """
    axes = axes_of(nnx.eval_shape(lambda: Qwen2(config, nnx.Rngs(0))))
    axes["layers"] = jax.tree.map(
        lambda names: ("layers", *names), axes["layers"], is_leaf=lambda node: isinstance(node, tuple)
    )
    return axes


def axes_of(module: nnx.Module) -> Params:
    """The tree of a module's parameters with a tuple of logical axes for each array."""
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
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    segment_ids: Int[Array, "B T"],
    mesh: Mesh | None = None,
) -> Float[Array, "B T D"]:
    """The last hidden states, after the final norm, in config.dtype; logits are their product with `unembedding`.

    positions: from 0 in each segment. segment_ids: 0 is padding, whose outputs are finite and meaningless.
    mesh: what the arrays lie on; activations are then sharded over it too.
    """

    def attention_fn(
        q: Float[Array, "B T N H"], k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]
    ) -> Float[Array, "B T N H"]:
        return attention(
            q, k, v, segment_ids, backend=config.attention, query_chunk=config.query_chunk, mesh=mesh
        )

    rope = rope_tables(positions, config.head_dim, config.rope_theta)

    def layer(x: Float[Array, "B T D"], layer_params: Params) -> tuple[Float[Array, "B T D"], None]:
        x = constrain(x, ("batch", "time", None), mesh)
        return block(config, layer_params)(x, rope, attention_fn), None

    run_layer = rematerialised(layer, config.remat)
    x = embed(config, params, tokens, mesh)
    if config.scan_layers:
        x, _ = jax.lax.scan(run_layer, x, params["layers"])
    else:
        for layer_params in unstack_layers(config, params):
            x, _ = run_layer(x, layer_params)
    return final_norm(config, params, x)


def unembedding(config: Qwen2Config, params: Params) -> Float[Array, "D V"]:
    """The matrix that turns hidden states into logits, tied or not, in config.dtype."""
    matrix = params["embed"].T if config.tie_word_embeddings else params["lm_head"]
    return matrix.astype(config.dtype)


def embed(
    config: Qwen2Config, params: Params, tokens: Int[Array, "B T"], mesh: Mesh | None = None
) -> Float[Array, "B T D"]:
    """Token embeddings in config.dtype."""
    return embedding_lookup(params["embed"], tokens, config.dtype, mesh)


def final_norm(config: Qwen2Config, params: Params, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
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
    """A Block with these parameters."""
    module: Block = nnx.merge(_block_definition(config), layer_params)
    return module


@lru_cache
def _block_definition(config: Qwen2Config) -> nnx.GraphDef[Block]:
    return nnx.graphdef(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))


def _normal(
    config: Qwen2Config, shape: tuple[int, ...], axes: tuple[str, ...], rngs: nnx.Rngs
) -> nnx.Param[Array]:
    values = config.initializer_range * jax.random.normal(rngs.params(), shape, jnp.float32)
    return nnx.Param(values.astype(config.param_dtype), logical_axes=axes)


def _constant(
    config: Qwen2Config, shape: tuple[int, ...], axes: tuple[str, ...], value: float
) -> nnx.Param[Array]:
    return nnx.Param(jnp.full(shape, value, config.param_dtype), logical_axes=axes)
