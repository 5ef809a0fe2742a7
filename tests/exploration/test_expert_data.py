"""The expert's stored episodes as later stages read them."""

from dataclasses import replace

from fakes import edit, make_environment, say, script

from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.agent.trajectory_log import TrajectoryLog
from mlagent_jax.environment.state import Outcome
from mlagent_jax.exploration.expert_data import best_episodes, read_expert_trajectories, trajectory_chats


def test_episodes_are_read_in_one_order_and_shown_without_ideas(tmp_path):
    environment = make_environment(tmp_path)
    state, action = environment.initial_state(), edit(script(12.0))
    after = environment.step(state, action)
    step = Step(
        state,
        say(action),
        action,
        after.outcome,
        after.feedback,
        after.state,
        0.5,
        after.m_before,
        after.m_after,
    )
    first = Trajectory(
        "toy", "expert", 0, 7, ("a secret idea",), (step,), 5.0, 5.0, 2.0, 2.0, True, "step_limit"
    )
    masked = replace(first, index=1, steps=(replace(step, outcome=Outcome.INFRASTRUCTURE, reward=None),))
    with TrajectoryLog(tmp_path / "t.jsonl") as log:
        for trajectory in (masked, replace(first, index=2), replace(masked, index=0), first):
            log.append(trajectory)

    trajectories = read_expert_trajectories(tmp_path / "t.jsonl")
    assert [(t.index, t.is_masked) for t in trajectories] == [(0, False), (1, True), (2, False)]
    chats = trajectory_chats(PromptFormat("compact"), [environment.task], trajectories)
    assert len(chats) == 2
    assert [message.role for message in chats[0]] == ["system", "user", "assistant", "user"]
    assert chats[0][2].content == step.response
    assert "secret" not in str(chats)


def test_the_best_share_of_each_tasks_episodes_is_kept(tmp_path):
    """On the toy task lower is better; on the other one higher is."""
    environment = make_environment(tmp_path)
    falls, broken = environment.task, environment.initial_state()
    rises = replace(falls, name="rises", m_best=9.0)
    made = [
        Trajectory(task.name, "expert", index, 0, (), (), 5.0, 5.0, public, 0.0, True, "step_limit")
        for task in (falls, rises)
        for index, public in enumerate((4.0, 6.0, 3.0, 4.0, 7.0))
    ]
    step = Step(broken, "", None, Outcome.INFRASTRUCTURE, "", broken, None, 5.0, 5.0)
    masked = replace(made[0], index=9, public_score=0.0, steps=(step,))

    def kept(share):
        return [(each.task, each.index) for each in best_episodes([falls, rises], [*made, masked], share)]

    assert falls.m_best < 5.0
    assert kept(0.4) == [("toy", 0), ("toy", 2), ("rises", 1), ("rises", 4)]
    assert kept(0.01) == [("toy", 2), ("rises", 4)]
    assert len(kept(1.0)) == 10
