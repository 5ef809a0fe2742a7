"""Which pipelines run: the rules that scikit-learn makes, on data with text columns and gaps."""

from __future__ import annotations

from mlagent_jax.pipelines.metrics import problem_type
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Pipeline
from mlagent_jax.pipelines.rendering import PROBABLE

_TAKE_GAPS = ("boosting", "tree", "forest", "extra_trees")
_KEEP_GAPS = ("standard", "range", "ranks", "logarithms")


def validation_errors(pipeline: Pipeline, has_gaps: bool = True) -> list[str]:
    """Why the script fails, [] if it runs. Tables that are named by columns are taken to be numbers without gaps.

    has_gaps: whether other columns of the table have gaps.
    """
    found = [*_table_faults(pipeline, has_gaps), *_text_faults(pipeline)]
    if pipeline.reduction is not None and pipeline.reduction.name == "select" and _has_one_input(pipeline):
        found.append("there is one input only, so a share of them is none")
    ensemble = pipeline.ensemble.name if pipeline.ensemble else ""
    members = [pipeline.estimator.name, *([ensemble[5:]] if ensemble.startswith("with_") else [])]
    if len(members) > 1 and problem_type(pipeline.facts.metric) == "classification":
        found += [f"{name} gives no probabilities to average" for name in members if name not in PROBABLE]
    if (
        pipeline.estimator.get("loss") == "poisson"
        and pipeline.target is not None
        and pipeline.target.name == "standard"
    ):
        found.append("a standardized target is negative, which the Poisson loss refuses")
    return found


def _has_one_input(pipeline: Pipeline) -> bool:
    names = {view.name for view in pipeline.views}
    if pipeline.facts.kind == "table":
        return len(pipeline.columns) == 1
    if pipeline.facts.kind == "graph" and names == {"numbers"}:
        return len(pipeline.columns) == 1
    return names in ({"cosine"}, {"groups"}, {"degrees"})


def _table_faults(pipeline: Pipeline, has_gaps: bool) -> list[str]:
    if pipeline.facts.kind != "table" or pipeline.columns not in (NUMERIC, EVERY):
        return []
    if pipeline.columns == EVERY and pipeline.encoding is None:
        return ["text columns are not encoded"]
    ensemble = pipeline.ensemble.name if pipeline.ensemble else ""
    takes = pipeline.estimator.name in _TAKE_GAPS
    takes &= not ensemble.startswith("with_") or ensemble[5:] in _TAKE_GAPS
    takes &= pipeline.scaling is None or pipeline.scaling.name in _KEEP_GAPS
    takes &= pipeline.reduction is None
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
