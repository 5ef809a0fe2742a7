"""Settings of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlagent_jax.errors import UserError
from mlagent_jax.training.optimisers import OptimiserConfig

_COUNTS = ("row_length", "batch_rows", "micro_rows", "eval_every", "checkpoint_every", "log_every", "keep")


@dataclass(frozen=True)
class SFTConfig:
    """The paper's values where it has them (arXiv 2505.23723, appendix C.1).

    row_length: tokens in a packed row. batch_rows: packed rows in an optimiser step, however many trajectories they
        hold; `micro_rows` of them at a time. batch_sequences: if not 0, a step is of that many trajectories instead, as
        the paper's batch of 64 is, packed into as many rows as they need.
    epochs: passes over the training rows; `steps`, if not 0, says how many optimiser steps instead.
    eval_fraction: share of the trajectories held out for the evaluation loss, taken every `eval_every` steps.
    checkpoint_every, log_every: steps. keep: checkpoints kept.
    seed: of the held-out share and the order of rows.
    """

    row_length: int = 15_000
    batch_rows: int = 64
    batch_sequences: int = 0
    micro_rows: int = 8
    epochs: float = 2.0
    steps: int = 0
    eval_fraction: float = 0.05
    eval_every: int = 50
    checkpoint_every: int = 50
    log_every: int = 1
    keep: int = 2
    seed: int = 0
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=2e-5, schedule="cosine", b2=0.999)
    )

    def validate(self) -> None:
        """Raises UserError naming the field and its value."""
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise UserError(f"sft.{name} is {getattr(self, name)}, but must be at least 1")
        if self.batch_sequences < 0:
            raise UserError(f"sft.batch_sequences is {self.batch_sequences}, but must not be negative")
        if not self.batch_sequences and self.batch_rows % self.micro_rows:
            raise UserError(
                f"sft.batch_rows is {self.batch_rows}, no multiple of sft.micro_rows {self.micro_rows}"
            )
        if self.steps < 0 or (self.steps == 0 and not self.epochs > 0):
            raise UserError(
                f"sft.steps is {self.steps} and sft.epochs {self.epochs}: one of them must be positive"
            )
        if not 0 <= self.eval_fraction < 1:
            raise UserError(f"sft.eval_fraction is {self.eval_fraction}, but must be at least 0 and below 1")
        self.optimiser.validate("sft.optimiser")
