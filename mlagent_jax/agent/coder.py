"""The embedded coder: it edits starter-like scripts by a closed set of real transformations."""

from __future__ import annotations

import libcst as cst

from mlagent_jax.agent.edits import catalogue, pipeline, script
from mlagent_jax.agent.whole_script import PARSE_LOCK
from mlagent_jax.environment.coder import CoderError

_SHOWN_COLUMNS = 12


class ScriptedCoder:
    """Implements `Coder`. Deterministic; whatever it writes comes from `mlagent_jax.agent.edits`."""

    name = "scripted"
    writes_free_code = False

    def edit(self, script: str, instruction: str) -> str:
        """Raises CoderError if it doesn't understand the instruction or it doesn't fit the script."""
        with PARSE_LOCK:
            return catalogue.apply(script, instruction)

    def understand(self, text: str, question: str) -> str:
        """A fixed summary, whatever the question: of a script, what it reads, fits and prints."""
        try:
            module = script.parse(text)
            problem = script.problem(text)
        except CoderError:
            return _describe_lines(text)
        return _describe_script(module, problem)


def _describe_script(module: cst.Module, problem: script.Problem) -> str:
    model = pipeline.read(module)
    train = script.source_of(script.assigned(module, "train"))
    rows = train.partition(".head(")[2].rstrip(")") or "all"
    facts = [
        f"{problem.kind} on {rows} rows",
        f"inputs: {_inputs(module, problem)}",
        f"model: {script.source_of(model.estimator)}",
    ]
    if model.steps:
        facts.append(f"after {', '.join(script.source_of(step) for step in model.steps)}")
    if model.target:
        facts.append("fitted to a transformed target")
    printed = module.code.partition("validation ")[2].partition(":")[0]
    if printed:
        facts.append(f"prints validation {printed}")
    return "; ".join(facts) + "."


def _inputs(module: cst.Module, problem: script.Problem) -> str:
    if problem.data == "image":
        return "pixels"
    return script.source_of(
        script.assigned(module, "features" if problem.data == "tabular" else "vectorizer")
    )


def _describe_lines(text: str) -> str:
    lines = text.splitlines()
    columns = lines[0].split(",") if lines else []
    if len(lines) < 2 or len(columns) < 2:
        return f"{len(lines)} lines of text."
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", ..." if len(columns) > _SHOWN_COLUMNS else "")
    return f"A table of {len(lines) - 1} rows and {len(columns)} columns: {shown}."
