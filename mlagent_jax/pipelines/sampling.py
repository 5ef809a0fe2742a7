"""Random pipelines, over the whole space or by random operations."""

from __future__ import annotations

import random

from mlagent_jax.pipelines.metrics import goal
from mlagent_jax.pipelines.operation import Operation, Values
from mlagent_jax.pipelines.operations import suited
from mlagent_jax.pipelines.option import Number, Option
from mlagent_jax.pipelines.options import OPTIONS
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Facts, Pipeline, PipelineError, Value

_SLOTS = (
    *(
        "cleaning",
        "gaps",
        "outliers",
        "encoding",
        "scaling",
        "reduction",
        "target",
        "augmentation",
        "ensemble",
    ),
    "estimator",
)


def random_pipeline(facts: Facts, columns: tuple[str, ...], rng: random.Random) -> Pipeline:
    """Any pipeline of the space, whether it runs or not. columns: names to draw from, for kinds that have them."""
    learnt = goal(facts.metric)
    offered = [option for option in OPTIONS if option.suits(facts.kind, learnt)]
    drawn: dict[str, Choice | None] = {}
    for slot in _SLOTS:
        options = [option for option in offered if option.slot == slot]
        needed = slot == "estimator" or rng.random() < 0.4
        drawn[slot] = _choice(rng.choice(options), learnt, rng) if options and needed else None
    second = drawn["ensemble"].name.removeprefix("with_") if drawn["ensemble"] else ""
    if drawn["estimator"] and second == drawn["estimator"].name:
        drawn["ensemble"] = None
    return Pipeline(
        facts,
        rows=rng.choice([None, rng.randint(100, 5000)]),
        columns=_columns(facts.kind, columns, rng),
        views=_views([option for option in offered if option.slot == "views"], learnt, rng),
        pixels=rng.choice([None, rng.randint(1000, 50_000)]) if facts.kind == "image_to_image" else None,
        holdout=round(rng.uniform(0.1, 0.6), 2),
        refit=rng.random() < 0.5,
        **drawn,  # type: ignore[arg-type]
    )


def _choice(option: Option, learnt: str, rng: random.Random) -> Choice:
    values: dict[str, Value] = {}
    said = option.numbers()
    for name, domain in option.params.items():
        wrong = {"class_weight": "regression", "loss": "classification"}.get(name) == learnt
        if wrong or (name not in said and rng.random() < 0.6):
            continue
        if isinstance(domain, Number):
            values[name] = domain.value(rng.choice(domain.offered))
        else:
            values[name] = rng.choice(domain.offered)
    return option.choice(values)


def _columns(kind: str, columns: tuple[str, ...], rng: random.Random) -> tuple[str, ...] | str:
    if kind not in ("table", "text", "graph"):
        return ()
    some = tuple(name for name in columns if rng.random() < 0.6) or columns[:1]
    return rng.choice([some, NUMERIC, EVERY] if kind == "table" else [some, EVERY])


def _views(options: list[Option], learnt: str, rng: random.Random) -> tuple[Choice, ...]:
    words = [option for option in options if option.name in ("counts", "presence", "tfidf")]
    chosen = [option for option in options if option not in words and rng.random() < 0.4]
    if words and (not chosen or rng.random() < 0.7):
        chosen.append(rng.choice(words))
    if options and not chosen:
        chosen = [rng.choice(options)]
    order = {option.name: place for place, option in enumerate(options)}
    return tuple(_choice(option, learnt, rng) for option in sorted(chosen, key=lambda one: order[one.name]))


def random_operation(pipeline: Pipeline, rng: random.Random) -> tuple[Operation, Values, Pipeline]:
    """An operation that changes the pipeline, its numbers, and what it makes of it."""
    operations = suited(pipeline.facts.kind, goal(pipeline.facts.metric))
    while True:
        operation = rng.choice(operations)
        values = rng.choice(list(operation.offers()))
        try:
            changed = operation(pipeline, values)
        except PipelineError:
            continue
        if changed != pipeline:
            return operation, values, changed
