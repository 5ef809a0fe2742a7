"""Roles whose model is served on this machine: one server for all of a model's roles, which the run starts and ends."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlagent_jax.llm import endpoint, llama_server, local_server
from mlagent_jax.llm.backend import ModelError
from mlagent_jax.llm.chat_model import NotRecordedError
from mlagent_jax.llm.config import AgentConfig, ExpertConfig, ModelConfig, ModelsConfig
from mlagent_jax.llm.roles import RoleModels
from mlagent_jax.llm.usage import read_usage
from mlagent_jax.text.chat import Message

STAND_IN = Path(__file__).parents[1] / "stand_in_llama.py"
HI = [Message("user", "hi")]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(local_server, "PROGRAM", (sys.executable, "-S", str(STAND_IN)))
    monkeypatch.setattr(local_server, "check_installed", lambda: None)
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def gguf(tmp_path):
    def write(mode="", name="tiny.gguf"):
        (tmp_path / name).write_text(f"GGUF{mode}")
        return str(tmp_path / name)

    return write


@pytest.fixture
def open_models(tmp_path):
    opened = []

    def open_them(**roles):
        opened.append(RoleModels(ModelsConfig(**roles), tmp_path / "llm", tmp_path / "llm" / "metrics.jsonl"))
        return opened[-1]

    yield open_them
    for models in opened:
        models.close()


def ask(models, role, text="hi"):
    return json.loads(models.of(role).ask([Message("user", text)]).text)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for_the_end(pid):
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_roles_of_one_model_share_a_server_that_ends_with_the_run(open_models, gguf, tmp_path):
    file, other = gguf(), gguf("another", "other.gguf")
    models = open_models(
        expert=ExpertConfig("local", file, context_tokens=2048, parallel=3, threads=1),
        coder=ModelConfig("local", file, context_tokens=4096, parallel=1, max_tokens=64),
        agent=AgentConfig("local", other),
    )
    models.check(["expert", "coder", "agent"])
    assert not (tmp_path / "llm").exists()
    expert, coder, agent = (ask(models, role) for role in ("expert", "coder", "agent"))
    assert expert["pid"] == coder["pid"] != agent["pid"]
    assert expert["options"]["file"] == file
    assert [expert["options"][name] for name in ("context_tokens", "parallel", "threads")] == [4096, 3, 0]
    assert coder["request"]["max_tokens"] == 64 and coder["request"]["temperature"] == 0.0
    assert read_usage(tmp_path / "llm" / "metrics.jsonl")["coder"].dollars == 0
    models.close()
    assert not is_running(expert["pid"]) and not is_running(agent["pid"])


def test_it_is_reached_whatever_proxy_the_environment_names(open_models, gguf, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(open_models(coder=ModelConfig("local", gguf())), "coder")["pid"]


def test_a_call_is_known_by_the_weights_and_can_be_replayed_without_a_server(open_models, gguf, monkeypatch):
    first = ask(open_models(coder=ModelConfig("local", gguf())), "coder")
    monkeypatch.setattr(local_server, "PROGRAM", ("no-such-program",))
    assert ask(open_models(coder=ModelConfig("local", gguf(name="copy.gguf"))), "coder") == first
    replay = open_models(
        coder=ModelConfig("local", gguf(mode="other weights", name="other.gguf")), replay=True
    )
    with pytest.raises(NotRecordedError):
        ask(replay, "coder")


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("breaks", r"ended with status 1 \(see .*tiny\.gguf\.log, which ends 'the file makes no sense'\)"),
        ("hangs", r"was not ready after 0\.5 s"),
        ("dies", r"ended with status 9"),
    ],
)
def test_a_server_that_fails_is_named_with_what_it_said(open_models, gguf, monkeypatch, mode, said):
    if mode == "hangs":
        monkeypatch.setattr(local_server, "READY_SECONDS", 0.5)
    models = open_models(coder=ModelConfig("local", gguf(mode), retries=1))
    with pytest.raises(
        ModelError, match=rf"config\.models\.coder: the server of local:.*tiny\.gguf {said}.*lower"
    ):
        models.of("coder").ask(HI)


def test_an_interrupted_run_does_not_wait_until_a_server_is_ready_and_starts_no_other(
    open_models, gguf, tmp_path
):
    models = open_models(coder=ModelConfig("local", gguf("hangs"), retries=0))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(models.of("coder").ask, [Message("user", text)]) for text in ("one", "two")]
        while not list((tmp_path / "llm").glob("*.log")):
            time.sleep(0.02)
        began = time.monotonic()
        models.interrupt()
        for each in asked:
            with pytest.raises(ModelError, match="ended"):
                each.result(timeout=30)
    assert time.monotonic() - began < local_server.READY_SECONDS / 10
    with pytest.raises(ModelError, match="has ended the server"):
        models.of("coder").ask(HI)


def test_a_run_that_is_killed_leaves_no_server_behind(gguf, tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from mlagent_jax.llm import local_server\n"
        "from mlagent_jax.llm.config import ModelConfig\n"
        f"local_server.PROGRAM = {local_server.PROGRAM!r}\n"
        "local_server.check_installed = lambda: None\n"
        "server = local_server.LocalServer({'coder': ModelConfig('local', sys.argv[1])}, Path(sys.argv[2]))\n"
        "server.address()\n"
        "print(server._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program, gguf(), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    pid = int(run.stdout.readline())
    assert is_running(pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    wait_for_the_end(pid)


def test_without_llama_cpp_the_command_that_installs_it_is_said(open_models, gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(local_server, "check_installed", llama_server.check_installed)
    models = open_models(coder=ModelConfig("local", gguf()))
    with pytest.raises(ModelError, match=r"config\.models\.coder: .*pip install 'mlagent-jax\[local\]'"):
        models.check(["coder"])


def test_a_name_that_is_no_model_is_refused_before_the_run(open_models):
    with pytest.raises(ModelError, match=r"config\.models\.expert: 'qwen' is no local model"):
        open_models(expert=ExpertConfig("local", "qwen")).check(["expert"])
