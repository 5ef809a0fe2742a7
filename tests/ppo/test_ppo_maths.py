"""GAE, losses and KL estimators, compared with loops and closed forms written directly from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.ppo.gae import generalised_advantages
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.losses import policy_loss, token_weights, value_loss

GAE = jax.jit(generalised_advantages)


def advantages_by_definition(rewards, values, mask, dones, gamma, lam):
    """A_t = sum over k >= t of (gamma lam)^(k - t) delta_k, for each action token on its own: O(T^2)."""
    advantages = np.zeros(rewards.shape)
    for row in range(len(rewards)):
        acting = np.flatnonzero(mask[row])
        for i, t in enumerate(acting):
            for j in range(i, len(acting)):
                k = acting[j]
                over = dones[row, k] or j + 1 == len(acting)
                next_value = 0.0 if over else values[row, acting[j + 1]]
                delta = rewards[row, k] + gamma * next_value - values[row, k]
                advantages[row, t] += (gamma * lam) ** (j - i) * delta
                if dones[row, k]:
                    break
    return advantages


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.95, 1.0]),
    density=st.sampled_from([0.2, 0.7, 1.0]),
)
def test_gae_is_its_definition_over_masks_and_ends(seed, gamma, lam, density):
    rng = np.random.default_rng(seed)
    shape = (3, 12)
    mask = rng.random(shape) < density
    dones = mask & (rng.random(shape) < 0.3)
    rewards = np.where(mask, rng.normal(size=shape), 0.0).astype(np.float32)
    values = rng.normal(size=shape).astype(np.float32)  # also outside of the mask, where they must not matter
    advantages, returns = GAE(rewards, values, mask, dones, gamma, lam)
    expected = advantages_by_definition(rewards, values, mask, dones, gamma, lam)
    np.testing.assert_allclose(advantages, expected, atol=2e-5)
    np.testing.assert_allclose(returns, np.where(mask, expected + values, 0), atol=2e-5)


def test_rewards_stay_floats():
    """A published library writes scores into an array with the dtype of token ids: 0.7 becomes 0 and 1.6 becomes 1."""
    mask = np.ones((1, 3), bool)
    dones = np.array([[False, False, True]])
    values = np.zeros((1, 3), np.int32)
    for reward in (0.7, 1.6, -0.25):
        rewards = np.array([[0, 0, reward]])
        advantages, returns = GAE(rewards, values, mask, dones, 1.0, 1.0)
        assert advantages.dtype == returns.dtype == jnp.float32
        np.testing.assert_allclose(advantages, [[reward] * 3], rtol=1e-6)


def numpy_policy_loss(logprob, old, advantage, low, high, dual):
    ratio = np.exp(logprob - old)
    objective = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    if dual and advantage < 0:
        objective = max(objective, dual * advantage)
    return -objective


@pytest.mark.parametrize("low, high, dual", [(0.2, 0.2, 0.0), (0.2, 0.28, 0.0), (0.2, 0.2, 3.0)])
def test_policy_loss_and_gradient_token_by_token(low, high, dual):
    rng = np.random.default_rng(0)
    old = rng.normal(size=200) - 2
    logprobs = old + rng.normal(size=200)  # ratios from far below to far above the clip range
    advantages = rng.normal(size=200)
    ours = policy_loss(jnp.array(logprobs), jnp.array(old), jnp.array(advantages), low, high, dual)
    expected = [
        numpy_policy_loss(*token, low, high, dual) for token in zip(logprobs, old, advantages, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)

    gradient = jax.grad(
        lambda x: policy_loss(x, jnp.array(old), jnp.array(advantages), low, high, dual).sum()
    )
    ratio = np.exp(logprobs - old)
    # The published cases: no gradient once the ratio has left the range on the side that the advantage favours.
    dead = ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - low) & (advantages < 0))
    if dual:
        dead |= (ratio > dual) & (advantages < 0)
    np.testing.assert_allclose(
        gradient(jnp.array(logprobs)), np.where(dead, 0.0, -ratio * advantages), rtol=1e-4, atol=1e-5
    )
    assert 0 < dead.sum() < 200


def test_first_step_is_the_policy_gradient():
    """At ratio 1 the clipped loss has the gradient of -A log pi, whatever the clip range."""
    logprobs, advantages = jnp.array([-1.0, -2.0, -0.5]), jnp.array([1.0, -2.0, 0.5])
    gradient = jax.grad(lambda x: policy_loss(x, logprobs, advantages, 0.2, 0.2, 3.0).sum())(logprobs)
    np.testing.assert_allclose(gradient, -advantages)


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_value_loss_token_by_token(clip):
    rng = np.random.default_rng(0)
    values, old, returns = rng.normal(size=(3, 100))
    expected = []
    for value, before, target in zip(values, old, returns, strict=True):
        error = (value - target) ** 2
        if clip:
            error = max(error, (min(max(value, before - clip), before + clip) - target) ** 2)
        expected.append(0.5 * error)
    ours = value_loss(jnp.array(values), jnp.array(old), jnp.array(returns), clip)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


LOGITS = jnp.array([0.5, -1.0, 2.0, 0.1])
REFERENCE = jax.nn.log_softmax(jnp.array([1.0, 0.0, 0.5, -0.5]))


def expected_estimate(logits, estimator):
    """The estimator's expectation over pi, enumerated, without the gradient of pi's weights: the limit of sampling."""
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(logprobs)) * kl_estimate(logprobs, REFERENCE, estimator))


def kl(logits):
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(logprobs) * (logprobs - REFERENCE))


def reverse_kl(logits):
    return jnp.sum(jnp.exp(REFERENCE) * (REFERENCE - jax.nn.log_softmax(logits)))


def test_kl_estimators_are_unbiased_and_of_the_stated_signs():
    np.testing.assert_allclose(expected_estimate(LOGITS, "k1"), kl(LOGITS), rtol=1e-5)
    np.testing.assert_allclose(expected_estimate(LOGITS, "k3"), kl(LOGITS), rtol=1e-5)
    tokens = jax.nn.log_softmax(LOGITS)
    assert (kl_estimate(tokens, REFERENCE, "k2") >= 0).all() and (
        kl_estimate(tokens, REFERENCE, "k3") >= 0
    ).all()
    assert (kl_estimate(tokens, REFERENCE, "k1") < 0).any()
    with pytest.raises(ValueError, match="'k4'"):
        kl_estimate(tokens, REFERENCE, "k4")


def test_gradients_of_kl_estimators_in_a_loss_are_as_documented():
    np.testing.assert_allclose(
        jax.grad(expected_estimate)(LOGITS, "k2"), jax.grad(kl)(LOGITS), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(jax.grad(expected_estimate)(LOGITS, "k1"), np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(
        jax.grad(expected_estimate)(LOGITS, "k3"), jax.grad(reverse_kl)(LOGITS), rtol=1e-4, atol=1e-6
    )


def test_weights_are_the_two_means():
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    lengths = np.array([[3, 3, 3, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(token_weights(mask, lengths, "token_mean"), mask / 4)
    np.testing.assert_allclose(
        token_weights(mask, lengths, "action_mean"), [[1 / 6, 1 / 6, 1 / 6, 0], [1 / 2, 0, 0, 0]]
    )
    assert token_weights(mask & False, lengths, "token_mean").sum() == 0
