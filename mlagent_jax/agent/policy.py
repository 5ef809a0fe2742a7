"""The interface of all agents: experts, baselines, our model and remote endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mlagent_jax.agent.trajectory import Step
from mlagent_jax.llm.backend import Usage
from mlagent_jax.tasks.task import Task


@dataclass(frozen=True)
class Situation:
    """Everything that an agent may know before it acts: s_t = (s_0, a_0, f_0, ..., a_{t-1}, f_{t-1}).

    seed: of the agent's randomness in this episode. Seed and `len(steps)` determine the response, whatever else is in
        the batch, so that a resumed run gives the same results.
    """

    task: Task
    steps: tuple[Step, ...]
    ideas: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Response:
    """An agent's response. tokens, logprobs: as in `Step`. usage: of a remote model, else None."""

    text: str
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    usage: Usage | None = None


class Policy(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def writes_free_code(self) -> bool:
        """Whether its actions can put arbitrary code into a workspace, which requires an isolated sandbox."""
        ...

    def fits(self, situation: Situation) -> bool:
        """False once the history leaves no room for a response, which ends the episode with "context_limit"."""
        ...

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        """One response per situation. Each depends only on its own situation, including the seed."""
        ...


@runtime_checkable
class RemotePolicy(Policy, Protocol):
    """A policy that a server answers for, so that nothing is gained by asking it in batches."""

    @property
    def parallel(self) -> int:
        """How many answers it can be asked for at once."""
        ...

    def respond_to(self, situation: Situation) -> Response:
        """As `respond`, for a single situation. Thread-safe."""
        ...
