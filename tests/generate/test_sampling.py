"""Which token is sampled: against the exact distribution and against transformers' logits processors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mlagent_jax.generate.sampling import SamplingMetadata, SamplingParams, process_logits, sample, uniforms

V, DRAWS = 50, 20_000
LOGITS = np.random.default_rng(0).normal(0, 2, V).astype(np.float32)
CASES = [
    SamplingParams(1.0),
    SamplingParams(0.6),
    SamplingParams(1.7, top_k=7),
    SamplingParams(0.9, top_p=0.8),
    SamplingParams(1.2, top_k=20, top_p=0.7),
    SamplingParams(1.1, min_p=0.1),
    SamplingParams(1.5, top_k=30, top_p=0.95, min_p=0.02),
]


def metadata(given, rows):
    dtypes = {"top_k": jnp.int32}
    return SamplingMetadata(
        *(jnp.full(rows, getattr(given, n), dtypes.get(n, jnp.float32)) for n in SamplingMetadata._fields)
    )


def exact(given):
    """By a loop over the tokens, from the most likely on."""
    p = np.exp((LOGITS / given.temperature).astype(np.float64))
    order = np.argsort(-p)
    kept = order[: given.top_k or V]
    share = p[kept] / p[kept].sum()
    nucleus = [token for i, token in enumerate(kept) if share[:i].sum() < given.top_p]
    final = [token for token in nucleus if p[token] >= given.min_p * p.max()]
    out = np.zeros(V)
    out[final] = p[final]
    return out / out.sum()


@pytest.mark.parametrize("given", CASES, ids=str)
def test_draws_follow_the_distribution(given):
    positions = jnp.arange(DRAWS) // 100
    seeds = jnp.arange(DRAWS, dtype=jnp.uint32) % 100
    logits = jnp.tile(LOGITS, (DRAWS, 1))
    tokens, logprobs = jax.jit(sample)(logits, uniforms(seeds, positions), metadata(given, DRAWS))
    expected = exact(given)
    counts = np.bincount(tokens, minlength=V)
    assert counts[expected == 0].sum() == 0
    often = expected * DRAWS >= 5
    rest = [[x[~often & (expected > 0)].sum()] for x in (counts, expected * DRAWS)]
    seen, wanted = (
        np.concatenate([x[often], r]) for x, r in zip((counts, expected * DRAWS), rest, strict=True)
    )
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    assert stats.chisquare(seen, wanted).pvalue > 1e-3
    np.testing.assert_allclose(logprobs, np.log(expected[tokens]), atol=1e-5)


@pytest.mark.parametrize("vocab", [1, 255, 256, 257, 1000, 49_152])
@pytest.mark.parametrize("kept", [1, 3, 10_000])
def test_the_token_is_where_its_random_number_falls(vocab, kept):
    rng = np.random.default_rng(vocab + kept)
    logits = np.full(vocab, -np.inf, np.float32)
    likely = rng.permutation(vocab)[:kept]
    logits[likely] = rng.normal(0, 3, len(likely))
    uniform = np.concatenate([[0, np.float32(1 - 2**-23)], rng.random(500, np.float32)])
    rows = len(uniform)
    given = metadata(SamplingParams(1.0), rows)
    tokens, _ = jax.jit(sample)(np.tile(logits, (rows, 1)), uniform, given)
    assert np.isfinite(logits[tokens]).all()
    p = np.exp(logits.astype(np.float64))
    ends = np.cumsum(p) / p.sum()
    assert (uniform <= ends[tokens] + 1e-6).all()
    assert (uniform >= (ends - p / p.sum())[tokens] - 1e-6).all()


def test_excluded_tokens_are_not_sampled_even_where_sums_are_rounded():
    """Random numbers within a rounding of the end of a running sum, after tokens of probability 0."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 1024)).astype(np.float32)
    logits[:, 15::16] = -np.inf
    p = np.exp(logits.astype(np.float64))
    share = (np.cumsum(p, axis=1) / p.sum(axis=1, keepdims=True))[:, 255:1000:256].astype(np.float32)
    uniform = np.stack([share * np.float32(1 + n * 2**-23) for n in range(-8, 9)], axis=-1).reshape(-1)
    logits = np.repeat(logits, len(uniform) // len(logits), axis=0)
    tokens, _ = jax.jit(sample)(logits, uniform, metadata(SamplingParams(1.0), len(uniform)))
    assert np.isfinite(logits[np.arange(len(logits)), tokens]).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_with_nan_logits_the_token_is_still_in_the_vocabulary(temperature):
    given = metadata(SamplingParams(temperature), 2)
    tokens, logprobs = jax.jit(sample)(np.full((2, V), np.nan, np.float32), jnp.array([0, 0.9]), given)
    assert ((tokens >= 0) & (tokens < V)).all()
    assert np.isnan(logprobs).all()


@pytest.mark.parametrize(
    "given",
    [
        SamplingParams(1e-8),
        SamplingParams(1e-40),
        SamplingParams(1.0, top_p=1e-50),
        SamplingParams(1e-45, 3, 1e-45),
    ],
    ids=str,
)
def test_tiny_temperature_and_top_p_leave_the_most_likely_token(given):
    """Clients send 1e-8 for greedy; values too small for float32 must not give NaN."""
    uniform = jnp.linspace(0, 0.999, 20)
    tokens, logprobs = jax.jit(sample)(jnp.tile(LOGITS, (20, 1)), uniform, metadata(given, 20))
    assert (np.asarray(tokens) == LOGITS.argmax()).all()
    np.testing.assert_array_equal(logprobs, 0)


@pytest.mark.parametrize("given", CASES, ids=str)
def test_excluded_tokens_are_those_of_transformers(given):
    torch = pytest.importorskip("torch")
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    warpers = [TemperatureLogitsWarper(given.temperature)]
    warpers += [TopKLogitsWarper(given.top_k)] if given.top_k else []
    warpers += [TopPLogitsWarper(given.top_p)] if given.top_p < 1 else []
    warpers += [MinPLogitsWarper(given.min_p)] if given.min_p else []
    theirs = LogitsProcessorList(warpers)(None, torch.tensor(LOGITS)[None]).numpy()
    np.testing.assert_allclose(process_logits(jnp.array(LOGITS)[None], metadata(given, 1)), theirs, rtol=1e-5)


def test_a_mixed_batch_gives_each_row_what_it_gets_alone():
    kinds = [*CASES, SamplingParams(0.0)]
    logits = jnp.array(np.random.default_rng(1).normal(0, 2, (len(kinds), V)), jnp.float32)
    u = uniforms(jnp.arange(len(kinds), dtype=jnp.uint32), jnp.zeros(len(kinds), jnp.int32))
    mixed = SamplingMetadata(
        *(jnp.concatenate(parts) for parts in zip(*(metadata(kind, 1) for kind in kinds), strict=True))
    )
    together = jax.jit(sample)(logits, u, mixed)
    for row, kind in enumerate(kinds):
        alone = jax.jit(sample)(logits, u, metadata(kind, len(kinds)))
        assert [x[row] for x in alone] == [x[row] for x in together]
    assert together[0][-1] == logits[-1].argmax()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 2.0),
    ],
)
def test_out_of_range(field, value):
    with pytest.raises(ValueError, match=field):
        SamplingParams(**{field: value})
