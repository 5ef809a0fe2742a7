"""What grading has to know of a task: the metric, what a submission looks like, and where the labels are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from mlagent_jax.grading.metrics import METRICS, Prediction


@dataclass(frozen=True, kw_only=True)
class GradingSpec:
    """The part of a task that decides what a submission is worth.

    metric: a name in `metrics.METRICS`, which knows its direction. also_metrics: further ones, only reported.
    id_column, target_columns: header of submission.csv.
    target_array: name of the array to be predicted instead of target columns, or ""; train_NAME.npy is shown,
        and the submission is submission.npy.
    classes: every class that a prediction may name, for metrics over classes; else empty.
    prediction_range: least and greatest value that may be predicted, where the metric allows more.
    labels_path: held outside of every sandbox. data_digest: hash of the labels and of what scripts see.
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

    @classmethod
    def of(cls, other: GradingSpec) -> Self:
        """The same, without the fields that a subclass adds."""
        return cls(**{field.name: getattr(other, field.name) for field in fields(cls)})

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric and those that are only reported."""
        return (self.metric, *self.also_metrics)

    @property
    def submission(self) -> str:
        """Name of the file that a script must write."""
        return "submission.npy" if self.target_array else "submission.csv"

    @property
    def over_classes(self) -> bool:
        """Whether a prediction is the name of a class."""
        return METRICS[self.metric].prediction is Prediction.CLASS

    @property
    def prediction_bounds(self) -> tuple[float, float]:
        """Least and greatest value that every metric and the task itself allow."""
        bounds = [METRICS[name].prediction.bounds for name in self.metrics]
        bounds += [self.prediction_range] if self.prediction_range else []
        return max(low for low, _ in bounds), min(high for _, high in bounds)
