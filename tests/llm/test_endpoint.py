"""Endpoints that are down, slow, busy or odd: the real client with a real HTTP server on the loopback interface."""

import dataclasses
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from chat_server import HI, completion, error

from mlagent_jax.llm import endpoint
from mlagent_jax.llm.backend import ChatRequest, ModelError, ModelUnavailableError, TooLongError
from mlagent_jax.llm.config import ModelConfig
from mlagent_jax.llm.endpoint import Endpoint
from mlagent_jax.text.chat import Message

QUESTION = ChatRequest(tuple(HI), 5, 0.0)


def endpoint_of(server, **changes):
    return Endpoint(
        "coder", ModelConfig(**{"base_url": server.url, "model": "qwen", "retries": 2, **changes})
    )


def say_hi(server, **changes):
    return endpoint_of(server, **changes).ask(QUESTION).text


@pytest.mark.parametrize(
    "fault",
    [
        error(408, "slow"),
        error(409, "conflict"),
        error(429, "busy"),
        error(500, "broken"),
        error(529, "overloaded"),
        None,
        (200, {}, '{"choices": ['),
        (200, {}, '{"choices": []}'),
        (200, {"Content-Type": "text/html"}, "<html>a proxy</html>"),
        (502, {"Content-Type": "text/html"}, "<html>bad gateway</html>" * 99),
        (200, {"Content-Length": 999}, "{}"),
        (200, {}, "[" * 100_000),
        (200, {}, '{"choices": 5}'),
        (200, {}, '{"choices": {"a": 1}}'),
        (200, {}, '{"choices": [{"message": [1]}]}'),
        *((200, {}, completion({"content": content})) for content in (5, True, {"text": "hi"})),
        (200, {}, b'{"choices": "\xff"}'),
    ],
)
def test_faults_that_may_pass_are_tried_again_and_told(server, fault, caplog):
    server.answers = [fault, "at last"]
    assert say_hi(server) == "at last"
    assert any("retrying in" in line and "attempt 2 of 3" in line for line in caplog.messages)
    server.answers, sent = [fault], len(server.requests)
    with pytest.raises(ModelUnavailableError, match=r"http://127\.0\.0\.1.*'qwen'") as caught:
        say_hi(server)
    assert len(server.requests) == sent + 3 and len(str(caught.value)) < 900


def test_a_server_that_is_too_slow_is_named_with_the_limit(server):
    server.answers = [lambda _: time.sleep(0.2)]
    with pytest.raises(ModelUnavailableError, match=r"no answer within timeout_seconds = 0.1"):
        say_hi(server, timeout_seconds=0.1, retries=1)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "90"}, 90.0),
        ({"Retry_After": "100000"}, 600.0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"Retry_After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        ({"Retry_After": "soon"}, 0.001),
        ({"Retry_After": "nan"}, 0.001),
        ({"Retry_After": "Fri, 31 Dec 99999 23:59:59 GMT"}, 0.001),
    ],
)
def test_a_server_is_given_the_time_that_it_asks_for(server, monkeypatch, headers, seconds):
    pauses = []
    monkeypatch.setattr(endpoint.time, "sleep", pauses.append)
    server.answers = [error(429, "busy", **headers), "at last"]
    assert say_hi(server) == "at last"
    assert pauses == [seconds]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_is_refused_is_not_tried_again(server, status):
    server.answers = [error(status, "this is why")]
    with pytest.raises(ModelError, match=r"http://127.*refuses the request for model 'qwen'.*this is why"):
        say_hi(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "v1"]
)
def test_an_address_that_is_none_is_named_at_once(url):
    with pytest.raises(ModelError, match=r"base_url is .*, expected a URL such as http://localhost:8000/v1"):
        Endpoint("coder", ModelConfig(base_url=url, model="qwen"))


