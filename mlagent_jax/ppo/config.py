"""Settings of PPO, with the paper's values where it prints them and veRL's defaults where it does not."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlagent_jax.errors import UserError
from mlagent_jax.training.optimisers import OptimiserConfig

CRITICS = ("separate", "shared", "none")
CRITIC_STARTS = ("zero", "expert")
AGGREGATIONS = ("token_mean", "action_mean")
KL_ESTIMATORS = ("k1", "k2", "k3")
KL_PLACES = ("reward", "loss")
_COUNTS = ("updates", "batch_size", "minibatch_size", "epochs", "row_length", "micro_rows", "keep")


def _adamw(learning_rate: float) -> OptimiserConfig:
    return OptimiserConfig(learning_rate=learning_rate, weight_decay=0.01)


@dataclass(frozen=True)
class PPOConfig:
    """arXiv 2505.23723, section 4.2 and appendix C.1.

    updates: policy updates. batch_size: states (or episodes) sampled for each. minibatch_size: of those, in
        one optimiser step. epochs: passes over a batch.
    row_length: tokens in a packed row; at least the longest prompt and response. micro_rows: rows at a time.
    temperature: of sampling, and of the log-probs that are trained on.
    gamma, lam: discount and GAE's lambda, per token. reward_to_go: whether an action's return counts the
        rewards of later actions of its episode (step-wise there are none).
    normalise_advantages: to mean 0 and deviation 1 over the batch's action tokens.
    clip_low, clip_high: the ratio stays in [1 - low, 1 + high]. dual_clip: the constant c > 1 of arXiv
        1912.09729, verl's `clip_ratio_c`, 0 for none. value_clip: how far a value may move from the old one, 0 for no
        limit.
    aggregation: mean over the minibatch's tokens, or over its actions' own token means.
    kl_coefficient: fixed, of the KL to the SFT model, by `kl_estimator`, in the "reward" or the "loss".
    critic: a "separate" network that starts as the SFT model, a value head that "shared"s the actor's trunk,
        or "none", where the batch's mean is all the baseline there is.
    critic_trunk_gradient: whether the shared head's loss moves the trunk.
    critic_start: "zero", or "expert": a value head fitted to what the expert's actions earned, with the ridge
        penalty `critic_ridge`. critic_warmup: first updates in which only the critic learns.
    target_kl: no further epoch once the KL to the old policy, measured over the batch after each epoch, is above it;
        0 for no such stop. It needs `epochs` of 2 or more.
    shuffle_rewards: a control: rewards are permuted within the batch, and nothing should be learnt.
    """

    updates: int = 39
    batch_size: int = 256
    minibatch_size: int = 256
    epochs: int = 1
    row_length: int = 15_000
    micro_rows: int = 8
    temperature: float = 1.0
    gamma: float = 1.0
    lam: float = 1.0
    reward_to_go: bool = True
    normalise_advantages: bool = True
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 3.0
    value_clip: float = 0.5
    value_coefficient: float = 1.0
    entropy_coefficient: float = 0.0
    aggregation: str = "token_mean"
    kl_coefficient: float = 0.001
    kl_estimator: str = "k1"
    kl_in: str = "reward"
    critic: str = "separate"
    critic_trunk_gradient: bool = False
    critic_start: str = "zero"
    critic_ridge: float = 0.01
    critic_warmup: int = 0
    target_kl: float = 0.0
    shuffle_rewards: bool = False
    keep: int = 2
    seed: int = 0
    actor_optimiser: OptimiserConfig = field(default_factory=lambda: _adamw(1e-6))
    critic_optimiser: OptimiserConfig = field(default_factory=lambda: _adamw(1e-5))

    def validate(self) -> None:
        """Raises UserError naming the field and its value."""
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise UserError(f"ppo.{name} is {getattr(self, name)}, but must be at least 1")
        if not self.temperature > 0:
            raise UserError(f"ppo.temperature is {self.temperature}, but must be positive")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"ppo.{name} is {getattr(self, name)}, but must be between 0 and 1")
        for name in ("clip_low", "clip_high", "value_clip", "value_coefficient", "entropy_coefficient"):
            if getattr(self, name) < 0:
                raise UserError(f"ppo.{name} is {getattr(self, name)}, but must not be negative")
        for name in ("kl_coefficient", "critic_ridge", "critic_warmup", "target_kl"):
            if getattr(self, name) < 0:
                raise UserError(f"ppo.{name} is {getattr(self, name)}, but must not be negative")
        if self.target_kl and self.epochs == 1:
            raise UserError(
                f"ppo.target_kl is {self.target_kl}, but there is no epoch that it could stop: ppo.epochs is 1; set "
                "ppo.epochs to 2 or more, or ppo.target_kl to 0"
            )
        if self.dual_clip and not self.dual_clip > 1:
            raise UserError(f"ppo.dual_clip is {self.dual_clip}, but must be 0 or above 1")
        self._check_choices()
        self.actor_optimiser.validate("ppo.actor_optimiser")
        self.critic_optimiser.validate("ppo.critic_optimiser")

    def _check_choices(self) -> None:
        choices = {
            "critic": CRITICS,
            "critic_start": CRITIC_STARTS,
            "aggregation": AGGREGATIONS,
            "kl_estimator": KL_ESTIMATORS,
            "kl_in": KL_PLACES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"ppo.{name} is {getattr(self, name)!r}, but must be one of {', '.join(allowed)}"
                )
