"""Training at Qwen2.5-7B's layer shapes on one GPU: our step beside transformers + torch, one after the other.

    python -m experiments.benchmarks.training_7b                  # H100 or H200; under 8 minutes
    python -m experiments.benchmarks.training_7b --tiny           # any machine, seconds: shows that it runs

As many layers as fit with fp32 parameters, gradients and Adam moments; rows of 4,096 tokens, one document each; bf16
computation; gradients of `--micro_batches` rows summed for each optimiser step; clipping by global norm. Ours: cuDNN
attention, chunked cross-entropy. Theirs: sdpa attention, bf16 autocast, fused AdamW. Each runs in a process of its own,
because each wants the whole memory. MFU counts model FLOPs with causal attention (`mlagent_jax.planner.flops`),
embedding lookups as nothing, rematerialised work as nothing. Bar: 55% of the bf16 peak.

Needs jax, flax, optax, torch and transformers, and no network.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from absl import flags

from experiments.cli.program import run_program
from mlagent_jax.models.config import Qwen2Config, qwen2_5
from mlagent_jax.planner.chips import CHIPS
from mlagent_jax.planner.flops import forward_flops, training_flops

LENGTH = flags.DEFINE_integer("length", 4096, "Tokens in a row.")
MICRO_BATCHES = flags.DEFINE_integer(
    "micro_batches", 8, "Rows in an optimiser step, one at a time.", lower_bound=1
)
LAYERS = flags.DEFINE_integer("layers", 0, "Layers of the model; 0 for as many as fit.")
REMAT = flags.DEFINE_string("remat", "none", "What our backward pass computes again.")
REPEATS = flags.DEFINE_integer("repeats", 9, "Timed steps of each, after one to compile and one to warm up.")
TINY = flags.DEFINE_bool("tiny", False, "A toy model, to see that the script runs.")
SIDE = flags.DEFINE_enum(
    "side", "", ["", "ours", "theirs"], "Only this side, with a line of JSON for the result."
)

BAR = 0.55
_BYTES_PER_PARAMETER = 22  # fp32 parameter, two moments, gradient and its sum, bf16 copy
_ACTIVATIONS = 12e9  # of one row without rematerialisation, logits and workspaces


@dataclass(frozen=True)
class Result:
    """seconds: of each timed step. layers: how many the model had."""

    seconds: list[float]
    layers: int
    device: str

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def main(argv: Sequence[str]) -> None:
    del argv
    if SIDE.value:
        run = _ours if SIDE.value == "ours" else _theirs
        print(json.dumps(vars(run())))
        return
    ours = _in_a_process("ours", LAYERS.value)
    theirs = _in_a_process("theirs", ours.layers)
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "torch", "transformers"))
    tokens = _length() * MICRO_BATCHES.value
    print(f"{ours.device}; {packages}; load average {os.getloadavg()[0]:.1f}")
    print(
        f"{ours.layers} layers, {MICRO_BATCHES.value} x {_length()} tokens a step, medians of {REPEATS.value} steps"
    )
    for name, result in (("ours", ours), ("torch", theirs)):
        spread = f"{min(result.seconds):.3f} to {max(result.seconds):.3f}"
        print(
            f"{name:<6}{result.median:>9.3f} s ({spread}) {tokens / result.median:>12,.0f} tokens/s  MFU {_mfu(result)}"
        )
    print(f"ratio: {theirs.median / ours.median:.2f} times as fast as torch")
    print(f"bar: {BAR:.0%} MFU: {_verdict(ours)}")


def _in_a_process(side: str, layers: int) -> Result:
    given = [f"--{flag.name}={flag.value}" for flag in (LENGTH, MICRO_BATCHES, REMAT, REPEATS, TINY)]
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarks.training_7b",
        *given,
        f"--side={side}",
        f"--layers={layers}",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def _length() -> int:
    return 64 if TINY.value else LENGTH.value


def _model(layers: int) -> Qwen2Config:
    if TINY.value:
        return Qwen2Config(
            vocab_size=128,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention="xla",
        )
    full = qwen2_5("7b", attention="cudnn", dtype="bfloat16", remat=REMAT.value, logits_chunk=2048)
    return full.replace(num_hidden_layers=layers)


def _layers_that_fit(memory: float) -> int:
    if TINY.value:
        return 2
    one, two = (_model(layers).num_parameters for layers in (1, 2))
    layer, ends = two - one, one - (two - one)  # ends: embedding and unembedding
    layers = int((memory - _ACTIVATIONS - ends * _BYTES_PER_PARAMETER) / (layer * _BYTES_PER_PARAMETER))
    if layers < 1:
        raise SystemExit(
            f"{memory / 1e9:.0f} GB of memory hold no layer of a 7B with its optimiser; try --tiny"
        )
    return min(layers, qwen2_5("7b").num_hidden_layers)


def _mfu(result: Result) -> str:
    share = _share(result)
    return "-" if share is None else f"{share:.1%}"


def _share(result: Result) -> float | None:
    """The share of the device's bf16 peak; None for a device whose peak we do not know."""
    peak = next(
        (chip.flops for kind, chip in CHIPS.items() if chip.cores and kind.upper() in result.device), None
    )
    model = _model(result.layers)
    flops = training_flops(model, forward_flops(model, MICRO_BATCHES.value, _length()))
    return None if peak is None else flops / result.median / peak


