"""Episodes in flight are complete, the same in any batch, and never blame the agent for infrastructure faults."""

import random
import threading
import time
from dataclasses import replace

import pytest
from fakes import ListPolicy, PlainSandbox, edit, execute, final, make_environment, make_task, say, script

from mlagent_jax.agent.env_runner import EnvRunner, Turn, turn_at
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.trajectory import from_json, to_json
from mlagent_jax.environment.state import Outcome
from mlagent_jax.rewards import RewardConfig, RewardScaleError
from mlagent_jax.sandbox.interface import Result, Status


class DicePolicy(ListPolicy):
    """Picks a line by the situation's seed and step, as a policy must."""

    def respond(self, situations):
        self.batches.append(len(situations))
        draws = [random.Random(f"{s.seed}/{len(s.steps)}") for s in situations]
        return [Response(draw.choice(self.lines), (1, 2), (-0.5, -0.25)) for draw in draws]


LINES = [say(edit(script(c))) for c in (8.0, 11.0, 14.0)] + [say(execute()), say(final()), "no format"]


def env_runner_of(folder, sandbox=None, task=None, rewards=None, **limits):
    environment = make_environment(folder, sandbox, task, **limits)
    return EnvRunner({environment.task.name: environment}, rewards or RewardConfig(), retry_seconds=0.0)


def requests(count):
    return [EpisodeRequest("toy", index, seed=1000 + index, ideas=("an idea",)) for index in range(count)]


def test_one_episode_from_start_to_answer(tmp_path):
    policy = ListPolicy([say(edit(script(12.0))), "nonsense", say(final())])
    with env_runner_of(tmp_path) as env_runner:
        (trajectory,) = run_episodes(policy, requests(1), env_runner)
    assert trajectory.key == "list/toy/0" and trajectory.seed == 1000 and trajectory.ideas == ("an idea",)
    assert [s.outcome for s in trajectory.steps] == [Outcome.SUCCESS, Outcome.MALFORMED, Outcome.NEUTRAL]
    # From 5 to 2, of the way from 5 to 1.
    assert [s.reward for s in trajectory.steps] == [0.75, -1.0, 0.0]
    assert (trajectory.m_init_public, trajectory.public_score, trajectory.private_score) == (5.0, 2.0, 2.0)
    assert trajectory.valid and trajectory.ended == "final_answer"
    assert trajectory.steps[1].action is None and trajectory.steps[0].action == edit(script(12.0))
    for former, later in zip(trajectory.steps, trajectory.steps[1:], strict=False):
        assert later.before == former.after
    assert from_json(to_json(trajectory)) == trajectory


def test_the_starters_score_is_that_of_an_episode_without_a_submission(tmp_path):
    with env_runner_of(tmp_path) as env_runner:
        (trajectory,) = run_episodes(ListPolicy([say(final())]), requests(1), env_runner)
    assert not trajectory.valid and trajectory.public_score == trajectory.m_init_public == 5.0


def test_limits_end_episodes(tmp_path):
    with env_runner_of(tmp_path, steps=3) as env_runner:
        (stepped,) = run_episodes(ListPolicy(["nonsense"]), requests(1), env_runner)
        (full,) = run_episodes(ListPolicy(["nonsense"], room=2), requests(1), env_runner)
    assert (stepped.ended, len(stepped.steps)) == ("step_limit", 3)
    assert (full.ended, len(full.steps)) == ("context_limit", 2)


def test_batching_changes_nothing(tmp_path):
    results = {}
    with env_runner_of(tmp_path, steps=4) as env_runner:
        for parallel in (1, 3, 8):
            policy = DicePolicy(LINES)
            done = list(run_episodes(policy, requests(6), env_runner, parallel))
            assert policy.batches[0] == min(parallel, 6) == max(policy.batches)
            results[parallel] = {trajectory.key: trajectory for trajectory in done}
    assert results[1] == results[3] == results[8]
    assert sorted(results[1]) == [f"list/toy/{index}" for index in range(6)]
    assert len({t.steps[0].response for t in results[1].values()}) > 1


