"""Whatever fails, every request gets a response that says so, and /health and /metrics are correct."""

import concurrent.futures
import json
import socket
import threading
import time

import jax
import jax.numpy as jnp
import openai
import pytest
from servers import ask, chat, client_of, events, listening, metric, wait_until

from mlagent_jax.generate.engine import Engine
from mlagent_jax.serving import http_server
from mlagent_jax.serving.app import Server

BODY = {"model": "tiny", "prompt": "The water", "max_tokens": 40, "seed": 1}
LONG = BODY | {"max_tokens": 400, "temperature": 0, "ignore_eos": True}
OUTCOMES = ("served", "refused", "failed", "abandoned")


class Held(Engine):
    """Its steps wait for `go`, and then raise `dies` if that is set."""

    def __init__(self, *args):
        super().__init__(*args)
        self.go, self.stepping, self.dies = threading.Event(), threading.Event(), None

    def step(self):
        self.stepping.set()
        assert self.go.wait(60)
        if self.dies:
            raise self.dies
        return super().step()


class Slow(Engine):
    def step(self):
        time.sleep(0.05)
        return super().step()


def requests_of(url):
    return {end: metric(url, f"requests_{end}_total") for end in OUTCOMES}


def assert_all_are_counted(url):
    wait_until(lambda: metric(url, "requests_open") == 0)
    assert metric(url, "requests_total") == sum(requests_of(url).values())