def _verdict(ours: Result) -> str:
    share = _share(ours)
    if share is None or TINY.value:
        return "not judged here"
    return "met" if share >= BAR else "MISSED"


def _timed(step: Callable[[], object]) -> list[float]:
    """`step` must return only when its work is done."""
    step(), step()
    seconds = []
    for _ in range(REPEATS.value):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds


def _ours() -> Result:
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mlagent_jax.models.qwen2 import abstract_params, init_params
    from mlagent_jax.models.sharding import param_shardings
    from mlagent_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, put
    from mlagent_jax.sft.step import compile_train_step
    from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser
    from mlagent_jax.training.state import TrainState, state_shardings

    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    layers = LAYERS.value or _layers_that_fit(memory)
    model, mesh = _model(layers), make_mesh(MeshConfig(), [device])
    optimiser = make_optimiser(OptimiserConfig(learning_rate=1e-5), 1000)
    shardings = param_shardings(model, mesh)
    states = state_shardings(abstract_params(model), shardings, optimiser, mesh)

    def fresh() -> TrainState:
        params = init_params(model, 0)
        return TrainState(params, optimiser.init(params), jnp.int32(0))

    state = jax.jit(fresh, out_shardings=states)()
    step = compile_train_step(model, optimiser, states)
    tokens = np.random.default_rng(0).integers(
        0, model.vocab_size, (MICRO_BATCHES.value, 1, _length() + 1), np.int32
    )
    positions = np.broadcast_to(np.arange(_length(), dtype=np.int32), tokens[..., 1:].shape)
    rows: dict[str, Any] = {
        "tokens": tokens[..., :-1],
        "targets": tokens[..., 1:],
        "positions": positions,
        "segment_ids": np.ones_like(positions),
        "action": np.ones(positions.shape, bool),
    }
    batch = put(rows, batch_sharding(mesh, leading=1))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    return Result(_timed(run), layers, device.device_kind)


def _theirs() -> Result:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM
    from transformers import Qwen2Config as TheirConfig

    device = "cuda" if torch.cuda.is_available() and not TINY.value else "cpu"
    model = _model(LAYERS.value)
    fields = {
        name: value for name, value in model.to_hf().items() if name not in ("architectures", "torch_dtype")
    }
    with torch.device(device):
        theirs = AutoModelForCausalLM.from_config(TheirConfig(**fields), attn_implementation="sdpa")
    theirs = theirs.float().train()
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=1e-5, weight_decay=0.0, fused=device == "cuda")
    shape = (MICRO_BATCHES.value, 1, _length() + 1)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, model.vocab_size, shape)).to(device)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        for row in tokens:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                logits = theirs(input_ids=row[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), row[:, 1:].flatten())
            (loss / len(tokens)).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return Result(_timed(run), LAYERS.value, name)


if __name__ == "__main__":
    run_program(main)