def test_a_resumed_run_completes_to_the_same(tmp_path):
    with env_runner_of(tmp_path, steps=4) as env_runner:
        whole = {t.key: t for t in run_episodes(DicePolicy(LINES), requests(5), env_runner)}
        running = run_episodes(DicePolicy(LINES), requests(5), env_runner, 2)
        done = {t.key: t for t in (next(running), next(running))}
        running.close()
    with env_runner_of(tmp_path / "later", task=env_runner.environments["toy"].task, steps=4) as env_runner:
        missing = [r for r in requests(5) if f"list/toy/{r.index}" not in done]
        done |= {t.key: t for t in run_episodes(DicePolicy(LINES), missing, env_runner, 3)}
    assert done == whole


def test_episodes_that_end_are_replaced_and_no_more_than_asked_for_are_in_flight(tmp_path):
    class Uneven(ListPolicy):
        def respond(self, situations):
            self.batches.append(len(situations))
            return [Response(say(final()) if s.seed % 2 else "nonsense") for s in situations]

    policy = Uneven([])
    with env_runner_of(tmp_path, steps=5) as env_runner:
        order = [t.index for t in run_episodes(policy, requests(6), env_runner, 2)]
    assert sorted(order) == list(range(6)) and order.index(1) < order.index(4)
    assert max(policy.batches) == 2


def test_steps_of_a_batch_run_at_the_same_time(tmp_path):
    barrier = threading.Barrier(2, timeout=20)

    class Meeting(PlainSandbox):
        def run(self, job):
            if b"11.0" in job.files["train.py"]:
                barrier.wait()
            return super().run(job)

    with env_runner_of(tmp_path, Meeting(), steps=1) as env_runner:
        done = list(run_episodes(ListPolicy([say(edit(script(11.0)))]), requests(2), env_runner))
    assert [t.public_score for t in done] == [1.0, 1.0]


def test_no_episode_waits_for_another_ones_action(tmp_path):
    """The first episode's script runs until all others have ended."""
    others_ended, slow = threading.Event(), script(12.0)

    class Slow(PlainSandbox):
        def run(self, job):
            if job.files["train.py"] == slow.encode():
                assert others_ended.wait(20)
            return super().run(job)

    class First(ListPolicy):
        def respond(self, situations):
            first = requests(1)[0].seed
            lines = [
                say(final()) if len(s.steps) == 3 else say(edit(slow if s.seed == first else script(11.0)))
                for s in situations
            ]
            return [Response(line) for line in lines]

    order = []
    with env_runner_of(tmp_path, Slow()) as env_runner:
        for trajectory in run_episodes(First([]), requests(4), env_runner, 4):
            order.append(trajectory.index)
            if len(order) == 3:
                others_ended.set()
    assert order[3] == 0 and sorted(order) == [0, 1, 2, 3]


class Remote(DicePolicy):
    """The first episode's answers come when all other episodes have ended."""

    parallel = 3

    def __init__(self, lines):
        super().__init__(lines)
        self.others_ended, self.threads = threading.Event(), set()

    def respond_to(self, situation):
        self.threads.add(threading.get_ident())
        if situation.seed == 1000:
            assert self.others_ended.wait(20)
        return self.respond([situation])[0]


def test_a_remote_policy_keeps_no_other_episode_waiting(tmp_path):
    policy = Remote(LINES)
    with env_runner_of(tmp_path, steps=4) as env_runner:
        expected = {t.key: t for t in run_episodes(DicePolicy(LINES), requests(5), env_runner)}
        found = {}
        for trajectory in run_episodes(policy, requests(5), env_runner, 3):
            found[trajectory.key] = trajectory
            if len(found) == 4:
                policy.others_ended.set()
    assert list(found)[-1] == "list/toy/0" and found == expected
    assert set(policy.batches) == {1} and threading.get_ident() not in policy.threads


class Paid(Remote):
    """Its first answer is a failure, once as many have been asked for as it allows; the others come after that."""

    def __init__(self):
        super().__init__([])
        self.asked, self.answered, self.all_asked = [], [], threading.Barrier(self.parallel, timeout=20)

    def respond_to(self, situation):
        self.asked.append(situation.seed)
        self.all_asked.wait()
        if situation.seed == 1000:
            raise RuntimeError("the budget is spent")
        time.sleep(0.2)
        self.answered.append(situation.seed)
        return Response(say(final()))


