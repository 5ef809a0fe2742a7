"""The JAX policy: a prompt format, a tokenizer and an engine behind the interface of all agents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.text.chat import encode_prompt, response_text
from mlagent_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelPolicy:
    """Samples responses with the weights that `engine` has loaded.

    Prompts contain earlier responses as the token ids that were sampled, never re-encoded from text. Each response
    depends only on its situation, which includes the seed, and not on the rest of the batch.
    """

    name: str
    engine: Engine
    tokenizer: Tokenizer
    form: PromptFormat
    max_new_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)

    writes_free_code = False  # it writes instructions; the coder writes code

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.tokenizer.stop_ids

    def with_sampling(self, temperature: float) -> ModelPolicy:
        """A copy with this temperature and no truncation, so that a trainer can recompute its log-probs."""
        return dataclasses.replace(self, sampling=SamplingParams(temperature))

    def prompt(self, situation: Situation) -> Int32[np.ndarray, " T"]:
        """The token ids that the model reads before it responds."""
        return encode_prompt(self.tokenizer, messages(self.form, situation))

    def fits(self, situation: Situation) -> bool:
        return len(self.prompt(situation)) + self.max_new_tokens <= self.engine.config.max_length

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        generations = self.engine.generate(
            [self.prompt(situation).tolist() for situation in situations],
            [response_seed(situation) for situation in situations],
            self.max_new_tokens,
            self.stop_ids,
            self.sampling,
        )
        return [
            Response(response_text(self.tokenizer, answer.tokens), answer.tokens, answer.logprobs)
            for answer in generations
        ]


def response_seed(situation: Situation) -> int:
    """A seed in [0, 2^32) from the episode's seed and the step, so that every step has its own randomness."""
    return int(np.random.SeedSequence([situation.seed, len(situation.steps)]).generate_state(1)[0])
