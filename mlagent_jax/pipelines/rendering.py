"""From a pipeline to the script that a person would have written."""

from __future__ import annotations

from mlagent_jax.pipelines.estimators import SECOND, TUNED
from mlagent_jax.pipelines.metrics import SCORES, problem_type
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
    learnt = problem_type(pipeline.facts.metric)
    text = pipeline.facts.kind == "text"
    steps = [_vectorizer(pipeline)] if text else []
    if pipeline.encoding is not None:
        chosen = 'make_column_selector(dtype_exclude="number")'
        encoder = Group("(", (_call(pipeline.encoding, "encoding", learnt), chosen), ")")
        steps.append(call("make_column_transformer", [encoder, 'remainder="passthrough"']))
    for slot in ("reduction", "scaling") if text else ("gaps", "scaling", "reduction"):
        choice: Choice | None = getattr(pipeline, slot)
        if choice is not None:
            steps.append(_call(choice, slot, learnt))
    steps.append(_last_step(pipeline, learnt))
    return steps[0] if len(steps) == 1 else call("make_pipeline", steps, lines=True)


def _last_step(pipeline: Pipeline, learnt: str) -> Group:
    """The estimator in its ensemble, on its target."""
    last = _call(pipeline.estimator, "estimator", learnt)
    ensemble = pipeline.ensemble
    if ensemble is not None:
        option = BY_NAME["ensemble", ensemble.name]
        if ensemble.name == "tuned":
            last = call(
                "GridSearchCV", [last, TUNED[pipeline.estimator.name], *option.source(ensemble, learnt)]
            )
        elif ensemble.name == "bagged":
            last = call(option.callee(learnt), [last, *option.source(ensemble, learnt)])
        else:
            second = ensemble.name.removeprefix("with_")
            other = _call(BY_NAME["estimator", second].choice(SECOND[second]), "estimator", learnt)
            pairs = ((pipeline.estimator.name, last), (f"{second}_2", other))
            members = listed([Group("(", (f'"{name}"', one), ")") for name, one in pairs])
            soft = ['voting="soft"'] if learnt == "classification" else []
            last = call(option.callee(learnt), [members, *soft])
    if pipeline.target is not None:
        option = BY_NAME["target", pipeline.target.name]
        last = call(option.callee(learnt), [last, *option.source(pipeline.target, learnt)])
    return last


def _call(choice: Choice, slot: str, learnt: str) -> Group:
    option = BY_NAME[slot, choice.name]
    return call(option.callee(learnt), option.source(choice, learnt))


def _vectorizer(pipeline: Pipeline) -> Group:
    views = [_call(view, "views", "classification") for view in pipeline.views]
    return views[0] if len(views) == 1 else call("make_union", views, lines=True)


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
            cleaned = BY_NAME["cleaning", pipeline.cleaning.name].callee("classification")
            lines.append(f"X, X_test = {cleaned}(X), {cleaned}(X_test)")
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


def _views(pipeline: Pipeline, arguments: dict[str, str], default: str) -> str:
    sources = []
    for view in pipeline.views:
        option = BY_NAME["views", view.name]
        said = [arguments.get(view.name, default), *option.source(view, "classification")]
        sources.append(call(option.callee("classification"), said))
    whole = sources[0] if len(sources) == 1 else call("np.hstack", [listed(sources)])
    return lay_out(whole, 4, len("return "))


def _graph_inputs(pipeline: Pipeline) -> list[str]:
    identity = f'"{pipeline.facts.identity}"'
    known = {"degrees": "links", "spectral_embedding": "links", "numbers": "rows[columns]"}
    sources = []
    for view in pipeline.views:
        option = BY_NAME["views", view.name]
        said = [known.get(view.name, "links, labels"), *option.source(view, "classification")]
        chosen = "" if view.name == "numbers" else "[ids]"
        sources.append(f"{view.name}({', '.join(said)}){chosen}")
    lines = [
        "",
        "rows = pd.concat([train, test])",
        f"ids = rows[{identity}].to_numpy()",
        'links = adjacency(pd.read_csv("data/edges.csv").to_numpy(), ids)',
        f"labels = known_labels(links, train[{identity}], y)",
    ]
    whole = lay_out(call("np.hstack", [listed(sources)]), before=len("features = "))
    return [*lines, f"features = {whole}", "X, X_test = features[: len(train)], features[len(train) :]"]


