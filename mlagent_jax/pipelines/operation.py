"""What an operation is: one change of a pipeline that can be asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from mlagent_jax.pipelines import grammar
from mlagent_jax.pipelines.option import ALL, BOTH, NumericParam
from mlagent_jax.pipelines.pipeline import Pipeline, PipelineError, Value

Values = Mapping[str, Value]
Change = Callable[[Pipeline, Values], Pipeline]


@dataclass(frozen=True)
class Operation:
    """axis: "data", "model" or "learning". phrase: its wordings, see `grammar`. numbers: those that are said.

    changes: the field of a pipeline that it may change; it raises PipelineError where it does not apply.
    """

    id: str
    axis: str
    phrase: str
    change: Change
    changes: str
    kinds: frozenset[str] = ALL
    goals: tuple[str, ...] = BOTH
    numbers: Mapping[str, NumericParam] = field(default_factory=dict)

    @functools.cached_property
    def wordings(self) -> tuple[str, ...]:
        return grammar.expand(self.phrase)

    @functools.cached_property
    def train_wordings(self) -> tuple[str, ...]:
        """The wordings that trajectories may hold."""
        return grammar.taught(self.id, self.wordings)

    @functools.cached_property
    def held_out(self) -> tuple[str, ...]:
        return tuple(one for one in self.wordings if one not in self.train_wordings)

    def supports(self, kind: str, learnt: str) -> bool:
        return kind in self.kinds and learnt in self.goals

    def param_grid(self) -> Iterator[Values]:
        """The numbers that are proposed, in every combination."""
        offered = ([one.value(number) for number in one.candidates] for one in self.numbers.values())
        for combination in product(*offered):
            yield dict(zip(self.numbers, combination, strict=True))

    def say(self, values: Values, wording: str = "") -> str:
        """An instruction; by default in the first wording that is taught."""
        said = {name: one.say(values[name]) for name, one in self.numbers.items()}
        return (wording or self.train_wordings[0]).format(**said)

    def __call__(self, pipeline: Pipeline, values: Values) -> Pipeline:
        """The changed pipeline; the same one if all is already so. Raises PipelineError."""
        kind, learnt = pipeline.facts.kind, pipeline.facts.goal
        if not self.supports(kind, learnt):
            said, what = self.say(next(self.param_grid())), kind.replace("_", " ")
            raise PipelineError(f"{said!r} suits no script for {learnt} of this kind ({what})")
        return self.change(pipeline, values)
