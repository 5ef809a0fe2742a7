"""Pipelines drawn from the whole space, choice by choice, and operations drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from mlagent_jax.pipelines.operation import Operation, Values
from mlagent_jax.pipelines.operations import operations_for
from mlagent_jax.pipelines.option import BOTH, PARAM_GOALS, Option
from mlagent_jax.pipelines.options import OPTIONS, WORD_VIEWS
from mlagent_jax.pipelines.pipeline import (
    EVERY,
    NUMERIC,
    OPTIONAL_SLOTS,
    Choice,
    Facts,
    Pipeline,
    PipelineError,
    Value,
)

_NO_YES = ("no", "yes")

T = TypeVar("T")


SuggestCategorical = Callable[[str, Sequence[str]], str]
"""One of the options of the choice that is called by a name; the same name has always the same options."""


def sample(facts: Facts, columns: Sequence[str], pick: SuggestCategorical, cuts: bool = True) -> Pipeline:
    """Any pipeline of the space, whether it runs or not.

    columns: names to choose from, for kinds that have columns. cuts: whether rows may be left out of the training.
    """
    learnt = facts.goal
    offered = [option for option in OPTIONS if option.supports(facts.kind, learnt)]
    by_slot = {
        slot: [option for option in offered if option.slot == slot]
        for slot in (*OPTIONAL_SLOTS, "estimator", "views")
    }
    estimator = _one(by_slot["estimator"], learnt, pick)
    drawn: dict[str, Choice | None] = {}
    for slot in OPTIONAL_SLOTS:
        some = bool(by_slot[slot]) and pick(f"{slot} at all", _NO_YES) == "yes"
        drawn[slot] = _one(by_slot[slot], learnt, pick) if some else None
    ensemble = drawn["ensemble"]
    if ensemble is not None and ensemble.name.removeprefix("with_") == estimator.name:
        drawn["ensemble"] = None
    pages = facts.kind == "image_to_image"
    return Pipeline(
        facts,
        estimator,
        rows=_from({"all": None, "some": 150, "more": 1000}, "rows", pick) if cuts else None,
        columns=_columns(facts.kind, columns, pick),
        views=_views(by_slot["views"], learnt, pick),
        pixels=_from({"20000": 20_000, "60000": 60_000}, "pixels", pick) if pages else None,
        holdout=_from({"0.15": 0.15, "0.2": 0.2, "0.5": 0.5}, "holdout", pick) if cuts else 0.2,
        refit=pick("refit", _NO_YES) == "yes" if cuts else True,
        **drawn,
    )


def suggest_at_random(rng: random.Random) -> SuggestCategorical:
    return lambda name, options: rng.choice(options)


def _from(offered: Mapping[str, T], name: str, pick: SuggestCategorical) -> T:
    return offered[pick(name, tuple(offered))]


def _one(options: Sequence[Option], learnt: str, pick: SuggestCategorical) -> Choice:
    named = {option.name: option for option in options}
    return _choice(_from(named, options[0].slot, pick), learnt, pick)


def _choice(option: Option, learnt: str, pick: SuggestCategorical) -> Choice:
    values: dict[str, Value] = {}
    said = option.numbers
    for name, domain in option.params.items():
        if learnt not in PARAM_GOALS.get(name, BOTH):
            continue
        offered = {str(one): domain.value(one) for one in domain.candidates}  # type: ignore[arg-type]
        default = {} if name in said else {"default": None}
        value = _from({**default, **offered}, f"{option.slot} {option.name} {name}", pick)
        if value is not None:
            values[name] = value
    return option.choice(values)


def _columns(kind: str, columns: Sequence[str], pick: SuggestCategorical) -> tuple[str, ...] | str:
    if kind not in ("table", "text", "graph"):
        return ()
    ways = [EVERY, *([NUMERIC] if kind == "table" else []), *(["named"] if columns else [])]
    way = pick("columns", ways)
    if way != "named":
        return way
    named = tuple(name for name in columns if pick(f"column {name}", _NO_YES) == "yes")
    return named or tuple(columns[:1])


def _views(options: Sequence[Option], learnt: str, pick: SuggestCategorical) -> tuple[Choice, ...]:
    """Each view or not, at least one; of the ways to count words at most one."""
    if not options:
        return ()
    words = [option.name for option in options if option.name in WORD_VIEWS]
    names = {pick("words", ("none", *words))} if words else set()
    names |= {
        one.name for one in options if one.name not in words and pick(f"view {one.name}", _NO_YES) == "yes"
    }
    chosen = [option for option in options if option.name in names] or [options[0]]
    return tuple(_choice(option, learnt, pick) for option in chosen)


def random_operation(pipeline: Pipeline, rng: random.Random) -> tuple[Operation, Values, Pipeline]:
    """An operation that changes the pipeline, its numbers, and what it makes of it."""
    operations = operations_for(pipeline.facts.kind, pipeline.facts.goal)
    while True:
        operation = rng.choice(operations)
        values = rng.choice(list(operation.param_grid()))
        try:
            changed = operation(pipeline, values)
        except PipelineError:
            continue
        if changed != pipeline:
            return operation, values, changed
