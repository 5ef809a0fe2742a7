"""What an engine takes and returns: tokens in, tokens out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlagent_jax.finite import NotFiniteError
from mlagent_jax.generate.sampling import SamplingParams


class RequestError(ValueError):
    """A request that this engine cannot serve; the message says why."""


class LogitsNotFiniteError(NotFiniteError):
    """The model's logits are NaN or infinite, so nothing can be sampled from them."""


@dataclass(frozen=True)
class Request:
    """One prompt, to be answered once for each seed (taken modulo 2^32).

    stop_ids: tokens that end an answer. max_new_tokens: the greatest length of an answer. min_new_tokens: an answer has
    this many tokens before a stop id can be sampled.
    """

    prompt: tuple[int, ...]
    seeds: tuple[int, ...]
    max_new_tokens: int
    stop_ids: tuple[int, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    min_new_tokens: int = 0


@dataclass(frozen=True)
class Generation:
    """A finished answer.

    tokens: with the stop token, if there was one. logprobs: by the engine's logprobs_mode. stopped: False if the answer
    was cut off at max_new_tokens.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


class Sample:
    """An answer in progress; `tokens` and `logprobs` grow until `finished`. error: why it failed, if it did."""

    def __init__(self, request: Request, seed: int):
        self.request = request
        self.seed = seed % 2**32
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finished = False
        self.cancelled = False
        self.error: LogitsNotFiniteError | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self.request.prompt) + len(self.tokens)

    @property
    def last_token(self) -> int:
        """The last token of the answer, or of the prompt if the answer has none yet."""
        return (self.tokens or self.request.prompt)[-1]

    @property
    def remaining(self) -> int:
        return self.request.max_new_tokens - len(self.tokens)

    @property
    def stopped(self) -> bool:
        return bool(self.tokens) and self.tokens[-1] in self.request.stop_ids

    def extend(self, tokens: Sequence[int], logprobs: Sequence[float]) -> int:
        """Adds tokens up to the first whose log-prob is not finite, which fails the sample; returns how many."""
        valid = next((i for i, logprob in enumerate(logprobs) if not math.isfinite(logprob)), len(tokens))
        self.tokens += tokens[:valid]
        self.logprobs += logprobs[:valid]
        if valid < len(tokens):
            self.error = LogitsNotFiniteError(
                f"the model's logits are not finite (NaN or infinite) at token {len(self.tokens)} of an answer to a "
                f"prompt of {len(self.request.prompt)} tokens; the weights are damaged, have diverged or overflow "
                "their dtype: load other weights"
            )
        self.finished = self.stopped or not self.remaining or self.error is not None
        return valid

    @property
    def generation(self) -> Generation:
        return Generation(tuple(self.tokens), tuple(self.logprobs), self.stopped)