def _features(pipeline: Pipeline) -> str:
    """The function that makes a model's inputs, for kinds that have one."""
    kind = pipeline.facts.kind
    if kind == "pair":
        return _pair_features(pipeline)
    if kind not in ARRAYS:
        return ""
    name = ARRAYS[kind]
    lines = [f"def features({name}):", '    """Inputs of the model, one row each."""']
    if pipeline.cleaning is not None:
        option = BY_NAME["cleaning", pipeline.cleaning.name]
        said = ", ".join([name, *option.source(pipeline.cleaning, "classification")])
        lines.append(f"    {name} = {option.callee('classification')}({said})")
    return "\n".join([*lines, f"    return {_views(pipeline, {}, name)}"])


def _pair_features(pipeline: Pipeline) -> str:
    known = {"letters": "frame[first], frame[second]", "groups": "frame[group]"}
    lines = ["def features(frame, part):", '    """Inputs of the model, one row for each pair."""']
    if any(view.name not in known for view in pipeline.views):
        lines += [
            '    a = unit(np.load(f"data/{part}_{first}_vectors.npy"))[: len(frame)]',
            '    b = unit(np.load(f"data/{part}_{second}_vectors.npy"))[: len(frame)]',
        ]
    return "\n".join([*lines, f"    return {_views(pipeline, known, 'a, b')}"])


def _work(pipeline: Pipeline) -> str:
    """From the validation split to the submission."""
    facts = pipeline.facts
    blocks = [
        _split(pipeline, "_fit"),
        f"model = {lay_out(model(pipeline), before=8)}\n{_fit(pipeline, '_fit')}",
    ]
    truth = "y_valid.ravel()" if facts.kind == "image_to_image" else "y_valid"
    blocks.append(
        f"valid_predictions = {_predict(pipeline, 'X_valid', 'y_fit')}\n"
        f"score = {SCORES[facts.metric].format(truth=truth)}\n"
        f'print(f"validation {facts.metric}: {{score:.4f}}")'
    )
    again = f"{_changes(pipeline, '')}{_fit(pipeline, '')}\n" if pipeline.refit else ""
    last = f"{again}predictions = {_predict(pipeline, 'X_test', 'y')}\n"
    if facts.kind == "image_to_image":
        last += 'np.save("submission.npy", predictions.reshape(X_test.shape).astype(np.float32))\n'
    else:
        last += (
            f'submission = pd.DataFrame({{"{facts.identity}": test["{facts.identity}"], target: predictions}})\n'
            'submission.to_csv("submission.csv", index=False)\n'
        )
    return "\n\n".join([*blocks, last])


def _split(pipeline: Pipeline, part: str) -> str:
    share = literal(pipeline.holdout)
    line = f"X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size={share}, random_state=0)\n"
    return (line + _changes(pipeline, part)).rstrip("\n")


def _changes(pipeline: Pipeline, part: str) -> str:
    """Lines that change the rows a model is fitted to."""
    lines = ""
    for slot in ("outliers", "augmentation"):
        choice: Choice | None = getattr(pipeline, slot)
        if choice is not None:
            learnt = problem_type(pipeline.facts.metric)
            option = BY_NAME[slot, choice.name]
            said = ", ".join([f"X{part}", f"y{part}", *option.source(choice, learnt)])
            lines += f"X{part}, y{part} = {option.callee(learnt)}({said})\n"
    return lines


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
    if problem_type(facts.metric) == "classification":
        return f"model.predict({inputs})"
    low, high = ("0", "255") if facts.kind == "image_to_image" else (f"{known}.min()", f"{known}.max()")
    return f"np.clip(model.predict({inputs}), {low}, {high})"
