"""From a pipeline to the script that a person would have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlagent_jax.pipelines.estimators import TUNED
from mlagent_jax.pipelines.metrics import SCORES
from mlagent_jax.pipelines.option import literal
from mlagent_jax.pipelines.options import BY_NAME
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Facts, Pipeline
from mlagent_jax.pipelines.source import Group, call, helpers, imports, lay_out, listed

PROBABLE = (
    *("logistic", "neighbors", "tree", "forest", "extra_trees", "boosting", "bayes", "complement_bayes"),
    *("perceptron", "centroid"),
)  # estimators that give probabilities
# What `features` takes, by kinds whose inputs are arrays.
ARRAYS = {"image": "images", "series": "series", "image_to_image": "pages"}
_READS = "pd"  # every script reads a table


def render(pipeline: Pipeline) -> str:
    """The whole text of train.py."""
    features = _features(pipeline)
    work = f"{_inputs(pipeline)}\n\n{_work(pipeline)}"
    functions = [*helpers(f"{features}\n{work}"), *([features] if features else [])]
    needed = imports("\n".join([_READS, *functions, work]))
    head = f'"""{pipeline.facts.title}"""\n\n{needed}\n\n{_reading(pipeline)}\n'
    defined = "".join(f"\n\n{one}\n" for one in functions)
    return head + defined + ("\n\n" if functions else "\n") + work


def model(pipeline: Pipeline) -> Group:
    """The expression for the whole model."""
    text = pipeline.facts.kind == "text"
    views = [_call(pipeline, "views", view) for view in pipeline.views if text]
    steps = views if len(views) < 2 else [call("make_union", views, lines=True)]
    if pipeline.encoding is not None:
        chosen = 'make_column_selector(dtype_exclude="number")'
        encoder = Group("(", (_call(pipeline, "encoding", pipeline.encoding), chosen), ")")
        steps.append(call("make_column_transformer", [encoder, 'remainder="passthrough"']))
    slots = ("reduction", "scaling") if text else ("gaps", "scaling", "reduction")
    steps += [_call(pipeline, slot, choice) for slot, choice in pipeline.chosen(*slots)]
    steps.append(_last_step(pipeline))
    return steps[0] if len(steps) == 1 else call("make_pipeline", steps, lines=True)


def _last_step(pipeline: Pipeline) -> Group:
    """The estimator in its ensemble, on its target."""
    last, ensemble = _call(pipeline, "estimator", pipeline.estimator), pipeline.ensemble
    if ensemble is not None:
        inner: list[str | Group] = [last]
        second = second_model(pipeline)
        if second:
            other = _call(pipeline, "estimator", Choice(second, BY_NAME["ensemble", ensemble.name].second))
            pairs = ((pipeline.estimator.name, last), (f"{second}_2", other))
            soft = ['voting="soft"'] if pipeline.facts.goal == "classification" else []
            inner = [listed([Group("(", (f'"{name}"', one), ")") for name, one in pairs]), *soft]
        elif ensemble.name == "tuned":
            inner.append(TUNED[pipeline.estimator.name])
        last = _call(pipeline, "ensemble", ensemble, *inner)
    return last if pipeline.target is None else _call(pipeline, "target", pipeline.target, last)


def second_model(pipeline: Pipeline) -> str:
    """The estimator that is averaged with the pipeline's own; "" for none."""
    _, _, second = (pipeline.ensemble.name if pipeline.ensemble else "").partition("with_")
    return second


def _call(pipeline: Pipeline, slot: str, choice: Choice, *before: str | Group) -> Group:
    """What a choice of a slot renders to. before: arguments that stand before its own."""
    option, goal = BY_NAME[slot, choice.name], pipeline.facts.goal
    return call(option.callee(goal), [*before, *option.source(choice, goal)])


