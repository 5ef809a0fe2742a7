"""Decoding with the quickstart's model: our sampler beside `transformers.generate`, in one run.

    python -m experiments.benchmarks.decoding --repeats=9         # needs torch: pip install -e '.[parity]'

Prompts of 300 tokens and 64 tokens sampled after them at temperature 0.8, no stop, so that both do the same work; one
static batch, which is the best case of `generate`. Decoding alone is the time for 65 tokens less the time for one,
which is that of reading the prompts. Bar: decode at twice its tokens/s, at batch 1 and 8.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from experiments.benchmarks.side_by_side import HEADER, compare, quickstart_model, torch_twin
from mlagent_jax.generate.sampler import Sampler
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params

REPEATS = flags.DEFINE_integer("repeats", 9, "Timed batches of each kind; they take turns.", lower_bound=1)
BATCHES = (1, 8, 32)
JUDGED = (1, 8)
PROMPT, NEW, TEMPERATURE = 300, 64, 0.8
BAR = 2.0


def main(argv: Sequence[str]) -> None:
    del argv
    config, params = quickstart_model()
    twin = torch_twin(config, params).eval()
    print(f"{REPEATS.value} batches of each kind, load average {os.getloadavg()[0]:.1f}\n{HEADER}")
    ratios = {}
    for batch in BATCHES:
        prompts = np.random.default_rng(0).integers(0, config.vocab_size, (batch, PROMPT))
        whole, reading = (
            compare(_ours(config, params, prompts, new), _theirs(twin, prompts, new), REPEATS.value)
            for new in (NEW + 1, 1)
        )
        decoding = whole.less(reading)
        ratios[batch] = decoding.ratio
        print(reading.row(f"batch {batch}, prompts", batch * PROMPT))
        print(decoding.row(f"batch {batch}, decoding", batch * NEW))
        print(whole.row(f"batch {batch}, both", batch * (PROMPT + NEW + 1)), flush=True)
    met = min(ratios[batch] for batch in JUDGED) >= BAR
    print(
        f"bar: decoding at {BAR} times the tokens/s at batch {' and '.join(map(str, JUDGED))}: "
        f"{'met' if met else 'MISSED'}"
    )


def _ours(config: Qwen2Config, params: Params, prompts: np.ndarray, new: int) -> Callable[[], object]:
    sampler = Sampler(config, buckets=(320,), batch_size=len(prompts), max_new_tokens=new, stop_ids=())
    return lambda: sampler.generate(params, prompts.tolist(), range(len(prompts)), temperature=TEMPERATURE)


def _theirs(model: Any, prompts: np.ndarray, new: int) -> Callable[[], object]:
    import torch

    inputs = torch.from_numpy(prompts)
    settings = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}

    def run() -> None:
        with torch.inference_mode():
            made = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=new,
                min_new_tokens=new,
                eos_token_id=None,
                **settings,
            )
        assert made.shape[1] == PROMPT + new

    return run


if __name__ == "__main__":
    keep_freed_memory()  # as experiments.run does; torch has its part of it
    app.run(main)
