"""Models whose answers are partial or useless: the real client with a real HTTP server."""

import json
import logging
from types import SimpleNamespace

import pytest
from chat_server import PRICE, completion, error, model_of, role_models
from fakes import PlainSandbox, execute, final, make_task, say, script

from experiments.stages import ideas
from experiments.stages.episodes import run_missing
from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest
from mlagent_jax.agent.llm_coder import LLMCoder
from mlagent_jax.agent.llm_idea_writer import LLMIdeaWriter
from mlagent_jax.agent.llm_policy import LLMPolicy
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.environment.coder import CoderError
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.exploration.embedding import TfidfEmbedder
from mlagent_jax.exploration.ideas import IdeaError
from mlagent_jax.exploration.pool import PoolConfig, build_pool
from mlagent_jax.grading.grade import grade
from mlagent_jax.llm.backend import ModelError
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.run_folder import RunFolder


def test_ideas_are_gathered_over_several_answers(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    server.answers = [
        "Let me think about that.",
        "[advice]\n1. Use a forest.\n2. Log the target.",
        {"content": None, "reasoning_content": "hm", "finish_reason": "length"},
        "- use a forest\n- Scale the inputs.",
        "1. Drop outliers.\n2. Average models.\n3. Too many.",
    ]
    writer = LLMIdeaWriter(model_of(server, "idea_writer"))
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
    task = make_task(tmp_path)
    server.answers = ["1. Use a forest.\n2. Log the target.", error(401, "no such key")]
    with pytest.raises(ModelError, match="no such key"):
        LLMIdeaWriter(role_models(server, tmp_path).of("idea_writer")).write(task, None, 4)
    server.answers = ["1. Scale.\n2. Drop outliers."]
    writer = LLMIdeaWriter(role_models(server, tmp_path).of("idea_writer"))
    found = writer.write(task, None, 4)
    assert found == ["Use a forest.", "Log the target.", "Scale.", "Drop outliers."]
    assert len(server.requests) == 3
    assert writer.write(task, None, 4) == found and len(server.requests) == 3
    assert writer.write(task, "model", 2) == ["Scale.", "Drop outliers."] and len(server.requests) == 4
    others = LLMIdeaWriter(role_models(server, tmp_path).of("idea_writer"), seed=1)
    assert others.write(task, None, 2) == ["Scale.", "Drop outliers."] and len(server.requests) == 5


def test_useless_answers_are_shown_and_few_ideas_are_kept(server, tmp_path):
    task = make_task(tmp_path)
    server.answers = ["I am sorry,\nI cannot help with that."]
    with pytest.raises(
        ModelError,
        match=r"none of 3 answers contains a list of ideas; the last was: I am sorry, I cannot help",
    ):
        LLMIdeaWriter(model_of(server, "idea_writer")).write(task, None, 4)
    server.answers = ["1. Use a forest."]
    assert LLMIdeaWriter(model_of(server, "idea_writer")).write(task, None, 4) == ["Use a forest."]
    server.answers = ["- " + "\n- ".join(f"Idea number {i} of them" for i in range(9))]
    pool = build_pool(
        task, LLMIdeaWriter(model_of(server, "idea_writer")), TfidfEmbedder(), PoolConfig("v1", 6, 2), 0
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
    assert LLMCoder(model_of(server)).edit(script(15.0), "predict twelve") == NEW
    before, after = (request["messages"][1]["content"] for request in server.requests)
    assert after.startswith(before) and "Your last answer can't be used: " in after


def test_a_coder_may_answer_in_blocks_and_hears_what_does_not_fit(server):
    line = script(1.0).splitlines()[-1]
    wrong, right = (
        f"<<<<<<< SEARCH\n{old}\n=======\n{line}  # kept\n>>>>>>> REPLACE" for old in ("x = 5", line)
    )
    server.answers = [wrong, right]
    edited = LLMCoder(model_of(server), "blocks").edit(script(1.0), "say that it is kept")
    assert edited == script(1.0).replace(line, f"{line}  # kept")
    first, second = (request["messages"] for request in server.requests)
    assert "<<<<<<< SEARCH" in first[0]["content"]
    assert "searches for lines that the script does not have (x = 5)" in second[1]["content"]


def test_a_copy_of_the_script_is_asked_for_again_once(server):
    copied, changed = (f"```python\n{text}```" for text in (script(1.0), NEW))
    server.answers = [copied, changed]
    assert LLMCoder(model_of(server)).edit(script(1.0), "predict twelve") == NEW
    assert "it is the script as it was" in server.requests[1]["messages"][1]["content"]
    server.answers = [copied]
    assert LLMCoder(model_of(server)).edit(script(1.0), "predict one") == script(1.0)
    assert len(server.requests) == 4


def test_an_agent_is_told_what_the_coder_said_instead(server):
    server.answers = [{"content": None, "refusal": "I will not write that"}]
    with pytest.raises(
        CoderError, match=r"whole script in 3 attempts \(.*the model refused: I will not write that"
    ):
        LLMCoder(model_of(server)).edit(script(1.0), "x")
    server.answers = ["```python\nprediction = 12\n```"]
    with pytest.raises(
        CoderError, match=r"nothing in it writes the submission; the last began '```python prediction"
    ):
        LLMCoder(model_of(server)).edit(script(1.0), "x")
    assert len(server.requests) == 6
    server.answers = [""]
    with pytest.raises(CoderError, match="gave no report in 3 attempts"):
        LLMCoder(model_of(server)).understand("text", "what?")
    server.answers = ["", "<think>hm</think>\nIt is a table."]
    assert LLMCoder(model_of(server)).understand("text", "what?") == "It is a table."


def test_a_policy_without_a_word_is_asked_again_and_then_malformed(server, tmp_path):
    situation = Situation(make_task(tmp_path), (), seed=3)
    silent = {"content": None, "reasoning_content": "hm", "finish_reason": "length"}
    server.answers = [silent, f"<think>\nReflection: no\n</think>\n{say(final())}"]
    (response,) = LLMPolicy(model_of(server, "expert"), PromptFormat()).respond([situation])
    assert response.text == say(final())
    assert len({request["seed"] for request in server.requests}) == 2
    assert response.usage.completion_tokens == 5 and response.usage.seconds > 0
    server.answers = [silent]
    (response,) = LLMPolicy(model_of(server, "expert"), PromptFormat()).respond([situation])
    assert response.text == ""


def _plainly(status, text):
    return status, {"Content-Type": "text/plain"}, text


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
        LLMCoder(model_of(server)).edit("x" * 100, "y")
    with pytest.raises(ModelError, match=r"lower config.models.expert.context_tokens"):
        LLMPolicy(model_of(server, "expert"), PromptFormat()).respond([Situation(make_task(tmp_path), ())])
    assert len(server.requests) == 2


def test_every_step_of_a_remote_model_is_told(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def answer(request):
        turns = sum(message["role"] == "assistant" for message in request["messages"])
        return (200, {}, completion([f"Sure!\n{say(execute())}", "no idea", say(final())][turns]))

    server.answers = [answer]
    models = role_models(server, tmp_path, price=PRICE)
    policy = LLMPolicy(models.of("expert"), PromptFormat("full"), name="expert")
    environment = Environment(
        make_task(tmp_path), PlainSandbox(), SnapshotStore(tmp_path / "snapshots"), LLMCoder(model_of(server)),
        grade,
    )  # fmt: skip
    with EnvRunner({"toy": environment}, RewardConfig()) as env_runner:
        requests = [EpisodeRequest("toy", index, index) for index in range(2)]
        found = run_missing(
            "collect",
            SimpleNamespace(env_runner=env_runner, models=models),
            tmp_path / "log.jsonl",
            [(policy, requests)],
            2,
        )
    assert [len(trajectory.steps) for trajectory in found] == [3, 3]
    told = [line for line in caplog.messages if line.startswith("collect: toy, episode ")]
    assert len(told) == 6
    for index in range(2):
        mine = [line.partition(f"episode {index}, ")[2] for line in told if f"episode {index}, " in line]
        assert mine[0].startswith("step 1: Execute Script, neutral, ")
        assert mine[1].startswith("step 2: no action, malformed, ")
        assert mine[2].startswith("step 3: Final Answer, neutral, ")
        assert all(line.endswith(" s, 10 + 5 tokens, $7e-05") for line in mine)


def test_a_stage_that_failed_goes_on_with_the_ideas_it_has(server, tmp_path):
    tasks = [make_task(tmp_path, name) for name in ("one", "two")]
    workdir = RunFolder(tmp_path)
    settings = SimpleNamespace(ideas=PoolConfig("v1", candidates=2, keep=1), seed=0)

    def stage():
        writer = LLMIdeaWriter(role_models(server, tmp_path).of("idea_writer"))
        experiment = SimpleNamespace(
            tasks_of=lambda stage: tasks, idea_writer=writer, workdir=workdir, settings=settings
        )
        return ideas._write_pools(experiment)

    server.answers = ["1. Use a forest.\n2. Scale.", "1. Use trees.", error(401, "no money")]
    with pytest.raises(ModelError, match="no money"):
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