def test_answers_that_were_asked_for_are_waited_for_when_one_fails_and_nothing_more_is_asked(tmp_path):
    """They are paid for, and whoever asked stores them."""
    policy = Paid()
    with env_runner_of(tmp_path) as env_runner:
        with pytest.raises(RuntimeError, match="budget"):
            list(run_episodes(policy, requests(50), env_runner, 20))
        assert sorted(policy.answered) == [1001, 1002]
    assert sorted(policy.asked) == [1000, 1001, 1002]


def test_leaving_early_waits_for_answers_and_releases_every_lease(tmp_path):
    released, began = [], []
    with env_runner_of(tmp_path) as env_runner:
        env_runner.release = lambda task, lease: released.append(lease)
        submit = env_runner.submit
        env_runner.submit = lambda turn, response: began.append(turn.lease) or submit(turn, response)
        whole = list(run_episodes(DicePolicy(LINES), requests(4), env_runner, 2))
        assert len(whole) == 4 and len(released) == 4 and set(released) == set(began)
        released.clear()
        policy = Remote([say(final())])
        policy.others_ended.set()
        running = run_episodes(policy, requests(9), env_runner, 3)
        next(running)
        running.close()
    assert 1 <= len(released) <= 3 and len(set(released)) == len(released)


def test_an_episode_that_begins_keeps_no_other_one_waiting(tmp_path):
    """One thread carries out a slow action; meanwhile an episode ends, another begins, and a third goes on."""
    slow, over = script(12.0), threading.Event()

    class Slow(PlainSandbox):
        def run(self, job):
            if job.files["train.py"] == slow.encode():
                assert over.wait(20)
            return super().run(job)

    class First(ListPolicy):
        def respond(self, situations):
            first = requests(1)[0].seed
            return [
                Response(say(edit(slow)) if s.seed == first and not s.steps else say(final()))
                for s in situations
            ]

    order = []
    with env_runner_of(tmp_path, Slow()) as env_runner:
        for trajectory in run_episodes(First([]), requests(6), env_runner, 3):
            order.append(trajectory.index)
            if len(order) == 5:
                over.set()
    assert order[-1] == 0 and sorted(order) == list(range(6))


@pytest.mark.parametrize("threads", [2, 16])
def test_a_model_is_asked_for_many_episodes_at_once(tmp_path, threads):
    """Not for each as soon as its own action is over, however many threads there are."""
    policy = ListPolicy([say(edit(script(11.0)))])
    environment = make_environment(tmp_path, PlainSandbox(delay=0.02), steps=6)
    with EnvRunner({"toy": environment}, RewardConfig(), threads) as env_runner:
        assert len(list(run_episodes(policy, requests(32), env_runner, 32))) == 32
    assert (
        sum(policy.batches) == 32 * 6 and len(policy.batches) <= 32
    )  # of the 192 that single episodes would be


def test_a_step_that_has_completed_is_not_lost_when_an_answer_fails(tmp_path):
    """Both are over by the time that anybody looks: the episode that has ended is yielded first."""

    class Failing(Remote):
        def respond_to(self, situation):
            if situation.seed != 1000:
                failed.wait(20)
                raise RuntimeError("no answer")
            return Response(say(final()))

    failed = threading.Event()
    found = []
    with env_runner_of(tmp_path) as env_runner:
        submit = env_runner.submit

        def slow_submit(turn, response):
            action = submit(turn, response)
            action.result()
            failed.set()
            time.sleep(0.2)
            return action

        env_runner.submit = slow_submit
        with pytest.raises(RuntimeError, match="no answer"):
            for trajectory in run_episodes(Failing([]), requests(2), env_runner, 2):
                found.append(trajectory.index)
    assert found == [0]


FAULT = Result(Status.SANDBOX_ERROR, error="no worker")


