"""Runs the real server in a thread of this process, on the loopback, and sends requests to it."""

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import openai

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.serving.http_server import HttpServer

CONFIG = EngineConfig(
    slots=8,
    max_length=512,
    cache_tokens=1024,
    page_size=16,
    prefill_chunks=(32, 128),
    block_kv=64,
    decode_steps=4,
)
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What does the water do?"}]


@contextmanager
def listening(server):
    """Runs a server and yields its address."""
    http = HttpServer(server, "tiny", "127.0.0.1", 0)
    thread = threading.Thread(target=http.run)
    thread.start()
    try:
        wait_until(lambda: http.started)
        yield f"http://127.0.0.1:{http.port}"
    finally:
        http.should_exit = True
        thread.join()


def client_of(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def metric(url, name):
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"mlagent_{name} ")))


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def chat(client, **options):
    return client.chat.completions.create(
        **({"model": "tiny", "messages": CHAT, "max_tokens": 24, "seed": 1} | options)
    )


def ask(url, body, path="/v1/completions", headers=None, method="POST"):
    """Sends a request. Returns (status, headers, JSON). body: bytes, or something to encode as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | (headers or {})
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, data, headers, method=method)
        ) as response:
            return response.status, response.headers, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.load(error)


def events(url, body, path="/v1/completions"):
    """The data of all events of a stream, as strings."""
    data = json.dumps(body | {"stream": True}).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return [line[6:] for line in response.read().decode().splitlines() if line]
