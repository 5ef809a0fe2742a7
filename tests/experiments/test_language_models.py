"""Runs whose roles are played by language models: counted, stopped by a budget, resumed and replayed."""

from __future__ import annotations

import hashlib
import logging

import pytest
import tiny
from chat_server import completion
from fakes import edit, execute, final, say
from scripted import run_stages, scripted

from experiments.stages.preflight import check_setup
from mlagent_jax.agent.trajectory import to_json
from mlagent_jax.agent.trajectory_log import read_trajectories
from mlagent_jax.llm.backend import ModelError
from mlagent_jax.llm.chat_model import NotRecordedError
from mlagent_jax.llm.config import ROLES
from mlagent_jax.llm.usage import BudgetSpentError, read_usage

STAGES = ("ideas", "collect", "evaluate", "report")
# Dollars of a call: the stand-in writes the 5 tokens that are allowed, and what it reads is free.
CALL = 5 * 10e-6


def answer(request):
    """As idea writer, coder, expert and agent; it follows from the request alone."""
    system = request["messages"][0]["content"]
    key = hashlib.sha256(repr(request).encode()).hexdigest()[:6]
    if "your advice is concrete" in system:
        return "[advice]\n" + "\n".join(f"{number}. Use idea {number} of {key}." for number in range(1, 5))
    if "You edit Python scripts" in system:
        script = request["messages"][1]["content"].partition("```python\n")[2].partition("\n```")[0]
        return f"```python\n{script}\n# {key}\n```"
    turns = sum(message["role"] == "assistant" for message in request["messages"])
    return say([edit(f"do {key}"), execute(), final()][min(turns, 2)])


def settings_of(server, **changes):
    roles = {
        f"models.{role}": {
            "backend": "endpoint",
            "base_url": server.url,
            "model": f"model-of-{role}",
            "retries": 1,
            "max_tokens": 5,
            "price": {"output": 10.0},
        }
        for role in ROLES
    }
    return {
        **roles,
        "tasks.micro": True,
        "ideas.candidates": 4,
        "ideas.keep": 2,
        "collect.episodes_per_task": 3,
        "collect.batch": 2,
        "evaluate.agents": ("starter", "llm"),
        "evaluate.episodes": 1,
        **changes,
    }


def run(server, folder, **changes):
    with (
        scripted(tiny.get_config(), folder, **settings_of(server, **changes)) as experiment,
        experiment.workdir.claimed(experiment.settings),
    ):
        run_stages(experiment, STAGES)
    return experiment


def episodes(experiment):
    workdir = experiment.workdir
    return [
        to_json(trajectory)
        for path in (workdir.expert_trajectories, workdir.evaluation_trajectories)
        for trajectory in read_trajectories(path)
    ]


def by_key(records):
    return sorted(records, key=lambda record: (record["agent"], record["task"], record["index"]))


class Whole:
    """A run that nothing stopped, with the requests that it made and what it logged."""

    def __init__(self, server, folder):
        handler = logging.Handler()
        handler.emit = lambda record: self.told.append(record.getMessage())
        self.told, logger = [], logging.getLogger("absl")
        server.answers, level = [by_request], logger.level
        logger.addHandler(handler)
        logger.setLevel("INFO")
        try:
            self.experiment = run(server, folder)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        self.requests, self.workdir = list(server.requests), self.experiment.workdir


def by_request(request):
    return 200, {}, completion(answer(request))


@pytest.fixture(scope="module")
def whole(running_server, tmp_path_factory):
    running_server.reset()
    return Whole(running_server, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(autouse=True)
def answering(server):
    server.answers = [by_request]


def test_each_role_asks_its_own_model_and_the_report_says_what_it_cost(whole):
    asked = {role: sum(r["model"] == f"model-of-{role}" for r in whole.requests) for role in ROLES}
    assert all(asked.values()) and sum(asked.values()) == len(whole.requests)
    usage = read_usage(whole.workdir.metrics("llm"))
    assert {role: usage[role].calls for role in ROLES} == asked
    assert all(usage[role].dollars == pytest.approx(asked[role] * CALL) for role in ROLES)
    temperatures = {r["model"].removeprefix("model-of-"): r["temperature"] for r in whole.requests}
    assert temperatures == {"expert": 0.7, "coder": 0.0, "idea_writer": 1.0, "agent": 0.7}
    progress = [line for line in whole.told if line.startswith("evaluate ") and "models: $" in line]
    assert f"models: ${len(whole.requests) * CALL:.4g}, " in progress[-1]
    page = "".join(line.strip() for line in whole.workdir.report.read_text().splitlines())
    for role in ROLES:
        assert f"<td>model-of-{role}</td><td>{asked[role]}</td>" in page


def test_a_budget_stops_the_run_and_a_higher_one_ends_it_as_if_it_had_been_whole(server, whole, tmp_path):
    paid, stops = len(whole.requests), 0
    for budget in (0.2, 0.5, 0.7, 2.0):
        try:
            resumed = run(server, tmp_path / "resumed", **{"models.budget": budget * paid * CALL})
        except BudgetSpentError as error:
            stops += 1
            assert "resumes" in str(error) and "idea_writer $" in str(error)
            assert len(server.requests) * CALL <= budget * paid * CALL
    assert stops == 3 and len(server.requests) == paid, "nothing is paid twice"
    assert by_key(episodes(resumed)) == by_key(episodes(whole.experiment))
    assert sum(usage.calls for usage in read_usage(resumed.workdir.metrics("llm")).values()) == paid


def test_a_run_is_repeated_without_its_models(server, whole, tmp_path):
    recorded = {"models.replay": True, "models.cache_dir": str(whole.workdir.stage("llm"))}
    again = run(server, tmp_path / "again", **recorded)
    assert by_key(episodes(again)) == by_key(episodes(whole.experiment)) and not server.requests
    with pytest.raises(NotRecordedError, match=r"config.models.(idea_writer|expert) is not recorded"):
        run(server, tmp_path / "other", **recorded, seed=1)


def test_a_stage_that_is_done_needs_no_model(server, whole):
    changes = settings_of(server, **{"models.expert.base_url": "gone"})
    with scripted(tiny.get_config(), whole.workdir.root, **changes) as experiment:
        check_setup(experiment, STAGES)
        whole.workdir.done("collect").unlink()
        with pytest.raises(ModelError, match=r"config.models.expert.base_url is 'gone'"):
            check_setup(experiment, STAGES)


def test_what_a_role_lacks_is_said_before_any_work(server, tmp_path, monkeypatch):
    def check(**changes):
        config = settings_of(server, **changes)
        with scripted(tiny.get_config(), tmp_path / "unused", **config) as experiment:
            check_setup(experiment, STAGES)

    check()
    with pytest.raises(ModelError, match=r"config.models.coder.base_url is 'localhost'"):
        check(**{"models.coder.base_url": "localhost"})
    with pytest.raises(ModelError, match=r"config.models.agent needs a key in the environment variable KEY"):
        check(**{"models.agent.base_url": "", "models.agent.api_key_variable": "KEY"})
    with pytest.raises(ModelError, match=r"config.models.idea_writer.model is .*, which is no folder"):
        check(**{"models.idea_writer.backend": "checkpoint"})
    with pytest.raises(ModelError, match=r"there are no recorded calls in .*unused/llm"):
        check(**{"models.replay": True})
    assert not server.requests and not (tmp_path / "unused").exists()
