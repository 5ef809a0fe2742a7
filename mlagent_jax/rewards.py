"""The reward of one step in both published forms (arXiv 2505.23723, eq. 6 of v1 and of v2), with ablations.

                                          sigmoid (v1)                     linear (v2)
    not an allowed action, or an error    0                                -1
    valid but no edit, or a corner case   0.5                              0
    an edit that ran and was graded       sigma(100 (m' - m) / (m* - m0))  (m' - m) / (m* - m0)

m and m' are the public scores before and after the step, m0 = m_init is the starter's and m* = m_best. If lower is
better, m* - m0 is negative, so an improvement is positive in either case. The linear form has no lower bound, and one
bad run could dominate a batch, so its third line is clipped to [low, high].

The paper defines this for single steps from the expert's states, where the policy cannot influence m. In a whole
episode it can. Executing a worse script is neutral but lowers m, and the edit that undoes it would be rewarded, as
often as there are steps. And since rewards are clipped or squashed, one large loss costs less than the small gains that
recover it. So in whole episodes m is the best score so far (`episode_baseline`): only improvements on it are rewarded,
in each of the forms above, and losing and recovering a score is worth nothing. The drawback: an edit that recovers part
of a loss gets no reward for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.tasks.task import Task

EPISODE_BASELINES = ("best", "previous")
_SHARPNESS = 100.0  # alpha_i (m_best - m_init) of v1


@dataclass(frozen=True)
class Form:
    """One form of the reward: a column of the table above, its lines from top to bottom.

    graded: the reward of an edit that ran and was graded, by the settings and its gain (see `Scale.gain`).
    """

    lowest: float
    neutral: float
    graded: Callable[[RewardConfig, float], float]


def _sigmoid(config: RewardConfig, gain: float) -> float:
    # tanh does not overflow.
    return 0.5 * (1.0 + math.tanh(0.5 * _SHARPNESS * gain))


def _clipped(config: RewardConfig, gain: float) -> float:
    return float(min(max(gain, config.low), config.high))


FORMS: dict[str, Form] = {
    "sigmoid": Form(0.0, 0.5, _sigmoid),
    "linear": Form(-1.0, 0.0, _clipped),
}
"""By the name in `config.reward.form`."""


class RewardScaleError(UserError):
    """m_best and m_init of a task do not define a scale for rewards."""


@dataclass(frozen=True)
class RewardConfig:
    """Which form the reward has, and which components are on. The paper ablates each component without defining it.

    low, high: range of the linear form's third line.
    performance: if off, only the sign of a change in score counts, not its size (without R_perf).
    format: if off, malformed actions and errors are neutral instead of punished (without R_format).
    corner: if off, a run that exhausts its resources counts as an error (without R_corner).
    episode_baseline: the score that a step of a whole episode is compared with: the "best" public score of the episode
        so far, or the "previous" one, which rewards cycles. Single steps from stored states are always compared with
        the previous one.
    ml_specific: if off, none of the above applies: the reward is 1 for an edit that improves the score and 0 for
        everything else. This is our reading of "without the ML-specific reward": the success signal of any agent
        benchmark.
    """

    form: str = setting("linear", choices=tuple(FORMS))
    low: float = setting(-1.0, below=0)
    high: float = setting(1.0, above=0)
    performance: bool = True
    format: bool = True
    corner: bool = True
    ml_specific: bool = True
    episode_baseline: str = setting("best", choices=EPISODE_BASELINES)

    def __post_init__(self) -> None:
        check(self, "reward")


@dataclass(frozen=True)
class Scale:
    """The unit of gains on one task. Raises RewardScaleError if the two scores are equal or not finite."""

    m_init: float
    m_best: float

    def __post_init__(self) -> None:
        span = self.m_best - self.m_init
        if span == 0 or not math.isfinite(span):
            raise RewardScaleError(
                f"m_best is {self.m_best} and the starter scores {self.m_init}: a gain cannot be measured; "
                "give the task an m_best that is better than its starter"
            )

    def gain(self, before: float, after: float) -> float:
        """The change in score as a fraction of the distance from m_init to m_best; negative for a loss."""
        return (after - before) / (self.m_best - self.m_init)


def task_scale(task: Task, m_init: float) -> Scale:
    """The scale of `task`. Raises RewardScaleError, also if m_best is worse than the starter's score."""
    scale = Scale(m_init, task.m_best)
    if (task.m_best > m_init) != METRICS[task.metric].higher_is_better:
        raise RewardScaleError(
            f"m_best of task {task.name} is {task.m_best}, worse than its starter's {task.metric} of "
            f"{m_init}: rewards would be upside down; give it an m_best that is better"
        )
    return scale


def reward(
    config: RewardConfig, scale: Scale, outcome: Outcome, m_before: float, m_after: float
) -> float | None:
    """The reward of a step; None after an infrastructure failure, which says nothing about the agent.

    m_before: the score that `m_after`, the score after the step, is compared with.
    """
    if outcome is Outcome.INFRASTRUCTURE:
        return None
    gain = scale.gain(m_before, m_after)
    if not config.ml_specific:
        return 1.0 if outcome is Outcome.SUCCESS and gain > 0 else 0.0
    form = FORMS[config.form]
    if outcome is Outcome.CORNER and not config.corner:
        outcome = Outcome.ERROR
    if outcome in {Outcome.MALFORMED, Outcome.ERROR}:
        return form.lowest if config.format else form.neutral
    if outcome in {Outcome.NEUTRAL, Outcome.CORNER}:
        return form.neutral
    if not config.performance:
        return form.neutral if gain == 0 else 1.0 if gain > 0 else form.lowest
    return form.graded(config, gain)
