"""Training the quickstart's model: our SFT step beside transformers + torch on the same weights, in one run.

    python -m experiments.benchmarks.training --repeats=15        # needs torch: pip install -e '.[parity]'
    python -m experiments.benchmarks.training --handover          # from the trainer to the engine that samples

One optimiser step (AdamW, clipping by global norm) on 8 rows of 512 tokens, float32. Each row is one document,
which is torch's best case: its attention needs no mask then. Bar: 0.8 times torch's tokens/s.
With --handover: how much longer an engine of the quickstart's sampling takes to a first token where it takes new
weights before, its cache made anew as between PPO's updates. Bar: 5% of one such step.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.benchmarks.side_by_side import HEADER, compare, quickstart_model, torch_twin
from experiments.cli.program import run_program
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, param_shardings, put
from mlagent_jax.sft.step import compile_train_step
from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser
from mlagent_jax.training.state import init_state, state_shardings

REPEATS = flags.DEFINE_integer("repeats", 15, "Timed steps of each; they take turns.", lower_bound=1)
HANDOVER = flags.DEFINE_bool("handover", False, "Measure what new weights cost the engine instead.")
ROWS, LENGTH = 8, 512
BAR, HANDOVER_BAR = 0.8, 0.05


def main(argv: Sequence[str]) -> None:
    del argv
    config, params = quickstart_model()
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (ROWS, LENGTH + 1)).astype(np.int32)
    trainer = _Trainer(config, params, tokens)
    if HANDOVER.value:
        _handover(config, trainer)
        return
    theirs = _torch_step(torch_twin(config, params), tokens)
    result = compare(trainer.step, theirs, REPEATS.value)
    print(f"{REPEATS.value} steps of each, load average {os.getloadavg()[0]:.1f}\n{HEADER}")
    print(result.row(f"{ROWS} rows of {LENGTH}", ROWS * LENGTH))
    print(f"bar: {BAR} times torch's tokens/s: {'met' if result.ratio >= BAR else 'MISSED'}")


class _Trainer:
    """Our optimiser step, on one device."""

    def __init__(self, config: Qwen2Config, params: Params, tokens: np.ndarray):
        self.mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        shardings = param_shardings(config, self.mesh)
        optimiser = make_optimiser(OptimiserConfig(learning_rate=1e-5, weight_decay=0.01), 1000)
        shardings_of_state = state_shardings(params, shardings, optimiser, self.mesh)
        self._step = compile_train_step(config, optimiser, shardings_of_state)
        self._batch: Any = {
            "tokens": tokens[None, :, :-1],
            "targets": tokens[None, :, 1:],
            "positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (1, ROWS, LENGTH)),
            "segment_ids": np.ones((1, ROWS, LENGTH), np.int32),
            "action": np.ones((1, ROWS, LENGTH), bool),
        }
        self.state = init_state(put(params, shardings), shardings, optimiser, self.mesh)

    def step(self) -> None:
        self.state, metrics = self._step(self.state, self._batch)
        jax.block_until_ready((self.state, metrics))


def _handover(config: Qwen2Config, trainer: _Trainer) -> None:
    engine = Engine(config, EngineConfig(slots=32, max_length=LENGTH), trainer.mesh)

    def take_weights() -> None:
        engine.unload()
        engine.load(trainer.state.params)

    def first_token() -> None:
        engine.generate([[1]], [0], 1)

    def taken_by(*works: Callable[[], None]) -> float:
        begun = time.perf_counter()
        for work in works:
            work()
        return time.perf_counter() - begun

    rounds = []
    for _ in range(REPEATS.value + 1):
        step = taken_by(trainer.step)
        new = taken_by(take_weights, first_token)
        rounds.append((step, new - taken_by(first_token)))
    step, handover = (statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True))  # compiled
    share = handover / step
    print(f"medians of {REPEATS.value} rounds, load average {os.getloadavg()[0]:.1f}")
    print(f"a step takes {step * 1e3:.0f} ms, new weights {handover * 1e3:.1f} ms: {share:.1%} of it")
    print(f"bar: {HANDOVER_BAR:.0%} of a step: {'met' if share < HANDOVER_BAR else 'MISSED'}")


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
    run_program(main)
