"""All operations: those that set or clear a slot come from `options`, the others are named here."""

from __future__ import annotations

import functools
from dataclasses import replace

from mlagent_jax.pipelines.estimators import ESTIMATORS
from mlagent_jax.pipelines.operation import Change, Operation, Values
from mlagent_jax.pipelines.option import (
    ALL,
    BOTH,
    GRAPH,
    PAGES,
    PAIR,
    TABLE,
    TEXT,
    NumericParam,
    Option,
    with_param,
)
from mlagent_jax.pipelines.options import BY_NAME, OPTIONS, WORD_COUNTS
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Pipeline, PipelineError, Value

AXES = ("data", "model", "learning")
_AXIS = {"estimator": "model", "target": "learning", "ensemble": "learning", "augmentation": "learning"}
_CLEAR = {
    "cleaning": (
        "(Leave|Keep) the raw inputs as they are",
        ALL - frozenset({"table", "pair", "graph", "image_to_image"}),
    ),
    "gaps": ("(Leave|Keep) (gaps|missing values) as they are", TABLE),
    "outliers": ("(Keep|Train on) rows of any target", ALL - PAGES),
    "encoding": ("(Leave|Keep) the text columns (as they are|without encoding)", TABLE),
    "scaling": ("(Leave out|Drop|Do without) the scaling of the features", ALL),
    "reduction": ("(Keep|Use) all features (without a selection|without a reduction)", ALL),
    "target": ("(Predict|Fit|Learn) the target as it is", ALL),
    "augmentation": (
        "(Train without copies|Leave out the copies|Drop the copies)",
        ALL - TABLE - TEXT - GRAPH - PAIR,
    ),
    "ensemble": ("(Use|Keep) (a single model|one model alone)", ALL),
}
_WORD_VIEWS = ("counts", "presence", "tfidf")


def goals(option: Option) -> tuple[str, ...]:
    return tuple(learnt for learnt in BOTH if option.callee(learnt))


def _set(option: Option) -> Operation:
    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        if option.name.removeprefix("with_") == pipeline.estimator.name and option.slot == "ensemble":
            raise PipelineError(f"the model already is {pipeline.estimator.name}; a second one must differ")
        return replace(pipeline, **{option.slot: option.choice(values)})  # type: ignore[arg-type]

    axis = _AXIS.get(option.slot, "data")
    changes = frozenset({option.slot})
    return Operation(
        f"{option.slot}.{option.name}",
        axis,
        option.said,
        change,
        changes,
        option.kinds,
        goals(option),
        option.numbers(),
    )


def _clear(slot: str) -> Operation:
    phrase, kinds = _CLEAR[slot]
    learnt = ("regression",) if slot in ("target", "outliers") else BOTH
    return Operation(
        f"{slot}.none",
        _AXIS.get(slot, "data"),
        phrase,
        lambda pipeline, values: replace(pipeline, **{slot: None}),  # type: ignore[arg-type]
        frozenset({slot}),
        kinds,
        learnt,
    )


def _views(option: Option) -> list[Operation]:
    """Adding a view, leaving it out and using it alone; of text, weighting words or adding characters."""

    def add(pipeline: Pipeline, values: Values) -> Pipeline:
        others = [view for view in pipeline.views if view.name != option.name]
        return _with_views(pipeline, [*others, option.choice(values)])

    def only(pipeline: Pipeline, values: Values) -> Pipeline:
        return _with_views(pipeline, [option.choice(values)])

    def drop(pipeline: Pipeline, values: Values) -> Pipeline:
        others = [view for view in pipeline.views if view.name != option.name]
        if not others:
            raise PipelineError(f"the model would have no inputs without {option.name}; add others before")
        return _with_views(pipeline, others)

    def weigh(pipeline: Pipeline, values: Values) -> Pipeline:
        """Other weights of the same words."""
        words = next((view for view in pipeline.views if view.name in _WORD_VIEWS), Choice(option.name))
        others = [view for view in pipeline.views if view.name not in _WORD_VIEWS]
        return _with_views(pipeline, [Choice(option.name, words.params), *others])

    def operation(verb: str, phrase: str, change: Change, numbers: dict[str, NumericParam]) -> Operation:
        identity = f"views.{option.name}.{verb}"
        return Operation(identity, "data", phrase, change, frozenset({"views"}), option.kinds, BOTH, numbers)

    if option.name in _WORD_VIEWS:
        return [operation("weigh", f"(Describe texts by|Weigh words by) {option.said}", weigh, {})]
    if option.name == "characters":
        return [
            operation("add", f"(Add|Include) {option.said}", add, {}),
            operation("only", f"(Use nothing but|Read only) {option.said}", only, {}),
            operation("drop", f"(Leave out|Drop) {option.said}", drop, {}),
        ]
    operations = [
        operation("add", f"(Add|Include) {option.said}", add, option.numbers()),
        operation("only", f"(Use nothing but|Use only) {option.said}", only, option.numbers()),
    ]
    name = option.name.replace("_", " ")
    phrase = (
        f"(Leave out|Drop) {option.said}"
        if not option.numbers()
        else f"(Leave out|Drop|Do without) the inputs called {name}"
    )
    return [*operations, operation("drop", phrase, drop, {})]


