"""Trajectories as they are stored: one JSON object a line, every number of the report traceable to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlagent_jax.environment.state import Action, EnvState, Outcome

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Step:
    """One turn of an episode: the state before, what the agent said, what came of it.

    tokens, logprobs: the sampled response ids (T_action,), end-of-turn included, and their log-probs under the
        sampling distribution; None for agents that do not sample from our model. Ids are kept, never re-made
        from text.
    reward: by the run's reward form, and of a whole episode by its `episode_baseline`; None where the outcome is
        `INFRASTRUCTURE`.
    """

    before: EnvState
    response: str
    action: Action | None
    outcome: Outcome
    feedback: str
    after: EnvState
    reward: float | None
    m_before: float
    m_after: float
    diff: str = ""
    output: str = ""
    status: str = ""
    cached: bool = False
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Trajectory:
    """A whole episode.

    ideas: what the expert was primed with; never shown to the trained policy.
    public_score, private_score: of the final workspace's last valid submission, or the starter's (m_init).
    valid: whether a submission of the agent's own stands at the end.
    """

    task: str
    agent: str
    index: int
    seed: int
    ideas: tuple[str, ...]
    steps: tuple[Step, ...]
    m_init_public: float
    m_init_private: float
    public_score: float
    private_score: float
    valid: bool
    ended: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identifies the episode within its stage, so that a resumed stage does not repeat it."""
        return episode_key(self.agent, self.task, self.index)

    @property
    def is_masked(self) -> bool:
        """Whether a fault of ours is in it, so that it says nothing of the agent: it is counted, never scored."""
        return any(step.outcome is Outcome.INFRASTRUCTURE for step in self.steps)


def episode_key(agent: str, task: str, index: int) -> str:
    return f"{agent}/{task}/{index}"


def to_json(trajectory: Trajectory) -> dict[str, Any]:
    """A JSON-ready dictionary; `from_json` is its inverse."""
    record = asdict(trajectory)
    record["schema"] = SCHEMA_VERSION
    return record


def from_json(record: Mapping[str, Any]) -> Trajectory:
    """Raises KeyError, TypeError or ValueError for a record that is not of `SCHEMA_VERSION`'s form."""
    if record["schema"] != SCHEMA_VERSION:
        raise ValueError(f"trajectory schema {record['schema']}, but this version reads {SCHEMA_VERSION}")
    fields = {name: value for name, value in record.items() if name not in {"schema", "steps", "ideas"}}
    return Trajectory(**fields, ideas=tuple(record["ideas"]), steps=tuple(map(_step, record["steps"])))


def _step(record: Mapping[str, Any]) -> Step:
    values = dict(record)
    action = values["action"]
    values["action"] = None if action is None else Action(**action)
    values["outcome"] = Outcome(values["outcome"])
    values["before"] = EnvState(**values["before"])
    values["after"] = EnvState(**values["after"])
    for name in ("tokens", "logprobs"):
        values[name] = None if values[name] is None else tuple(values[name])
    return Step(**values)
