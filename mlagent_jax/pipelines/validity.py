"""Which pipelines run: the rules that scikit-learn makes, on data with text columns and gaps."""

from __future__ import annotations

from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Pipeline
from mlagent_jax.pipelines.rendering import PROBABLE, second_model

_TAKE_GAPS = ("boosting", "tree", "forest", "extra_trees")
_KEEP_GAPS = ("standard", "range", "ranks", "logarithms")


def validation_errors(pipeline: Pipeline, has_gaps: bool = True) -> list[str]:
    """Why the script fails, [] if it runs. Tables that are named by columns are taken to be numbers without gaps.

    has_gaps: whether other columns of the table have gaps.
    """
    found = [*_table_faults(pipeline, has_gaps), *_text_faults(pipeline)]
    if pipeline.reduction is not None and pipeline.reduction.name == "select" and _has_one_input(pipeline):
        found.append("there is one input only, so a share of them is none")
    members = _members(pipeline)
    if len(members) > 1 and pipeline.facts.goal == "classification":
        found += [f"{name} gives no probabilities to average" for name in members if name not in PROBABLE]
    if pipeline.estimator.get("loss") == "poisson" and pipeline.target == Choice("standard"):
        found.append("a standardized target is negative, which the Poisson loss refuses")
    return found


def _members(pipeline: Pipeline) -> list[str]:
    """The estimators that predict together."""
    return [name for name in (pipeline.estimator.name, second_model(pipeline)) if name]


def _has_one_input(pipeline: Pipeline) -> bool:
    names = {view.name for view in pipeline.views}
    if pipeline.facts.kind == "table" or names == {"numbers"}:
        return len(pipeline.columns) == 1
    return names in ({"cosine"}, {"groups"}, {"degrees"})


def _table_faults(pipeline: Pipeline, has_gaps: bool) -> list[str]:
    if pipeline.facts.kind != "table" or pipeline.columns not in (NUMERIC, EVERY):
        return []
    if pipeline.columns == EVERY and pipeline.encoding is None:
        return ["text columns are not encoded"]
    takes = pipeline.reduction is None and all(name in _TAKE_GAPS for name in _members(pipeline))
    takes &= pipeline.scaling is None or pipeline.scaling.name in _KEEP_GAPS
    return [] if takes or pipeline.gaps is not None or not has_gaps else ["gaps are not filled"]


def _text_faults(pipeline: Pipeline) -> list[str]:
    if pipeline.facts.kind != "text":
        return []
    dense = pipeline.reduction is not None and pipeline.reduction.name == "topics"
    scaling = pipeline.scaling.name if pipeline.scaling else ""
    found = []
    if not dense and scaling in ("standard", "range"):
        found.append("word counts are sparse, which the scaling refuses")
    if not dense and pipeline.estimator.name == "boosting":
        found.append("word counts are sparse, which boosted trees refuse")
    if dense and pipeline.estimator.name in ("bayes", "complement_bayes") and scaling != "range":
        found.append("topics are negative, which naive Bayes refuses")
    return found