def _with_views(pipeline: Pipeline, views: list[Choice]) -> Pipeline:
    """In the order of the space, so that equal pipelines are equal."""
    order = [option.name for option in OPTIONS if option.slot == "views"]
    return replace(pipeline, views=tuple(sorted(views, key=lambda view: order.index(view.name))))


def _param(identity: str, axis: str, phrase: str, name: str, value: Value | None = None) -> Operation:
    """Sets a parameter of the model, for estimators that have it; to the number that is said, or to `value`."""
    having = [option for option in ESTIMATORS if name in option.params]
    number = having[0].params[name]
    numbers = {name: number} if isinstance(number, NumericParam) and f"{{{name}}}" in phrase else {}

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        option = BY_NAME["estimator", pipeline.estimator.name]
        if name not in option.params:
            names = ", ".join(one.name for one in having)
            raise PipelineError(f"{option.name} has no {name} to set, as {names} do")
        new = values[name] if numbers else value
        return replace(pipeline, estimator=with_param(pipeline.estimator, option, name, new))

    learnt = {"class_weight": ("classification",), "loss": ("regression",)}.get(name, BOTH)
    kinds = frozenset().union(*(option.kinds for option in having))
    return Operation(identity, axis, phrase, change, frozenset({"estimator"}), kinds, learnt, numbers)


def _scaled(identity: str, axis: str, phrase: str, factors: dict[str, float]) -> Operation:
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
            return replace(pipeline, estimator=with_param(pipeline.estimator, option, name, new))
        raise PipelineError(f"{option.name} sets none of {', '.join(factors)}")

    return Operation(identity, axis, phrase, change, frozenset({"estimator"}))


def _word_param(identity: str, phrase: str, name: str, value: Value | None = None) -> Operation:
    number = WORD_COUNTS[name]
    numbers = {name: number} if isinstance(number, NumericParam) and f"{{{name}}}" in phrase else {}

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        if not any(view.name in _WORD_VIEWS for view in pipeline.views):
            raise PipelineError("no words are counted, only characters; weigh words by TF-IDF before")
        views = [
            with_param(view, BY_NAME["views", view.name], name, values[name] if numbers else value)
            if view.name in _WORD_VIEWS
            else view
            for view in pipeline.views
        ]
        return replace(pipeline, views=tuple(views))

    return Operation(identity, "data", phrase, change, frozenset({"views"}), TEXT, BOTH, numbers)


def _field(
    identity: str, axis: str, phrase: str, name: str, value: object = None, kinds=ALL, number=None
) -> Operation:
    """Sets a field to the number that is said, or to `value`."""

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        return replace(pipeline, **{name: values[name] if number else value})  # type: ignore[arg-type]

    numbers = {name: number} if number else {}
    return Operation(identity, axis, phrase, change, frozenset({name}), kinds, BOTH, numbers)


def _step_param(
    identity: str, phrase: str, slot: str, name: str, value: Value | None, kinds, says=False
) -> Operation:
    option = next(one for one in OPTIONS if one.slot == slot and name in one.params)
    number = option.params[name]
    numbers = {name: number} if says and isinstance(number, NumericParam) else {}

    def change(pipeline: Pipeline, values: Values) -> Pipeline:
        choice: Choice | None = getattr(pipeline, slot)
        if choice is None or name not in BY_NAME[slot, choice.name].params:
            raise PipelineError(
                f"the script has no step for that; first say, for example, {option_said(option)!r}"
            )
        new = with_param(choice, BY_NAME[slot, choice.name], name, values[name] if numbers else value)
        return replace(pipeline, **{slot: new})  # type: ignore[arg-type]

    return Operation(identity, "data", phrase, change, frozenset({slot}), kinds, BOTH, numbers)


def option_said(option: Option) -> str:
    """An example of asking for an option."""
    operation = _set(option)
    return operation.say(next(iter(operation.param_grid())))


