"""The programs with which PPO samples responses, with the shapes they are called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.generate.batches import empty_decode_batch, empty_prefill_batch
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine_setup import num_shards
from mlagent_jax.generate.programs import EnginePrograms, compile_programs
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params
from mlagent_jax.parallel.mesh import replicated
from mlagent_jax.planner.flops import decode_flops, forward_flops
from mlagent_jax.planner.programs import Program, Work, bytes_per_device
from mlagent_jax.planner.traffic import cache_bytes, forward_bytes


@dataclass(frozen=True)
class SamplingPlan:
    """Sampling `batch_size` responses to prompts of the greatest length, as many at once as the cache holds.

    params: of the policy, as shapes with shardings. beside: trees that are on the devices meanwhile. beside_load: the
    same while the engine's weights are made of `params`, without those trees that are part of `params`.
    """

    model: Qwen2Config
    engine: EngineConfig
    batch_size: int
    max_new_tokens: int
    mesh: Mesh
    params: Params
    beside: Mapping[str, PyTree]
    beside_load: Mapping[str, PyTree]

    def programs(self) -> list[Program]:
        return [self._load(), self._prefill(), self._decode()]

    @cached_property
    def _compiled(self) -> EnginePrograms:
        return compile_programs(self.model, self._engine, self.mesh)

    @cached_property
    def _engine(self) -> EngineConfig:
        """One step a call: the planner counts a loop that may end at any step as one step."""
        return replace(self.engine, decode_steps=1)

    @cached_property
    def _shards(self) -> int:
        return num_shards(self.mesh)

    @property
    def _prompt(self) -> int:
        """Tokens of the longest prompt."""
        return self.engine.max_length - self.max_new_tokens

    def _load(self) -> Program:
        weights = bytes_per_device(self._compiled.weights)
        return Program(
            name="ppo weights for sampling",
            function=self._compiled.load,
            arguments=(self.params,),
            parts={"parameters": self.params},
            beside=self.beside_load,
            devices=self.mesh.size,
            work=Work(memory_bytes=bytes_per_device(self.params) + weights),
        )

    def _prefill(self) -> Program:
        chunk = self._engine.prefill_chunks[-1]
        flops = forward_flops(self.model, self._shards, chunk, predicted=0).total
        traffic = forward_bytes(self.model, chunk, tensor=self.mesh.shape["tensor"], logits=False)
        return Program(
            name=f"ppo prefill, {self._shards} x {chunk} tokens",
            function=self._compiled.prefill,
            arguments=self._arguments(empty_prefill_batch(self._engine, self._shards, chunk)),
            parts=self._parts(),
            beside=self.beside,
            devices=self.mesh.size,
            work=Work(flops, flops, traffic),
            runs_per_step=ceil(self.batch_size / self._shards) * ceil(self._prompt / chunk),
        )

    def _decode(self) -> Program:
        engine, shards = self._engine, self._shards
        slots = shards * engine.slots_per_shard(shards)
        # Two pages of a shard are the null page and the one for a copy of the end of a prompt.
        longest = (engine.pages_per_shard(shards) - 2) // engine.pages_for(engine.max_length)
        at_once = min(slots, shards * longest)
        flops = decode_flops(self.model, at_once, self._prompt + self.max_new_tokens // 2).total
        rows = at_once / self.mesh.size  # of one device, if its heads were whole: these are split too
        context = self._prompt + self.max_new_tokens / 2
        traffic = bytes_per_device(self._compiled.weights) + rows * cache_bytes(self.model, context)
        return Program(
            name=f"ppo decode, {slots} x 1 token",
            function=self._compiled.decode,
            arguments=self._arguments(empty_decode_batch(engine, slots)),
            parts=self._parts(),
            beside=self.beside,
            devices=self.mesh.size,
            work=Work(flops, flops, traffic),
            runs_per_step=ceil(self.batch_size / at_once) * self.max_new_tokens,
        )

    def _arguments(self, batch: PyTree) -> tuple[Any, ...]:
        everywhere = replicated(self.mesh)
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), batch
        )
        return self._compiled.weights, self._compiled.cache, shapes

    def _parts(self) -> Mapping[str, PyTree]:
        return {"parameters": self._compiled.weights, "cache": self._compiled.cache}