def test_faults_of_ours_are_retried(tmp_path):
    sandbox = PlainSandbox()
    with env_runner_of(tmp_path, sandbox, steps=1) as env_runner:
        env_runner.initial_states(["toy"])
        sandbox.plan = [FAULT, FAULT]
        (trajectory,) = run_episodes(ListPolicy([say(edit(script(11.0)))]), requests(1), env_runner)
    assert trajectory.ended == "step_limit" and trajectory.steps[0].outcome is Outcome.SUCCESS
    assert trajectory.meta == {}


def test_a_fault_that_lasts_masks_the_episode(tmp_path):
    sandbox = PlainSandbox()
    policy = ListPolicy([say(edit(script(12.0))), say(edit(script(11.0)))])
    with env_runner_of(tmp_path, sandbox) as env_runner:
        episodes = run_episodes(policy, requests(1), env_runner)
        env_runner.initial_states(["toy"])
        job = replace(sandbox.jobs[0], files={"train.py": script(12.0).encode()})
        first = PlainSandbox().run(job)
        sandbox.plan = [first, FAULT, FAULT, FAULT]
        (trajectory,) = episodes
    assert trajectory.ended == "infrastructure" and trajectory.meta == {"infrastructure": True}
    last = trajectory.steps[-1]
    assert last.outcome is Outcome.INFRASTRUCTURE and last.reward is None and last.after == last.before
    assert len(trajectory.steps) == 2 and trajectory.steps[0].reward == 0.75
    assert from_json(to_json(trajectory)) == trajectory


def test_an_unknown_task_and_a_meaningless_scale_are_refused(tmp_path):
    with (
        env_runner_of(tmp_path) as env_runner,
        pytest.raises(ValueError, match="there is no task 'other'; the tasks are toy"),
    ):
        list(run_episodes(ListPolicy(LINES), [EpisodeRequest("other", 0, 0)], env_runner))
    task = make_task(tmp_path / "x", m_best=7.0)
    with env_runner_of(tmp_path / "x", task=task) as env_runner, pytest.raises(RewardScaleError, match="toy"):
        list(run_episodes(ListPolicy(LINES), requests(1), env_runner))


def test_single_steps_from_stored_states(tmp_path):
    with env_runner_of(tmp_path, steps=4) as env_runner:
        policy = ListPolicy([say(edit(script(12.0))), say(edit(script(14.0))), say(execute())])
        (trajectory,) = run_episodes(policy, requests(1), env_runner)
        task = env_runner.environments["toy"].task
        turns = [turn_at(trajectory, index, task, seed=7) for index in (2, 0, 1)]
        assert [len(turn.situation.steps) for turn in turns] == [2, 0, 1]
        assert all(turn.situation.ideas == () and turn.situation.seed == 7 for turn in turns)
        better = Response(say(edit(script(11.0))), (1, 2, 3), (-0.5, -0.5, -0.5))
        steps = env_runner.apply(turns, [better] * 3)
    # m_t is 4 after the second step, 5 before the first, 2 after it; m_{t+1} is 1.
    assert [step.m_before for step in steps] == [4.0, 5.0, 2.0]
    assert [step.reward for step in steps] == [0.75, 1.0, 0.25]
    assert [step.tokens for step in steps] == [(1, 2, 3)] * 3
    assert [step.before for step in steps] == [turn.state for turn in turns]


def test_turns_of_a_batch_share_leases_that_end_with_it(tmp_path):
    """One per thread, so that no two jobs need the same container at once; an episode keeps its own."""
    released = []
    sandbox = PlainSandbox(delay=0.05)
    sandbox.release = released.append
    with env_runner_of(tmp_path, sandbox=sandbox) as env_runner:
        (state,) = env_runner.initial_states(["toy"])
        turn = Turn(Situation(env_runner.environments["toy"].task, ()), state)
        better = [Response(say(edit(script(11.0 + i)))) for i in range(4)]
        for _ in range(2):
            env_runner.apply([turn] * 4, better)
        env_runner.apply([replace(turn, lease="episode")], better[:1])
    first, second = ({job.lease for job in sandbox.jobs[start : start + 4]} for start in (1, 5))
    assert 1 <= len(first) <= 2 and 1 <= len(second) <= 2 and not first & second
    assert set(released) == first | second and len(released) == len(first | second)
    assert sandbox.jobs[-1].lease == "episode"
