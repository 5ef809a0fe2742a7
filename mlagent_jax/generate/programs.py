"""The programs that an engine compiles: pure functions of its weights and cache, for devices that need not be there.

The engine's weights have the layers unstacked (`{"embed", "norm", "lm_head", "layers": [...]}`), since a slice of a
stack would be a copy. They are in the dtype of computation and split over the mesh as in training; adapters stay
separate from their kernels.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int32, PyTree

from mlagent_jax.generate.batches import DecodeBatch, DecodeOutput, PrefillBatch
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.decode import engine_decode
from mlagent_jax.generate.engine_setup import EngineSetup
from mlagent_jax.generate.fused_qkv import fuse_qkv, fused_axes
from mlagent_jax.generate.kv_cache import PAGES_AXES, KVCache, LayerCache, copy_pages
from mlagent_jax.generate.prefill import engine_prefill
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import abstract_params, logical_axes, unstack_layers
from mlagent_jax.models.sharding import check_model_fits
from mlagent_jax.nn.precision import AS_WRITTEN
from mlagent_jax.parallel.jitted import Jitted
from mlagent_jax.parallel.mesh import replicated, with_shardings
from mlagent_jax.parallel.rules import spec


class EnginePrograms(NamedTuple):
    """Jitted functions, and the shapes with shardings of the weights and the cache.

    The cache stays on the devices between calls, and is donated to each of them.

    load(params) makes the engine's weights, reset() an empty cache. prefill and decode take weights, cache and a batch
    on the host or on the devices.
    copy(cache, source, target) copies, for each slot, a page of its device to another page of the same device.
    """

    load: Jitted[[Params], Params]
    reset: Jitted[[], KVCache]
    prefill: Jitted[[Params, KVCache, PrefillBatch[Array] | PrefillBatch[np.ndarray]], KVCache]
    copy: Jitted[[KVCache, Int32[Array, " S"], Int32[Array, " S"]], KVCache]
    decode: Jitted[
        [Params, KVCache, DecodeBatch[Array] | DecodeBatch[np.ndarray]], tuple[KVCache, DecodeOutput[Array]]
    ]
    weights: PyTree[jax.ShapeDtypeStruct]
    cache: PyTree[jax.ShapeDtypeStruct]


@lru_cache
def compile_programs(model: Qwen2Config, engine: EngineConfig, mesh: Mesh) -> EnginePrograms:
    """Raises UserError where the model does not divide by the mesh."""
    check_model_fits(model, mesh)
    setup = EngineSetup(model, engine, mesh)
    load, reset = partial(engine_load, setup), partial(engine_reset, setup)
    cache_shapes = jax.eval_shape(reset)
    weight_shapes = jax.eval_shape(load, abstract_params(model))
    cache = jax.tree.map(lambda _: NamedSharding(mesh, spec(PAGES_AXES)), cache_shapes)
    weights = _weight_shardings(model, mesh)
    jit_as_written = partial(jax.jit, donate_argnums=1, compiler_options=AS_WRITTEN)
    return EnginePrograms(
        load=jax.jit(load, out_shardings=weights),
        reset=jax.jit(reset, out_shardings=cache),
        prefill=jit_as_written(partial(engine_prefill, setup), out_shardings=cache),
        copy=jax.jit(partial(engine_copy, setup), donate_argnums=0, out_shardings=cache),
        decode=jit_as_written(partial(engine_decode, setup), out_shardings=(cache, replicated(mesh))),
        weights=with_shardings(weight_shapes, weights),
        cache=with_shardings(cache_shapes, cache),
    )


def engine_load(setup: EngineSetup, params: Params) -> Params:
    """The engine's weights. Raises ValueError where `params` are not those of the engine's model."""
    model = setup.model
    structure: object = jax.tree.structure(abstract_params(model))
    if jax.tree.structure(params) != structure:
        raise ValueError(f"these are not the parameters, adapters included, of the engine's model {model}")
    params = jax.tree.map(lambda leaf: leaf.astype(model.dtype), params)
    layers = unstack_layers(model, params)
    return params | {"layers": [fuse_qkv(layer, setup.tensor) for layer in layers]}


def engine_reset(setup: EngineSetup) -> KVCache:
    """An empty cache."""
    model, engine = setup.model, setup.engine
    pages = setup.shards * engine.pages_per_shard(setup.shards)
    shape = (pages, model.num_key_value_heads, engine.page_size, model.head_dim)
    return [
        LayerCache(jnp.zeros(shape, model.dtype), jnp.zeros(shape, model.dtype))
        for _ in range(model.num_hidden_layers)
    ]


def engine_copy(
    setup: EngineSetup, cache: KVCache, source: Int32[Array, " S"], target: Int32[Array, " S"]
) -> KVCache:
    return [copy_pages(layer, source, target, setup.mesh) for layer in cache]


def _weight_shardings(model: Qwen2Config, mesh: Mesh) -> PyTree[NamedSharding]:
    layers = [fused_axes(model, mesh.shape["tensor"])] * model.num_hidden_layers
    axes = logical_axes(model) | {"layers": layers}
    return jax.tree.map(
        lambda names: NamedSharding(mesh, spec(names)), axes, is_leaf=lambda node: isinstance(node, tuple)
    )
