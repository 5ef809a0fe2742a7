"""Training the quickstart's model: our SFT step beside transformers + torch on the same weights, in one run.

    python -m experiments.benchmarks.training --repeats=15        # needs torch: pip install -e '.[parity]'

One optimiser step (AdamW, clipping by global norm) on 8 rows of 512 tokens, float32. Each row is one document,
which is torch's best case: its attention needs no mask then. Bar: 0.8 times torch's tokens/s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments.benchmarks.side_by_side import HEADER, compare, quickstart_model, torch_twin
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, param_shardings, put
from mlagent_jax.sft.step import compile_train_step
from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser
from mlagent_jax.training.state import init_state, state_shardings

REPEATS = flags.DEFINE_integer("repeats", 15, "Timed steps of each; they take turns.", lower_bound=1)
ROWS, LENGTH = 8, 512
BAR = 0.8


def main(argv: Sequence[str]) -> None:
    del argv
    config, params = quickstart_model()
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (ROWS, LENGTH + 1)).astype(np.int32)
    theirs = _torch_step(torch_twin(config, params), tokens)
    result = compare(_jax_step(config, params, tokens), theirs, REPEATS.value)
    print(f"{REPEATS.value} steps of each, load average {os.getloadavg()[0]:.1f}\n{HEADER}")
    print(result.row(f"{ROWS} rows of {LENGTH}", ROWS * LENGTH))
    print(f"bar: {BAR} times torch's tokens/s: {'met' if result.ratio >= BAR else 'MISSED'}")


def _jax_step(config: Qwen2Config, params: Params, tokens: np.ndarray) -> Callable[[], object]:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shardings = param_shardings(config, mesh)
    optimiser = make_optimiser(OptimiserConfig(learning_rate=1e-5, weight_decay=0.01), 1000)
    step = compile_train_step(config, optimiser, state_shardings(params, shardings, optimiser, mesh))
    batch: Any = {
        "tokens": tokens[None, :, :-1],
        "targets": tokens[None, :, 1:],
        "positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (1, ROWS, LENGTH)),
        "segment_ids": np.ones((1, ROWS, LENGTH), np.int32),
        "action": np.ones((1, ROWS, LENGTH), bool),
    }
    state = init_state(put(params, shardings), shardings, optimiser, mesh)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    return run


def _torch_step(model: Any, tokens: np.ndarray) -> Callable[[], object]:
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01)
    inputs = torch.from_numpy(tokens[:, :-1].astype(np.int64))
    targets = torch.from_numpy(tokens[:, 1:].astype(np.int64)).reshape(-1)
    model.train()

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        logits = model(input_ids=inputs, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return run


if __name__ == "__main__":
    keep_freed_memory()  # as experiments.run does; torch has its part of it
    app.run(main)
