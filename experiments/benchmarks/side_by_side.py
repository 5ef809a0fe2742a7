"""Two ways of doing the same work, timed in turns, so that whatever else the machine does meets both alike."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.configs import quickstart
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import save_hf
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import init_params


@dataclass(frozen=True)
class Comparison:
    """Seconds of each repeat, in order."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """How many times as fast as theirs ours is: the median over repeats."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def less(self, part: Comparison) -> Comparison:
        """The work without a part of it that was timed alone."""
        return Comparison(
            *(
                [whole - statistics.median(alone) for whole in seconds]
                for seconds, alone in ((self.ours, part.ours), (self.theirs, part.theirs))
            )
        )

    def row(self, name: str, tokens: int) -> str:
        """tokens: that one repeat works through."""
        rates = [tokens / statistics.median(seconds) for seconds in (self.ours, self.theirs)]
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        return f"{name:<24}{rates[0]:>12,.0f}{rates[1]:>12,.0f}{self.ratio:>9.2f}   {spread}"


HEADER = f"{'tokens/s':<24}{'ours':>12}{'torch':>12}{'ratio':>9}   least to most"


def compare(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> Comparison:
    """Each must return only when its work is done; each runs once before to compile and warm up."""
    ours(), theirs()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, taken in zip((ours, theirs), seconds, strict=True):
            begun = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begun)
    return Comparison(*seconds)


def quickstart_model(seed: int = 0) -> tuple[Qwen2Config, Params]:
    """The quickstart's architecture with fresh parameters."""
    settings = quickstart.get_config().model
    config = Qwen2Config(vocab_size=settings.vocab_size, **settings.shape.to_dict())
    return config, init_params(config, seed)


def torch_twin(config: Qwen2Config, params: Params) -> Any:
    """The same model and weights in `transformers`, on as many threads as there are processors."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        save_hf(folder, config, params)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
