"""Settings of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.training.optimisers import OptimiserConfig


@dataclass(frozen=True)
class SFTConfig:
    """The paper's values where it has them (arXiv 2505.23723, appendix C.1).

    row_length: tokens in a packed row.
    batch_rows: packed rows in an optimiser step, however many trajectories they contain. micro_rows: rows in a
        micro-batch, over which gradients are accumulated.
    batch_sequences: if not 0, a step has this many trajectories instead, like the paper's batch of 64, packed into as
        many rows as they need.
    epochs: passes over the training trajectories and their paraphrases, rounded to whole steps. steps: if not 0, the
        number of steps instead.
    paraphrases: for each training trajectory, how many copies with other wordings of the same instructions are trained
        on beside it; see `agent.paraphrase`.
    eval_fraction: share of the trajectories held out for the evaluation loss, computed every `eval_every` steps.
    checkpoint_every, log_every: in steps. keep: checkpoints kept.
    seed: of the held-out share and of the order of rows.
    """

    row_length: int = setting(15_000, at_least=2)
    batch_rows: int = setting(64, at_least=1)
    batch_sequences: int = setting(0, at_least=0)
    micro_rows: int = setting(8, at_least=1, defines_run=False)
    epochs: float = setting(2.0, at_least=0)
    steps: int = setting(0, at_least=0)
    paraphrases: int = setting(0, at_least=0, at_most=1000)
    eval_fraction: float = setting(0.05, at_least=0, below=1)
    eval_every: int = setting(50, at_least=1)
    checkpoint_every: int = setting(50, at_least=1, defines_run=False)
    log_every: int = setting(1, at_least=1, defines_run=False)
    keep: int = setting(2, at_least=1, defines_run=False)
    seed: int = setting(0, at_least=0)
    optimiser: OptimiserConfig = setting(
        make=lambda: OptimiserConfig(learning_rate=2e-5, schedule="cosine", b2=0.999)
    )

    def validate(self) -> None:
        """Raises UserError naming the field and its value."""
        check(self, "sft")
        if not self.batch_sequences and self.batch_rows % self.micro_rows:
            raise UserError(
                f"sft.batch_rows is {self.batch_rows}, which is not a multiple of sft.micro_rows {self.micro_rows}"
            )
        if not self.steps and not self.epochs:
            raise UserError(
                f"sft.steps is {self.steps} and sft.epochs {self.epochs}: one of them must be positive"
            )
