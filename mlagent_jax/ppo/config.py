"""Settings of PPO, with the paper's values where it prints them and veRL's defaults where it does not."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.training.optimisers import OptimiserConfig

CRITICS = ("separate", "shared", "none")
CRITIC_STARTS = ("zero", "expert")
AGGREGATIONS = ("token_mean", "action_mean")
KL_ESTIMATORS = ("k1", "k2", "k3")
KL_PLACES = ("reward", "loss")


def _adamw(learning_rate: float) -> OptimiserConfig:
    return OptimiserConfig(learning_rate=learning_rate, weight_decay=0.01)


@dataclass(frozen=True)
class PPOConfig:
    """arXiv 2505.23723, section 4.2 and appendix C.1.

    updates: policy updates. batch_size: states (or episodes) sampled for each. minibatch_size: of those, in
        one optimiser step. epochs: passes over a batch.
    row_length: tokens in a packed row; at least the longest prompt and response. micro_rows: rows at a time.
    temperature: of sampling, and of the log-probs that are trained on; below 0.01 float32 would not hold their digits.
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

    updates: int = setting(39, at_least=1)
    batch_size: int = setting(256, at_least=1)
    minibatch_size: int = setting(256, at_least=1)
    epochs: int = setting(1, at_least=1)
    row_length: int = setting(15_000, at_least=2)
    micro_rows: int = setting(8, at_least=1, defines_run=False)
    temperature: float = setting(1.0, at_least=0.01)
    gamma: float = setting(1.0, at_least=0, at_most=1)
    lam: float = setting(1.0, at_least=0, at_most=1)
    reward_to_go: bool = True
    normalise_advantages: bool = True
    clip_low: float = setting(0.2, at_least=0, at_most=1)
    clip_high: float = setting(0.2, at_least=0)
    dual_clip: float = setting(3.0, above=1, or_value=0)
    value_clip: float = setting(0.5, at_least=0)
    value_coefficient: float = setting(1.0, at_least=0)
    entropy_coefficient: float = setting(0.0, at_least=0)
    aggregation: str = setting("token_mean", choices=AGGREGATIONS)
    kl_coefficient: float = setting(0.001, at_least=0)
    kl_estimator: str = setting("k1", choices=KL_ESTIMATORS)
    kl_in: str = setting("reward", choices=KL_PLACES)
    critic: str = setting("separate", choices=CRITICS)
    critic_trunk_gradient: bool = False
    critic_start: str = setting("zero", choices=CRITIC_STARTS)
    critic_ridge: float = setting(0.01, at_least=0)
    critic_warmup: int = setting(0, at_least=0)
    target_kl: float = setting(0.0, at_least=0)
    shuffle_rewards: bool = False
    keep: int = setting(2, at_least=1, defines_run=False)
    seed: int = setting(0, at_least=0)
    actor_optimiser: OptimiserConfig = setting(make=lambda: _adamw(1e-6))
    critic_optimiser: OptimiserConfig = setting(make=lambda: _adamw(1e-5))

    def validate(self) -> None:
        """Raises UserError naming the field and its value."""
        check(self, "ppo")
        if self.target_kl and self.epochs == 1:
            raise UserError(
                f"ppo.target_kl is {self.target_kl}, but there is no epoch that it could stop: ppo.epochs is 1; set "
                "ppo.epochs to 2 or more, or ppo.target_kl to 0"
            )
