"""An engine's weights and cache on its devices; where these belong to several processes, all of them run together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from mlagent_jax.generate.batches import DecodeBatch, DecodeOutput, PrefillBatch
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.kv_cache import KVCache
from mlagent_jax.generate.programs import compile_programs
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import put, replicated

T = TypeVar("T")


class ModelRunner:
    """Runs the engine's programs on arguments from the host, and keeps the cache.

    With several processes, the first one decides which program runs next and broadcasts it to the others.
    """

    def __init__(self, model: Qwen2Config, engine: EngineConfig, mesh: Mesh):
        self._programs = compile_programs(model, engine, mesh)
        self._mesh = mesh
        self._weights: Params | None = None
        self._cache: KVCache | None = None
        self._processes = len({device.process_index for device in mesh.devices.flat})

    def load(self, params: Params) -> None:
        """Replaces the weights by these, which are split as in training. All processes must call this.

        The old weights are freed first, so that there are never two copies.
        """
        self._weights = None
        self._weights = self._programs.load(params)
        if self._cache is None:
            self._cache = self._programs.reset()

    def unload(self) -> None:
        self._weights = self._cache = None

    def prefill(self, batch: PrefillBatch[np.ndarray]) -> None:
        self._call("prefill", (batch,))

    def copy(self, source: Int32[np.ndarray, " S"], target: Int32[np.ndarray, " S"]) -> None:
        self._call("copy", (source, target))

    def decode(self, batch: DecodeBatch[np.ndarray]) -> DecodeOutput[np.ndarray]:
        output: DecodeOutput[np.ndarray] = jax.tree.map(np.asarray, self._call("decode", (batch,)))
        return output

    def on_main(self, work: Callable[[], T]) -> T:
        """Runs `work` on the first process and returns its result on all; all take part in its calls to this runner."""
        if self._processes == 1:
            return distributed.on_main(work)

        def work_then_end() -> T:
            try:
                return work()
            finally:
                distributed.broadcast(("end", ()))

        if not distributed.is_main():
            self._follow()
        return distributed.on_main(work_then_end)

    def _follow(self) -> None:
        """Runs what the first process broadcasts, until it has ended."""
        while True:
            name, arguments = distributed.broadcast(("", ()))
            if name == "end":
                return
            self._run(name, arguments)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if self._processes > 1:
            distributed.broadcast((name, arguments))
        return self._run(name, arguments)

    def _run(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if self._weights is None or self._cache is None:
            raise RuntimeError(
                "the engine has no weights, or lost its cache in a step that failed: load weights"
            )
        arguments = put(arguments, replicated(self._mesh)) if self._mesh.size > 1 else arguments
        cache, self._cache = self._cache, None
        if name == "decode":
            self._cache, output = self._programs.decode(self._weights, cache, *arguments)
            return output
        if name == "prefill":
            self._cache = self._programs.prefill(self._weights, cache, *arguments)
        else:
            self._cache = self._programs.copy(cache, *arguments)
        return None
