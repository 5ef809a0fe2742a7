"""The scripted expert in whole episodes: a real environment, a sandbox that scores scripts by their text."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
from fakes import make_task

from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.expert import NO_SLIPS, ScriptedExpert, Slips
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.progress import read_progress
from mlagent_jax.agent.repairs import repair
from mlagent_jax.agent.response import parse
from mlagent_jax.environment.feedback import BAD_ACTION, BAD_RESPONSE, CODER_FAILED
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import Action, Outcome
from mlagent_jax.environment.tools import EDIT, EXECUTE, FINAL_ANSWER, check
from mlagent_jax.grading.grade import Graded
from mlagent_jax.pipelines.instructions import apply_instruction, lines, parse_instruction
from mlagent_jax.pipelines.reading import read
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.sandbox.interface import Limits, Result, Status

STARTER = (Path(__file__).parents[2] / "tasks" / "ames" / "train.py").read_text()
IDEAS = ("Use 5 nearest neighbors", "Standardize the features", "Read the first 500 rows only")
OWN = set(lines("table", "regression"))


def quality(text: str) -> float:
    """Lower is better, as for rmsle: any other script is better or worse at random."""
    return 1 + int(hashlib.sha256(f"3{text}".encode()).hexdigest(), 16) % 997 / 997


class TextSandbox:
    """Does not run a script: its submission holds the script's quality. One in seven fails."""

    name = "text"
    isolated = True

    def run(self, job):
        text = job.files[job.script].decode()
        score = quality(text)
        if int(score * 1e6) % 7 == 0 and text != STARTER:
            return Result(Status.FAILED, 1, output="ValueError: Input X contains NaN.\n", files=job.files)
        files = {**job.files, "submission.csv": f"{score}".encode()}
        printed = f"validation rmsle: {3 - score:.6f}\n"  # the opposite of the public score
        return Result(Status.OK, 0, output=printed, wall_seconds=1.0, files=files)

    def release(self, lease): ...

    def close(self): ...


def grader(task, submission):
    return Graded(float(submission), float(submission))


def make(tmp_path, **changes):
    fields = {"starter": STARTER, "metric": "rmsle", "m_best": 0.5, "limits": Limits()}
    task = make_task(tmp_path, "ames", **{**fields, **changes})
    return Environment(task, TextSandbox(), SnapshotStore(tmp_path / "snapshots"), ScriptedCoder(), grader)


def episodes(tmp_path, expert, count=20, ideas=IDEAS, parallel=7, **changes):
    environment = make(tmp_path, **changes)
    requests = [EpisodeRequest("ames", index, 1000 + index, ideas) for index in range(count)]
    with EnvRunner({"ames": environment}, RewardConfig(), thought=expert.thought) as env_runner:
        done = list(run_episodes(expert, requests, env_runner, parallel))
    return sorted(done, key=lambda trajectory: trajectory.index)


def edits(trajectory):
    return [step for step in trajectory.steps if step.action is not None and step.action.tool == EDIT]


def test_episodes_are_the_same_whatever_shares_their_batch(tmp_path):
    one = episodes(tmp_path / "a", ScriptedExpert(), 12, parallel=1)
    many = episodes(tmp_path / "b", ScriptedExpert(), 12, parallel=12)
    assert [[step.response for step in t.steps] for t in one] == [
        [step.response for step in t.steps] for t in many
    ]
    assert len({tuple(step.response for step in t.steps) for t in one}) > 6


def test_without_slips_every_response_is_an_allowed_action(tmp_path):
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS)):
        for step in trajectory.steps:
            action = parse(step.response)
            assert isinstance(action, Action) and check(action) is None
        assert trajectory.ended == "final_answer" and trajectory.steps[-1].action.tool == FINAL_ANSWER


