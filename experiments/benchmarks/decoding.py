"""Generation on a CPU: our engine beside `transformers.generate`, in one run.

    python -m experiments.benchmarks.decoding --repeats=5            # needs torch: pip install -e '.[parity]'
    python -m experiments.benchmarks.decoding --model=FOLDER         # another model, such as SmolLM2-135M
    python -m experiments.benchmarks.decoding --static               # one static batch; reading and decoding apart
    python -m experiments.benchmarks.decoding --reuse                # what samples and next turns of a prompt cost
    python -m experiments.benchmarks.decoding --arrivals             # how long prompts hold up an answer under way

Prompts of 64 to 1,024 tokens mixed and 64 tokens sampled after each at temperature 0.8, no stop, so that both do the
same work. Twice as many requests as slots: ours arrive as slots become free, theirs come in two static batches, padded
to the longest, which is the best case of `generate`. Bar: twice its generated tokens/s at batch 1, 8 and 32.
With --static: as many prompts of 300 tokens as slots. Decoding is the time for 65 tokens less that for one, which is
that of reading the prompts. Bar: decoding at twice its tokens/s at batch 1 and 8.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from absl import flags

from experiments.benchmarks.side_by_side import HEADER, compare, quickstart_model, torch_twin
from experiments.cli.program import run_program
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.request import Request
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_hf
from mlagent_jax.models.params import Params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh

REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each kind; they take turns.", lower_bound=1)
MODEL = flags.DEFINE_string("model", "", "A Hugging Face folder; the quickstart's model where there is none.")
BATCHES = flags.DEFINE_multi_integer("batches", [1, 8, 32], "Slots, and rows of a static batch.")
STATIC = flags.DEFINE_bool("static", False, "Measure one static batch instead, reading and decoding apart.")
REUSE = flags.DEFINE_bool("reuse", False, "Measure reuse of prompts instead.")
ARRIVALS = flags.DEFINE_bool("arrivals", False, "Measure how long prompts hold up an answer instead.")
LONGEST, NEW, STATIC_PROMPT = 1024, 64, 300
SAMPLING = SamplingParams(temperature=0.8)
BAR, SAMPLES_BAR = 2.0, 1.3


def main(argv: Sequence[str]) -> None:
    del argv
    config, params = load_hf(MODEL.value) if MODEL.value else quickstart_model()
    print(f"medians of {REPEATS.value} runs, load average {os.getloadavg()[0]:.1f}")
    if REUSE.value:
        _reuse(config, params)
        return
    if ARRIVALS.value:
        _arrivals(config, params)
        return
    twin = torch_twin(config, params).eval()
    print(HEADER)
    if STATIC.value:
        _static(config, params, twin)
        return
    ratios = []
    for batch in BATCHES.value:
        prompts = _prompts(config, 2 * batch)
        compared = compare(
            _ours(config, params, prompts, batch), _theirs(twin, prompts, batch), REPEATS.value
        )
        ratios.append(compared.ratio)
        print(compared.row(f"batch {batch}", len(prompts) * NEW), flush=True)
    print(f"bar: {BAR} times the tokens/s at every batch: {'met' if min(ratios) >= BAR else 'MISSED'}")


def _prompts(config: Qwen2Config, count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.geomspace(64, LONGEST, count).astype(int))
    return [rng.integers(0, config.vocab_size, length).tolist() for length in lengths]


def _engine(config: Qwen2Config, params: Params, slots: int, max_length: int) -> Engine:
    engine = Engine(config, EngineConfig(slots=slots, max_length=max_length), make_mesh(MeshConfig()))
    engine.load(params)
    return engine


def _static(config: Qwen2Config, params: Params, twin: Any) -> None:
    ratios = {}
    for batch in BATCHES.value:
        prompts = np.random.default_rng(0).integers(0, config.vocab_size, (batch, STATIC_PROMPT)).tolist()
        whole, reading = (
            compare(
                _ours(config, params, prompts, batch, new), _theirs(twin, prompts, batch, new), REPEATS.value
            )
            for new in (NEW + 1, 1)
        )
        decoding = whole.less(reading)
        ratios[batch] = decoding.ratio
        print(reading.row(f"batch {batch}, prompts", batch * STATIC_PROMPT))
        print(decoding.row(f"batch {batch}, decoding", batch * NEW), flush=True)
    met = all(ratios[batch] >= BAR for batch in (1, 8) if batch in ratios)
    print(f"bar: decoding at {BAR} times the tokens/s at batch 1 and 8: {'met' if met else 'MISSED'}")


def _ours(
    config: Qwen2Config, params: Params, prompts: list[list[int]], batch: int, new: int = NEW
) -> Callable[[], object]:
    engine = _engine(config, params, batch, LONGEST + NEW)
    runs = itertools.count()

    def run() -> None:
        shift = next(runs)  # nothing is found from the run before
        fresh = [[(token + shift) % config.vocab_size for token in prompt] for prompt in prompts]
        made = engine.generate(fresh, range(len(fresh)), new, sampling=SAMPLING)
        assert all(len(answer.tokens) == new for answer in made)

    return run


def _theirs(model: Any, prompts: list[list[int]], batch: int, new: int = NEW) -> Callable[[], object]:
    import torch

    settings = {"do_sample": True, "temperature": SAMPLING.temperature, "top_k": 0, "top_p": 1.0}

    def padded(rows: list[list[int]]) -> tuple[Any, Any]:
        longest = max(map(len, rows))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        return tokens, torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])

    def run() -> None:
        for start in range(0, len(prompts), batch):
            tokens, mask = padded(prompts[start : start + batch])
            with torch.inference_mode():
                made = model.generate(
                    tokens,
                    attention_mask=mask,
                    max_new_tokens=new,
                    min_new_tokens=new,
                    eos_token_id=None,
                    pad_token_id=0,
                    **settings,
                )
            assert made.shape[1] == tokens.shape[1] + new

    return run


def _reuse(config: Qwen2Config, params: Params) -> None:
    """Time to one token after a prompt of 1,000, for 1 and for 8 samples; then a next turn of 4,000 tokens."""
    engine = _engine(config, params, 8, 4600)
    prompt = np.random.default_rng(0).integers(0, config.vocab_size, 4300).tolist()

    def seconds(tokens: list[int], samples: int, fresh: bool = True) -> float:
        if fresh:
            engine.load(params)
        request = Request(tuple(tokens), tuple(range(samples)), 1, (), SAMPLING)
        begun = time.perf_counter()
        engine.submit(request)
        while not engine.idle:
            engine.step()
        return time.perf_counter() - begun

    def median(measure: Callable[[], float]) -> float:
        measure()
        return statistics.median(measure() for _ in range(REPEATS.value))

    one, eight = (median(partial(seconds, prompt[:1000], samples)) for samples in (1, 8))
    print(
        f"8 samples of 1,000 tokens: {eight / one:.2f} prefills (at most {SAMPLES_BAR}: {_met(eight / one)})"
    )

    def next_turn() -> float:
        engine.load(params)
        seconds(prompt[:4000], 1, fresh=False)
        before = engine.counts.prefilled
        taken = seconds(prompt, 1, fresh=False)
        print(f"  of 4,300 tokens, 4,000 of them read before, {engine.counts.prefilled - before} were read")
        return taken

    whole = median(lambda: seconds(prompt, 1))
    print(f"the next turn takes {median(next_turn) / whole:.2f} of reading it all")


def _arrivals(config: Qwen2Config, params: Params) -> None:
    """One answer under way as 8 prompts of 1,024 tokens arrive: how it goes on, and when the last of them has begun."""
    rng = np.random.default_rng(0)
    listened, *others = (
        Request(tuple(rng.integers(0, config.vocab_size, length)), (0,), new, (), SAMPLING)
        for length, new in [(LONGEST, 512)] + 8 * [(LONGEST, NEW)]
    )

    def measure(engine: Engine, arriving: Sequence[Request]) -> tuple[float, float]:
        """Seconds: the answer's longest wait for a token, and until the last arrival has its first."""
        engine.load(params)
        (sample,) = engine.submit(listened)
        engine.step()
        samples = [engine.submit(request)[0] for request in arriving]
        begun = before = time.perf_counter()
        longest = last = 0.0
        while not sample.finished or not all(each.tokens for each in samples):
            engine.step()
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
            last = last or (now - begun if all(each.tokens for each in samples) else 0.0)
        for each in samples:
            engine.cancel(each)
        return longest, last

    for name, most, arriving in (
        ("nobody", 0, []),
        ("8, unbounded", 0, others),
        ("8, one a step", 1, others),
    ):
        sizes = EngineConfig(slots=16, max_length=LONGEST + 512, max_prefills_per_step=most)
        engine = Engine(config, sizes, make_mesh(MeshConfig()))
        measure(engine, arriving)
        longest, last = np.median([measure(engine, arriving) for _ in range(REPEATS.value)], axis=0)
        print(
            f"arriving: {name:<14} longest wait {longest * 1e3:6.0f} ms, all begun after {last * 1e3:6.0f} ms"
        )


def _met(ratio: float) -> str:
    return "met" if ratio <= SAMPLES_BAR else "MISSED"


if __name__ == "__main__":
    keep_freed_memory()  # as experiments.run does; torch has its part of it
    run_program(main)