@pytest.mark.parametrize("death", [RuntimeError("out of memory"), SystemExit(3)])
def test_an_engine_that_dies_in_a_step_leaves_no_request_unanswered(new_engine, tokenizer, death):
    """Four requests arrive before the step in which it dies, four during that step, and one afterwards."""
    engine = new_engine(Held)
    with (
        listening(Server(engine, tokenizer, "tiny")) as url,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        wholes = [pool.submit(ask, url, BODY | {"seed": i}) for i in range(3)]
        streams = [pool.submit(events, url, BODY)]
        assert engine.stepping.wait(60)
        wait_until(lambda: metric(url, "requests_total") == 4)
        engine.dies = death
        wholes += [pool.submit(ask, url, BODY | {"prompt": ["a", "b"]}) for i in range(3)]
        streams += [pool.submit(events, url, BODY)]
        wait_until(lambda: metric(url, "requests_total") == 8)
        time.sleep(0.2)  # they are in the queue, which nobody reads any more
        engine.go.set()
        for whole in wholes:
            status, _, answer = whole.result(30)
            assert status in (500, 503) and answer["error"]["code"] == "engine_failed"
            assert repr(death) in answer["error"]["message"]
        for stream in streams:
            assert json.loads(stream.result(30)[-1])["error"]["code"] == "engine_failed"
        status, _, answer = ask(url, None, "/health", method="GET")
        assert (status, answer["status"]) == (503, "unhealthy") and repr(death) in answer["reason"]
        status, headers, answer = ask(url, BODY)
        assert status == 503 and answer["error"]["type"] == "server_error" and headers["Retry-After"]
        assert_all_are_counted(url)
        assert requests_of(url) == {"served": 0, "refused": 0, "failed": 9, "abandoned": 0}


def is_strict_json(text):
    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_weights_of_nan_are_an_error_of_each_request_and_of_health(new_engine, params, tokenizer):
    ruined = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    with listening(Server(new_engine(params=ruined), tokenizer, "tiny")) as url:
        client = client_of(url)
        assert ask(url, None, "/health", method="GET")[0] == 200
        for options in ({}, {"logprobs": True}, {"n": 3}, {"temperature": 0}):
            with pytest.raises(openai.InternalServerError, match="not finite") as raised:
                chat(client, **options)
            assert raised.value.code == "non_finite_logits"
        with pytest.raises(openai.APIError, match="not finite"):
            list(chat(client, stream=True))
        *_, last = events(url, BODY | {"logprobs": 1})
        assert is_strict_json(last)["error"]["code"] == "non_finite_logits"
        status, _, answer = ask(url, None, "/health", method="GET")
        assert status == 503 and "not finite" in answer["reason"]
        assert metric(url, "tokens_served_total") == metric(url, "tokens_generated_total") == 0
        assert metric(url, "healthy") == metric(url, "requests_served_total") == 0
        assert metric(url, "requests_failed_total") == 6
        assert_all_are_counted(url)
        assert metric(url, "cache_use_ratio") == 0


def test_running_out_of_memory_is_reported(new_engine, tokenizer):
    class Full(Engine):
        def step(self):
            raise MemoryError("RESOURCE_EXHAUSTED: 16 GB")

    with listening(Server(new_engine(Full), tokenizer, "tiny")) as url:
        status, _, answer = ask(url, BODY)
        assert status == 500 and "RESOURCE_EXHAUSTED" in answer["error"]["message"]


def test_unexpected_errors_are_json_too(new_engine, tokenizer, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("a secret")

    with listening(Server(new_engine(), tokenizer, "tiny")) as url:
        monkeypatch.setattr("mlagent_jax.serving.app.parse_request", broken)
        status, _, answer = ask(url, BODY)
        monkeypatch.undo()
        assert status == 500 and answer["error"]["type"] == "server_error" and "secret" not in str(answer)
        monkeypatch.setattr("mlagent_jax.serving.output_processor.IncrementalDetokenizer.push", broken)
        assert ask(url, BODY)[0] == 500
        assert json.loads(events(url, BODY)[-1])["error"]["type"] == "server_error"
        monkeypatch.undo()
        assert ask(url, BODY)[0] == 200
        assert_all_are_counted(url)
        assert requests_of(url) == {"served": 1, "refused": 0, "failed": 3, "abandoned": 0}


@pytest.mark.parametrize("grace", [0.3, 30])
def test_shutdown_ends_running_requests(new_engine, tokenizer, monkeypatch, grace):
    """With an error if the time is too short, else with the complete response."""
    monkeypatch.setattr(http_server, "SHUTDOWN_SECONDS", grace)
    engine = new_engine(Slow)
    body = LONG if grace < 1 else BODY | {"ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with listening(Server(engine, tokenizer, "tiny")) as url:
            stream, whole = pool.submit(events, url, body), pool.submit(ask, url, body)
            wait_until(lambda: metric(url, "samples_running") == 2)
        last, (status, _, answer) = stream.result(30)[-1], whole.result(30)
    if grace < 1:
        assert json.loads(last)["error"]["code"] == answer["error"]["code"] == "shutting_down"
        assert status == 503
    else:
        assert last == "[DONE]" and status == 200 and answer["usage"]["completion_tokens"] == 40


def test_requests_beyond_the_limit_get_status_429(new_engine, tokenizer):
    engine = new_engine(Held)
    with (
        listening(Server(engine, tokenizer, "tiny", max_requests=2)) as url,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(ask, url, BODY | {"prompt": ["a"] * 20}) for _ in range(2)]
        wait_until(lambda: metric(url, "requests_open") == 2)
        status, headers, answer = ask(url, BODY)
        assert status == 429 and answer["error"]["code"] == "busy" and int(headers["Retry-After"]) > 0
        engine.go.set()
        assert [each.result(60)[0] for each in waiting] == [200, 200]
        assert ask(url, BODY)[0] == 200
        assert_all_are_counted(url)


def connect(url, body, content_length=None):
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    length = len(body) if content_length is None else content_length
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_a_client_that_does_not_send_its_whole_body_gets_status_408(new_engine, tokenizer):
    with listening(Server(new_engine(), tokenizer, "tiny", client_timeout=0.5)) as url:
        with connect(url, b'{"model": ', content_length=1000) as idle:
            assert b"408" in idle.recv(4096)
        assert_all_are_counted(url)
        assert ask(url, BODY)[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_before_its_response_frees_its_slots(new_engine, tokenizer, stream):
    engine = new_engine(Held)
    with listening(Server(engine, tokenizer, "tiny")) as url:
        connect(url, json.dumps(BODY | {"stream": stream}).encode()).close()
        wait_until(lambda: requests_of(url)["abandoned"] == 1)
        engine.go.set()
        wait_until(lambda: metric(url, "samples_running") + metric(url, "samples_waiting") == 0)
        assert_all_are_counted(url)
