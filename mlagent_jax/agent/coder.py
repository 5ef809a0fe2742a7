"""The built-in coder, which edits the scripts of pipelines by the operations that instructions name."""

from __future__ import annotations

from mlagent_jax.agent.whole_script import PARSE_LOCK
from mlagent_jax.environment.coder import CoderError
from mlagent_jax.pipelines.instructions import apply_instruction
from mlagent_jax.pipelines.pipeline import PipelineError
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.pipelines.summary import summarise

_SHOWN_COLUMNS = 12


class ScriptedCoder:
    """Implements `Coder`. Deterministic; everything it writes is the rendering of a pipeline."""

    name = "scripted"
    writes_free_code = False

    def edit(self, script: str, instruction: str) -> str:
        """Returns the edited script; the script itself if it already is as the instruction says.

        Raises CoderError if the script is not a pipeline's, or the instruction is unknown or does not apply.
        """
        try:
            with PARSE_LOCK:
                return render(apply_instruction(read(script), instruction))
        except PipelineError as error:
            raise CoderError(f"{error}.") from None

    def understand(self, text: str, question: str) -> str:
        """A fixed summary for any question: of the pipeline, or else of the file's size and columns."""
        try:
            with PARSE_LOCK:
                return summarise(read(text))
        except PipelineError:
            return _describe_lines(text)


def _describe_lines(text: str) -> str:
    lines = text.splitlines()
    columns = lines[0].split(",") if lines else []
    if len(lines) < 2 or len(columns) < 2:
        return f"{len(lines)} lines of text."
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", ..." if len(columns) > _SHOWN_COLUMNS else "")
    return f"A table of {len(lines) - 1} rows and {len(columns)} columns: {shown}."
