"""Weights and cache of an engine on its devices; where these belong to several processes, all of them together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.kv_cache import Cache
from mlagent_jax.generate.programs import Chunk, Decoded, Slots, compile_programs
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import put, replicated

T = TypeVar("T")


class Runner:
    """Runs the programs, in place, on arguments from the host.

    Of several processes only the first decides what runs next; it tells the others, which `follow` it meanwhile.
    """

    def __init__(self, model: Qwen2Config, engine: EngineConfig, mesh: Mesh):
        self._programs = compile_programs(model, engine, mesh)
        self._mesh = mesh
        self._weights: Any = None
        self._cache: Cache | None = None
        self._processes = len({device.process_index for device in mesh.devices.flat})

    def load(self, params: Params) -> None:
        """Takes these weights, split as in training; all processes must call it. There is never a second copy."""
        self._weights = None
        self._weights = self._programs.load(params)
        if self._cache is None:
            self._cache = self._programs.reset()

    def unload(self) -> None:
        self._weights = self._cache = None

    def prefill(self, chunk: Chunk) -> None:
        self._call("prefill", (chunk,))

    def copy(self, source: np.ndarray, target: np.ndarray) -> None:
        self._call("copy", (source, target))

    def decode(self, slots: Slots) -> Decoded:
        """On the host."""
        return jax.tree.map(np.asarray, self._call("decode", (slots,)))

    def leading(self, work: Callable[[], T]) -> T:
        """`work` on the first process, whose calls here the others take part in; its result on all of them."""
        if self._processes == 1:
            return distributed.on_main(work)

        def led() -> T:
            try:
                return work()
            finally:
                distributed.broadcast(("end", ()))

        if not distributed.is_main():
            self._follow()
        return distributed.on_main(led)

    def _follow(self) -> None:
        while True:
            name, arguments = distributed.broadcast(("", ()))
            if name == "end":
                return
            self._run(name, arguments)

    def _call(self, name: str, arguments: Any) -> Any:
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
            self._cache, out = self._programs.decode(self._weights, cache, *arguments)
            return out
        if name == "prefill":
            self._cache = self._programs.prefill(self._weights, cache, *arguments)
        else:
            self._cache = self._programs.copy(cache, *arguments)
        return None