def test_primed_ideas_come_first_and_in_their_order(tmp_path):
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS)):
        tried = [str(step.action.arguments["edit_instruction"]) for step in edits(trajectory)]
        primed = [line for line in tried if line in IDEAS]
        assert primed == list(IDEAS)
        repairs = {repair("Input X contains NaN")}
        assert [line for line in tried[: 3 + len(repairs)] if line not in repairs][:3] == list(IDEAS)
        assert len(tried) >= 3 and set(tried) <= {*IDEAS, *OWN, *repairs}


def test_what_it_says_is_taught_and_its_own_ideas_change_the_script_that_they_are_tried_on(tmp_path):
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS), ideas=()):
        pipelines = {"train.py": read(STARTER)}
        for step in edits(trajectory):
            given = step.action.arguments
            assert given["edit_instruction"] in OWN
            before = pipelines[given["script_name"]]
            after = pipelines[given["save_name"]] = apply_instruction(before, given["edit_instruction"])
            assert after != before or given["edit_instruction"] == repair("Input X contains NaN")


def test_it_explores_and_knows_no_answers(tmp_path):
    """No applicable operation is preferred: over many episodes most are tried, and none often."""
    done = episodes(tmp_path, ScriptedExpert(NO_SLIPS), 120, ideas=())
    mends = repair("Input X contains NaN")
    said = [step.action.arguments["edit_instruction"] for trajectory in done for step in edits(trajectory)]
    tried = [parse_instruction(line)[0].id for line in said if line != mends]
    assert len(set(tried)) > 40
    assert max(map(tried.count, set(tried))) < 0.08 * len(tried)


def test_it_edits_the_best_script_so_far_or_mends_the_one_that_failed(tmp_path):
    seen = set()
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS), 60, ideas=()):
        best, best_score, failed = "train.py", trajectory.m_init_public, ""
        for step in trajectory.steps:
            if step.action.tool == EDIT:
                source = step.action.arguments["script_name"]
                assert source == best or (source == failed and source)
                seen.add(source == best)
                failed = step.action.arguments["save_name"] if step.outcome is Outcome.ERROR else ""
            if step.outcome is Outcome.SUCCESS and step.m_after < best_score:
                best, best_score = step.action.arguments["save_name"], step.m_after
    assert seen == {True, False}


def test_save_names_are_new(tmp_path):
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS)):
        names = [step.action.arguments["save_name"] for step in edits(trajectory)]
        assert names == [f"train_{number}.py" for number in range(1, len(names) + 1)]


def test_it_ends_with_its_best_script_standing(tmp_path):
    rerun = 0
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS), 30):
        scores = [step.m_after for step in trajectory.steps if step.outcome is Outcome.SUCCESS]
        assert trajectory.public_score == min([trajectory.m_init_public, *scores])
        rerun += trajectory.steps[-2].action.tool == EXECUTE
    assert rerun > 0


def test_where_no_score_is_shown_it_goes_by_what_scripts_print(tmp_path):
    """The printed score, which here is the opposite of the public one."""
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS), show_public_score=False):
        ran = [step for step in trajectory.steps if step.status == "ok"]
        printed = [float(step.output.split(":")[1]) for step in ran]
        assert 3 - trajectory.public_score == pytest.approx(min(printed), abs=1e-5)


def test_episodes_are_short_and_responses_terse(tmp_path):
    done = episodes(tmp_path, ScriptedExpert(), 60)
    lengths = [len(trajectory.steps) for trajectory in done]
    responses = [step.response for trajectory in done for step in trajectory.steps]
    assert max(lengths) < 15 and 5 <= sum(lengths) / len(lengths) <= 9
    assert max(map(len, responses)) < 330 and 150 < sum(map(len, responses)) / len(responses) < 270


