"""A local stand-in for a chat model's server, for the real client: it answers what a test tells it to."""

import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlagent_jax.llm import endpoint
from mlagent_jax.llm.chat_model import ChatModel
from mlagent_jax.llm.config import ModelsConfig, Prices
from mlagent_jax.llm.roles import RoleModels
from mlagent_jax.text.chat import Message

HI = [Message("user", "hi")]
TOKENS = {"prompt_tokens": 10, "completion_tokens": 5}
VARIABLES = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    *("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
)


class Handler(BaseHTTPRequestHandler):
    """Gives the next of `server.answers`, and the last one for ever.

    An answer is a text; a message, with its finish_reason and usage; (status, headers, body); a list of parts of a
    body, sent slowly; None for a broken connection; or a function of the request that returns one of these.
    """

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer = answer(request) if callable(answer) else answer
        if answer is None:
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(answer, list):
            self.reply(200, {"Content-Length": sum(map(len, answer))}, answer)
        else:
            status, headers, body = answer if isinstance(answer, tuple) else (200, {}, completion(answer))
            self.reply(status, {"Content-Length": len(body), **headers}, [body])

    def reply(self, status, headers, parts):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.1)
            try:
                self.wfile.write(part if isinstance(part, bytes) else part.encode())
                self.wfile.flush()
            except OSError:  # the client has given up
                return

    def log_message(self, *_): ...


def completion(answer):
    message = {"content": answer} if isinstance(answer, str) else dict(answer)
    usage = message.pop("usage", TOKENS)
    choice = {"index": 0, "finish_reason": message.pop("finish_reason", "stop"), "message": message}
    return json.dumps({"choices": [choice], "usage": usage})


def error(status, message, code=None, **headers):
    """An error in OpenAI's form."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, headers, json.dumps({"error": {"message": message, "code": code}})


class ChatServer(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        self.requests, self.headers, self.answers = [], [], ["hello"]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def chat_server():
    with ChatServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def role_models(
    server, folder: Path, roles=("expert", "coder", "idea_writer", "agent"), **changes
) -> RoleModels:
    """The models of roles that are endpoints at the server. changes: of the roles, or of all models' settings."""
    of_all = {
        name: changes.pop(name) for name in ("budget", "replay", "cache_dir", "cache_mb") if name in changes
    }
    values = {"backend": "endpoint", "base_url": server.url, "model": "qwen", "retries": 2, **changes}
    default = ModelsConfig()
    made = {role: type(default.of(role))(**values) for role in roles}
    return RoleModels(ModelsConfig(**of_all, **made), folder / "llm", folder / "llm" / "metrics.jsonl")


def model_of(server, role="coder", **changes) -> ChatModel:
    """One role's model, with a store of its own."""
    return role_models(server, server.new_folder("model"), (role,), **changes).of(role)


PRICE = Prices(input=2.0, cached_input=0.5, output=10.0)


@pytest.fixture(scope="module")
def running_server(tmp_path_factory):
    """A stand-in, in an environment that names no other server, and with short pauses."""
    with chat_server() as server, pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        patch.setattr(endpoint, "_FIRST_PAUSE", 0.001)
        # Each client reads all certificates, which takes longer than most tests; this server has none.
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)
        server.new_folder = tmp_path_factory.mktemp
        yield server


@pytest.fixture
def server(running_server):
    """The stand-in, as new."""
    running_server.reset()
    return running_server
