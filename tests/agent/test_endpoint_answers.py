"""Endpoints whose answers are partial, useless, late or errors: the real client with a real HTTP server."""

import json
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from fakes import PlainSandbox, execute, final, make_task, say, script

from experiments.stages import ideas
from experiments.stages.episodes import run_missing
from mlagent_jax.agent import chat_client
from mlagent_jax.agent.endpoint import (
    Endpoint,
    EndpointCoder,
    EndpointConfig,
    EndpointError,
    EndpointIdeaWriter,
    EndpointPolicy,
    EndpointUnavailableError,
)
from mlagent_jax.agent.episode import EnvRunner, EpisodeRequest
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.environment.coder import CoderError
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.exploration.embedding import TfidfEmbedder
from mlagent_jax.exploration.ideas import IdeaError
from mlagent_jax.exploration.pool import PoolConfig, build_pool
from mlagent_jax.grading.grade import grade
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.run_folder import RunFolder
from mlagent_jax.text.chat import Message

HI = [Message("user", "hi")]


class Handler(BaseHTTPRequestHandler):
    """Gives the next of `server.answers`: a text; a message with its finish_reason; or (status, headers, body)."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer = answer(request) if callable(answer) else answer
        if answer is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, body = answer if isinstance(answer, tuple) else (200, {}, completion(answer))
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": len(body),
            **headers,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else body.encode())

    def log_message(self, *_): ...


def completion(answer):
    message = {"content": answer} if isinstance(answer, str) else dict(answer)
    choice = {"index": 0, "finish_reason": message.pop("finish_reason", "stop"), "message": message}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})


def error(status, message, code=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, headers, json.dumps({"error": {"message": message, "code": code}})


@pytest.fixture
def server(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(chat_client, "_FIRST_PAUSE", 0.001)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.answers, server.lock = [], ["hello"], threading.Lock()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def endpoint_of(server, **changes):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return Endpoint(EndpointConfig(**{"base_url": url, "model": "qwen", "retries": 2, **changes}))


def test_ideas_are_gathered_over_several_answers(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    server.answers = [
        "Let me think about that.",
        "[advice]\n1. Use a forest.\n2. Log the target.",
        {"content": None, "reasoning_content": "hm", "finish_reason": "length"},
        "- use a forest\n- Scale the inputs.",
        "1. Drop outliers.\n2. Average models.\n3. Too many.",
    ]
    writer = EndpointIdeaWriter(endpoint_of(server), tmp_path)
    found = writer.write(make_task(tmp_path), "model", 5)
    assert found == [
        "Use a forest.",
        "Log the target.",
        "Scale the inputs.",
        "Drop outliers.",
        "Average models.",
    ]
    asked = [request["messages"][1]["content"] for request in server.requests]
    assert [text[text.index("Write ") :][:8] for text in asked] == [
        "Write 5 ",
        "Write 5 ",
        "Write 3 ",
        "Write 3 ",
        "Write 2 ",
    ]
    assert "known already" not in asked[1] and "- Log the target." in asked[2]
    told = [line for line in caplog.messages if line.startswith("ideas: toy, model:")]
    assert "0 of 5 after answer 1" in told[0] and "nothing new in: Let me think about that." in told[0]
    assert "5 of 5 after answer 5" in told[4] and "10 + 5 tokens" in told[4]


def test_ideas_that_were_gathered_outlive_a_failure(server, tmp_path):
    task, folder = make_task(tmp_path), tmp_path / "ideas"
    server.answers = ["1. Use a forest.\n2. Log the target.", error(401, "no such key")]
    with pytest.raises(EndpointError, match="no such key"):
        EndpointIdeaWriter(endpoint_of(server), folder).write(task, None, 4)
    server.answers = ["1. Scale.\n2. Drop outliers."]
    writer = EndpointIdeaWriter(endpoint_of(server), folder)
    found = writer.write(task, None, 4)
    assert found == ["Use a forest.", "Log the target.", "Scale.", "Drop outliers."]
    sent = len(server.requests)
    assert writer.write(task, None, 4) == found and len(server.requests) == sent
    writer.forget("to")
    assert list(folder.iterdir())
    writer.forget("toy")
    assert not list(folder.iterdir())


def test_useless_answers_are_shown_and_few_ideas_are_kept(server, tmp_path):
    task = make_task(tmp_path)
    server.answers = ["I am sorry,\nI cannot help with that."]
    with pytest.raises(
        EndpointError,
        match=r"none of 3 answers contains a list of ideas; the last was: I am sorry, I cannot help",
    ):
        EndpointIdeaWriter(endpoint_of(server)).write(task, None, 4)
    server.answers = ["1. Use a forest."]
    assert EndpointIdeaWriter(endpoint_of(server)).write(task, None, 4) == ["Use a forest."]
    server.answers = ["- " + "\n- ".join(f"Idea number {i} of them" for i in range(9))]
    pool = build_pool(
        task, EndpointIdeaWriter(endpoint_of(server)), TfidfEmbedder(), PoolConfig("v1", 6, 2), 0
    )
    assert len(pool.candidates["all"]) == 6


NEW = script(12.0)


@pytest.mark.parametrize(
    "first",
    [
        "Certainly! I would do that.",
        '```python\nprediction = 12\n```',
        {"content": f"```python\n{NEW[:80]}", "finish_reason": "length"},
        {"content": None, "finish_reason": "length", "reasoning_content": "so long"},
        {"content": "", "finish_reason": "content_filter"},
        {"content": None, "refusal": "I will not"},
        error(400, "filtered by the content management policy", "content_filter"),
        f"```python\n{NEW}# ... the rest of the code stays the same\n```",
    ],
)  # fmt: skip
def test_the_coder_is_asked_again_with_a_word_on_what_was_wrong(server, first):
    server.answers = [first, f"<think>hm</think>Here:\n~~~py\n{NEW}~~~\nDone."]
    assert EndpointCoder(endpoint_of(server)).edit(script(15.0), "predict twelve") == NEW
    before, after = (request["messages"][1]["content"] for request in server.requests)
    assert after.startswith(before) and "Your last answer can't be used: " in after


def test_an_agent_is_told_what_the_coder_said_instead(server):
    server.answers = [{"content": None, "refusal": "I will not write that"}]
    with pytest.raises(
        CoderError, match=r"whole script in 3 attempts \(.*the model refused: I will not write that"
    ):
        EndpointCoder(endpoint_of(server)).edit(script(1.0), "x")
    server.answers = ["```python\nprediction = 12\n```"]
    with pytest.raises(
        CoderError, match=r"nothing in it writes the submission; the last began '```python prediction"
    ):
        EndpointCoder(endpoint_of(server)).edit(script(1.0), "x")
    assert len(server.requests) == 6
    server.answers = [""]
    with pytest.raises(CoderError, match="gave no report in 3 attempts"):
        EndpointCoder(endpoint_of(server)).understand("text", "what?")
    server.answers = ["", "<think>hm</think>\nIt is a table."]
    assert EndpointCoder(endpoint_of(server)).understand("text", "what?") == "It is a table."


def test_a_policy_without_a_word_is_asked_again_and_then_malformed(server, tmp_path):
    situation = Situation(make_task(tmp_path), (), seed=3)
    silent = {"content": None, "reasoning_content": "hm", "finish_reason": "length"}
    server.answers = [silent, f"<think>\nReflection: no\n</think>\n{say(final())}"]
    (response,) = EndpointPolicy(endpoint_of(server), PromptFormat()).respond([situation])
    assert response.text == say(final())
    assert len({request["seed"] for request in server.requests}) == 2
    assert response.usage.completion_tokens == 5 and response.usage.seconds > 0
    server.answers = [silent]
    (response,) = EndpointPolicy(endpoint_of(server), PromptFormat()).respond([situation])
    assert response.text == ""


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
    assert endpoint_of(server).complete(HI, 5, 0.0) == "at last"
    assert any("retrying in" in line and "attempt 2 of 3" in line for line in caplog.messages)
    server.answers, sent = [fault], len(server.requests)
    with pytest.raises(EndpointUnavailableError, match=r"http://127\.0\.0\.1.*'qwen'") as caught:
        endpoint_of(server).complete(HI, 5, 0.0)
    assert len(server.requests) == sent + 3 and len(str(caught.value)) < 900


def test_a_server_that_is_too_slow_is_named_with_the_limit(server):
    server.answers = [lambda _: time.sleep(0.5)]
    with pytest.raises(EndpointUnavailableError, match=r"no answer within timeout_seconds = 0.1"):
        endpoint_of(server, timeout_seconds=0.1, retries=1).complete(HI, 5, 0.0)
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
    monkeypatch.setattr(chat_client.time, "sleep", pauses.append)
    server.answers = [error(429, "busy", **headers), "at last"]
    assert endpoint_of(server).complete(HI, 5, 0.0) == "at last"
    assert pauses == [seconds]


def _plainly(status, text):
    return status, {"Content-Type": "text/plain"}, text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_is_refused_is_not_tried_again(server, status):
    server.answers = [error(status, "this is why")]
    with pytest.raises(EndpointError, match=r"http://127.*refuses the request for model 'qwen'.*this is why"):
        endpoint_of(server).complete(HI, 5, 0.0)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
        (400, "the request exceeds the available context size. try increasing the context size"),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 4096"),
        (413, "prompt is too long: 210000 tokens > 200000 maximum"),
        (422, {"error": "Input validation error: `inputs` is too long"}),
        (400, {"detail": "too many tokens"}),
        (413, b"the prompt is too long"),
    ],
)
def test_a_request_that_is_too_long_is_known_as_such(server, tmp_path, status, message):
    """Errors in OpenAI's form, and in those of other servers."""
    forms = {str: error, dict: lambda status, body: (status, {}, json.dumps(body)), bytes: _plainly}
    server.answers = [forms[type(message)](status, message)]
    with pytest.raises(CoderError, match="too long"):
        EndpointCoder(endpoint_of(server)).edit("x" * 100, "y")
    with pytest.raises(EndpointError, match="lower the endpoint's context_tokens"):
        EndpointPolicy(endpoint_of(server), PromptFormat()).respond([Situation(make_task(tmp_path), ())])
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "v1"]
)
def test_an_address_that_is_none_is_named_at_once(url):
    with pytest.raises(
        EndpointError, match=r"base_url is .*, expected a URL such as http://localhost:8000/v1"
    ):
        Endpoint(EndpointConfig(base_url=url, model="qwen"))


