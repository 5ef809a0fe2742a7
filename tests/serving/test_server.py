"""The server on the loopback, used through the official client, and bad requests by hand."""

import concurrent.futures
import json
import socket
import urllib.error
import urllib.request

import openai
import pytest
from servers import CHAT, chat, metric, wait_until

from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.serving.protocol import parse_request
from mlagent_jax.text.chat import Message, encode_prompt, response_text


def test_models_health_and_metrics(client, url):
    assert [model.id for model in client.models.list()] == ["tiny"]
    with urllib.request.urlopen(f"{url}/health") as response:
        assert response.status == 200
    assert metric(url, "requests_open") == 0


def test_a_greedy_chat_is_what_the_engine_generates(client, engine, tokenizer):
    made = chat(client, temperature=0, logprobs=True)
    prompt = encode_prompt(tokenizer, [Message(m["role"], m["content"]) for m in CHAT]).tolist()
    other = Engine(engine.model, engine.config, make_mesh(MeshConfig()))
    other.load(init_params(engine.model, 0))
    stops = (tokenizer.im_end, tokenizer.end_of_text)
    (expected,) = other.generate([prompt], [0], 24, stops, SamplingParams(0.0))
    (choice,) = made.choices
    assert choice.message.content == response_text(tokenizer, expected.tokens)
    assert choice.finish_reason == ("stop" if expected.stopped else "length")
    assert [token.logprob for token in choice.logprobs.content] == pytest.approx(expected.logprobs)
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (len(prompt), len(expected.tokens))


def test_a_seed_fixes_each_of_four(client):
    four, again, first, other = chat(client, n=4), chat(client, n=4), chat(client), chat(client, seed=2)
    texts = [[choice.message.content for choice in made.choices] for made in (four, again, first, other)]
    assert texts[0] == texts[1] and len(set(texts[0])) == 4
    assert texts[2] == texts[0][:1] and texts[3] != texts[2]
    assert [choice.index for choice in four.choices] == [0, 1, 2, 3]


def test_streams_equal_complete_responses(client):
    whole = chat(client, n=3, max_tokens=40)
    texts, reasons, usage = {}, {}, None
    for event in chat(client, n=3, max_tokens=40, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert [texts[i] for i in range(3)] == [choice.message.content for choice in whole.choices]
    assert [reasons[i] for i in range(3)] == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_the_text_before_them(client, stream):
    free = client.completions.create(model="tiny", prompt="The water", max_tokens=60, seed=3).choices[0].text
    stop = free[len(free) // 2 : len(free) // 2 + 3]
    made = client.completions.create(
        model="tiny",
        prompt="The water",
        max_tokens=60,
        seed=3,
        stop=["nowhere to be found", stop],
        stream=stream,
    )
    if stream:
        choices = [event.choices[0] for event in made]
        text, reason = "".join(choice.text for choice in choices), choices[-1].finish_reason
    else:
        text, reason = made.choices[0].text, made.choices[0].finish_reason
        assert made.usage.completion_tokens < 60
    assert text == free[: free.index(stop)] and reason == "stop"


def test_prompts_as_strings_and_as_token_ids(client, tokenizer):
    texts = ["The water", "of lake 7"]
    ids = [tokenizer.encode(text) for text in texts]
    options = {"model": "tiny", "max_tokens": 8, "seed": 5, "n": 2, "logprobs": 1}
    by_text = client.completions.create(prompt=texts, **options)
    by_ids = client.completions.create(prompt=ids, **options)
    assert [c.text for c in by_text.choices] == [c.text for c in by_ids.choices]
    assert len(by_text.choices) == 4 and by_text.usage == by_ids.usage
    assert by_text.usage.prompt_tokens == sum(map(len, ids))
    assert len(by_text.choices[0].logprobs.token_logprobs) <= 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "other"}, openai.NotFoundError, "'other' does not exist; this server has 'tiny'"),
        (
            {"temperature": 2.5},
            openai.BadRequestError,
            "temperature is 2.5, but must be a number between 0 and 2",
        ),
        ({"temperature": "hot"}, openai.BadRequestError, "temperature is 'hot'"),
        ({"top_p": 0}, openai.BadRequestError, "top_p is 0"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens is 0"),
        ({"max_tokens": 512}, openai.BadRequestError, "maximum context length is 512 tokens"),
        ({"n": 0}, openai.BadRequestError, "n is 0"),
        ({"stream": "yes"}, openai.BadRequestError, "stream is 'yes', but must be true or false"),
        ({"stream_options": [1]}, openai.BadRequestError, "stream_options is [1], but must be an object"),
        ({"logprobs": 1}, openai.BadRequestError, "logprobs is 1, but must be true or false"),
        ({"n": True}, openai.BadRequestError, "n is True"),
        ({"stop": [""]}, openai.BadRequestError, "stop must be"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "at most 4"),
        ({"messages": []}, openai.BadRequestError, "at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.BadRequestError, "whose role is one of"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            openai.BadRequestError,
            "messages[0].content must be",
        ),
        (
            {"messages": [{"role": "user", "content": "water " * 600}]},
            openai.BadRequestError,
            "context length",
        ),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools is not implemented"),
        ({"extra_body": {"beams": 4}}, openai.BadRequestError, "unknown argument: beams"),
    ],
)
def test_errors_say_what_is_wrong(client, url, options, error, message):
    with pytest.raises(error) as raised:
        chat(client, **options)
    assert message in str(raised.value)
    assert metric(url, "requests_open") == 0


