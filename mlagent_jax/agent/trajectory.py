"""Trajectories and their stored form, one JSON object per line. Every number of the report comes from one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlagent_jax.environment.state import Action, EnvState, Outcome

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Step:
    """One turn of an episode: the state before it, the agent's response, and its result.

    action: None if the response is malformed. outcome, feedback, m_before, m_after, diff, output, status, cached: as in
        `Transition`.
    reward: in the run's reward form; in a whole episode, measured by its `episode_baseline`. None if the outcome is
        `INFRASTRUCTURE`.
    tokens, logprobs: the sampled ids of the response (T_action,), end of turn included, and their log-probs under the
        sampling distribution; None for agents that do not sample from our model. Ids are never re-encoded from text.
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

    ideas: those that the expert was given; never shown to a trained policy.
    public_score, private_score: of the last valid submission in the final workspace, or the starter's (m_init).
    valid: whether that submission is the agent's own.
    ended: why it ended; see `EnvState.done`, or "infrastructure".
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
        """Identifies the episode within its stage, so that a resumed stage does not run it again."""
        return episode_key(self.agent, self.task, self.index)

    @property
    def executions(self) -> int:
        """How many scripts the agent has had run, whether they succeeded or not."""
        return sum(bool(step.status) for step in self.steps)

    @property
    def is_masked(self) -> bool:
        """Whether an infrastructure fault occurred, so that it says nothing about the agent: counted, never scored."""
        return any(step.outcome is Outcome.INFRASTRUCTURE for step in self.steps)


def episode_key(agent: str, task: str, index: int) -> str:
    return f"{agent}/{task}/{index}"


def to_json(trajectory: Trajectory) -> dict[str, Any]:
    """The trajectory as a JSON-serialisable dictionary. `from_json` is the inverse."""
    record = asdict(trajectory)
    record["schema"] = SCHEMA_VERSION
    return record


def from_json(record: Mapping[str, Any]) -> Trajectory:
    """The trajectory in a record. Raises KeyError, TypeError or ValueError if it does not match `SCHEMA_VERSION`."""
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
