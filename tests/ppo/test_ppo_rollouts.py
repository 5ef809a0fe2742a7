"""States from stored episodes, sampled actions and their results, with real runs, real grading and a tiny model."""

import dataclasses

import fakes
import numpy as np
import pytest

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.model_policy import ModelPolicy, response_seed
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.episodes import EpisodeCollector
from mlagent_jax.ppo.rollout import StateCollector
from mlagent_jax.ppo.states import StatePool
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.sandbox.interface import Result, Status
from mlagent_jax.text.chat import encode_chat, encode_prompt, tokenizer_texts
from mlagent_jax.text.tokenizer import train_sentencepiece

FORM = PromptFormat(style="compact", observation_chars=60)
LINES = [
    fakes.say(fakes.edit(fakes.script(12.5))),  # mae 5 -> 2.5
    fakes.say(fakes.execute()),
    "no action at all",
    fakes.say(fakes.final()),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return fakes.make_environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def env_runner(environment):
    with EnvRunner({"toy": environment}, RewardConfig(), threads=2, retry_seconds=0.0) as env_runner:
        yield env_runner


@pytest.fixture(scope="module")
def expert(env_runner):
    """Three stored episodes of four steps each."""
    requests = [EpisodeRequest("toy", index, index) for index in range(3)]
    return list(run_episodes(fakes.ListPolicy(LINES), requests, env_runner))


@pytest.fixture(scope="module")
def tasks(environment):
    return {"toy": environment.task}


@pytest.fixture(scope="module")
def policy(expert, tasks, tmp_path_factory):
    chats = [messages(FORM, Situation(tasks["toy"], episode.steps)) for episode in expert]
    tokenizer = train_sentencepiece(tokenizer_texts(chats), 420, tmp_path_factory.mktemp("tokenizer"))
    model = Qwen2Config(tokenizer.vocab_size, 16, 24, 1, 2, 1, initializer_range=0.3)
    engine = Engine(model, EngineConfig(slots=4, max_length=708), make_mesh(MeshConfig()))
    engine.load(init_params(model, 0))
    return ModelPolicy("tiny", engine, tokenizer, FORM, max_new_tokens=8)


def fits(situation):
    return True


def test_pool_holds_every_step_with_what_came_before_and_no_ideas(expert, tasks):
    pool = StatePool(expert, tasks, fits)
    assert len(pool) == 12
    for state in pool.sample(12, seed=0, update=0):
        episode = next(e for e in expert if e.key == state.trajectory)
        assert state.turn.state == episode.steps[state.index].before
        assert state.turn.situation.steps == episode.steps[: state.index]
        assert state.turn.situation.ideas == ()


def test_pool_is_uniform_over_steps_and_a_function_of_seed_and_update(expert, tasks):
    pool = StatePool(expert, tasks, fits)
    where = [
        (state.trajectory, state.index)
        for update in range(6)
        for state in pool.sample(4, seed=1, update=update)
    ]
    assert len(set(where[:12])) == len(set(where[12:])) == 12  # each state once in a pass
    assert where[:12] != where[12:]
    again = [pool.sample(4, seed=1, update=update) for update in (5, 3)]  # in any order: a resumed run
    assert [(s.trajectory, s.index) for s in again[0]] == where[20:24]
    assert [s.turn.situation.seed for s in again[1]] == [
        s.turn.situation.seed for s in pool.sample(4, seed=1, update=3)
    ]
    several = [pool.sample(8, seed=1, update=update, samples=2) for update in range(3)]
    for update, states in enumerate(several):
        assert [(s.trajectory, s.index) for s in states] == [
            place for place in where[4 * update : 4 * update + 4] for _ in range(2)
        ]
        assert len({s.turn.situation.seed for s in states}) == 8
    other = pool.sample(4, seed=2, update=0)
    assert [s.turn.situation.seed for s in other] != [s.turn.situation.seed for s in pool.sample(4, 1, 0)]


def test_pool_leaves_out_what_cannot_be_learnt_from(expert, tasks):
    assert len(StatePool(expert, tasks, lambda situation: len(situation.steps) < 2)) == 6
    first = expert[0]
    fault = dataclasses.replace(first.steps[1], outcome=Outcome.INFRASTRUCTURE, reward=None)
    faulty = dataclasses.replace(first, steps=(first.steps[0], fault, *first.steps[2:]))
    pool = StatePool([faulty], tasks, lambda situation: len(situation.steps) < 1)
    assert len(pool) == 1 and pool.total == 4
    assert pool.left_out_summary == (
        "1 too long for the policy's context (sampling.max_length), 2 after an infrastructure failure"
    )
    assert len(StatePool([faulty], tasks, fits)) == 2
    with pytest.raises(UserError, match="0 of 3 trajectories are of the tasks other"):
        StatePool(expert, {"other": tasks["toy"]}, fits)
    with pytest.raises(UserError, match="with 12 states, of which 12 are too long"):
        StatePool(expert, tasks, lambda situation: False)


def test_policy_reads_the_ids_that_were_sampled(policy, expert, tasks):
    step = expert[0].steps[0]
    odd = tuple(policy.tokenizer.encode(letter)[0] for letter in "abc")  # not how the text would be tokenised
    sampled = dataclasses.replace(step, response="abc", tokens=(*odd, policy.tokenizer.im_end))
    prompt = policy.prompt(Situation(tasks["toy"], (sampled,))).tolist()
    assert any(tuple(prompt[i : i + 3]) == odd for i in range(len(prompt)))


def test_response_depends_on_situation_and_seed_alone(policy, expert, tasks):
    situations = [Situation(tasks["toy"], expert[0].steps[:n], (), seed) for n in range(3) for seed in (1, 2)]
    together = policy.respond(situations)
    for situation, response in zip(situations, together, strict=True):
        assert policy.respond([situation]) == [response]
        assert len(response.tokens) == len(response.logprobs) <= 8
    assert len({response.tokens for response in together}) > 1
    assert len({response_seed(situation) for situation in situations}) == 6


def test_policy_says_when_the_context_is_full(policy, expert, tasks):
    long = Situation(tasks["toy"], expert[0].steps * 4)
    assert policy.fits(Situation(tasks["toy"], ())) and not policy.fits(long)


class FixedResponses:
    """A ModelPolicy with given responses and made-up log-probs."""

    def __init__(self, policy, lines):
        self.stop_ids, self.tokenizer, self.form, self.name = policy.stop_ids, policy.tokenizer, FORM, "fixed"
        self.prompt, self.fits, self.lines = policy.prompt, policy.fits, lines

    def respond(self, situations):
        said = []
        for i, situation in enumerate(situations):
            text = self.lines[(i if len(self.lines) > 4 else len(situation.steps)) % len(self.lines)]
            tokens = (*self.tokenizer.encode(text), self.tokenizer.im_end)
            said.append(Response(text, tokens, tuple(-0.1 * n for n in range(len(tokens)))))
        return said


def test_state_collector_acts_once_from_each_state(policy, expert, tasks, env_runner):
    fixed = FixedResponses(policy, [fakes.say(fakes.edit(fakes.script(11.5)))])
    pool = StatePool(expert, tasks, fits)
    got = StateCollector(pool, env_runner).collect(fixed, 6, seed=0, update=1)
    states = pool.sample(6, seed=0, update=1)
    for state, rollout, record in zip(states, got.rollouts, got.records, strict=True):
        prompt = policy.prompt(state.turn.situation)
        np.testing.assert_array_equal(rollout.tokens[: len(prompt)], prompt)
        (action,) = rollout.actions
        assert action.response_range == (len(prompt), len(rollout.tokens)) and not action.truncated
        # (m_t - m_{t+1}) / (m_init - m_best) for an mae: a fraction, and it arrives as one.
        before = state.turn.state.public_score
        assert action.reward == pytest.approx((before - 1.5) / 4.0) == record["reward"]
        assert (record["task"], record["trajectory"], record["index"]) == (
            "toy",
            state.trajectory,
            state.index,
        )
        assert record["m_before"] == before and record["m_after"] == 1.5 and record["outcome"] == "success"
    assert [rollout.state for rollout in got.rollouts] == list(range(6))
    twice = StateCollector(pool, env_runner, samples=2).collect(fixed, 6, seed=0, update=1)
    assert [rollout.state for rollout in twice.rollouts] == [0, 0, 1, 1, 2, 2]
    config = PPOConfig(row_length=800, micro_rows=2, minibatch_size=4)
    batch = make_batch(config, got.rollouts, 1)
    assert sorted(batch.arrays["rewards"][batch.arrays["dones"]].round(4).tolist()) == sorted(
        round(record["reward"], 4) for record in got.records
    )


def test_infrastructure_failures_have_no_reward(policy, expert, tasks, tmp_path):
    broken = fakes.PlainSandbox()
    environment = fakes.make_environment(tmp_path, broken)
    environment.initial_state()  # the starter runs; every later job fails
    broken.run = lambda job: Result(Status.SANDBOX_ERROR, error="the sandbox is gone")
    fixed = FixedResponses(policy, [fakes.say(fakes.edit(fakes.script(11.5)))])
    pool = StatePool(expert, tasks, fits)
    # Only the initial state has its snapshot in this environment's store; the others are in another store.
    first = [state for state in pool.sample(12, 0, 0) if state.index == 0][:1]
    with EnvRunner(
        {"toy": environment}, RewardConfig(), threads=1, retries=1, retry_seconds=0.0
    ) as env_runner:
        collector = StateCollector(pool, env_runner)
        pool.sample = lambda *_: first
        got = collector.collect(fixed, 1, 0, 0)
    assert got.rollouts[0].actions[0].reward is None
    assert got.records[0]["outcome"] == "infrastructure" and got.records[0]["reward"] is None


def test_episode_collector_learns_from_every_action_of_whole_episodes(policy, env_runner):
    fixed = FixedResponses(policy, LINES)
    got = EpisodeCollector(["toy"], env_runner, parallel=2).collect(fixed, 3, seed=0, update=2)
    assert len(got.rollouts) == 3 and len(got.records) == 12
    assert sorted({record["trajectory"] for record in got.records}) == [f"fixed/toy/{i}" for i in (6, 7, 8)]
    for rollout in got.rollouts:
        said = [
            fixed.tokenizer.decode(rollout.tokens[slice(*action.response_range)].tolist())
            for action in rollout.actions
        ]
        assert said == [line + "<|im_end|>" for line in LINES]
        assert [action.reward for action in rollout.actions] == [2.5 / 4.0, 0.0, -1.0, 0.0]
        assert rollout.actions[-1].response_range[1] == len(rollout.tokens)
    to_go = PPOConfig(row_length=1024, micro_rows=1)
    own = dataclasses.replace(to_go, reward_to_go=False)
    assert make_batch(to_go, got.rollouts, 0).arrays["dones"].sum() == 3
    assert make_batch(own, got.rollouts, 0).arrays["dones"].sum() == 12


class FailingSandbox(fakes.PlainSandbox):
    """Its first `faults` runs fail."""

    faults = 0

    def run(self, job):
        if self.faults:
            self.faults -= 1
            return Result(Status.SANDBOX_ERROR, error="the sandbox is gone")
        return super().run(job)


@pytest.mark.parametrize("faults, masked, repeated", [(10**9, 2, 2), (1, 0, 1)])
def test_episodes_that_the_infrastructure_fails_are_repeated_or_left_out(
    policy, environment, tmp_path, faults, masked, repeated
):
    broken = FailingSandbox()
    other = fakes.make_environment(tmp_path, broken, fakes.make_task(tmp_path, "other"))
    other.initial_state()
    broken.faults = faults
    fixed = FixedResponses(policy, LINES)
    with EnvRunner({"toy": environment, "other": other}, RewardConfig(), threads=1, retries=0) as env_runner:
        got = EpisodeCollector(["toy", "other"], env_runner).collect(fixed, 4, seed=0, update=0)
    assert got.counts["rollout/episodes"] == 4
    assert got.counts["rollout/masked_episodes"] == masked
    assert got.counts["rollout/repeated_episodes"] == repeated
    assert len(got.rollouts) == 4 - masked
    for rollout in got.rollouts:  # no action of a failed episode, neither before the failure nor at it
        assert [action.reward for action in rollout.actions] == [2.5 / 4.0, 0.0, -1.0, 0.0]
    lost = [record for record in got.records if record["outcome"] == "infrastructure"]
    assert len(lost) == masked and all(record["reward"] is None for record in lost)
    assert len(got.records) == 4 * (4 - masked) + masked


def test_episode_prompts_are_those_of_the_states(policy, env_runner, tasks):
    """PPO trains on what the policy saw: the context of each action is the prompt that it was sampled from."""
    fixed = FixedResponses(policy, LINES)
    (episode,) = run_episodes(fixed, [EpisodeRequest("toy", 0, 0)], env_runner)
    encoded = encode_chat(policy.tokenizer, messages(FORM, Situation(tasks["toy"], episode.steps)))
    for n, (start, _) in enumerate(encoded.response_ranges):
        prompt = encode_prompt(policy.tokenizer, messages(FORM, Situation(tasks["toy"], episode.steps[:n])))
        np.testing.assert_array_equal(encoded.tokens[:start], prompt)