def test_slips_of_every_sort_happen_and_are_rare(tmp_path):
    done = episodes(tmp_path, ScriptedExpert(), 300)
    steps = [step for trajectory in done for step in trajectory.steps]
    malformed = [step for step in steps if step.outcome is Outcome.MALFORMED]
    assert 0.01 < len(malformed) / len(steps) < 0.08
    assert any(step.feedback.startswith(BAD_RESPONSE) for step in malformed)
    assert any(step.feedback.startswith(BAD_ACTION) for step in malformed)
    changed = [step for trajectory in done for step in edits(trajectory)]
    assert any(step.action.arguments["script_name"] == "model.py" for step in changed)
    told = [[step.action.arguments["edit_instruction"] for step in edits(trajectory)] for trajectory in done]
    assert any(len(set(lines)) < len(lines) for lines in told)
    assert any(step.feedback.startswith(CODER_FAILED) for step in changed)  # whose plan starts without a look
    short = [trajectory for trajectory in done if len(edits(trajectory)) < 3]
    assert 0 < len(short) < 80


def test_it_goes_on_after_a_slip(tmp_path):
    done = episodes(tmp_path, ScriptedExpert(Slips(bad_json=0.5)), 10)
    assert all(trajectory.ended in ("final_answer", "step_limit") for trajectory in done)
    assert sum(len(edits(trajectory)) for trajectory in done) > 20


def test_without_thoughts(tmp_path):
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS, thought=False), 3):
        assert all(step.response.startswith("Action: ") for step in trajectory.steps)
        assert trajectory.ended == "final_answer"


def test_without_ideas_it_tries_its_own(tmp_path):
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS), 5, ideas=()):
        assert len(edits(trajectory)) >= 2


def test_a_kind_that_it_does_not_know(tmp_path):
    done = episodes(
        tmp_path, ScriptedExpert(NO_SLIPS), 3, ideas=(), kind="sound regression", starter="print(1)"
    )
    assert all(trajectory.ended == "final_answer" for trajectory in done)


def test_a_starter_that_is_no_pipeline(tmp_path):
    """The scripted coder answers with an error, and the expert continues to the end."""
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS), 3, ideas=(), starter="print(1)"):
        assert trajectory.ended == "final_answer" and len(edits(trajectory)) >= 3
        assert all(step.feedback.startswith(CODER_FAILED) for step in edits(trajectory))


def test_progress_before_anything_is_done(tmp_path):
    seen = read_progress(Situation(make(tmp_path).task, ()))
    assert (seen.best, seen.last, seen.scripts) == ("train.py", "start", ("train.py",))


def test_progress_follows_the_last_feedback(tmp_path):
    """Compared with the previous score, as in feedback; a new best is compared with the best."""
    for trajectory in episodes(tmp_path, ScriptedExpert(NO_SLIPS), 10):
        task = make(tmp_path / f"{trajectory.index}").task
        best = trajectory.m_init_public
        for end, step in enumerate(trajectory.steps, 1):
            seen = read_progress(Situation(task, trajectory.steps[:end]))
            if step.outcome is Outcome.SUCCESS:
                assert seen.last == ("better" if step.m_after < step.m_before else "worse")
                assert f"{seen.last} than" in step.feedback
                assert seen.new_best == (step.m_after < best)
                best = min(best, step.m_after)


def test_repairs():
    assert repair("Traceback...\nValueError: Input X contains NaN.\n") == "Fill gaps with the median"
    assert repair("all is well") == ""
    assert repair("TypeError: Sparse data was passed for X") == "Reduce the word counts to 100 topics"


def test_an_expert_without_thoughts_does_the_same_and_leaves_the_others_alone(tmp_path):
    situation = Situation(make(tmp_path).task, (), IDEAS, 3)
    usual, terse = ScriptedExpert(NO_SLIPS), dataclasses.replace(ScriptedExpert(NO_SLIPS), thought=False)
    (before,), (said,), (after,) = (expert.respond([situation]) for expert in (usual, terse, usual))
    assert before == after and said.text != before.text
    assert parse(said.text, thought=False) == parse(before.text) and isinstance(parse(before.text), Action)
