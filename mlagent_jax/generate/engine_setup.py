"""What the engine's programs are compiled for."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.paged_attention import BlockSizes
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.parallel.rules import RULES

# Bytes of keys and values that decoding attends to at a time on a CPU: the best value for models of 1 to 135 million
# parameters on a core with 2 MiB of second-level cache.
_CPU_WORKING_SET = 256 * 1024


@dataclass(frozen=True)
class EngineSetup:
    """A model, the engine's sizes and the mesh."""

    model: Qwen2Config
    engine: EngineConfig
    mesh: Mesh

    @property
    def shards(self) -> int:
        return num_shards(self.mesh)

    @property
    def tensor(self) -> int:
        """Devices over which heads are split."""
        return self.mesh.shape["tensor"]

    @property
    def decode_block_sizes(self) -> BlockSizes:
        """All slots at a time on an accelerator; on a CPU as many as keep keys and values within its cache."""
        if not self._on_cpu:
            return BlockSizes(self.engine.pages_per_block)
        element = jnp.dtype(self.model.dtype).itemsize
        page = 2 * self.engine.page_size * self.model.num_key_value_heads * self.model.head_dim * element
        pages = max(1, _CPU_WORKING_SET // page)
        kv_pages = self._kv_pages(pages)
        return BlockSizes(kv_pages, rows=pages // kv_pages)

    def prefill_block_sizes(self, chunk: int) -> BlockSizes:
        """Blocks of, on a CPU, no more keys than the chunk has tokens: half of its own keys are masked as it is."""
        if not self._on_cpu:
            return BlockSizes(self.engine.pages_per_block)
        return BlockSizes(self._kv_pages(chunk // self.engine.page_size))

    def _kv_pages(self, most: int) -> int:
        """The largest divisor of the engine's block of keys, in pages, that is at most `most`."""
        whole = self.engine.pages_per_block
        return max(n for n in range(1, whole + 1) if whole % n == 0 and n <= most)

    @property
    def _on_cpu(self) -> bool:
        return bool(self.mesh.devices.flat[0].platform == "cpu")


def num_shards(mesh: Mesh) -> int:
    """Groups of devices that have their own slots and pages."""
    return int(np.prod([mesh.shape[axis] for axis in RULES["slots"] or ()]))
