"""All operations: those that set or clear a slot come from `options`, the others are named here."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from mlagent_jax.pipelines.grammar import placeholders
from mlagent_jax.pipelines.operation import Change, Operation, Values
from mlagent_jax.pipelines.option import (
    ALL,
    BOTH,
    GRAPH,
    IMAGE,
    PAGES,
    PARAM_GOALS,
    SERIES,
    TABLE,
    TEXT,
    NumericParam,
    Option,
)
from mlagent_jax.pipelines.options import BY_NAME, OPTIONS, WORD_VIEWS
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Pipeline, PipelineError, Value

AXES = ("data", "model", "learning")
# By what is changed: a slot, another field or a parameter of the estimator. All else is of the axis "data".
_AXIS = {
    "estimator": "model",
    **dict.fromkeys(("target", "ensemble", "augmentation", "holdout", "refit"), "learning"),
    **dict.fromkeys(("C", "learning_rate", "loss", "class_weight"), "learning"),
}
_REGRESSION = ("regression",)
_SAID = {
    "rows": NumericParam((200, 500, 1000), 5, 1_000_000),
    "pixels": NumericParam((20_000, 60_000), 100, 1_000_000),
    "holdout": NumericParam((0.1, 0.2, 0.4), 0.02, 0.9, percent=True),
}  # numbers that are a field of their own


def _set(option: Option) -> Operation:
    slot = option.slot

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        if option.name.removeprefix("with_") == pipeline.estimator.name and slot == "ensemble":
            raise PipelineError(f"the model already is {pipeline.estimator.name}; a second one must differ")
        return _with(pipeline, slot, option.choice(values))

    identity, axis, numbers = f"{slot}.{option.name}", _AXIS.get(slot, "data"), option.numbers
    return Operation(identity, axis, option.said, change, slot, option.kinds, option.goals, numbers)


def _views(option: Option) -> list[Operation]:
    """Adding a view, leaving it out and using it alone; of ways to count words, taking one for the other."""
    name, said, numbers = option.name, option.said, option.numbers

    def weigh(pipeline: Pipeline, values: Values) -> Pipeline:
        words = next((view for view in pipeline.views if view.name in WORD_VIEWS), Choice(name))
        return _with_views(pipeline, WORD_VIEWS, Choice(name, words.params))

    dropped = f"(Leave out|Drop|Do without) the inputs called {name.replace('_', ' ')}"
    only = "(Use nothing but|Read only)" if option.kinds == TEXT else "(Use nothing but|Use only)"
    verbs: dict[str, tuple[str, Change]] = {
        "add": (f"(Add|Include) {said}", lambda old, values: _with_views(old, [name], option.choice(values))),
        "only": (f"{only} {said}", lambda old, values: _with(old, "views", (option.choice(values),))),
        "drop": (dropped if numbers else f"(Leave out|Drop) {said}", lambda old, _: _with_views(old, [name])),
    }
    if name in WORD_VIEWS:
        verbs = {"weigh": (f"(Describe texts by|Weigh words by) {said}", weigh)}

    def operation(verb: str, phrase: str, change: Change) -> Operation:
        identity, said = f"views.{name}.{verb}", numbers if verb != "drop" else {}
        return Operation(identity, "data", phrase, change, "views", option.kinds, BOTH, said)

    return [operation(verb, *made) for verb, made in verbs.items()]


def _with(pipeline: Pipeline, field: str, value: object) -> Pipeline:
    return replace(pipeline, **{field: value})  # type: ignore[arg-type]


def _with_views(pipeline: Pipeline, without: Sequence[str], *new: Choice) -> Pipeline:
    """In the order of the space, so that equal pipelines are equal. Raises PipelineError if none is left."""
    views = [*(view for view in pipeline.views if view.name not in without), *new]
    if not views:
        raise PipelineError(f"the model would have no inputs without {without[0]}; add others before")
    order = [option.name for option in OPTIONS if option.slot == "views"]
    return _with(pipeline, "views", tuple(sorted(views, key=lambda view: order.index(view.name))))


def _param(identity: str, phrase: str, slot: str = "estimator", **given: Value | None) -> Operation:
    """Sets a parameter of what a slot holds: to the number that is said, or to the value that is given by name.

    None is a parameter that is not set. Of views, it is words that have parameters: characters are read as they are.
    The operation raises PipelineError where nothing in the slot has the parameter.
    """
    (name,) = given or placeholders(phrase)
    having = [one for one in OPTIONS if one.slot == slot and name in one.params and one.name != "characters"]
    number = having[0].params[name]
    numbers = {name: number} if not given and isinstance(number, NumericParam) else {}

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        held = getattr(pipeline, slot)
        choices: list[Choice | None] = [*held] if slot == "views" else [held]
        able = {one.name for one in choices if one is not None} & {one.name for one in having}
        if not able:
            raise PipelineError(_lacking(pipeline, slot, name, having))
        changed = tuple(
            BY_NAME[slot, one.name].choice({**dict(one.params), **values, **given})
            if one is not None and one.name in able
            else one
            for one in choices
        )
        return _with(pipeline, slot, changed if slot == "views" else changed[0])

    kinds = frozenset[str]().union(*(option.kinds for option in having))
    axis, goals = _AXIS.get(name, _AXIS.get(slot, "data")), PARAM_GOALS.get(name, BOTH)
    return Operation(identity, axis, phrase, change, slot, kinds, goals, numbers)


def _lacking(pipeline: Pipeline, slot: str, name: str, having: Sequence[Option]) -> str:
    if slot == "estimator":
        names = ", ".join(one.name for one in having)
        return f"{pipeline.estimator.name} has no {name} to set, as {names} do"
    if slot == "views":
        return "no words are counted, only characters; weigh words by TF-IDF before"
    example = _set(having[0])
    said = example.say(next(example.param_grid()))
    return f"the script has no step for that; first say, for example, {said!r}"


def _scaled(identity: str, phrase: str, **factors: float) -> Operation:
    """Multiplies the first of these parameters that the model has."""

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        option = BY_NAME["estimator", pipeline.estimator.name]
        for name, factor in factors.items():
            number = option.params.get(name)
            old = pipeline.estimator.get(name)
            if not isinstance(number, NumericParam) or not isinstance(old, int | float):
                continue
            new = old * factor
            new = max(1, int(new)) if number.whole else float(f"{new:.6g}")
            if not number.low <= new <= number.high:
                raise PipelineError(f"{name} = {old:g} is at the end of its range already")
            return _with(pipeline, "estimator", option.choice({**dict(pipeline.estimator.params), name: new}))
        raise PipelineError(f"{option.name} sets none of {', '.join(factors)}")

    axis = _AXIS.get(next(iter(factors)), "model")
    return Operation(identity, axis, phrase, change, "estimator")


def _field(identity: str, phrase: str, kinds=ALL, goals=BOTH, **given: object) -> Operation:
    """Sets a field: to the number that is said, or to the value that is given by name."""
    (name,) = given or placeholders(phrase)
    axis, numbers = _AXIS.get(name, "data"), {} if given else {name: _SAID[name]}

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        return _with(pipeline, name, {**values, **given}[name])

    return Operation(identity, axis, phrase, change, name, kinds, goals, numbers)


_CLEARED = (
    _field("cleaning.none", "(Leave|Keep) the raw inputs as they are", TEXT | IMAGE | SERIES, cleaning=None),
    _field("gaps.none", "(Leave|Keep) (gaps|missing values) as they are", TABLE, gaps=None),
    _field("outliers.none", "(Keep|Train on) rows of any target", ALL - PAGES, _REGRESSION, outliers=None),
    _field(
        "encoding.none", "(Leave|Keep) the text columns (as they are|without encoding)", TABLE, encoding=None
    ),
    _field("scaling.none", "(Leave out|Drop|Do without) the scaling of the features", scaling=None),
    _field(
        "reduction.none", "(Keep|Use) all features (without a selection|without a reduction)", reduction=None
    ),
    _field("target.none", "(Predict|Fit|Learn) the target as it is", goals=_REGRESSION, target=None),
    _field(
        "augmentation.none",
        "(Train without copies|Leave out the copies|Drop the copies)",
        IMAGE | SERIES | PAGES,
        augmentation=None,
    ),
    _field("ensemble.none", "(Use|Keep) (a single model|one model alone)", ensemble=None),
)
_SIZE = ("n_estimators", "max_iter", "hidden_layer_sizes")
_NAMED = (
    _field("rows.all", "(Train on|Read|Use) (all rows|every row) of the training data", rows=None),
    _field("rows.first", "(Train on|Read|Use) the first {rows} rows (only|and no more)"),
    _field("columns.numeric", "(Read|Use|Take) (all|the) numeric columns", TABLE, columns=NUMERIC),
    _field(
        "columns.every", "(Read|Use|Take) (all|every one of the) columns", TABLE | TEXT | GRAPH, columns=EVERY
    ),
    _field("pixels.some", "(Fit|Train) the model (on|to) {pixels} pixels drawn at random", PAGES),
    _field("pixels.all", "(Fit|Train) the model (on|with) all pixels of the pages", PAGES, pixels=None),
    _param(
        "gaps.indicator",
        "(Add|Include) a column that (says|tells) where gaps were",
        "gaps",
        add_indicator=True,
    ),
    _param(
        "encoding.min_frequency",
        "(Put together|Join) (categories|values) of fewer than {min_frequency} rows",
        "encoding",
    ),
    _param("words.most", "(Count|Keep) (only|just|) the {max_features} most frequent words", "views"),
    _param("words.all", "(Count|Keep) (every word|all words)", "views", max_features=None),
    _param("words.pairs", "(Count|Include) (pairs of words|word pairs) too", "views", ngram_range=(1, 2)),
    _param("words.single", "(Count|Keep) (single words only|no pairs of words)", "views", ngram_range=None),
    _param("words.rare", "(Leave out|Ignore) words of fewer than {min_df} texts", "views"),
    _param(
        "words.stop",
        "(Leave out|Ignore) (common English words|English stop words)",
        "views",
        stop_words="english",
    ),
    _param("words.no_stop", "(Count|Keep) (common words|stop words) as well", "views", stop_words=None),
    _scaled(
        "penalty.more", "(Regularize|Penalize) (ten times more|the model more strongly)", C=0.1, alpha=10
    ),
    _scaled(
        "penalty.less", "(Regularize|Penalize) (ten times less|the model less strongly)", C=10, alpha=0.1
    ),
    _scaled(
        "size.double",
        "(Double|Make twice as large) the number of (trees or iterations|trees, iterations or units)",
        **dict.fromkeys(_SIZE, 2),
    ),
    _scaled(
        "size.halve",
        "(Halve|Make half as large) the number of (trees or iterations|trees, iterations or units)",
        **dict.fromkeys(_SIZE, 0.5),
    ),
    _param("depth.limit", "(Limit|Set|Keep) the depth of (trees|the trees) to {max_depth}"),
    _param(
        "depth.free", "(Let trees grow|Grow trees) (to any depth|without a limit of depth)", max_depth=None
    ),
    _param("leaf.size", "(Ask for|Require|Demand) at least {min_samples_leaf} rows in (each|every) leaf"),
    _param("leaf.number", "(Limit|Set|Keep) trees to {max_leaf_nodes} leaves (each|at most)"),
    _param("split.features", "(Show|Offer) {max_features}% of the features (at|to) each split"),
    _param(
        "split.all",
        "(Show|Offer) (the usual share|as many as usual) of the features at each split",
        max_features=None,
    ),
    _param("rate", "(Set|Change|Bring) the learning rate to {learning_rate}"),
    _param(
        "neighbors.weigh", "(Weigh|Weight|Count) neighbors by their (distance|nearness)", weights="distance"
    ),
    _param("loss.absolute", "(Minimize|Use|Fit by) the absolute error", loss="absolute_error"),
    _param("loss.poisson", "(Minimize|Use|Fit by) the Poisson loss", loss="poisson"),
    _param("loss.squared", "(Minimize|Use|Fit by) the squared error", loss=None),
    _param(
        "classes.balance",
        "(Weight|Weigh) (the classes by how rare they are|rare classes more)",
        class_weight="balanced",
    ),
    _param("classes.equal", "(Weight|Weigh) (each row|all rows) the same", class_weight=None),
    _field("holdout", "(Validate on|Hold out) {holdout}% of the (rows|training rows)"),
    _field(
        "refit",
        "(Refit|Fit again|Train again) the model on all labelled rows (before predicting|at the end)",
        refit=True,
    ),
    _field(
        "refit.none",
        "(Predict with|Submit the predictions of) the model (that was validated|of the validation)",
        refit=False,
    ),
)


@functools.cache
def catalogue() -> dict[str, Operation]:
    """Every operation by its id."""
    made = [_set(option) for option in OPTIONS if option.slot != "views"]
    made += _CLEARED
    made += [one for option in OPTIONS if option.slot == "views" for one in _views(option)]
    return {operation.id: operation for operation in (*made, *_NAMED)}


def operations_for(kind: str, learnt: str) -> list[Operation]:
    """The operations for a kind of data and of learning."""
    return [operation for operation in catalogue().values() if operation.supports(kind, learnt)]
