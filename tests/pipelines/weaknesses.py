"""What a person who knows the data would do otherwise: kinds of weaknesses, told from a pipeline alone."""

from __future__ import annotations

from mlagent_jax.pipelines.metrics import problem_type
from mlagent_jax.pipelines.options import BY_NAME
from mlagent_jax.pipelines.pipeline import EVERY, Pipeline, Value

# Views that say more than the raw inputs do.
_TELLING = {
    "pair": {"cosine", "products", "differences", "distances"},
    "image": {"gradients", "radial_power_spectrum", "local_binary_patterns", "colours"},
    "image_to_image": {"background", "patch"},
    "series": {"slopes", "frequencies", "summary_statistics", "autocorrelation", "convolutions"},
    "graph": {"neighbours", "shares", "two_steps", "spectral_embedding"},
}
_LIKE_SCALES = ("svm", "linear_svm", "neighbors", "perceptron")


def weaknesses(pipeline: Pipeline) -> frozenset[str]:
    """Names of the kinds that are found; a pipeline without any may still be far from the best."""
    tests = {
        "rows": pipeline.rows is not None,
        "inputs": _few_inputs(pipeline),
        "holdout": not pipeline.refit and pipeline.holdout >= 0.4,
        "scaling": _unscaled(pipeline),
        "reduction": _over_reduced(pipeline),
        "cleaning": any(
            choice is not None and (_most(choice.get("sigma")) >= 2 or _most(choice.get("share")) >= 0.1)
            for choice in (pipeline.cleaning, pipeline.outliers)
        ),
        "vocabulary": any(
            view.name != "characters"
            and (_least(view.get("max_features")) <= 500 or _most(view.get("min_df")) >= 20)
            for view in pipeline.views
        ),
        "target": _untransformed(pipeline),
        **_model_tests(pipeline),
    }
    return frozenset(name for name, found in tests.items() if found)


def _model_tests(pipeline: Pipeline) -> dict[str, bool]:
    model, metric = pipeline.estimator, pipeline.facts.metric
    inverse = model.name in ("ridge", "lasso")
    sizes = (model.get(name) for name in ("n_estimators", "max_iter", "hidden_layer_sizes"))
    depth = _least(model.get("max_depth"))
    shallow = model.name != "tree" and depth <= 3
    settable = "class_weight" in BY_NAME["estimator", model.name].params
    return {
        "estimator": model.name in ("centroid", "lasso") or (model.name == "tree" and depth <= 4),
        "size": any(_least(size) <= 20 for size in sizes),
        "leaves": shallow
        or _most(model.get("min_samples_leaf")) >= 50
        or _least(model.get("max_leaf_nodes")) <= 4,
        "penalty": _least(model.get("C")) <= 0.02 or _most(model.get("alpha")) >= (1000 if inverse else 5),
        "rate": _least(model.get("learning_rate")) <= 0.01,
        "loss": model.get("loss") is not None and metric in ("rmse", "rmsle"),
        "weights": metric == "macro_f1" and settable and model.get("class_weight") is None,
    }


def _few_inputs(pipeline: Pipeline) -> bool:
    telling = _TELLING.get(pipeline.facts.kind)
    if telling is None:
        return pipeline.columns != EVERY
    return not telling & {view.name for view in pipeline.views}


def _unscaled(pipeline: Pipeline) -> bool:
    kinds = ("table", "pair", "graph")
    return (
        pipeline.scaling is None and pipeline.estimator.name in _LIKE_SCALES and pipeline.facts.kind in kinds
    )


def _over_reduced(pipeline: Pipeline) -> bool:
    if pipeline.reduction is None:
        return False
    few = {"components": ("n_components", 0.5), "topics": ("n_components", 20), "select": ("percentile", 10)}
    name, most = few[pipeline.reduction.name]
    return _least(pipeline.reduction.get(name)) <= most


def _untransformed(pipeline: Pipeline) -> bool:
    if pipeline.target is not None or problem_type(pipeline.facts.metric) == "classification":
        return False
    needs = (
        pipeline.estimator.name in ("svm", "linear_svm", "perceptron") and pipeline.facts.metric != "spearman"
    )
    return needs or pipeline.facts.metric == "rmsle"


def _least(value: Value | None) -> float:
    return float("inf") if value is None else float(value)  # type: ignore[arg-type]


def _most(value: Value | None) -> float:
    return 0.0 if value is None else float(value)  # type: ignore[arg-type]