def _reading(pipeline: Pipeline) -> str:
    head = "" if pipeline.rows is None else f".head({pipeline.rows})"
    lines = f'train = pd.read_csv("data/train.csv"){head}\ntest = pd.read_csv("data/test.csv")'
    if pipeline.facts.kind == "pair":
        said = ", ".join(literal(name) for name in pipeline.facts.array.split())
        lines += f"\nfirst, second, group = {said}"
    return lines


def _inputs(pipeline: Pipeline) -> str:
    facts, kind = pipeline.facts, pipeline.facts.kind
    lines = [] if kind == "image_to_image" else [f'target = "{facts.target}"']
    if kind in ARRAYS:
        over = f" / {facts.scale}" if facts.scale != 1 else ""
        pages = f'np.load("data/train_{facts.target}.npy")[: len(train)].astype(float)'
        lines += [
            f'X = np.load("data/train_{facts.array}.npy")[: len(train)]{over}',
            f'X_test = np.load("data/test_{facts.array}.npy"){over}',
            f"y = {pages if kind == 'image_to_image' else 'train[target]'}",
        ]
    elif kind == "pair":
        lines.append('X, X_test, y = features(train, "train"), features(test, "test"), train[target]')
    elif kind == "table":
        lines += [
            f"features = {_columns(pipeline)}",
            "X, X_test, y = train[features], test[features], train[target]",
        ]
    elif kind == "text":
        joined = '[text_columns].fillna("").agg(" ".join, axis=1)'
        lines += [
            f"text_columns = {_columns(pipeline)}",
            f"X = train{joined}",
            f"X_test = test{joined}",
            "y = train[target]",
        ]
        if pipeline.cleaning is not None:
            cleaned = [_call(pipeline, "cleaning", pipeline.cleaning, each) for each in ("X", "X_test")]
            lines.append(f"X, X_test = {', '.join(map(lay_out, cleaned))}")
    elif kind == "graph":
        lines += [f"columns = {_columns(pipeline)}", "y = train[target]", *_graph_inputs(pipeline)]
    return "\n".join(lines)


def _columns(pipeline: Pipeline) -> str:
    identity = f'"{pipeline.facts.identity}"'
    if pipeline.columns == EVERY:
        return f"test.columns.drop({identity}).tolist()"
    if pipeline.columns == NUMERIC:
        return f'test.select_dtypes("number").columns.drop({identity}).tolist()'
    return lay_out(listed([literal(name) for name in pipeline.columns]), before=len("text_columns = "))


def _views(
    pipeline: Pipeline, default: str, arguments: Mapping[str, str], before: int, indent: int = 0
) -> str:
    """All views side by side. arguments: what each is made of, where that is not the `default`."""
    views = [_call(pipeline, "views", view, arguments.get(view.name, default)) for view in pipeline.views]
    if pipeline.facts.kind == "graph":  # of all nodes, but the numbers of those with a row
        views = [one if one.opening == "numbers(" else replace(one, closing=")[ids]") for one in views]
    many = pipeline.facts.kind == "graph" or len(views) > 1
    return lay_out(call("np.hstack", [listed(views)]) if many else views[0], indent, before)


def _graph_inputs(pipeline: Pipeline) -> list[str]:
    identity = f'"{pipeline.facts.identity}"'
    arguments = {"degrees": "links", "spectral_embedding": "links", "numbers": "rows[columns]"}
    return [
        "",
        "rows = pd.concat([train, test])",
        f"ids = rows[{identity}].to_numpy()",
        'links = adjacency(pd.read_csv("data/edges.csv").to_numpy(), ids)',
        f"labels = known_labels(links, train[{identity}], y)",
        f"features = {_views(pipeline, 'links, labels', arguments, len('features = '))}",
        "X, X_test = features[: len(train)], features[len(train) :]",
    ]


