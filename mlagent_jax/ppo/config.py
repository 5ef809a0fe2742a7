"""Settings of PPO: the paper's values where it states them, otherwise verl's defaults."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.training.optimisers import OptimiserConfig

ADVANTAGES = ("gae", "rloo")
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

    updates: policy updates. batch_size: states (or episodes) sampled for each. minibatch_size: how many of them make
        one optimiser step. epochs: passes over a batch.
    row_length: tokens in a packed row; at least the longest prompt with its response. micro_rows: rows in a
        micro-batch, over which gradients are accumulated.
    samples_per_state: actions sampled from each state of a batch, verl's `rollout.n`.
    advantage: "gae", or "rloo", which compares the samples of a state with each other and needs no critic; see
        `leave_one_out`.
    temperature: of sampling, and of the log-probs in the loss. Below 0.01 float32 is too coarse for these.
    gamma, lam: discount and GAE's lambda, per token. reward_to_go: whether the return of an action includes the
        rewards of later actions of its episode (in step-wise RL there are none).
    normalise_advantages: to mean 0 and deviation 1 over the batch's action tokens.
    clip_low, clip_high: the ratio is clipped to [1 - low, 1 + high]. dual_clip: the constant c > 1 of arXiv 1912.09729,
        verl's `clip_ratio_c`; 0 for none. value_clip: how far a value may move from the old one; 0 for no limit.
    aggregation: "token_mean", the mean over the minibatch's tokens; "action_mean", the mean over its actions of each
        one's token mean.
    kl_coefficient: of the KL to the SFT model, estimated by `kl_estimator`. kl_in: whether it is part of the "reward"
        or of the "loss".
    critic: "separate", a network that starts as the SFT model; "shared", a value head on the actor's trunk; "none", no
        baseline other than the batch's mean.
    critic_trunk_gradient: whether the loss of a shared value head also trains the trunk.
    critic_start: "zero", or "expert": a value head fitted to the rewards of the expert's actions, with the ridge
        penalty `critic_ridge`. critic_warmup: number of first updates in which only the critic is trained.
    target_kl: the epochs of an update end once the KL to the old policy, computed over the batch after each epoch,
        exceeds this; 0 for no early stopping. It needs `epochs` of 2 or more.
    shuffle_rewards: a control: rewards are permuted within the batch, so nothing should be learned.
    keep: checkpoints kept.
    """

    updates: int = setting(39, at_least=1)
    batch_size: int = setting(256, at_least=1)
    minibatch_size: int = setting(256, at_least=1)
    epochs: int = setting(1, at_least=1)
    samples_per_state: int = setting(1, at_least=1)
    advantage: str = setting("gae", choices=ADVANTAGES)
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
        if self.batch_size % self.samples_per_state:
            raise UserError(
                f"ppo.batch_size is {self.batch_size}, which is not a multiple of ppo.samples_per_state "
                f"{self.samples_per_state}"
            )
        if self.advantage == "rloo" and (self.samples_per_state < 2 or self.critic != "none"):
            raise UserError(
                f"ppo.advantage is rloo, which needs ppo.critic none (it is {self.critic}) and ppo.samples_per_state "
                f"of 2 or more (it is {self.samples_per_state})"
            )
        if self.target_kl and self.epochs == 1:
            raise UserError(
                f"ppo.target_kl is {self.target_kl}, but there is no further epoch to stop: ppo.epochs is 1; set "
                "ppo.epochs to 2 or more, or ppo.target_kl to 0"
            )
