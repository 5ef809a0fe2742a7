"""A policy that reads its own history in wordings that no trajectory holds: does it understand them, or their sound?

The policy writes instructions itself, so there is no instruction of others that it could be given. What it reads are
its earlier instructions and the coder's suggestions. If it only knows these strings by heart, then its choice of the
next operation gets worse when they say the same in words that it has never seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.agent.policy import Policy, Response, Situation
from mlagent_jax.agent.trajectory import Step
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.pipelines.instructions import parse_instruction
from mlagent_jax.pipelines.pipeline import PipelineError

_QUOTED = re.compile(r"'([^'\n]+)'")


@dataclass(frozen=True)
class RewordedPolicy:
    """`policy`, which acts as it does, but for the wordings in its prompts; see `reworded`."""

    policy: Policy

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def writes_free_code(self) -> bool:
        return self.policy.writes_free_code

    def fits(self, situation: Situation) -> bool:
        return self.policy.fits(_reworded_situation(situation))

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        return self.policy.respond([_reworded_situation(situation) for situation in situations])


def reworded(instruction: str) -> str:
    """The same instruction in a wording that is kept from trajectories; itself if it has none, or is not understood."""
    try:
        found = parse_instruction(instruction)
    except PipelineError:
        return instruction
    if found is None or not found[0].held_out:
        return instruction
    operation, values = found
    place = hashlib.sha256(instruction.encode()).digest()[0]
    return operation.say(values, operation.held_out[place % len(operation.held_out)])


def _reworded_situation(situation: Situation) -> Situation:
    return dataclasses.replace(situation, steps=tuple(map(_reworded_step, situation.steps)))


def _reworded_step(step: Step) -> Step:
    """With another text to read, and so without the ids of the sampled tokens."""
    feedback = _QUOTED.sub(lambda quoted: f"'{reworded(quoted[1])}'", step.feedback)
    response = step.response
    if step.action is not None and step.action.tool == EDIT:
        instruction = str(step.action.arguments.get("edit_instruction", ""))
        said, other = (json.dumps(text, ensure_ascii=False) for text in (instruction, reworded(instruction)))
        response = response.replace(said, other)
    if (response, feedback) == (step.response, step.feedback):
        return step
    tokens = step.tokens if response == step.response else None
    return dataclasses.replace(step, response=response, feedback=feedback, tokens=tokens)
