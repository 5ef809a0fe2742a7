"""Searches of the space without a model: at random, and by Optuna's tree-structured Parzen estimator (TPE)."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from typing import Any, Protocol

from mlagent_jax.errors import UserError
from mlagent_jax.pipelines.pipeline import Facts, Pipeline
from mlagent_jax.pipelines.sampling import sample, suggest_at_random

SEARCHES = ("random", "tpe")


class Search(Protocol):
    def ask(self) -> Pipeline:
        """The next pipeline to try."""
        ...

    def tell(self, score: float | None) -> None:
        """What the pipeline asked for last scored, higher is better; None if it failed."""
        ...


def check_search(name: str) -> None:
    """Raises UserError if a search's packages are not installed."""
    if name == "tpe" and importlib.util.find_spec("optuna") is None:
        raise UserError("the search 'tpe' needs Optuna: pip install -e '.[search]'")


def open_search(name: str, facts: Facts, columns: Sequence[str], seed: int) -> Search:
    """A search of `SEARCHES` over pipelines that read all rows. The same seed and scores ask for the same.

    columns: names to choose from, beside all of them or those of a type. Raises UserError.
    """
    if name == "random":
        return _RandomSearch(facts, columns, seed)
    if name == "tpe":
        return _TpeSearch(facts, columns, seed)
    raise UserError(f"there is no search {name!r}; there are {', '.join(SEARCHES)}")


class _RandomSearch:
    def __init__(self, facts: Facts, columns: Sequence[str], seed: int) -> None:
        self._facts, self._columns = facts, columns
        self._pick = suggest_at_random(random.Random(seed))

    def ask(self) -> Pipeline:
        return sample(self._facts, self._columns, self._pick, cuts=False)

    def tell(self, score: float | None) -> None:
        """It learns nothing."""


class _TpeSearch:
    def __init__(self, facts: Facts, columns: Sequence[str], seed: int) -> None:
        check_search("tpe")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._facts, self._columns = facts, columns
        # TPE takes a pruned trial for worse than any that ended, and ignores a failed one: it would ask for it again.
        self._failed = optuna.trial.TrialState.PRUNED
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._trial: Any = None

    def ask(self) -> Pipeline:
        self._trial = self._study.ask()
        return sample(self._facts, self._columns, self._trial.suggest_categorical, cuts=False)

    def tell(self, score: float | None) -> None:
        if score is None:
            self._study.tell(self._trial, state=self._failed)
        else:
            self._study.tell(self._trial, score)
