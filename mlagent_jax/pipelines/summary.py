"""What a script does, in few words."""

from __future__ import annotations

from mlagent_jax.pipelines.options import BY_NAME
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Pipeline

_SHOWN_COLUMNS = 5
# Slots in the order in which rows pass through them.
_BEFORE = ("cleaning", "outliers", "augmentation", "encoding", "gaps", "scaling", "reduction")
_AFTER = ("ensemble", "target")


def summarise(pipeline: Pipeline) -> str:
    """One line: rows, inputs, each step with the parameters that are set, and how it is validated."""
    rows = "all rows" if pipeline.rows is None else f"first {pipeline.rows} rows"
    columns = [f"columns {_columns(pipeline.columns)}"] if pipeline.columns else []
    steps = [("views", view) for view in pipeline.views]
    steps += pipeline.chosen(*_BEFORE, "estimator", *_AFTER)
    said = [_named(slot, choice, pipeline.facts.goal) for slot, choice in steps]
    pixels = [f"{pipeline.pixels} pixels"] if pipeline.pixels is not None else []
    end = "refitted to all" if pipeline.refit else "not refitted"
    validation = f"{100 * pipeline.holdout:g}% validate ({pipeline.facts.metric}), {end}"
    return "; ".join([rows, *columns, *pixels, *said, validation]) + "."


def _columns(columns: tuple[str, ...] | str) -> str:
    if isinstance(columns, str):
        return {NUMERIC: "numeric", EVERY: "all"}[columns]
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    return ", ".join(columns[:_SHOWN_COLUMNS]) + more


def _named(slot: str, choice: Choice, learnt: str) -> str:
    values = ", ".join(f"{name}={value}" for name, value in choice.params)
    arguments = f"({values})" if values else ""
    if slot in _AFTER or slot == "gaps":  # several have the same class
        return f"{slot}: {choice.name.replace('_', ' ')}{arguments}"
    return BY_NAME[slot, choice.name].callee(learnt) + arguments