_BALANCED = "(Weight|Weigh) (the classes by how rare they are|rare classes more)"
_NAMED = (
    _field("rows.all", "data", "(Train on|Read|Use) (all rows|every row) of the training data", "rows"),
    _field(
        "rows.first",
        "data",
        "(Train on|Read|Use) the first {rows} rows (only|and no more)",
        "rows",
        number=NumericParam((200, 500, 1000), 5, 1_000_000),
    ),
    _field("columns.numeric", "data", "(Read|Use|Take) (all|the) numeric columns", "columns", NUMERIC, TABLE),
    _field(
        "columns.every",
        "data",
        "(Read|Use|Take) (all|every one of the) columns",
        "columns",
        EVERY,
        TABLE | TEXT | GRAPH,
    ),
    _field(
        "pixels.some",
        "data",
        "(Fit|Train) the model (on|to) {pixels} pixels drawn at random",
        "pixels",
        kinds=PAGES,
        number=NumericParam((20_000, 60_000), 100, 1_000_000),
    ),
    _field(
        "pixels.all", "data", "(Fit|Train) the model (on|with) all pixels of the pages", "pixels", kinds=PAGES
    ),
    _step_param(
        "gaps.indicator",
        "(Add|Include) a column that (says|tells) where gaps were",
        "gaps",
        "add_indicator",
        True,
        TABLE,
    ),
    _step_param(
        "encoding.min_frequency",
        "(Put together|Join) (categories|values) of fewer than {min_frequency} rows",
        "encoding",
        "min_frequency",
        None,
        TABLE,
        says=True,
    ),
    _word_param(
        "words.most", "(Count|Keep) (only|just|) the {max_features} most frequent words", "max_features"
    ),
    _word_param("words.all", "(Count|Keep) (every word|all words)", "max_features"),
    _word_param("words.pairs", "(Count|Include) (pairs of words|word pairs) too", "ngram_range", (1, 2)),
    _word_param("words.single", "(Count|Keep) (single words only|no pairs of words)", "ngram_range"),
    _word_param("words.rare", "(Leave out|Ignore) words of fewer than {min_df} texts", "min_df"),
    _word_param(
        "words.stop", "(Leave out|Ignore) (common English words|English stop words)", "stop_words", "english"
    ),
    _word_param("words.no_stop", "(Count|Keep) (common words|stop words) as well", "stop_words"),
    _scaled(
        "penalty.more",
        "learning",
        "(Regularize|Penalize) (ten times more|the model more strongly)",
        {"C": 0.1, "alpha": 10},
    ),
    _scaled(
        "penalty.less",
        "learning",
        "(Regularize|Penalize) (ten times less|the model less strongly)",
        {"C": 10, "alpha": 0.1},
    ),
    _scaled(
        "size.double",
        "model",
        "(Double|Make twice as large) the number of (trees or iterations|trees, iterations or units)",
        {"n_estimators": 2, "max_iter": 2, "hidden_layer_sizes": 2},
    ),
    _scaled(
        "size.halve",
        "model",
        "(Halve|Make half as large) the number of (trees or iterations|trees, iterations or units)",
        {"n_estimators": 0.5, "max_iter": 0.5, "hidden_layer_sizes": 0.5},
    ),
    _param(
        "depth.limit", "model", "(Limit|Set|Keep) the depth of (trees|the trees) to {max_depth}", "max_depth"
    ),
    _param(
        "depth.free",
        "model",
        "(Let trees grow|Grow trees) (to any depth|without a limit of depth)",
        "max_depth",
    ),
    _param(
        "leaf.size",
        "model",
        "(Ask for|Require|Demand) at least {min_samples_leaf} rows in (each|every) leaf",
        "min_samples_leaf",
    ),
    _param(
        "leaf.number",
        "model",
        "(Limit|Set|Keep) trees to {max_leaf_nodes} leaves (each|at most)",
        "max_leaf_nodes",
    ),
    _param(
        "split.features",
        "model",
        "(Show|Offer) {max_features}% of the features (at|to) each split",
        "max_features",
    ),
    _param(
        "split.all",
        "model",
        "(Show|Offer) (the usual share|as many as usual) of the features at each split",
        "max_features",
    ),
    _param("rate", "learning", "(Set|Change|Bring) the learning rate to {learning_rate}", "learning_rate"),
    _param(
        "neighbors.weigh",
        "model",
        "(Weigh|Weight|Count) neighbors by their (distance|nearness)",
        "weights",
        "distance",
    ),
    _param("loss.absolute", "learning", "(Minimize|Use|Fit by) the absolute error", "loss", "absolute_error"),
    _param("loss.poisson", "learning", "(Minimize|Use|Fit by) the Poisson loss", "loss", "poisson"),
    _param("loss.squared", "learning", "(Minimize|Use|Fit by) the squared error", "loss"),
    _param("classes.balance", "learning", _BALANCED, "class_weight", "balanced"),
    _param("classes.equal", "learning", "(Weight|Weigh) (each row|all rows) the same", "class_weight"),
    _field(
        "holdout",
        "learning",
        "(Validate on|Hold out) {holdout}% of the (rows|training rows)",
        "holdout",
        number=NumericParam((0.1, 0.2, 0.4), 0.02, 0.9, whole=False, percent=True),
    ),
    _field(
        "refit",
        "learning",
        "(Refit|Fit again|Train again) the model on all labelled rows (before predicting|at the end)",
        "refit",
        True,
    ),
    _field(
        "refit.none",
        "learning",
        "(Predict with|Submit the predictions of) the model (that was validated|of the validation)",
        "refit",
        False,
    ),
)


@functools.cache
def catalogue() -> dict[str, Operation]:
    """Every operation by its id."""
    made = [_set(option) for option in OPTIONS if option.slot != "views"]
    made += [_clear(slot) for slot in _CLEAR]
    made += [one for option in OPTIONS if option.slot == "views" for one in _views(option)]
    return {operation.id: operation for operation in (*made, *_NAMED)}


def operations_for(kind: str, learnt: str) -> list[Operation]:
    """The operations for a kind of data and of learning."""
    return [operation for operation in catalogue().values() if operation.supports(kind, learnt)]
