"""Evaluation along training: episodes of the policy every few updates (verl's `trainer.test_freq`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlagent_jax.generate.engine import Engine
from mlagent_jax.models.params import Params


@dataclass(frozen=True)
class PeriodicEvaluation:
    """every: updates from one evaluation to the next; the first and the last policy are evaluated too.

    run: evaluates the policy whose weights the engine holds, given the number of updates done. It is called on the main
    process only, and again for an update whose evaluation was interrupted, so it has to keep what it has done.
    """

    every: int
    run: Callable[[int], None]

    def at(self, update: int, engine: Engine, params: Params, *, is_last: bool = False) -> None:
        """Evaluates `params` if it is time to, after `update` updates. All processes must call this."""
        if update % self.every and not is_last:
            return
        engine.load(params)
        engine.on_main(lambda: self.run(update))
        engine.unload()
