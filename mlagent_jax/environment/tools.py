"""The agent's seven tools (arXiv 2505.23723, table 4): their descriptions in prompts, and the arguments they accept."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass

from mlagent_jax.environment import feedback
from mlagent_jax.environment.state import Action, Malformed
from mlagent_jax.environment.workspace import MAX_INSPECTED_LINES

LIST_FILES = "List Files"
COPY_FILE = "Copy File"
INSPECT = "Inspect Script Lines"
EXECUTE = "Execute Script"
UNDERSTAND = "Understand File"
EDIT = "Edit Script (AI)"
FINAL_ANSWER = "Final Answer"


@dataclass(frozen=True)
class Argument:
    """One named argument of a tool. kind: str or int. template: the placeholder for its value in the usage."""

    name: str
    kind: type[str] | type[int]
    template: str | int


@dataclass(frozen=True)
class Tool:
    """A tool as prompts describe it. observation: what its feedback contains."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    observation: str

    @property
    def usage(self) -> str:
        """A template for the tool's Action Input."""
        return json.dumps({argument.name: argument.template for argument in self.arguments})


_TOOLS = (
    Tool(
        LIST_FILES,
        "Lists a folder of the workspace.",
        (Argument("dir_path", str, "[a folder, such as . or data]"),),
        "The names in the folder; folders end with a slash.",
    ),
    Tool(
        COPY_FILE,
        "Copies a file, for example to keep a version that works.",
        (
            Argument("source", str, "[the file to copy]"),
            Argument("destination", str, "[the name of the copy]"),
        ),
        "Whether the file was copied.",
    ),
    Tool(
        INSPECT,
        f"Shows lines of a text file, both ends included, at most {MAX_INSPECTED_LINES} at a time.",
        (
            Argument("script_name", str, "[the file to look into]"),
            Argument("start_line_number", int, 1),
            Argument("end_line_number", int, MAX_INSPECTED_LINES),
        ),
        "The lines, each with its number.",
    ),
    Tool(
        EXECUTE,
        "Runs a Python script that is in the workspace.",
        (Argument("script_name", str, "[the script to run]"),),
        "What the script printed, or its error.",
    ),
    Tool(
        UNDERSTAND,
        "Has an assistant read a whole file and report on what you ask about.",
        (
            Argument("file_name", str, "[the file to read]"),
            Argument("things_to_look_for", str, "[what to report, with the context that is needed]"),
        ),
        "The assistant's report.",
    ),
    Tool(
        EDIT,
        "Has an assistant edit a script by your instruction, saves it, and runs it.",
        (
            Argument("script_name", str, "[the script to edit]"),
            Argument("edit_instruction", str, "[what to change and how, in detail]"),
            Argument("save_name", str, "[the name to save the edited script under]"),
        ),
        "The change as a diff, and what the edited script printed, or its error.",
    ),
    Tool(
        FINAL_ANSWER,
        "Ends the work; the last valid submission counts.",
        (Argument("final_answer", str, "[a short account of what was reached]"),),
        "Nothing.",
    ),
)
TOOLS = {tool.name: tool for tool in _TOOLS}


def check(action: Action) -> Malformed | None:
    """None if the tool exists and the arguments are exactly its own, with the right types; else the feedback."""
    tool = TOOLS.get(action.tool)
    if tool is None:
        return Malformed(_unknown(action.tool))
    expected = {argument.name for argument in tool.arguments}
    faults = [f"{name} is missing" for name in sorted(expected - action.arguments.keys())]
    faults += [f"{name} is unknown" for name in sorted(action.arguments.keys() - expected)]
    for argument in tool.arguments:
        if argument.name in action.arguments:
            faults += _type_fault(argument, action.arguments[argument.name])
    if not faults:
        return None
    return Malformed(f"{feedback.BAD_INPUT} {tool.name} takes {tool.usage}: {'; '.join(faults)}.")


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), [known.lower() for known in TOOLS], n=1)
    guess = next((known for known in TOOLS if close and known.lower() == close[0]), None)
    hint = f" Did you mean {guess}?" if guess else ""
    shown = feedback.clip(name, 40)
    return f"{feedback.BAD_ACTION} the tools are {', '.join(TOOLS)}; there is no {shown!r}.{hint}"


def _type_fault(argument: Argument, value: object) -> list[str]:
    # In Python, unlike in JSON, a bool is an int.
    if isinstance(value, argument.kind) and not isinstance(value, bool):
        return []
    wanted = {str: "a string", int: "an integer"}[argument.kind]
    return [f"{argument.name} must be {wanted}, not {feedback.clip(json.dumps(value, default=str), 40)}"]
