"""A pipeline: the choices that a person makes in a train.py, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.pipelines.metrics import problem_type

Value = bool | int | float | str | tuple[int, ...]
Params = tuple[tuple[str, Value], ...]

KINDS = ("table", "text", "pair", "image", "image_to_image", "series", "graph")
OPTIONAL_SLOTS = (
    *("cleaning", "gaps", "outliers", "encoding", "scaling", "reduction"),
    *("target", "augmentation", "ensemble"),
)  # that hold one choice or none
NUMERIC, EVERY = "numeric", "every"  # columns chosen by their type instead of by name

# A task's `kind` begins with one of these.
TASK_KINDS = {
    "tabular": "table",
    "text similarity": "pair",
    "text": "text",
    "image-to-image": "image_to_image",
    "image": "image",
    "series": "series",
    "graph": "graph",
}


class PipelineError(Exception):
    """A script that is no pipeline's, or a change that cannot be made; the message says why and what helps."""


def kind_of(task_kind: str) -> str:
    """The kind of pipeline for a task's `kind`, such as "text classification"; "" if there is none."""
    return next((kind for words, kind in TASK_KINDS.items() if task_kind.startswith(words)), "")


def problem_type_of(task_kind: str) -> str:
    """What is learnt in a task of this kind."""
    return "classification" if task_kind.endswith("classification") else "regression"


@dataclass(frozen=True)
class Facts:
    """What a script has to know of its task; operations do not change it.

    title: first line of the script. target: the target's column, or for images to images its array.
    array: name of the input arrays, or of the two columns of a pair. scale: what pixels are divided by.
    """

    kind: str
    title: str
    metric: str
    target: str
    identity: str = "id"
    array: str = ""
    scale: int = 1

    @property
    def goal(self) -> str:
        """ "classification" or "regression"."""
        return problem_type(self.metric)


@dataclass(frozen=True)
class Choice:
    """One option of a slot, and the parameters that are set, in the option's own order."""

    name: str
    params: Params = ()

    def get(self, name: str) -> Value | None:
        return dict(self.params).get(name)


@dataclass(frozen=True)
class Pipeline:
    """All choices. None is a slot without a choice; what each slot offers is in `options`.

    rows: training rows that are read, None for all. columns: of tables, texts and graphs, by name or by type.
    views: what the inputs are turned into, or how text is counted. pixels: of pages, that the model is fitted to.
    holdout: share of the rows that validate. refit: whether the final model is fitted to all rows.
    """

    facts: Facts
    estimator: Choice
    rows: int | None = None
    columns: tuple[str, ...] | str = ()
    views: tuple[Choice, ...] = ()
    pixels: int | None = None
    cleaning: Choice | None = None
    gaps: Choice | None = None
    outliers: Choice | None = None
    encoding: Choice | None = None
    scaling: Choice | None = None
    reduction: Choice | None = None
    target: Choice | None = None
    augmentation: Choice | None = None
    ensemble: Choice | None = None
    holdout: float = 0.2
    refit: bool = True

    def chosen(self, *slots: str) -> list[tuple[str, Choice]]:
        """Those of the slots that hold a choice, each with it."""
        return [(slot, choice) for slot in slots if (choice := getattr(self, slot)) is not None]
