"""What scripted agents do next with what they have found: change a script, or end with the best one."""

from __future__ import annotations

from mlagent_jax.agent.progress import Progress
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import EDIT, EXECUTE, FINAL_ANSWER


def edit_action(seen: Progress, source: str, instruction: str) -> Action:
    """Edits the script `source` under a new name."""
    save_name = f"train_{len(seen.scripts)}.py"
    return Action(EDIT, {"script_name": source, "edit_instruction": instruction, "save_name": save_name})


def final_action(seen: Progress) -> Action:
    return Action(FINAL_ANSWER, {"final_answer": f"Best is {seen.best}."})


def closing_action(seen: Progress) -> Action:
    """Ends the episode, but first runs the best script again if another one's submission is the last."""
    return final_action(seen) if seen.standing == seen.best else Action(EXECUTE, {"script_name": seen.best})
