"""What grading needs to know about a task: its metric, the form of a submission, and where the labels are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from mlagent_jax.grading.metrics import METRICS


@dataclass(frozen=True, kw_only=True)
class GradingSpec:
    """The part of a task that decides how a submission is scored.

    metric: a key of `metrics.METRICS`. also_metrics: further metrics, which are only reported.
    id_column, target_columns: the header of submission.csv.
    target_array: the name of the array to predict instead of target columns, or "". Scripts see train_NAME.npy, and
        the submission is submission.npy.
    classes: every class that a prediction may name, if the metric is over classes; else empty.
    prediction_range: smallest and largest value allowed, where this is narrower than the metric's own range.
    labels_path: kept outside every sandbox. data_digest: hash of the labels and of all files that scripts see.
    """

    metric: str
    also_metrics: tuple[str, ...] = ()
    id_column: str
    target_columns: tuple[str, ...]
    target_array: str = ""
    classes: tuple[str, ...] = ()
    prediction_range: tuple[float, float] | None = None
    labels_path: Path
    data_digest: str

    def without_labels(self) -> GradingSpec:
        """A copy without the path of the labels, and without the fields that a subclass adds."""
        values = {field.name: getattr(self, field.name) for field in fields(GradingSpec)}
        return GradingSpec(**values | {"labels_path": Path()})

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric, followed by those that are only reported."""
        return (self.metric, *self.also_metrics)

    @property
    def submission(self) -> str:
        """The name of the file that a script must write."""
        return "submission.npy" if self.target_array else "submission.csv"

    @property
    def predicts_text(self) -> bool:
        """Whether each prediction is text: a class name, or a ranking of labels."""
        return METRICS[self.metric].prediction.is_text

    @property
    def prediction_bounds(self) -> tuple[float, float]:
        """Smallest and largest value that the task and all of its metrics allow."""
        bounds = [METRICS[name].prediction.bounds for name in self.metrics]
        bounds += [self.prediction_range] if self.prediction_range else []
        return max(low for low, _ in bounds), min(high for _, high in bounds)
