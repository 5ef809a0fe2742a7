"""Rewards, compared with values of the paper's formulas that were computed independently of this code."""

import math

import pytest
from fakes import make_task
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.rewards import RewardConfig, RewardScaleError, Scale, reward, task_scale

SIGMOID, LINEAR = RewardConfig(form="sigmoid"), RewardConfig(form="linear")
ACCURACY = Scale(m_init=0.55, m_best=0.95)
RMSLE = Scale(m_init=0.50, m_best=0.10)
M, E, C, N, S = Outcome.MALFORMED, Outcome.ERROR, Outcome.CORNER, Outcome.NEUTRAL, Outcome.SUCCESS


@pytest.mark.parametrize(
    ("config", "table"),
    [(SIGMOID, {M: 0.0, E: 0.0, C: 0.5, N: 0.5}), (LINEAR, {M: -1.0, E: -1.0, C: 0.0, N: 0.0})],
)
def test_outcomes_without_a_graded_edit(config, table):
    for outcome, expected in table.items():
        # Execute Script may change the score, but is neutral anyway.
        assert reward(config, ACCURACY, outcome, 0.6, 0.9) == expected


@pytest.mark.parametrize(
    ("part", "expected"), [(0.005, 0.62), (0.01, 0.73), (0.02, 0.88), (0.03, 0.95), (0.05, 0.993)]
)
@pytest.mark.parametrize("scale", [ACCURACY, RMSLE])
def test_the_sigmoid_saturates_as_computed_from_the_paper(scale, part, expected):
    after = 0.7 + part * (scale.m_best - scale.m_init)
    digits = 3 if part == 0.05 else 2
    assert round(reward(SIGMOID, scale, S, 0.7, after), digits) == expected


@pytest.mark.parametrize("scale", [ACCURACY, RMSLE])
def test_linear_is_the_fraction_of_the_scale(scale):
    better = scale.m_init + 0.25 * (scale.m_best - scale.m_init)
    assert reward(LINEAR, scale, S, scale.m_init, better) == pytest.approx(0.25)
    assert reward(LINEAR, scale, S, better, scale.m_init) == pytest.approx(-0.25)
    assert reward(LINEAR, scale, S, better, better) == 0.0


def test_lower_is_better_improves_downwards():
    for config, neutral in ((SIGMOID, 0.5), (LINEAR, 0.0)):
        assert reward(config, RMSLE, S, 0.50, 0.45) > neutral > reward(config, RMSLE, S, 0.45, 0.50)
        assert reward(config, ACCURACY, S, 0.50, 0.45) < neutral < reward(config, ACCURACY, S, 0.45, 0.50)


def test_an_extreme_score_is_clipped_to_the_range():
    assert reward(LINEAR, RMSLE, S, 0.5, 1e300) == -1.0
    wide = RewardConfig(form="linear", low=-2.0, high=0.5)
    assert reward(wide, RMSLE, S, 0.5, 1e9) == -2.0
    assert reward(wide, RMSLE, S, 0.5, 0.1) == 0.5
    assert reward(SIGMOID, RMSLE, S, 0.5, 1e300) == 0.0


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_sigmoid_is_the_logistic_function(before, after):
    scale = Scale(0.0, -2.0)
    exponent = 50.0 * (after - before)  # alpha is 100 / (-2 - 0) = -50
    expected = 1.0 / (1.0 + math.exp(exponent)) if exponent < 700 else 0.0
    assert reward(SIGMOID, scale, S, before, after) == pytest.approx(expected, abs=1e-12)


def test_infrastructure_failures_have_no_reward():
    for config in (SIGMOID, LINEAR, RewardConfig(ml_specific=False)):
        assert reward(config, ACCURACY, Outcome.INFRASTRUCTURE, 0.6, 0.6) is None


def test_without_performance_only_the_direction_counts():
    sigmoid, linear = (RewardConfig(form=form, performance=False) for form in ("sigmoid", "linear"))
    changes = [(0.6, 0.6001), (0.6, 0.9), (0.6, 0.5), (0.6, 0.6)]
    assert [reward(sigmoid, ACCURACY, S, *c) for c in changes] == [1.0, 1.0, 0.0, 0.5]
    assert [reward(linear, ACCURACY, S, *c) for c in changes] == [1.0, 1.0, -1.0, 0.0]
    assert [reward(linear, RMSLE, S, *c) for c in changes] == [-1.0, -1.0, 1.0, 0.0]
    assert reward(linear, ACCURACY, E, 0.6, 0.6) == -1.0


def test_without_format_what_fails_is_neutral():
    for form, neutral in (("sigmoid", 0.5), ("linear", 0.0)):
        config = RewardConfig(form=form, format=False)
        assert {reward(config, ACCURACY, outcome, 0.6, 0.6) for outcome in (M, E, C, N)} == {neutral}


def test_without_corner_exhaustion_is_an_error():
    for form, bad, neutral in (("sigmoid", 0.0, 0.5), ("linear", -1.0, 0.0)):
        config = RewardConfig(form=form, corner=False)
        assert reward(config, ACCURACY, C, 0.6, 0.6) == bad
        assert reward(config, ACCURACY, N, 0.6, 0.6) == neutral


def test_without_the_ml_specific_reward_only_a_better_score_is_rewarded():
    config = RewardConfig(ml_specific=False)
    assert reward(config, RMSLE, S, 0.5, 0.4999) == 1.0
    assert reward(config, RMSLE, S, 0.5, 0.5) == reward(config, RMSLE, S, 0.5, 0.6) == 0.0
    assert {reward(config, RMSLE, outcome, 0.5, 0.4) for outcome in (M, E, C, N)} == {0.0}


def test_rewards_are_floats():
    for config in (SIGMOID, LINEAR, RewardConfig(low=-1, high=1), RewardConfig(ml_specific=False)):
        for outcome in (M, E, C, N, S):
            assert type(reward(config, ACCURACY, outcome, 1, 2)) is float


def test_a_scale_needs_two_different_ends(tmp_path):
    with pytest.raises(RewardScaleError, match=r"m_best is 0.5 and the starter scores 0.5"):
        Scale(0.5, 0.5)
    assert issubclass(RewardScaleError, UserError)
    task = make_task(tmp_path)  # mae, lower is better, m_best 1
    assert task_scale(task, 5.0) == Scale(5.0, 1.0)
    with pytest.raises(RewardScaleError, match=r"toy is 1.0, worse than its starter's mae of 0.5"):
        task_scale(task, 0.5)


def test_a_config_that_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="form is 'cubic', but must be one of sigmoid, linear"):
        RewardConfig(form="cubic")
    with pytest.raises(UserError, match=r"low is 0\.1, but must be a number below 0"):
        RewardConfig(low=0.1)