def test_a_key_is_taken_without_its_line_end_and_odd_ones_are_named(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret\n")
    assert endpoint_of(server).complete(HI, 5, 0.0) == "hello"
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY has a character that is not printable ASCII"):
        endpoint_of(server)


def test_content_in_parts_is_one_text(server):
    server.answers = [{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert endpoint_of(server).complete(HI, 5, 0.0) == "ab"


def test_an_odd_but_usable_answer_is_used(server):
    said = {"choices": [{"message": {"content": "half \ud83d of it"}}], "usage": {"prompt_tokens": "many"}}
    server.answers = [(200, {}, json.dumps(said))]
    answer = endpoint_of(server).ask(HI, 5, 0.0)
    assert answer.text == "half ? of it" and answer.text.encode() and not answer.problem
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (0, 0)
    server.answers = [{"content": None, "refusal": {"why": "no"}}]
    assert "the model refused" in endpoint_of(server).ask(HI, 5, 0.0).problem


def test_every_step_of_a_remote_model_is_told(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def answer(request):
        turns = sum(message["role"] == "assistant" for message in request["messages"])
        return (200, {}, completion([f"Sure!\n{say(execute())}", "no idea", say(final())][turns]))

    server.answers = [answer]
    policy = EndpointPolicy(endpoint_of(server), PromptFormat("full"), name="expert")
    environment = Environment(
        make_task(tmp_path), PlainSandbox(), SnapshotStore(tmp_path / "snapshots"), EndpointCoder(endpoint_of(server)),
        grade,
    )  # fmt: skip
    with EnvRunner({"toy": environment}, RewardConfig()) as env_runner:
        requests = [EpisodeRequest("toy", index, index) for index in range(2)]
        found = run_missing(
            "collect", SimpleNamespace(env_runner=env_runner), tmp_path / "log.jsonl", [(policy, requests)], 2
        )
    assert [len(trajectory.steps) for trajectory in found] == [3, 3]
    told = [line for line in caplog.messages if line.startswith("collect: toy, episode ")]
    assert len(told) == 6
    for index in range(2):
        mine = [line.partition(f"episode {index}, ")[2] for line in told if f"episode {index}, " in line]
        assert mine[0].startswith("step 1: Execute Script, neutral, ")
        assert mine[1].startswith("step 2: no action, malformed, ")
        assert mine[2].startswith("step 3: Final Answer, neutral, ")
        assert all(line.endswith(" s, 10 + 5 tokens") for line in mine)


def test_a_stage_that_failed_goes_on_with_the_ideas_it_has(server, tmp_path):
    tasks = [make_task(tmp_path, name) for name in ("one", "two")]
    workdir = RunFolder(tmp_path)
    settings = SimpleNamespace(ideas=PoolConfig("v1", candidates=2, keep=1), seed=0)

    def stage():
        writer = EndpointIdeaWriter(endpoint_of(server), workdir.ideas)
        experiment = SimpleNamespace(held_in=tasks, idea_writer=writer, workdir=workdir, settings=settings)
        return ideas._write_pools(experiment)

    server.answers = ["1. Use a forest.\n2. Scale.", "1. Use trees.", error(401, "no money")]
    with pytest.raises(EndpointError, match="no money"):
        stage()
    sent = len(server.requests)
    server.answers = ["1. Drop outliers."]
    assert stage() == {"pools": 2, "ideas": 2}
    assert len(server.requests) == sent + 1
    assert sorted(path.name for path in workdir.ideas.iterdir()) == ["one.json", "two.json"]
    assert ideas.read_pool(workdir.ideas / "two.json").candidates == {"all": ("Use trees.", "Drop outliers.")}
    (workdir.ideas / "two.json").write_text("{")
    with pytest.raises(IdeaError, match=r"two.json is damaged .*delete it"):
        stage()
