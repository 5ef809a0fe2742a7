"""States, actions and outcomes of the ML-engineering MDP (arXiv 2505.23723, section 3).

`EnvState` is small and serialisable. The workspace itself is in the content-addressed snapshot store, so any stored
state can be restored exactly, as step-wise RL requires.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """The classes of feedback that the reward is defined on, with the paper's symbols in brackets."""

    MALFORMED = "malformed"  # the response could not be parsed into an allowed action [a not in A_valid]
    ERROR = "error"  # allowed, but the tool or the script failed [F_error]
    CORNER = "corner"  # time, memory, processes or disk ran out [F_corner]
    NEUTRAL = "neutral"  # a valid action that edits nothing
    SUCCESS = "success"  # an edit whose script ran and whose submission was graded [A_edit, F_success]
    INFRASTRUCTURE = "infrastructure"  # not the agent's fault: masked out and counted, never rewarded


# The status of a script that succeeded but wrote an invalid submission. Grading finds this, not the sandbox.
INVALID_OUTPUT = "invalid_output"


@dataclass(frozen=True)
class Action:
    """A tool call as parsed: a name and arguments, neither of which is checked yet."""

    tool: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Malformed:
    """A response that is not a valid action. feedback: tells the agent what is wrong and what is expected."""

    feedback: str


@dataclass(frozen=True)
class EnvState:
    """The state of an episode before an action.

    snapshot: id of the workspace in the snapshot store.
    public_score, private_score: of the workspace's last valid submission; the starter's before any (m_init).
    graded: whether a submission of the agent, not just the starter's, has been graded.
    steps, seconds: used so far. `seconds` is execution time as recorded with the results, which may be cached.
    done: why the episode has ended ("final_answer", "step_limit", "time_limit", "context_limit"), or "".
    """

    snapshot: str
    public_score: float
    private_score: float
    graded: bool = False
    steps: int = 0
    seconds: float = 0.0
    done: str = ""


@dataclass(frozen=True)
class Transition:
    """The result of one action.

    state: the state after it. feedback: the full text for the agent.
    diff: the unified diff of an edit, else "". output: what an executed script printed, else "".
    status: the sandbox's status of that execution, or INVALID_OUTPUT; "" if nothing was executed.
    m_before, m_after: the public scores m_t and m_{t+1} that the reward is computed from.
    cached: whether the execution came from the cache.
    """

    state: EnvState
    outcome: Outcome
    feedback: str
    m_before: float
    m_after: float
    diff: str = ""
    output: str = ""
    status: str = ""
    cached: bool = False
