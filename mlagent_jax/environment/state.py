"""States, actions and outcomes of the ML-engineering MDP (arXiv 2505.23723, section 3).

`EnvState` is small and serialisable: the workspace itself lies in the content-addressed snapshot store, so any
stored state can be restored exactly, which step-wise RL needs.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """Classes of feedback that the reward is defined over (paper-level names in brackets)."""

    MALFORMED = "malformed"  # the response could not be parsed into an allowed action [a not in A_valid]
    ERROR = "error"  # allowed, but the tool or the script failed [F_error]
    CORNER = "corner"  # time, memory, processes or disk ran out [F_corner]
    NEUTRAL = "neutral"  # a valid action that edits nothing
    SUCCESS = "success"  # an edit whose script ran and whose submission was graded [A_edit, F_success]
    INFRASTRUCTURE = "infrastructure"  # our own fault: masked out and counted, never rewarded


# Status of a script that ended well and left a submission that is not valid: a judgement, which no sandbox makes.
INVALID_OUTPUT = "invalid_output"


@dataclass(frozen=True)
class Action:
    """A tool call: one of the seven tool names and its arguments, as parsed and not yet checked."""

    tool: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Malformed:
    """A response that is not an action; `feedback` tells the agent what was wrong and what is expected."""

    feedback: str


@dataclass(frozen=True)
class EnvState:
    """Where an episode stands before an action.

    snapshot: id of the workspace in the snapshot store.
    public_score, private_score: of the workspace's last valid submission; the starter's before any (m_init).
    graded: whether a submission of the agent's own has been graded yet.
    steps, seconds: spent so far; `seconds` is execution time as recorded with the (possibly cached) results.
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
    """What one action led to.

    feedback: the full text for the agent. diff: unified diff of an edit, else "".
    output: what an executed script printed, else "". status: the sandbox's of that execution, or INVALID_OUTPUT, or "".
    m_before, m_after: public scores m_t and m_{t+1} that the reward is computed from.
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