@pytest.mark.parametrize(("max_length", "tokens"), [(16_384, 2048), (512, None)])
def test_a_chat_without_a_limit_gets_the_default(tokenizer, max_length, tokens):
    parsed = parse_request({"model": "m", "messages": CHAT}, True, "m", tokenizer, 400, max_length)
    assert parsed.max_tokens == (tokens or max_length - len(parsed.prompts[0]))


def test_a_prompt_that_is_too_long_has_the_error_code_of_openai(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(model="tiny", prompt=[1] * 600)
    assert raised.value.code == "context_length_exceeded"


def test_token_ids_outside_the_vocabulary(client, engine):
    for token in (-1, engine.model.vocab_size):
        with pytest.raises(openai.BadRequestError, match="outside the vocabulary"):
            client.completions.create(model="tiny", prompt=[1, token])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/completions", b'{"model": ', 400),
        ("POST", "/v1/completions", b"[" * 100_000, 400),
        ("POST", "/v1/completions", b"\xff\xfe", 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b'"' + b"a" * (9 * 2**20) + b'"', 413),
        ("GET", "/v1/completions", None, 405),
        ("POST", "/v1/embeddings", b"{}", 404),
    ],
)
def test_malformed_requests(url, method, path, body, status):
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(urllib.request.Request(url + path, body, method=method))
    assert raised.value.code == status
    assert json.load(raised.value)["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_frees_its_slots(client, url, engine, stream):
    before = metric(url, "requests_abandoned_total")
    body = json.dumps(
        {
            "model": "tiny",
            "prompt": "The",
            "max_tokens": 500,
            "n": 100,
            "stream": stream,
            "seed": 1,
            "ignore_eos": True,
        }
    ).encode()
    host, port = url.removeprefix("http://").split(":")
    decoded = engine.counts.decoded
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            wait_until(lambda: metric(url, "samples_running") > 0 and metric(url, "samples_waiting") > 0)
            answer = pool.submit(chat, client)
            wait_until(lambda: metric(url, "requests_open") == 2)
        neighbour = answer.result(60)
    wait_until(lambda: metric(url, "samples_running") == metric(url, "requests_open") == 0)
    assert metric(url, "samples_waiting") == 0 and metric(url, "cache_use_ratio") == 0
    assert metric(url, "requests_abandoned_total") == before + 1
    assert engine.counts.decoded - decoded < 100 * 499  # nobody waited for the rest
    assert chat(client).choices[0].message.content == neighbour.choices[0].message.content


def test_two_hundred_requests_at_once(client, url, engine):
    """With eight slots and a cache for two of the longest. None is lost, and each equals the same request alone."""

    def ask(i):
        return client.completions.create(
            model="tiny", prompt=f"The water of lake {i % 40}", max_tokens=4 + i % 13, seed=i % 40
        )

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        made = list(pool.map(ask, range(200)))
    for i in (0, 77, 199):
        assert made[i].choices[0].text == ask(i).choices[0].text
    assert all(each.usage.completion_tokens <= 4 + i % 13 for i, each in enumerate(made))
    assert all(each.choices[0].finish_reason for each in made)
    assert metric(url, "requests_open") == metric(url, "cache_use_ratio") == 0
