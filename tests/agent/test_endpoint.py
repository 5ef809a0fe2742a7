"""The roles of an endpoint, with the real client and a real HTTP server on the loopback interface."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fakes import PlainSandbox, edit, execute, final, make_task, say, script

from mlagent_jax.agent.endpoint import (
    Endpoint,
    EndpointCoder,
    EndpointConfig,
    EndpointError,
    EndpointIdeaWriter,
    EndpointPolicy,
)
from mlagent_jax.agent.episode import EnvRunner, EpisodeRequest, run_episodes
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.environment.coder import CoderError, CoderUnavailableError
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.grading.grade import grade
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.text.chat import Message


class Server(ThreadingHTTPServer):
    """Answers chat completions by `answer(request)`: a text, or (status, error code, message)."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.headers = [], []
        self.answer = lambda request: "hello"
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = self.server.answer(request)
        if isinstance(answer, str):
            message = {"role": "assistant", "content": answer}
            body = {
                "id": "1", "object": "chat.completion", "created": 0, "model": request["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }  # fmt: skip
            self.reply(200, "application/json", json.dumps(body))
        elif isinstance(answer, bytes):
            self.reply(200, "text/html", answer.decode())
        else:
            status, code, text = answer
            self.reply(status, "application/json", json.dumps({"error": {"message": text, "code": code}}))

    def reply(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        if status >= 400:
            self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_): ...


@pytest.fixture
def server(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def endpoint_of(server, **changes):
    return Endpoint(EndpointConfig(**{"base_url": server.url, "model": "qwen", "retries": 2, **changes}))


def test_the_policy_sends_the_prompt_and_returns_the_text(server, tmp_path):
    server.answer = lambda request: say(final())
    endpoint = endpoint_of(server, temperature=0.3, max_tokens=77)
    policy = EndpointPolicy(endpoint, PromptFormat("full"), name="gpt")
    task = make_task(tmp_path)
    situations = [Situation(task, (), ideas=("use a forest",), seed=seed) for seed in (1, 2, 1)]
    assert [r.text for r in policy.respond(situations)] == [say(final())] * 3
    assert policy.name == "gpt" and not policy.writes_free_code
    for request in server.requests:
        assert (request["model"], request["temperature"], request["max_tokens"]) == ("qwen", 0.3, 77)
        chat = messages(PromptFormat("full"), situations[0], with_ideas=True)
        assert request["messages"] == [{"role": m.role, "content": m.content} for m in chat]
        assert "use a forest" in request["messages"][1]["content"]
    seeds = sorted(request["seed"] for request in server.requests)
    assert len(set(seeds)) == 2 and all(0 <= seed < 2**31 for seed in seeds)
    assert (endpoint.prompt_tokens, endpoint.completion_tokens) == (30, 15)


def test_a_key_is_taken_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    chat = messages_of("hi")
    endpoint_of(server, api_key_variable="MY_KEY").complete(chat, 5, 0.0)
    assert server.headers[0]["authorization"] == "Bearer s3cret"
    with pytest.raises(EndpointError, match="key in the environment variable OTHER_KEY"):
        Endpoint(EndpointConfig(model="gpt", api_key_variable="OTHER_KEY"))


def messages_of(text):
    return [Message("user", text)]


def test_a_server_that_recovers_is_asked_again(server):
    faults = [(503, None, "busy"), (429, None, "slow down")]
    server.answer = lambda request: faults.pop() if faults else "at last"
    assert endpoint_of(server).complete(messages_of("hi"), 5, 0.0) == "at last"
    assert len(server.requests) == 3


def test_what_cannot_be_encoded_is_sent_all_the_same(server):
    endpoint_of(server).complete(messages_of("caf\udce9"), 5, 0.0)
    assert server.requests[0]["messages"][0]["content"] == "caf?"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, "invalid_api_key", "Incorrect API key"), "Incorrect API key"),
        ((404, "model_not_found", "no model qwen"), "no model qwen"),
        ((429, "insufficient_quota", "pay first"), "pay first"),
        ((400, None, "temperature is not allowed"), "temperature is not allowed"),
    ],
)
def test_what_the_user_must_mend_ends_the_run_in_a_sentence(server, answer, reason):
    server.answer = lambda request: answer
    endpoint = endpoint_of(server)
    for use in (
        lambda: endpoint.complete(messages_of("hi"), 5, 0.0),
        lambda: EndpointCoder(endpoint).edit("x", "y"),
    ):
        with pytest.raises(EndpointError, match=reason) as caught:
            use()
        assert isinstance(caught.value, UserError)
        assert server.url in str(caught.value) and "OPENAI_API_KEY" in str(caught.value)


@pytest.mark.parametrize("answer", [(500, None, "broken"), (429, None, "busy"), b"<html>a wiki</html>"])
def test_a_server_that_stays_down_is_a_fault_of_ours_to_the_coder(server, tmp_path, answer):
    server.answer = lambda request: answer
    with pytest.raises(CoderUnavailableError, match=r"127\.0\.0\.1"):
        EndpointCoder(endpoint_of(server)).edit("x", "y")
    with pytest.raises(EndpointError):
        EndpointPolicy(endpoint_of(server), PromptFormat()).respond([Situation(make_task(tmp_path), ())])


