"""The reward of one step in both published forms (arXiv 2505.23723, eq. 6 of v1 and of v2), with ablations.

                                          sigmoid (v1)                     linear (v2)
    not an allowed action, or an error    0                                -1
    valid but no edit, or a corner case   0.5                              0
    an edit that ran and was graded       sigma(100 (m' - m) / (m* - m0))  (m' - m) / (m* - m0)

m and m' are the public scores before and after, m0 = m_init the starter's, m* = m_best. Where lower is
better, m* - m0 is negative, so an improvement counts as positive either way. The linear form is unbounded
below (one run that diverges would swamp a batch), so its third line is clipped to [low, high].

The paper defines this for single steps from states of the expert, where the policy has no say in m. Over a whole
episode it has: Execute Script of a worse script is neutral and lowers m, and an edit back would be paid, as often as
there are steps; and where rewards are clipped or squashed, one great loss costs less than the small gains that make it
good again. So in whole episodes m is the best score so far (`episode_baseline`): only what goes beyond it is paid, in
each of the forms below, and losing and regaining is worth nothing. The price: an edit that makes good a part of a loss
is not paid for that part.
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
    """One shape of the reward, a row of the table above in each field.

    bad: of what is malformed or fails. neutral: of what neither gains nor loses.
    graded: of an edit that ran and was graded, by the settings and its gain (see `Scale.gain`).
    """

    bad: float
    neutral: float
    graded: Callable[[RewardConfig, float], float]


def _sigmoid(config: RewardConfig, gain: float) -> float:
    # By tanh, which does not overflow.
    return 0.5 * (1.0 + math.tanh(0.5 * _SHARPNESS * gain))


def _clipped(config: RewardConfig, gain: float) -> float:
    return float(min(max(gain, config.low), config.high))


FORMS: dict[str, Form] = {
    "sigmoid": Form(0.0, 0.5, _sigmoid),
    "linear": Form(-1.0, 0.0, _clipped),
}
"""By the name that `config.reward.form` takes."""


class RewardScaleError(UserError):
    """m_best and m_init of a task do not span a scale to reward on."""


@dataclass(frozen=True)
class RewardConfig:
    """Which reward, and which of its components are on; the paper ablates each but prints no definition.

    low, high: range of the linear form's third line.
    performance: off, only whether the score rose or fell counts, not how far (R_perf dropped).
    format: off, what is malformed or fails is not punished but neutral (R_format dropped).
    corner: off, a run that exhausts its resources is an error like any other (R_corner dropped).
    episode_baseline: what a step of a whole episode is measured over, the "best" public score of the episode so far,
        or the "previous" one, by which cycles are paid. Single steps from stored states are always measured over the
        previous one.
    ml_specific: off, none of the above: 1 for an edit that raised the score, 0 for all else ("without the
        ML-specific reward"; our reading: the plain success signal that any agent benchmark has).
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
    """What a gain on one task is measured by. Raises RewardScaleError if there is nothing between the two."""

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
        """The part of the way from m_init to m_best that was made good; negative for a loss."""
        return (after - before) / (self.m_best - self.m_init)


def task_scale(task: Task, m_init: float) -> Scale:
    """The scale of `task`. Raises RewardScaleError also for an m_best worse than the starter's score."""
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
    """The reward of a step; None for `INFRASTRUCTURE`, which says nothing about the agent.

    m_before: the score that a gain is measured over. m_after: the score after the step.
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
        return form.bad if config.format else form.neutral
    if outcome in {Outcome.NEUTRAL, Outcome.CORNER}:
        return form.neutral
    if not config.performance:
        return form.neutral if gain == 0 else 1.0 if gain > 0 else form.bad
    return form.graded(config, gain)
