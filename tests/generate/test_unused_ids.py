"""Rows of the matrices without a token do not change what is sampled, scored or learnt."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hf_folders import byte_level, write_folder

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params, unembedding
from mlagent_jax.nn.losses import cross_entropy, token_logprobs
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.sft.step import loss_sum
from mlagent_jax.text.tokenizer import load_tokenizer, unused_ids

V, ROWS = 97, 128
UNUSED = ((V, ROWS),)
PLAIN = Qwen2Config(V, 32, 48, 1, 4, 2, initializer_range=0.3)
ENGINE = EngineConfig(slots=4, max_length=64, page_size=16, prefill_chunks=(16,), block_kv=16, decode_steps=8)
SAMPLINGS = (
    SamplingParams(1.5),
    SamplingParams(0.0),
    SamplingParams(1.2, top_k=ROWS - 1),
    SamplingParams(2.0, top_p=0.999, min_p=1e-6),
)


# A tied model with such ids is among the tests of real weights.
@pytest.fixture(
    scope="module",
    params=[pytest.param(True, id="tied", marks=pytest.mark.slow), pytest.param(False, id="untied")],
)
def models(request):
    """A model, and the same model with added rows that would get large logits."""
    plain = PLAIN.replace(tie_word_embeddings=request.param)
    params = init_params(plain, 0)
    loud = 3 * np.random.default_rng(0).standard_normal((ROWS - V, 32)).astype(np.float32)
    padded = params | {"embed": jnp.concatenate([params["embed"], loud])}
    if not request.param:
        padded["lm_head"] = jnp.concatenate([params["lm_head"], loud.T], axis=1)
    return plain, params, plain.replace(vocab_size=ROWS, unused_ids=UNUSED), padded


def generate(model, params, sampling):
    engine = Engine(model, ENGINE, make_mesh(MeshConfig()))
    engine.load(params)
    prompts = np.random.default_rng(0).integers(0, V, (6, 12)).tolist()
    return prompts, engine.generate(prompts, range(6), 24, (), sampling)


@partial(jax.jit, static_argnums=(0, 4))
def scores(model, params, tokens, targets, temperature):
    """As in RL: log-probs of the targets, and entropies."""
    positions = jnp.tile(jnp.arange(tokens.shape[1]), (len(tokens), 1))
    hidden = forward(model, params, tokens, positions, jnp.ones_like(tokens))
    unembed = unembedding(model, params)
    return token_logprobs(hidden, unembed, targets, temperature, 7, unused=model.unused_ids)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_answers_are_those_of_the_model_without_unused_ids(models, sampling):
    plain, params, padded_model, padded = models
    _, answers = generate(padded_model, padded, sampling)
    _, expected = generate(plain, params, sampling)
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]
    np.testing.assert_allclose(
        [answer.logprobs for answer in answers], [answer.logprobs for answer in expected], atol=2e-5
    )


def test_without_the_ranges_unused_ids_are_sampled(models):
    """Otherwise the test above would show nothing."""
    _, _, model, params = models
    _, answers = generate(model.replace(unused_ids=()), params, SamplingParams(1.5))
    assert any(token >= V for answer in answers for token in answer.tokens)


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_trainer_and_sampler_agree(models, temperature):
    _, _, model, params = models
    prompts, answers = generate(model, params, SamplingParams(temperature))
    made = [answer.tokens for answer in answers]
    tokens = np.concatenate([prompts, made], axis=1).astype(np.int32)
    logprobs, entropy = scores(model, params, tokens, np.roll(tokens, -1, axis=1), temperature)
    sampled = [answer.logprobs for answer in answers]
    np.testing.assert_allclose(logprobs[:, len(prompts[0]) - 1 : -1], sampled, atol=5e-5)
    assert np.isfinite(entropy).all() and entropy.max() <= np.log(V) + 1e-5


def test_losses_and_gradients_are_those_of_the_model_without_unused_ids(models):
    plain, params, model, padded = models
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, V, (2, 2, 20)).astype(np.int32)
    positions = np.tile(np.arange(20, dtype=np.int32), (2, 1))
    batch = {"tokens": tokens, "targets": targets, "positions": positions}
    batch |= {"segment_ids": np.ones_like(tokens), "action": np.ones(tokens.shape, bool)}

    def both(model, params):
        total, _ = loss_sum(model, params, batch)
        logprobs, entropy = scores(model, params, tokens, targets, 0.9)
        return total + jnp.sum(logprobs * 0.3) + jnp.sum(entropy * 0.1)

    differentiated = jax.jit(jax.value_and_grad(both, argnums=1), static_argnums=0)
    expected, expected_gradient = differentiated(plain, params)
    value, gradient = differentiated(model, padded)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert not np.any(np.asarray(gradient["embed"][V:]))
    gradient["embed"] = gradient["embed"][:V]
    if "lm_head" in gradient:
        assert not np.any(np.asarray(gradient["lm_head"][:, V:]))
        gradient["lm_head"] = gradient["lm_head"][:, :V]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradient, expected_gradient
    )


def test_gaps_within_a_vocabulary_are_masked_too():
    unused = ((3, 5), (9, 10))
    hidden = np.random.default_rng(0).standard_normal((1, 4, 6)).astype(np.float32)
    unembed = np.random.default_rng(1).standard_normal((6, 10)).astype(np.float32)
    targets = np.array([[0, 2, 5, 8]], np.int32)
    kept = [i for i in range(10) if i not in (3, 4, 9)]
    logprobs, entropy = token_logprobs(hidden, unembed, targets, 0.7, 2, unused=unused)
    exact = jax.nn.log_softmax(hidden @ unembed[:, kept] / 0.7)
    chosen = [exact[0, i, kept.index(t)] for i, t in enumerate(targets[0])]
    np.testing.assert_allclose(logprobs[0], chosen, rtol=1e-5)
    np.testing.assert_allclose(entropy, -(np.exp(exact) * exact).sum(-1), rtol=1e-5)
    total, _ = cross_entropy(hidden, unembed, targets, np.ones((1, 4)), 3, unused=unused)
    full = jax.nn.log_softmax(hidden @ unembed[:, kept])
    expected = -sum(float(full[0, i, kept.index(t)]) for i, t in enumerate(targets[0]))
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_answers_of_a_padded_checkpoint_are_text(tmp_path):
    """Twenty answers at temperature 1.5, with 1,024 tokens and 1,088 rows, as a checkpoint may have."""
    tokenizer = load_tokenizer(write_folder(tmp_path / "hf", byte_level()))
    rows = tokenizer.vocab_size + 64
    model = Qwen2Config(rows, 16, 24, 1, 2, 1, initializer_range=0.02)
    model = model.replace(unused_ids=unused_ids(tokenizer, rows))
    engine = Engine(model, ENGINE, make_mesh(MeshConfig()))
    engine.load(init_params(model, 0))
    answers = engine.generate([[1, 2, 3]] * 20, range(20), 40, (), SamplingParams(1.5))
    assert all(token in tokenizer.ids for answer in answers for token in answer.tokens)
