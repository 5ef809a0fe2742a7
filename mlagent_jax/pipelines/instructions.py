"""From an instruction to the one operation that it asks for, or to a sentence that helps."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from mlagent_jax.pipelines import grammar
from mlagent_jax.pipelines.operation import Operation, Values
from mlagent_jax.pipelines.operations import AXES, catalogue, operations_for
from mlagent_jax.pipelines.pipeline import Pipeline, PipelineError

_SHOWN = 60


@functools.cache
def _forms() -> Mapping[str, tuple[Operation, tuple[str, ...]]]:
    """Each wording's form, its operation and the names of its numbers in the order in which they are said."""
    found: dict[str, tuple[Operation, tuple[str, ...]]] = {}
    for operation in catalogue().values():
        for wording in operation.wordings:
            form = grammar.normalise(wording)
            if form in found:
                raise ValueError(f"{wording!r} asks for {found[form][0].id} and for {operation.id}")
            found[form] = operation, tuple(grammar.placeholders(wording))
    return found


def parse_instruction(instruction: str) -> tuple[Operation, Values] | None:
    """The operation and its numbers; None if the instruction is no wording of any.

    Raises PipelineError for a number out of its range.
    """
    found = _forms().get(grammar.normalise(instruction))
    if found is None:
        return None
    operation, names = found
    said = grammar.numbers(instruction)
    return operation, {
        name: operation.numbers[name].read(name, one) for name, one in zip(names, said, strict=True)
    }


def axis_of(instruction: str) -> str:
    """The axis of an instruction; "" for what is none."""
    found = _forms().get(grammar.normalise(instruction))
    return found[0].axis if found else ""


def apply_instruction(pipeline: Pipeline, instruction: str) -> Pipeline:
    """The changed pipeline. Raises PipelineError, with a sentence that helps."""
    found = parse_instruction(instruction)
    if found is None:
        raise PipelineError(_help(pipeline, instruction))
    operation, values = found
    return operation(pipeline, values)


@functools.cache
def lines(kind: str, learnt: str, axis: str | None = None, held_out: bool = False) -> tuple[str, ...]:
    """Every instruction for a kind of data and of learning, with the numbers that are proposed.

    held_out: those in wordings that no trajectory holds, instead of the others.
    """
    return tuple(
        operation.say(values, wording)
        for operation in operations_for(kind, learnt)
        if axis in (None, operation.axis)
        for wording in (operation.held_out if held_out else operation.train_wordings)
        for values in operation.param_grid()
    )


def _help(pipeline: Pipeline, instruction: str) -> str:
    """The nearest taught wording on each axis."""
    words = set(grammar.normalise(instruction).split())
    kind, learnt = pipeline.facts.kind, pipeline.facts.goal

    def shared(line: tuple[str, frozenset[str]]) -> float:
        return len(words & line[1]) / len(words | line[1])

    near = ", ".join(repr(max(_words(kind, learnt, axis), key=shared)[0]) for axis in AXES)
    shown = instruction if len(instruction) <= _SHOWN else f"{instruction[: _SHOWN - 3]}..."
    return f"does not understand {shown!r}; it can do things like {near}"


@functools.cache
def _words(kind: str, learnt: str, axis: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """The taught lines of an axis, each with its words."""
    return tuple((line, frozenset(grammar.normalise(line).split())) for line in lines(kind, learnt, axis))
