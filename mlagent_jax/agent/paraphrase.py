"""Trajectories in other words: data augmentation for a small model that learns from few episodes.

An operation does the same whatever words ask for it. So an episode whose instructions are said in other wordings of the
same operations is as true as the one that was run, and costs no execution. Wordings that are kept from trajectories
stay out of these too.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace

from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.pipelines.instructions import parse_instruction
from mlagent_jax.pipelines.pipeline import PipelineError


def paraphrased(trajectory: Trajectory, seed: int) -> Trajectory:
    """The same episode, with each instruction of the grammar in a wording drawn at random.

    An instruction that occurs twice is said in the same words again. Responses that change lose the ids of their
    tokens. What is no instruction of the grammar stays as it is.
    """
    rng = random.Random(f"paraphrase/{seed}/{trajectory.key}")
    said: dict[str, str] = {}
    return replace(trajectory, steps=tuple(_paraphrased(step, said, rng) for step in trajectory.steps))


def _paraphrased(step: Step, said: dict[str, str], rng: random.Random) -> Step:
    if step.action is None or step.action.tool != EDIT:
        return step
    instruction = str(step.action.arguments["edit_instruction"])
    if instruction not in said:
        said[instruction] = _in_other_words(instruction, rng)
    arguments = {**step.action.arguments, "edit_instruction": said[instruction]}
    old, new = (json.dumps(text, ensure_ascii=False) for text in (instruction, said[instruction]))
    response = step.response.replace(old, new)
    if response == step.response:
        return step
    return replace(step, response=response, action=replace(step.action, arguments=arguments), tokens=None)


def _in_other_words(instruction: str, rng: random.Random) -> str:
    try:
        found = parse_instruction(instruction)
    except PipelineError:
        return instruction
    if found is None:
        return instruction
    operation, values = found
    return operation.say(values, rng.choice(operation.train_wordings))
