"""The one interface behind which experts, baselines, our model and remote endpoints act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mlagent_jax.agent.trajectory import Step
from mlagent_jax.tasks.task import Task


@dataclass(frozen=True)
class Situation:
    """All that an agent may know before it acts: s_t = (s_0, a_0, f_0, ..., a_{t-1}, f_{t-1}).

    seed: fixes the agent's randomness in this episode; with `len(steps)` it fixes the response, whatever else is
        in the batch, so that a resumed run repeats nothing and differs in nothing.
    """

    task: Task
    steps: tuple[Step, ...]
    ideas: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Usage:
    """What an answer took: seconds, and tokens as its server counted them, 0 if it did not."""

    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Response:
    """What an agent said; `tokens` and `logprobs` as in `Step`. usage: of a remote model."""

    text: str
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    usage: Usage | None = None


class Policy(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def writes_free_code(self) -> bool:
        """Whether its actions can put code of its own making into a workspace (then isolation is required)."""
        ...

    def fits(self, situation: Situation) -> bool:
        """False once the history leaves no room for a response; the episode then ends with "context_limit"."""
        ...

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        """One response for each situation. Each depends on its own situation (seed included) alone."""
        ...
