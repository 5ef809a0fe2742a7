"""Turns a situation into chat messages: system, task, and then responses and feedback in turn.

Each message depends only on what came before it, so the token ids of a state are a prefix of those of the longer
episode. The style `full` is for models that can follow a long prompt; `compact` is for a small model trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.agent.known_pipelines import starter_summary
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.response import ACTION_FIELDS, ALL_FIELDS
from mlagent_jax.agent.trajectory import Step
from mlagent_jax.environment.feedback import clip, clip_lines, without_diff
from mlagent_jax.environment.tools import TOOLS
from mlagent_jax.environment.workspace import STARTER
from mlagent_jax.fields import check, setting
from mlagent_jax.tasks.task import Task
from mlagent_jax.text.chat import Message

STYLES = ("full", "compact")
TASK_MESSAGE = 1  # the place of the message on the task, after that of the system


@dataclass(frozen=True)
class PromptFormat:
    """How prompts are written.

    observation_chars: the longest feedback that is shown whole.
    thought: whether responses have all six fields, or only the last two.
    starter_summary: whether the compact prompt says in one line what train.py does, if it is a pipeline's script. A
        small model can't read the script itself within its context.
    max_steps: the length of an episode according to the full prompt.
    """

    style: str = setting("full", choices=STYLES)
    observation_chars: int = setting(5_000, at_least=1)
    thought: bool = True
    starter_summary: bool = True
    max_steps: int = setting(15, at_least=1)

    def __post_init__(self) -> None:
        check(self, "prompt")


def messages(form: PromptFormat, situation: Situation, with_ideas: bool = False) -> list[Message]:
    """The situation as chat messages. The agent's own messages keep the token ids that were sampled.

    with_ideas: show the ideas that the expert was given, as in collection; never for a trained policy.
    """
    ideas = situation.ideas if with_ideas else ()
    task = situation.task
    chat = [Message("system", _system(form, task)), Message("user", _task(form, task, ideas))]
    for step in situation.steps:
        chat.append(Message("assistant", step.response, step.tokens))
        if not step.after.done:  # nothing follows the last feedback
            chat.append(Message("user", observation(form, step)))
    return chat


def observation(form: PromptFormat, step: Step) -> str:
    """A step's feedback as the agent sees it: shortened in the middle, and in compact style without the diff."""
    if form.style == "compact":
        return clip_lines(without_diff(step.feedback, step.diff), form.observation_chars)
    return clip(step.feedback, form.observation_chars)


def _system(form: PromptFormat, task: Task) -> str:
    fields = ALL_FIELDS if form.thought else ACTION_FIELDS
    return _compact_system(fields, task) if form.style == "compact" else _full_system(form, fields, task)


def _compact_system(fields: tuple[str, ...], task: Task) -> str:
    return (
        f"Improve train.py, which writes {task.submission}. Tools: {', '.join(TOOLS)}. "
        f"Answer with {', '.join(fields)} (JSON)."
    )


def _full_system(form: PromptFormat, fields: tuple[str, ...], task: Task) -> str:
    response = "\n".join(f"{label}: [{_MEANINGS[label]}]" for label in fields)
    return "\n\n".join(
        [
            "You are a machine learning engineer. You improve a working training script by editing and "
            "running it, one action at a time, and you decide what to do next from what comes back.",
            f"You have these tools:\n\n{_tool_list()}",
            _RULES.format(
                steps=form.max_steps,
                submission=task.submission,
                form="shape" if task.target_array else "columns",
            ),
            f"Always answer in exactly this format, with one action, and nothing after it:\n\n{response}",
        ]
    )


def _tool_list() -> str:
    return "\n\n".join(
        f"- {tool.name}\n  {tool.description}\n  Action Input: {tool.usage}\n  Returns: {tool.observation}"
        for tool in TOOLS.values()
    )


def _task(form: PromptFormat, task: Task, ideas: Sequence[str]) -> str:
    if form.style == "compact":
        summary = starter_summary(task.starter) if form.starter_summary else ""
        text = f"{task.brief}\n{STARTER}: {summary}" if summary else task.brief
    else:
        limits = task.limits
        text = (
            f"{task.description.strip()}\n\n"
            "The script to improve is train.py; the data are under data/, read-only. "
            f"The metric is {task.metric}. "
            f"One run may take {limits.wall_seconds:g} seconds and {limits.memory_mb} MB of memory."
        )
    if not ideas:
        return text
    advice = "\n".join(f"{number}. {idea}" for number, idea in enumerate(ideas, 1))
    return f"{text}\n\nFirst try these ideas, in this order:\n{advice}"


_RULES = """\
Mind these rules:
1. Understand train.py and its baseline first and then improve it in steps; judge each change by its result.
2. After an edit the script is run and its {submission} graded. Keep its {form} as train.py writes them.
3. Do not change random seeds, and do not try to read or guess the labels of the test data.
4. Use installed packages only; there is no network.
5. State as fact only what a result has confirmed. If a change makes things worse, go back.
6. You have {steps} actions. Answer when nothing is left to gain: the last valid submission counts."""

_MEANINGS = dict(
    zip(
        ALL_FIELDS,
        (
            "what the last observation means; if there was an error, what caused it and how to mend it",
            "the whole plan, what is done and with which confirmed result, and what comes next",
            "for each new statement in the plan, whether a result confirms it",
            "what to do now and why",
            "one tool, by its exact name",
            "the arguments of the tool, as one JSON object",
        ),
        strict=True,
    )
)
