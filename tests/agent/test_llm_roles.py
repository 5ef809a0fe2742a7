"""The roles that language models play, with the real client and a real HTTP server on the loopback interface."""

import pytest
from chat_server import error, model_of
from fakes import PlainSandbox, edit, execute, final, make_task, say, script

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.llm_coder import LLMCoder
from mlagent_jax.agent.llm_idea_writer import LLMIdeaWriter
from mlagent_jax.agent.llm_policy import LLMPolicy
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.environment.coder import CoderError, CoderUnavailableError
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.grading.grade import grade
from mlagent_jax.llm.backend import ModelError
from mlagent_jax.rewards import RewardConfig

TOO_LONG = error(400, "maximum context length is 9", "context_length_exceeded")


def test_the_policy_sends_the_prompt_and_returns_the_text(server, tmp_path):
    server.answers = [say(final())]
    model = model_of(server, "expert", temperature=0.3, max_tokens=77)
    policy = LLMPolicy(model, PromptFormat("full"), name="gpt")
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
    assert len(seeds) == len(set(seeds)) == 2 and all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(401, "Incorrect API key", "invalid_api_key"), "Incorrect API key"),
        (error(404, "no model qwen", "model_not_found"), "no model qwen"),
        (error(429, "pay first", "insufficient_quota"), "pay first"),
        (error(400, "temperature is not allowed"), "temperature is not allowed"),
    ],
)
def test_what_the_user_must_mend_ends_the_run_in_a_sentence(server, answer, reason):
    server.answers = [answer]
    with pytest.raises(ModelError, match=reason) as caught:
        LLMCoder(model_of(server)).edit("x", "y")
    assert isinstance(caught.value, UserError) and str(caught.value).startswith("config.models.coder: ")
    assert server.url in str(caught.value) and "api_key_variable (none is set)" in str(caught.value)


@pytest.mark.parametrize("answer", [error(500, "broken"), error(429, "busy"), (200, {}, "<html>")])
def test_a_server_that_stays_down_is_a_fault_of_ours_to_the_coder(server, tmp_path, answer):
    server.answers = [answer]
    with pytest.raises(CoderUnavailableError, match=r"127\.0\.0\.1"):
        LLMCoder(model_of(server)).edit("x", "y")
    with pytest.raises(ModelError):
        LLMPolicy(model_of(server, "expert"), PromptFormat()).respond([Situation(make_task(tmp_path), ())])


def test_episodes_end_before_the_context_does(server, tmp_path):
    task = make_task(tmp_path)
    narrow = LLMPolicy(model_of(server, "expert", context_tokens=1000, max_tokens=900), PromptFormat("full"))
    wide = LLMPolicy(model_of(server, "expert", context_tokens=8000, max_tokens=900), PromptFormat("full"))
    assert wide.fits(Situation(task, ())) and not narrow.fits(Situation(task, ()))
    server.answers = [TOO_LONG]
    with pytest.raises(ModelError, match=r"lower config.models.expert.context_tokens, now 8000"):
        wide.respond([Situation(task, ())])


def test_the_coder_writes_what_stands_in_the_first_fence(server):
    server.answers = ["Sure:\n```python\nimport a\nprint(1)\n```\nor\n```python\nno\n```"]
    coder = LLMCoder(model_of(server))
    assert coder.edit("old script", "print one") == "import a\nprint(1)\n"
    assert coder.writes_free_code
    _, user = server.requests[0]["messages"]
    assert "old script" in user["content"] and "print one" in user["content"]
    assert server.requests[0]["temperature"] == 0.0


@pytest.mark.parametrize("answer", ["I cannot.", "```python\nprint(1)\n", "```bash\nls\n```"])
def test_an_answer_without_a_whole_script_is_the_agents_error(server, answer):
    server.answers = [answer]
    with pytest.raises(CoderError, match="whole script"):
        LLMCoder(model_of(server)).edit("x", "y")


def test_a_file_too_long_for_the_coder_is_the_agents_error(server):
    server.answers = [TOO_LONG]
    with pytest.raises(CoderError, match="too long"):
        LLMCoder(model_of(server)).edit("x" * 100, "y")


def test_understanding_goes_in_blocks(server):
    coder = LLMCoder(model_of(server))
    assert coder.understand("short", "what?") == "hello" and len(server.requests) == 1
    server.requests.clear()
    server.answers = [lambda _: f"report {len(server.requests)}"]
    assert coder.understand("a" * 10_000 + "b" * 10_000 + "c", "what?") == "report 4"
    sent = [request["messages"][1]["content"] for request in server.requests]
    assert [text.count(letter) >= n for text, letter, n in zip(sent, "abc", (9_999, 9_999, 1), strict=False)]
    assert "a" * 10_000 in sent[0] and "b" * 10_000 in sent[1] and "aaaa" not in sent[1]
    assert "report 1\n\nreport 2\n\nreport 3" in sent[3]
    assert all("what?" in text for text in sent)


def test_ideas_are_the_list_after_the_marker(server, tmp_path):
    server.answers = [
        "Hm.\n- not this\n[advice]\n1. Use a forest.\n2) Log the target.\n* Scale.\n1. Use a forest.\n"
    ]
    writer = LLMIdeaWriter(model_of(server, "idea_writer"))
    task = make_task(tmp_path)
    assert writer.write(task, "model", 10) == ["Use a forest.", "Log the target.", "Scale."]
    assert writer.write(task, None, 2) == ["Use a forest.", "Log the target."]
    asked = server.requests[0]["messages"][1]["content"]
    assert "Write 10" in asked and "the model side" in asked and task.starter in asked
    server.answers = ["I have no ideas."]
    with pytest.raises(
        ModelError, match=r"idea_writer, task toy: none of 3 answers contains a list of ideas"
    ):
        writer.write(task, "data", 5)


def test_a_whole_episode_by_language_models_alone(server, tmp_path):
    def answer(request):
        if "You edit Python scripts" in request["messages"][0]["content"]:
            return f"```python\n{script(12.0)}```"
        turns = sum(message["role"] == "assistant" for message in request["messages"])
        return [say(edit("predict twelve")), say(execute()), say(final())][turns]

    server.answers = [answer]
    store, coder = SnapshotStore(tmp_path / "snapshots"), LLMCoder(model_of(server))
    environment = Environment(make_task(tmp_path), PlainSandbox(), store, coder, grade)
    with EnvRunner({"toy": environment}, RewardConfig()) as env_runner:
        policy = LLMPolicy(model_of(server, "agent"), PromptFormat("full"))
        (trajectory,) = run_episodes(policy, [EpisodeRequest("toy", 0, 1)], env_runner)
    assert [s.outcome for s in trajectory.steps] == [Outcome.SUCCESS, Outcome.NEUTRAL, Outcome.NEUTRAL]
    assert trajectory.public_score == 2.0 and trajectory.ended == "final_answer"
