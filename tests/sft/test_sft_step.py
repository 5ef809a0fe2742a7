import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params, unembedding
from mlagent_jax.sft.step import loss_sum, train_step
from mlagent_jax.text.chat import Encoded
from mlagent_jax.text.packing import pack, pad_rows
from mlagent_jax.training.state import TrainState

MODEL = Qwen2Config(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    initializer_range=0.3,  # large, so that contexts matter and mistakes show
)


def sequence(rng, length):
    action = rng.random(length) < 0.5
    action[:2], action[-1] = False, True
    starts = [i for i in range(length) if action[i] and not action[i - 1]]
    ends = [i + 1 for i in range(length) if action[i] and (i + 1 == length or not action[i + 1])]
    tokens = rng.integers(0, MODEL.vocab_size, length).astype(np.int32)
    return Encoded(tokens, action, tuple(zip(starts, ends, strict=True)))


@pytest.fixture(scope="module")
def params():
    return init_params(MODEL, 0)


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return [sequence(rng, n) for n in (9, 14, 5, 11, 7, 16)]


def as_jax(rows):
    return {name: jnp.asarray(array) for name, array in rows.items()}


@jax.jit
def all_logits(params, tokens):
    hidden = forward(MODEL, params, tokens, jnp.arange(tokens.shape[1])[None], jnp.ones_like(tokens))
    return hidden @ unembedding(MODEL, params)


@jax.jit
def jit_loss(params, batch):
    return loss_sum(MODEL, params, batch)


def brute_force(params, sequences):
    """Each sequence alone, one softmax a token in float64; padding after it is in a causal model's future."""
    total, count = 0.0, 0
    for item in sequences:
        n = len(item.tokens)
        logits = np.asarray(all_logits(params, np.pad(item.tokens, (0, 16 - n))[None])[0], np.float64)
        for t in range(1, n):
            if item.action[t]:
                row = logits[t - 1]
                top = row.max()
                total += np.log(np.sum(np.exp(row - top))) + top - row[item.tokens[t]]
                count += 1
    return total, count


def test_packed_loss_is_that_of_the_sequences_one_by_one(params, sequences):
    packed = pad_rows(pack(sequences, 20), 4)
    assert len(packed.tokens) < len(sequences)  # some do share a row
    total, count = jit_loss(params, as_jax(packed.take(np.arange(len(packed.tokens)))))
    expected, expected_count = brute_force(params, sequences)
    assert count == expected_count
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def step(params, rows, optimiser):
    state = TrainState(params, optimiser.init(params), jnp.int32(0))
    return jax.jit(lambda state, batch: train_step(MODEL, optimiser, state, batch))(state, as_jax(rows))


def test_split_into_micro_batches_changes_nothing(params, sequences):
    packed = pad_rows(pack(sequences, 20), 4)
    rows = packed.take(np.arange(4))
    optimiser = optax.sgd(1.0)
    whole, metrics = step(params, {n: a.reshape(1, 4, 20) for n, a in rows.items()}, optimiser)
    halves, half_metrics = step(params, {n: a.reshape(2, 2, 20) for n, a in rows.items()}, optimiser)
    counts = packed.action[:2].sum(), packed.action[2:].sum()
    assert counts[0] != counts[1]  # a mean of means would differ
    np.testing.assert_allclose(metrics["loss"], half_metrics["loss"], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), whole.params, halves.params)


def test_packing_and_padding_leave_the_gradient_alone(params, sequences):
    optimiser = optax.sgd(1.0)
    tight = pad_rows(pack(sequences, 20), 4).take(np.arange(4))
    loose = pad_rows(pack(sequences, 32), 8)
    loose = loose.take(np.arange(len(loose.tokens)))
    tight_state, _ = step(params, {n: a[None] for n, a in tight.items()}, optimiser)
    loose_state, _ = step(params, {n: a[None] for n, a in loose.items()}, optimiser)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), tight_state.params, loose_state.params
    )


def test_gradient_is_the_slope_of_the_mean_loss(params, sequences):
    packed = pad_rows(pack(sequences, 20), 4).take(np.arange(4))
    state, _ = step(params, {n: a[None] for n, a in packed.items()}, optax.sgd(1.0))
    gradient = jax.tree.map(lambda before, after: before - after, params, state.params)
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda p: rng.standard_normal(p.shape).astype(np.float32), params)
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), gradient, direction)))

    def mean_loss(distance):
        moved = jax.tree.map(lambda p, d: p + distance * d, params, direction)
        total, count = brute_force(moved, sequences)
        return total / count

    np.testing.assert_allclose(slope, (mean_loss(1e-3) - mean_loss(-1e-3)) / 2e-3, rtol=2e-2)


def test_context_tokens_carry_no_loss(params, sequences):
    packed = pad_rows(pack(sequences, 20), 4).take(np.arange(4))
    changed = dict(packed, targets=np.where(packed["action"], packed["targets"], 3).astype(np.int32))
    a, _ = jit_loss(params, as_jax(packed))
    b, _ = jit_loss(params, as_jax(changed))
    assert a == b