def test_nobody_listening(server):
    config = EndpointConfig(base_url="http://127.0.0.1:1/v1", model="qwen", retries=0)
    with pytest.raises(EndpointError, match="does not answer"):
        Endpoint(config).complete(messages_of("hi"), 5, 0.0)


def test_without_a_model_or_the_package(server, monkeypatch):
    with pytest.raises(EndpointError, match="set its `model`"):
        Endpoint(EndpointConfig(base_url=server.url))
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(EndpointError, match=r"pip install 'mlagent-jax\[endpoint\]'"):
        endpoint_of(server)


def test_episodes_end_before_the_context_does(server, tmp_path):
    task = make_task(tmp_path)
    narrow = EndpointPolicy(endpoint_of(server, context_tokens=1000, max_tokens=900), PromptFormat("full"))
    wide = EndpointPolicy(endpoint_of(server, context_tokens=8000, max_tokens=900), PromptFormat("full"))
    assert wide.fits(Situation(task, ())) and not narrow.fits(Situation(task, ()))
    server.answer = lambda request: (400, "context_length_exceeded", "maximum context length is 9")
    with pytest.raises(EndpointError, match="lower the endpoint's context_tokens, now 8000"):
        wide.respond([Situation(task, ())])


def test_the_coder_writes_what_stands_in_the_first_fence(server):
    server.answer = lambda request: "Sure:\n```python\nimport a\nprint(1)\n```\nor\n```python\nno\n```"
    coder = EndpointCoder(endpoint_of(server))
    assert coder.edit("old script", "print one") == "import a\nprint(1)\n"
    assert coder.writes_free_code
    _, user = server.requests[0]["messages"]
    assert "old script" in user["content"] and "print one" in user["content"]
    assert server.requests[0]["temperature"] == 0.0


@pytest.mark.parametrize("answer", ["I cannot.", "```python\nprint(1)\n", "```bash\nls\n```"])
def test_an_answer_without_a_whole_script_is_the_agents_error(server, answer):
    server.answer = lambda request: answer
    with pytest.raises(CoderError, match="whole script"):
        EndpointCoder(endpoint_of(server)).edit("x", "y")


def test_a_file_too_long_for_the_coder_is_the_agents_error(server):
    server.answer = lambda request: (400, "context_length_exceeded", "maximum context length is 9")
    with pytest.raises(CoderError, match="too long"):
        EndpointCoder(endpoint_of(server)).edit("x" * 100, "y")


def test_understanding_goes_in_blocks(server):
    coder = EndpointCoder(endpoint_of(server))
    assert coder.understand("short", "what?") == "hello" and len(server.requests) == 1
    server.requests.clear()
    server.answer = lambda request: f"report {len(server.requests)}"
    assert coder.understand("a" * 10_000 + "b" * 10_000 + "c", "what?") == "report 4"
    sent = [request["messages"][1]["content"] for request in server.requests]
    assert [text.count(letter) >= n for text, letter, n in zip(sent, "abc", (9_999, 9_999, 1), strict=False)]
    assert "a" * 10_000 in sent[0] and "b" * 10_000 in sent[1] and "aaaa" not in sent[1]
    assert "report 1\n\nreport 2\n\nreport 3" in sent[3]
    assert all("what?" in text for text in sent)


def test_ideas_are_the_list_after_the_marker(server, tmp_path):
    server.answer = lambda request: (
        "Hm.\n- not this\n[advice]\n1. Use a forest.\n2) Log the target.\n* Scale.\n1. Use a forest.\n"
    )
    writer = EndpointIdeaWriter(endpoint_of(server))
    task = make_task(tmp_path)
    assert writer.write(task, "model", 10) == ["Use a forest.", "Log the target.", "Scale."]
    assert writer.write(task, None, 2) == ["Use a forest.", "Log the target."]
    asked = server.requests[0]["messages"][1]["content"]
    assert "Write 10" in asked and "the model side" in asked and task.starter in asked
    server.answer = lambda request: "I have no ideas."
    with pytest.raises(EndpointError, match=r"task toy: none of .* answers contains a list of ideas"):
        writer.write(task, None, 5)


def test_a_whole_episode_by_endpoint_alone(server, tmp_path):
    def answer(request):
        if "You edit Python scripts" in request["messages"][0]["content"]:
            return f"```python\n{script(12.0)}```"
        turns = sum(message["role"] == "assistant" for message in request["messages"])
        return [say(edit("predict twelve")), say(execute()), say(final())][turns]

    server.answer = answer
    endpoint = endpoint_of(server)
    store, coder = SnapshotStore(tmp_path / "snapshots"), EndpointCoder(endpoint)
    environment = Environment(make_task(tmp_path), PlainSandbox(), store, coder, grade)
    with EnvRunner({"toy": environment}, RewardConfig()) as env_runner:
        policy = EndpointPolicy(endpoint, PromptFormat("full"))
        (trajectory,) = run_episodes(policy, [EpisodeRequest("toy", 0, 1)], env_runner)
    assert [s.outcome for s in trajectory.steps] == [Outcome.SUCCESS, Outcome.NEUTRAL, Outcome.NEUTRAL]
    assert trajectory.public_score == 2.0 and trajectory.ended == "final_answer"
