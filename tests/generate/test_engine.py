"""A request's answer does not depend on other requests by a single bit: PPO and resumed runs rely on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.request import LogitsNotFiniteError, Request, RequestError
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params, unembedding
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh

V = 97
MODEL = Qwen2Config(V, 32, 48, 2, 4, 2, initializer_range=0.3)
CONFIG = EngineConfig(
    slots=4, max_length=256, page_size=16, prefill_chunks=(16, 32, 64), block_kv=32, decode_steps=5
)
SAMPLINGS = (
    SamplingParams(0.9, 20, 0.9),
    SamplingParams(1.0),
    SamplingParams(0.0),
    SamplingParams(1.3, min_p=0.05),
    SamplingParams(0.7, top_k=3),
)


def prompt(length, seed=0):
    return tuple(np.random.default_rng(seed).integers(0, V, length).tolist())


def request(length, seeds=(7,), new=20, kind=0, start=0):
    return Request(prompt(length, start), tuple(seeds), new, tuple(range(4)), SAMPLINGS[kind])


# Some prompts share a prefix.
REQUESTS = [
    request(5), request(60, kind=1), request(130, kind=2), request(64, kind=3), request(33, new=3, kind=4),
    request(16, kind=1), request(1), request(200, new=50), request(131, kind=1), request(90, kind=1, start=1),
]  # fmt: skip


def run(engine):
    while not engine.idle:
        engine.step()


@pytest.fixture(scope="module")
def params():
    return init_params(MODEL, 0)


@pytest.fixture
def engine(params):
    engine = Engine(MODEL, CONFIG, make_mesh(MeshConfig()))
    engine.load(params)
    return engine


@pytest.fixture(scope="module")
def alone(params):
    """Each request by itself in an empty engine."""
    engine = Engine(MODEL, CONFIG, make_mesh(MeshConfig()))
    answers = []
    for each in REQUESTS:
        engine.load(params)
        (sample,) = engine.submit(each)
        run(engine)
        answers.append(sample.generation)
    assert len({answer.tokens for answer in answers}) == len(answers)
    assert any(answer.stopped for answer in answers) and not all(answer.stopped for answer in answers)
    return answers


@pytest.mark.parametrize("seed", range(4))
def test_requests_in_any_order_with_a_warm_cache(engine, alone, seed):
    rng = np.random.default_rng(seed)
    samples = {}
    for index in rng.permutation(len(REQUESTS)):
        (samples[index],) = engine.submit(REQUESTS[index])
        for _ in range(rng.integers(0, 3)):
            engine.step()
    run(engine)
    assert [samples[i].generation for i in range(len(REQUESTS))] == alone
    assert engine.counts.reused > 0 and engine.cache_use == 0


def test_a_full_cache_makes_requests_wait(params, alone):
    """There is room for the longest request and little more."""
    config = dataclasses.replace(CONFIG, cache_tokens=272)
    engine = Engine(MODEL, config, make_mesh(MeshConfig()))
    engine.load(params)
    samples = [engine.submit(each)[0] for each in REQUESTS]
    while not engine.idle:
        engine.step()
        holding = [slot.pages for shard in engine._shards for slot in shard.slots if slot]
        assert len({page for pages in holding for page in pages}) <= 18
    assert [sample.generation for sample in samples] == alone


def test_arriving_prompts_delay_a_running_answer_by_a_bounded_number_of_chunks(params, alone):
    """At most 2 x 64 tokens are prefilled between the tokens of a running answer, and no prompt waits forever."""
    engine = Engine(MODEL, dataclasses.replace(CONFIG, max_prefills_per_step=2), make_mesh(MeshConfig()))
    engine.load(params)
    long_request, prefills = request(60, kind=2, new=100, start=3), []
    (answer,) = engine.submit(dataclasses.replace(long_request, stop_ids=()))
    engine.step()
    samples = [engine.submit(each)[0] for each in REQUESTS]
    while not engine.idle:
        tokens, prefilled, running = len(answer.tokens), engine.counts.prefilled, not answer.finished
        engine.step()
        prefills.append(engine.counts.prefilled - prefilled)
        if running:
            assert len(answer.tokens) > tokens and prefills[-1] <= 2 * CONFIG.prefill_chunks[-1]
    assert sum(prefills) > 2 * max(prefills), "there was more to prefill than one step allows"
    assert [sample.generation for sample in samples] == alone


def test_samples_run_one_after_the_other_in_a_single_slot(params, alone):
    """The last page of the prompt is copied for each, and no page is left over."""
    each = Request(prompt(130), (7, 8, 9), 126, tuple(range(4)), SAMPLINGS[1])
    config = dataclasses.replace(CONFIG, slots=1)
    engine = Engine(MODEL, config, make_mesh(MeshConfig()))
    engine.load(params)
    samples = engine.submit(each)
    run(engine)
    assert [s.generation for s in samples] == [
        engine.generate([each.prompt], [seed], 126, each.stop_ids, each.sampling)[0] for seed in each.seeds
    ]


def test_cancelled_requests_do_not_affect_others(engine, alone):
    samples = [engine.submit(each)[0] for each in REQUESTS]
    victims = [engine.submit(request(150 + i, range(3), new=60, start=9))[i] for i in range(3)]
    engine.step()
    for victim in victims[:2]:
        engine.cancel(victim)
    engine.step()
    engine.cancel(victims[2])
    engine.cancel(samples[7])
    run(engine)
    for index, (sample, expected) in enumerate(zip(samples, alone, strict=True)):
        if index != 7:
            assert sample.generation == expected
    assert all(victim.cancelled for victim in victims) and samples[7].cancelled
    assert engine.cache_use == 0 and engine.running == engine.waiting == 0


@pytest.mark.parametrize("samples", [2, 4, 7])  # there are fewer than seven slots
def test_samples_of_one_prompt_share_its_prefill(engine, params, alone, samples):
    for index in (
        2,
        3,
        4,
        6,
    ):  # the last token is within a page, at the end of one, in a new one, or the only token
        engine.load(params)
        before = engine.counts.prefilled
        each = REQUESTS[index]
        many = Request(
            each.prompt, (7, *range(samples - 1)), each.max_new_tokens, each.stop_ids, each.sampling
        )
        made = engine.submit(many)
        run(engine)
        assert engine.counts.prefilled - before == len(each.prompt) - 1
        assert made[0].generation == alone[index]
        for sample, seed in zip(made[1:], range(samples - 1), strict=True):
            (single,) = engine.generate(
                [each.prompt], [seed], each.max_new_tokens, each.stop_ids, each.sampling
            )
            assert sample.generation == single
    assert engine.cache_use == 0


def test_the_next_turn_prefills_only_what_is_new(engine):
    history = prompt(192)
    engine.generate([history], [0], 4)
    before = engine.counts.prefilled
    engine.generate([(*history, *prompt(20, 5))], [0], 4)
    assert engine.counts.prefilled - before <= 20 + CONFIG.page_size


def test_prompts_with_nothing_to_prefill(engine, alone):
    """There are more of them than slots; only their last token, with which decoding begins, is not in the cache."""
    each = REQUESTS[4]
    (first,) = engine.generate([each.prompt], [7], 3, each.stop_ids, each.sampling)
    before = engine.counts.prefilled
    samples = [engine.submit(each)[0] for _ in range(9)] + [engine.submit(REQUESTS[6])[0] for _ in range(9)]
    engine.step()
    assert sum(sample.finished for sample in samples) == CONFIG.slots
    run(engine)
    assert engine.counts.prefilled == before
    assert first == alone[4]
    assert [sample.generation for sample in samples] == [alone[4]] * 9 + [alone[6]] * 9


def test_new_weights_compile_nothing_and_reset_the_cache(engine, params, alone):
    each = REQUESTS[2]
    engine.generate([each.prompt], [0], 4)
    other = init_params(MODEL, 1)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    engine.load(other)
    reused = engine.counts.reused
    answer = engine.generate([each.prompt], [7], 20, each.stop_ids, each.sampling)
    assert engine.counts.reused == reused
    assert answer[0] != alone[2]
    engine.load(params)
    assert engine.generate([each.prompt], [7], 20, each.stop_ids, each.sampling) == [alone[2]]
    assert not compiled
    jax.jit(lambda x: x * 3.25)(1.0)
    assert compiled, "the listener is told of compilations"


def test_number_of_compiled_programs(params):
    """One for each size of chunk, and four more, whatever the requests are."""
    from mlagent_jax.generate.programs import compile_programs

    config = EngineConfig(
        slots=3, max_length=256, page_size=16, prefill_chunks=(16, 64), block_kv=32, decode_steps=5
    )
    mesh = make_mesh(MeshConfig())
    engine = Engine(MODEL, config, mesh)
    engine.load(params)
    for each in REQUESTS:
        engine.submit(each)
    engine.submit(request(100, range(5)))
    run(engine)
    programs = compile_programs(MODEL, config, mesh)
    names = ("prefill", "load", "reset", "copy", "decode")
    assert [getattr(programs, name)._cache_size() for name in names] == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Request((), (0,), 4), "is empty"),
        (Request((1, V), (0,), 4), f"token {V} is outside the vocabulary of {V}"),
        (Request((1, -1), (0,), 4), "token -1 is outside"),
        (Request((1,), (0,), 4, (V,)), f"token {V} is outside"),
        (Request((1,) * 250, (0,), 7), "has 250 tokens, which with an answer of 7 are more than the 256"),
        (Request((1,), (0,), 0), "max_new_tokens 0"),
        (Request((1,), (), 4), "0 seeds"),
        (Request((1,), (0,), 4, tuple(range(33))), "33 stop ids, but at most 32"),
    ],
)
def test_requests_that_cannot_be_served_are_refused(engine, wrong, message):
    with pytest.raises(RequestError, match=message):
        engine.submit(wrong)
    assert engine.idle


def test_one_bad_prompt_among_many_starts_none(engine):
    with pytest.raises(RequestError, match="prompt 1: the prompt is empty"):
        engine.generate([(1,), ()], [0, 1], 4)
    assert engine.idle


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 0}, "engine.slots is 0"),
        ({"max_prefills_per_step": -1}, "engine.max_prefills_per_step is -1"),
        ({"prefill_chunks": (24,)}, "must be multiples of its page_size, 16"),
        ({"block_kv": 24}, "block_kv 24 of the engine must be a multiple"),
        ({"cache_tokens": 255}, "cache_tokens 255 of the engine do not hold one request"),
        ({"max_length": 1}, "engine.max_length is 1"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    given = {
        "slots": 4,
        "max_length": 256,
        "page_size": 16,
        "prefill_chunks": (16,),
        "block_kv": 32,
    } | changes
    with pytest.raises(UserError, match=message):
        EngineConfig(**given)


def test_weights_do_not_change_under_a_request(engine, params):
    engine.submit(REQUESTS[0])
    with pytest.raises(RuntimeError, match="in progress"):
        engine.load(params)


def with_nan_for(params, token):
    return params | {"embed": params["embed"].at[token].set(np.nan)}


POISON = 50  # a token whose embedding will be NaN; the output matrix is a separate one


def poisoned(length, seeds=(7,)):
    return Request((*prompt(length, 20), POISON, *prompt(3, 21)), seeds, 20, (), SAMPLINGS[1])


def test_logits_that_are_not_finite_fail_only_their_own_request(engine, params):
    """Not those in the same batch, nor those that later get the pages with the NaNs."""
    sound, expected = [], []
    for number, each in enumerate(REQUESTS * 2):
        tokens = tuple(token + (token == POISON) for token in each.prompt)
        each = dataclasses.replace(each, prompt=tokens, seeds=(number,))
        (answer,) = engine.generate([tokens], each.seeds, each.max_new_tokens, each.stop_ids, each.sampling)
        if POISON not in answer.tokens:
            sound.append(each)
            expected.append(answer)
    assert len(sound) > 8
    engine.load(with_nan_for(params, POISON))
    before = engine.counts.decoded
    victims = engine.submit(poisoned(40, (1, 2, 3)))
    samples, others = [], []
    for number, each in enumerate(sound):
        samples += engine.submit(each)
        others += engine.submit(poisoned(17 + 11 * number))
        (gone,) = engine.submit(poisoned(120 + number))
        engine.step()
        engine.cancel(gone)  # during its prefill, or before
    run(engine)
    assert all(
        isinstance(v.error, LogitsNotFiniteError) and v.finished and not v.tokens for v in victims + others
    )
    wrong = [
        s for s, answer in zip(samples, expected, strict=True) if s.error or s.tokens != list(answer.tokens)
    ]
    made = sum(len(sample.tokens) for sample in samples)
    assert not wrong and engine.counts.decoded - before == made
    assert engine.cache_use == 0 and engine.idle
    again = [engine.generate([r.prompt], r.seeds, r.max_new_tokens, r.stop_ids, r.sampling)[0] for r in sound]
    assert again == expected


def test_generate_stops_where_the_weights_give_no_answer(engine, params, alone):
    """With a clear error and no request in progress, so that other weights can be loaded and work."""
    ruined = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), params)
    engine.load(ruined)
    with pytest.raises(
        LogitsNotFiniteError, match=r"not finite .* token 0 of an answer .* weights are damaged"
    ):
        engine.generate([r.prompt for r in REQUESTS], range(len(REQUESTS)), 20)
    assert engine.idle and engine.counts.decoded == 0
    engine.load(params)
    assert [
        engine.generate([r.prompt], r.seeds, r.max_new_tokens, r.stop_ids, r.sampling)[0] for r in REQUESTS
    ] == alone


def test_an_engine_that_lost_its_cache_says_what_to_do(engine, params, alone, monkeypatch):
    def broken(*args):
        raise RuntimeError("RESOURCE_EXHAUSTED")

    programs = engine._runner._programs
    monkeypatch.setattr(engine._runner, "_programs", programs._replace(decode=broken))
    each = REQUESTS[0]
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        engine.generate([each.prompt], [7], 20)
    monkeypatch.undo()
    assert engine.idle
    with pytest.raises(RuntimeError, match="load weights"):
        engine.generate([each.prompt], [7], 20)
    engine.load(params)
    assert engine.generate([each.prompt], [7], 20, each.stop_ids, each.sampling) == [alone[0]]


def test_logprobs_raw_or_as_sampled(params):
    """Against NumPy's softmax of the training model's logits."""
    given, new = prompt(12), 10
    found = {}
    for mode in ("processed_logprobs", "raw_logprobs"):
        engine = Engine(MODEL, dataclasses.replace(CONFIG, logprobs_mode=mode), make_mesh(MeshConfig()))
        engine.load(params)
        found[mode] = [engine.generate([given], [3], new, (), sampling)[0] for sampling in SAMPLINGS]
    for number, sampling in enumerate(SAMPLINGS):
        processed, raw = (found[mode][number] for mode in ("processed_logprobs", "raw_logprobs"))
        assert processed.tokens == raw.tokens, "the reported log-probs do not change what is sampled"
        logits = training_logits(params, (*given, *raw.tokens))[len(given) - 1 : -1].astype(np.float64)
        chosen = np.arange(new), np.array(raw.tokens)
        assert raw.logprobs == pytest.approx(log_softmax(logits)[chosen].tolist(), abs=2e-4)
        as_sampled = log_softmax(cut(logits, sampling))[chosen]
        assert processed.logprobs == pytest.approx(as_sampled.tolist(), abs=2e-4)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def cut(logits, sampling):
    """Row by row: temperature, then top-k, top-p and min-p, each on what the one before has kept."""
    rows = []
    for row in logits / (sampling.temperature or 1):
        order = np.argsort(-row)
        kept = order[: sampling.top_k or None] if sampling.temperature else order
        p = np.exp(log_softmax(row[kept]))
        kept = kept[np.cumsum(p) - p < sampling.top_p] if sampling.top_p < 1 else kept
        p = np.exp(log_softmax(row))
        kept = kept[p[kept] >= sampling.min_p * p.max()]
        rows.append(np.where(np.isin(np.arange(V), kept), row, -np.inf))
    return np.array(rows)


def training_logits(params, tokens):
    ids = jnp.array([tokens])
    hidden = forward(MODEL, params, ids, jnp.arange(len(tokens))[None], jnp.ones_like(ids))
    return np.asarray(hidden @ unembedding(MODEL, params))[0]


def test_each_of_a_long_list_of_stop_ids_ends_an_answer(engine):
    stops = tuple(range(0, V, 5))  # 20, more than a model defines and a client adds
    free = engine.generate([prompt(9)] * 8, range(8), 60)
    ended = engine.generate([prompt(9)] * 8, range(8), 60, stops)
    for whole, answer in zip(free, ended, strict=True):
        first = next(i for i, token in enumerate(whole.tokens) if token in stops)
        assert answer.stopped and answer.tokens == whole.tokens[: first + 1]


def test_no_stop_id_is_sampled_before_min_new_tokens(engine):
    stops = tuple(range(0, V, 13))
    free = [engine.generate([prompt(9)], [seed], 40, stops)[0] for seed in range(8)]
    samples = [engine.submit(Request(prompt(9), (s,), 40, stops, min_new_tokens=12))[0] for s in range(8)]
    run(engine)
    assert min(len(answer.tokens) for answer in free) < 12, "some would have stopped"
    assert all(len(s.tokens) >= 12 and not set(stops) & set(s.tokens[:11]) for s in samples)
    assert any(s.stopped for s in samples) and all(np.isfinite(s.logprobs).all() for s in samples)