def test_a_key_is_taken_without_its_line_end_and_odd_ones_are_named(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret\n")
    assert say_hi(server, api_key_variable="MY_KEY") == "hello"
    monkeypatch.setenv("MY_KEY", "schlüssel")
    with pytest.raises(ModelError, match="MY_KEY has a character that is not printable ASCII"):
        endpoint_of(server, api_key_variable="MY_KEY")


def test_openais_key_is_sent_to_no_other_server(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    say_hi(server)
    assert "s3cret" not in str(server.headers)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    say_hi(server, base_url="")
    assert server.headers[-1]["authorization"] == "Bearer s3cret"


def test_a_key_that_a_server_repeats_is_not_shown(server, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", "s3cret")
    for status in (401, 500):
        server.answers = [error(status, "unknown key s3cret")]
        with pytest.raises(ModelError, match=r"unknown key \[key\]"):
            say_hi(server, api_key_variable="MY_KEY", retries=1)
    assert "s3cret" not in caplog.text and "unknown key [key]" in caplog.text


def test_content_in_parts_is_one_text(server):
    server.answers = [{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert say_hi(server) == "ab"


def test_an_odd_but_usable_answer_is_used(server):
    said = {"choices": [{"message": {"content": "half \ud83d of it"}}], "usage": {"prompt_tokens": "many"}}
    server.answers = [(200, {}, json.dumps(said))]
    answer = endpoint_of(server).ask(QUESTION)
    assert answer.text == "half ? of it" and answer.text.encode() and not answer.problem
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (0, 0)
    server.answers = [{"content": None, "refusal": {"why": "no"}}]
    assert "the model refused" in endpoint_of(server).ask(QUESTION).problem


def test_a_key_is_taken_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    say_hi(server, api_key_variable="MY_KEY")
    assert server.headers[0]["authorization"] == "Bearer s3cret"
    with pytest.raises(
        ModelError, match=r"config.models.coder needs a key in the environment variable OTHER_KEY"
    ):
        Endpoint("coder", ModelConfig(model="gpt", api_key_variable="OTHER_KEY"))


def test_what_cannot_be_encoded_is_sent_all_the_same(server):
    endpoint_of(server).ask(ChatRequest((Message("user", "caf\udce9"),), 5, 0.0))
    assert server.requests[0]["messages"][0]["content"] == "caf?"


def test_nobody_listening(server):
    with pytest.raises(ModelUnavailableError, match="does not answer"):
        say_hi(server, base_url="http://127.0.0.1:1/v1", retries=0)


def test_without_a_model_or_the_package(server, monkeypatch):
    with pytest.raises(ModelError, match=r"config.models.coder has no model: set config.models.coder.model"):
        endpoint_of(server, model="")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ModelError, match=r"pip install 'mlagent-jax\[endpoint\]'"):
        endpoint_of(server)


def test_a_body_that_comes_too_slowly_is_given_up(server):
    """Each part arrives in time, the whole does not."""
    body = completion("at last")
    slow = [body[start : start + 10] for start in range(0, len(body), 10)]
    server.answers = [slow, "at last"]
    assert say_hi(server, timeout_seconds=0.3) == "at last"
    server.answers = [slow]
    with pytest.raises(ModelUnavailableError, match=r"no answer within timeout_seconds = 0.3"):
        say_hi(server, timeout_seconds=0.3, retries=0)
    server.answers = [[body[:50], body[50:]]]
    assert say_hi(server, timeout_seconds=5) == "at last"


def limits(request):
    return {name: value for name, value in request.items() if name.startswith("max_")}


def test_the_limit_goes_by_the_name_that_the_endpoint_wants(server):
    refusal = error(
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "unsupported_parameter",
    )
    server.answers = [refusal, "first", "second"]
    one = endpoint_of(server, retries=0)
    assert (one.ask(QUESTION).text, one.ask(QUESTION).text) == ("first", "second")
    sent = [limits(request) for request in server.requests]
    assert sent == [{"max_tokens": 5}, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}]
    server.answers = ["third"]
    say_hi(server, token_limit="max_completion_tokens")
    assert limits(server.requests[-1]) == {"max_completion_tokens": 5}
    server.answers = [refusal]
    with pytest.raises(ModelError, match="refuses the request"):
        say_hi(server, token_limit="max_tokens")
    too_long = (
        "'max_tokens' or 'max_completion_tokens' is too large: 5. This model's maximum context length is 9"
    )
    server.answers, sent = [error(400, too_long)], len(server.requests)
    with pytest.raises(TooLongError):
        say_hi(server)
    assert len(server.requests) == sent + 1, "vLLM names both, whichever it was sent"


def test_a_temperature_that_is_refused_is_named(server):
    server.answers = [error(400, "Unsupported value: 'temperature' does not support 0 with this model.")]
    with pytest.raises(ModelError, match=r"set config.models.coder.temperature, now 0, to 1"):
        say_hi(server)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (lambda _: time.sleep(0.2), 2),
        ((200, {"Content-Length": 999}, "{}"), 2),
        ((200, {}, '{"choices": []}'), 2),
        (None, 2),
        (error(429, "busy"), 0),
        (error(500, "broken"), 0),
    ],
)
def test_requests_that_may_have_cost_something_are_told(server, answer, count):
    server.answers, told = [answer], []
    with pytest.raises(ModelUnavailableError):
        endpoint_of(server, timeout_seconds=0.1, retries=1).ask(QUESTION, lambda: told.append(1))
    assert len(told) == count
    with pytest.raises(ModelUnavailableError):
        endpoint_of(server, base_url="http://127.0.0.1:1/v1").ask(QUESTION, lambda: told.append(1))
    assert len(told) == count


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_reasoning_model_thinks_is_kept_apart(server, name):
    server.answers = [{"content": "It is 4.", name: "2 + 2 is\n5?"}]
    answer = endpoint_of(server).ask(QUESTION)
    assert (answer.text, answer.reasoning, answer.problem) == ("It is 4.", "2 + 2 is\n5?", "")
    server.answers = [{"content": None, name: "hm", "finish_reason": "length"}]
    assert (
        endpoint_of(server).ask(QUESTION).problem
        == "the model thought for all of its 5 tokens and said nothing"
    )


def test_all_kinds_of_tokens_are_counted(server):
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    server.answers = [{"content": "hello", "usage": usage}]
    counted = endpoint_of(server).ask(QUESTION).usage
    assert (counted.prompt_tokens, counted.cached_tokens) == (100, 64)
    assert (counted.completion_tokens, counted.reasoning_tokens) == (50, 40)


def test_a_schema_is_asked_for_and_its_refusal_names_the_setting(server):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    endpoint_of(server).ask(dataclasses.replace(QUESTION, schema=schema))
    asked = server.requests[0]["response_format"]
    assert asked["type"] == "json_schema" and asked["json_schema"]["schema"] == schema
    assert "response_format" not in (say_hi(server) and server.requests[1])
    server.answers = [error(400, "response_format is not supported")]
    with pytest.raises(ModelError, match=r"set config.models.coder.structured_output to False"):
        endpoint_of(server).ask(dataclasses.replace(QUESTION, schema=schema))


def test_no_more_requests_are_under_way_than_allowed(server):
    lock, under_way, most, two = threading.Lock(), [0], [0], threading.Barrier(2)

    def answer(request):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        two.wait(20)  # so that two are under way, whatever else the machine does
        with lock:
            under_way[0] -= 1
        return "hello"

    server.answers = [answer]
    one = endpoint_of(server, parallel=2)
    with ThreadPoolExecutor(6) as pool:
        assert [each.text for each in pool.map(one.ask, [QUESTION] * 6)] == ["hello"] * 6
    assert most == [2]