def _features(pipeline: Pipeline) -> str:
    """The function that makes a model's inputs, for kinds that have one."""
    kind, known = pipeline.facts.kind, {"letters": "frame[first], frame[second]", "groups": "frame[group]"}
    if kind == "pair":
        lines = ["def features(frame, part):", '    """Inputs of the model, one row for each pair."""']
        if any(view.name not in known for view in pipeline.views):
            lines += [
                '    a = unit(np.load(f"data/{part}_{first}_vectors.npy"))[: len(frame)]',
                '    b = unit(np.load(f"data/{part}_{second}_vectors.npy"))[: len(frame)]',
            ]
    elif kind in ARRAYS:
        lines = [f"def features({ARRAYS[kind]}):", '    """Inputs of the model, one row each."""']
        if pipeline.cleaning is not None:
            cleaned = _call(pipeline, "cleaning", pipeline.cleaning, ARRAYS[kind])
            lines.append(f"    {ARRAYS[kind]} = {lay_out(cleaned)}")
    else:
        return ""
    views = _views(pipeline, ARRAYS.get(kind, "a, b"), known, len("return "), 4)
    return "\n".join([*lines, f"    return {views}"])


def _work(pipeline: Pipeline) -> str:
    """From the validation split to the submission."""
    facts = pipeline.facts
    share, truth = literal(pipeline.holdout), "y_valid"
    submitted = (
        f'submission = pd.DataFrame({{"{facts.identity}": test["{facts.identity}"], target: predictions}})\n'
        'submission.to_csv("submission.csv", index=False)'
    )
    if facts.kind == "image_to_image":
        truth = "y_valid.ravel()"
        submitted = 'np.save("submission.npy", predictions.reshape(X_test.shape).astype(np.float32))'
    return "\n".join(
        [
            f"X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size={share}, random_state=0)",
            *_changes(pipeline, "_fit"),
            f"\nmodel = {lay_out(model(pipeline), before=8)}",
            _fit(pipeline, "_fit"),
            f"\nvalid_predictions = {_predict(pipeline, 'X_valid', 'y_fit')}",
            f"score = {SCORES[facts.metric].format(truth=truth)}",
            f'print(f"validation {facts.metric}: {{score:.4f}}")\n',
            *([*_changes(pipeline, ""), _fit(pipeline, "")] if pipeline.refit else []),
            f"predictions = {_predict(pipeline, 'X_test', 'y')}",
            f"{submitted}\n",
        ]
    )


def _changes(pipeline: Pipeline, part: str) -> list[str]:
    """Lines that change the rows a model is fitted to."""
    rows, chosen = (f"X{part}", f"y{part}"), pipeline.chosen("outliers", "augmentation")
    calls = [_call(pipeline, slot, choice, *rows) for slot, choice in chosen]
    return [f"{', '.join(rows)} = {lay_out(changed)}" for changed in calls]


def _fit(pipeline: Pipeline, part: str) -> str:
    inputs = f"features(X{part})" if pipeline.facts.kind in ARRAYS else f"X{part}"
    if pipeline.facts.kind != "image_to_image":
        return f"model.fit({inputs}, y{part})"
    if pipeline.pixels is None:
        return f"model.fit({inputs}, y{part}.ravel())"
    return f"model.fit(*some_pixels({inputs}, y{part}, {pipeline.pixels}))"


def _predict(pipeline: Pipeline, inputs: str, known: str) -> str:
    """Predictions for the inputs; numbers within the range of the known targets, which no model leaves for good."""
    facts: Facts = pipeline.facts
    inputs = f"features({inputs})" if facts.kind in ARRAYS else inputs
    if facts.metric == "auc":
        probable = pipeline.estimator.name in PROBABLE
        return f"model.predict_proba({inputs})[:, 1]" if probable else f"model.decision_function({inputs})"
    if pipeline.facts.goal == "classification":
        return f"model.predict({inputs})"
    low, high = ("0", "255") if facts.kind == "image_to_image" else (f"{known}.min()", f"{known}.max()")
    return f"np.clip(model.predict({inputs}), {low}, {high})"
