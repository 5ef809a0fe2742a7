"""Transitions of the MDP, with real runs of scripts and real grading."""

import io
from dataclasses import replace

import numpy as np
import pytest
from fakes import STARTER, PlainSandbox, edit, execute, final, make_environment, make_task, script

from mlagent_jax.environment.mdp import StarterError
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import Action, Malformed, Outcome
from mlagent_jax.environment.tools import COPY_FILE, INSPECT, LIST_FILES, UNDERSTAND
from mlagent_jax.grading.labels import array_path
from mlagent_jax.grading.parsers import ParserUnavailableError
from mlagent_jax.sandbox.interface import Result, Status


def workspace(folder, state):
    return SnapshotStore(folder / "snapshots").get(state.snapshot)


def test_initial_state_is_the_starters(tmp_path):
    state = make_environment(tmp_path).initial_state()
    assert (state.public_score, state.private_score) == (5.0, 5.0)
    assert not state.graded and state.steps == 0 and state.seconds == 0.0 and not state.done
    assert set(workspace(tmp_path, state)) == {"train.py", "submission.csv"}


def array_script(value):
    """Without numpy, which these scripts cannot import."""
    buffer = io.BytesIO()
    np.save(buffer, np.full((4, 2, 3), value))
    return f'with open("submission.npy", "wb") as file:\n    file.write({buffer.getvalue()!r})\n'


def test_a_task_of_arrays_is_graded_by_its_own_submission(tmp_path):
    columns = make_task(tmp_path)
    columns.labels_path.write_text("id,split\n0,public\n1,public\n2,private\n3,private\n")
    np.save(array_path(columns.labels_path), np.zeros((4, 2, 3)))
    task = replace(columns, target_columns=(), target_array="clean", starter=array_script(5))
    environment = make_environment(tmp_path, task=task)
    state = environment.initial_state()
    assert set(workspace(tmp_path, state)) == {"train.py", "submission.npy"}
    after = environment.step(state, edit(array_script(2.5)))
    assert (after.outcome, after.m_before, after.m_after) == (Outcome.SUCCESS, 5.0, 2.5)
    written = edit("x", save_name="submission.npy")
    assert "written by running a script" in environment.step(state, written).feedback


def test_starter_runs_once(tmp_path):
    sandbox = PlainSandbox()
    environment = make_environment(tmp_path, sandbox)
    assert environment.initial_state() == environment.initial_state()
    assert len(sandbox.jobs) == 1


@pytest.mark.parametrize(
    ("starter", "reason"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("print(1)", "submission.csv"),
        (script(float("nan")), "finite"),
    ],
)
def test_a_starter_that_fails_is_one_clear_error(tmp_path, starter, reason):
    environment = make_environment(tmp_path, task=make_task(tmp_path, starter=starter))
    with pytest.raises(StarterError, match=f"(?s)starter of task toy.*{reason}"):
        environment.initial_state()


def test_a_sandbox_that_fails_once_does_not_fail_the_starter(tmp_path):
    sandbox = PlainSandbox([Result(Status.SANDBOX_ERROR, error="no worker")])
    assert make_environment(tmp_path, sandbox).initial_state().public_score == 5.0
    sandbox = PlainSandbox([Result(Status.SANDBOX_ERROR, error="no worker")] * 3)
    with pytest.raises(StarterError, match=r"sandbox failed 3 times.*no worker"):
        make_environment(tmp_path / "other", sandbox).initial_state()


def test_a_better_edit(tmp_path):
    environment = make_environment(tmp_path)
    state = environment.initial_state()
    after = environment.step(state, edit(script(12.0)))
    assert after.outcome is Outcome.SUCCESS
    assert (after.m_before, after.m_after) == (5.0, 2.0)
    assert after.state.public_score == 2.0 and after.state.graded
    assert (after.state.steps, after.state.seconds) == (1, 1.0)
    assert "-    file.write" in after.diff and "+    file.write" in after.diff
    assert after.output == "validation mae: 2.0000\n" and after.status == "ok"
    assert after.feedback.startswith("Saved to train.py.\n--- train.py\n")
    assert after.feedback.endswith("validation mae: 2.0000\nPublic mae 2.0000, better than 5.0000.")


def test_words_for_worse_and_same(tmp_path):
    environment = make_environment(tmp_path)
    worse = environment.step(environment.initial_state(), edit(script(2.0)))
    assert worse.outcome is Outcome.SUCCESS
    assert worse.feedback.endswith("Public mae 8.0000, worse than 5.0000.")
    same = environment.step(worse.state, edit(script(18.0)))
    assert same.feedback.endswith("Public mae 8.0000, same as 8.0000.")


def test_scores_stay_hidden_where_the_task_says_so(tmp_path):
    environment = make_environment(tmp_path, task=make_task(tmp_path, show_public_score=False))
    after = environment.step(environment.initial_state(), edit(script(12.0)))
    assert after.state.public_score == 2.0
    assert after.feedback.endswith("Submission accepted.") and "Public" not in after.feedback


def test_the_private_score_is_never_fed_back(tmp_path):
    task = make_task(tmp_path)
    task.labels_path.write_text("id,y,split\n0,10,public\n1,10,public\n2,77,private\n3,77,private\n")
    environment = make_environment(tmp_path, task=task)
    after = environment.step(environment.initial_state(), edit(script(12.0)))
    assert after.state.private_score == 65.0
    assert "65" not in after.feedback and "65" not in after.output


def test_a_failing_edit_stays_and_keeps_the_old_score(tmp_path):
    environment = make_environment(tmp_path)
    better = environment.step(environment.initial_state(), edit(script(12.0))).state
    broken = script(11.0) + "raise KeyError('lot_area')\n"
    after = environment.step(better, edit(broken))
    assert after.outcome is Outcome.ERROR and after.status == "failed"
    assert (after.m_before, after.m_after) == (2.0, 2.0)
    assert "ScriptError: exit code 1." in after.feedback
    assert after.feedback.endswith("KeyError: 'lot_area'")
    files = workspace(tmp_path, after.state)
    assert files["train.py"].decode() == broken
    # The submission of the failed run does not count; the last valid one stays.
    assert files["submission.csv"] == workspace(tmp_path, better)["submission.csv"]


def test_a_stale_submission_is_never_graded_as_new(tmp_path):
    environment = make_environment(tmp_path)
    after = environment.step(environment.initial_state(), edit("print('no submission')\n"))
    assert after.outcome is Outcome.ERROR
    assert not after.state.graded and after.state.public_score == 5.0
    assert "SubmissionError: The script wrote no submission.csv." in after.feedback


def test_scripts_do_not_see_the_former_submission(tmp_path):
    environment = make_environment(tmp_path)
    after = environment.step(environment.initial_state(), edit("print(open('submission.csv').read())\n"))
    assert "FileNotFoundError" in after.feedback


def test_an_invalid_submission_is_an_error_of_the_edit(tmp_path):
    environment = make_environment(tmp_path)
    initial = environment.initial_state()
    after = environment.step(initial, edit(script(float("nan"))))
    assert after.outcome is Outcome.ERROR and "SubmissionError:" in after.feedback
    assert after.status == "invalid_output"
    assert (
        workspace(tmp_path, after.state)["submission.csv"] == workspace(tmp_path, initial)["submission.csv"]
    )


def test_files_a_script_wrote_stay_also_when_it_failed(tmp_path):
    environment = make_environment(tmp_path)
    writes = "open('notes.txt', 'w').write('kept')\nraise SystemExit(1)\n"
    after = environment.step(environment.initial_state(), edit(writes))
    assert workspace(tmp_path, after.state)["notes.txt"] == b"kept"


@pytest.mark.parametrize("status", [s for s in Status if s.is_corner_case])
def test_corner_cases_keep_the_edit_and_drop_half_written_files(tmp_path, status):
    sandbox = PlainSandbox()
    environment = make_environment(tmp_path, sandbox)
    initial = environment.initial_state()
    sandbox.plan = [Result(status, output="epoch 1", wall_seconds=9.0, files={"half.bin": b"0"})]
    after = environment.step(initial, edit(script(11.0)))
    assert after.outcome is Outcome.CORNER and after.status == status
    assert "ResourceLimit:" in after.feedback.splitlines()[-1]
    assert after.state.seconds == 9.0 and after.state.public_score == 5.0
    files = workspace(tmp_path, after.state)
    assert files["train.py"].decode() == script(11.0) and "half.bin" not in files


def test_a_sandbox_fault_leaves_the_state_as_it_was(tmp_path):
    sandbox = PlainSandbox()
    environment = make_environment(tmp_path, sandbox)
    initial = environment.initial_state()
    sandbox.plan = [Result(Status.SANDBOX_ERROR, error="disk full on the host")]
    after = environment.step(initial, edit(script(11.0)))
    assert after.outcome is Outcome.INFRASTRUCTURE and after.state == initial
    assert after.feedback == "disk full on the host"


def test_a_host_that_cannot_read_submissions_is_not_the_agents_fault(tmp_path):
    environment = make_environment(tmp_path)
    initial = environment.initial_state()

    def broken(*_):
        raise ParserUnavailableError("no process stays alive")

    environment._grader = broken
    after = environment.step(initial, edit(script(12)))
    assert after.outcome is Outcome.INFRASTRUCTURE and after.state == initial


def test_coder_failures(tmp_path):
    environment = make_environment(tmp_path)
    initial = environment.initial_state()
    refused = environment.step(initial, edit("impossible"))
    assert refused.outcome is Outcome.ERROR and refused.feedback == "CoderError: I cannot do that."
    assert refused.state == replace(initial, steps=1)
    absent = environment.step(initial, edit("unavailable"))
    assert absent.outcome is Outcome.INFRASTRUCTURE and absent.state == initial
    assert environment.step(initial, edit("x = '\ud800'")).outcome is Outcome.ERROR
    assert environment.step(initial, edit("#" * (1 << 21))).outcome is Outcome.ERROR


def test_an_edit_that_changes_nothing_is_neutral_and_runs_nothing(tmp_path):
    sandbox = PlainSandbox()
    environment = make_environment(tmp_path, sandbox)
    initial = environment.initial_state()
    after = environment.step(initial, edit(STARTER, save_name="same.py"))
    assert after.outcome is Outcome.NEUTRAL and not after.diff and len(sandbox.jobs) == 1
    assert "changed nothing" in after.feedback
    assert workspace(tmp_path, after.state)["same.py"].decode() == STARTER


def test_the_edited_script_is_run_under_the_name_it_was_saved_as(tmp_path):
    sandbox = PlainSandbox()
    environment = make_environment(tmp_path, sandbox)
    after = environment.step(environment.initial_state(), edit(script(12.0), "models/ridge.py"))
    assert sandbox.jobs[-1].script == "models/ridge.py"
    assert workspace(tmp_path, after.state)["train.py"].decode() == STARTER
    assert "+++ models/ridge.py" in after.diff and after.m_after == 2.0


def test_execute_grades_but_is_neutral(tmp_path):
    environment = make_environment(tmp_path)
    worse = environment.step(environment.initial_state(), edit(script(2.0), "worse.py")).state
    again = environment.step(worse, execute("train.py"))
    assert again.outcome is Outcome.NEUTRAL
    assert (again.m_before, again.m_after, again.state.public_score) == (8.0, 5.0, 5.0)
    assert again.feedback.endswith("Public mae 5.0000, better than 8.0000.")


def test_execute_a_script_that_submits_nothing_is_neutral_and_one_that_fails_is_not(tmp_path):
    environment = make_environment(tmp_path)
    looked = environment.step(environment.initial_state(), edit("print('mean 3.5')\n", "look.py")).state
    ran = environment.step(looked, execute("look.py"))
    assert ran.outcome is Outcome.NEUTRAL and "mean 3.5" in ran.feedback and ran.state.public_score == 5.0
    broken = environment.step(looked, edit("raise ValueError('x')\n", "broken.py")).state
    assert environment.step(broken, execute("broken.py")).outcome is Outcome.ERROR
    assert environment.step(broken, execute("absent.py")).outcome is Outcome.ERROR


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action(LIST_FILES, {"dir_path": "."}), "data/\nsubmission.csv\ntrain.py"),
        (Action(LIST_FILES, {"dir_path": "data/"}), "train.csv"),
        (Action(INSPECT, {"script_name": "data/train.csv", "start_line_number": 1, "end_line_number": 2}),
         "1 id,y\n2 0,10"),
        (Action(COPY_FILE, {"source": "train.py", "destination": "old/train.py"}),
         "Copied train.py to old/train.py."),
        (Action(UNDERSTAND, {"file_name": "data/train.csv", "things_to_look_for": "columns"}),
         "45 characters; you asked: columns"),
    ],
)  # fmt: skip
def test_tools_that_only_look_or_copy_are_neutral(tmp_path, action, expected):
    environment = make_environment(tmp_path)
    after = environment.step(environment.initial_state(), action)
    assert (after.outcome, after.feedback) == (Outcome.NEUTRAL, expected)
    assert after.m_before == after.m_after == 5.0


def test_copies_are_there_afterwards(tmp_path):
    environment = make_environment(tmp_path)
    action = Action(COPY_FILE, {"source": "train.py", "destination": "backup/train.py"})
    after = environment.step(environment.initial_state(), action)
    assert workspace(tmp_path, after.state)["backup/train.py"].decode() == STARTER


@pytest.mark.parametrize(
    "action",
    [
        Action(LIST_FILES, {"dir_path": "absent"}),
        Action(LIST_FILES, {"dir_path": "data/../.."}),
        Action(COPY_FILE, {"source": "absent.py", "destination": "x.py"}),
        Action(COPY_FILE, {"source": "train.py", "destination": "data/train.py"}),
        Action(COPY_FILE, {"source": "train.py", "destination": "../train.py"}),
        Action(COPY_FILE, {"source": "train.py", "destination": "/etc/passwd"}),
        Action(COPY_FILE, {"source": "train.py", "destination": "submission.csv"}),
        Action(COPY_FILE, {"source": "train.py", "destination": "train.py/x"}),
        Action(INSPECT, {"script_name": "train.py", "start_line_number": 1, "end_line_number": 101}),
        Action(INSPECT, {"script_name": "train.py", "start_line_number": 900, "end_line_number": 901}),
        Action(INSPECT, {"script_name": "train.py", "start_line_number": 0, "end_line_number": 3}),
        edit(script(11.0), "notes.txt"),
        edit(script(11.0), "submission.csv"),
        edit(script(11.0), "train.py", "absent.py"),
    ],
)
def test_what_a_tool_cannot_do_is_an_error_that_changes_nothing(tmp_path, action):
    environment = make_environment(tmp_path)
    initial = environment.initial_state()
    after = environment.step(initial, action)
    assert after.outcome is Outcome.ERROR and after.feedback.startswith("EnvError: ")
    assert after.state == replace(initial, steps=1)


def test_malformed_actions_cost_a_step(tmp_path):
    environment = make_environment(tmp_path)
    initial = environment.initial_state()
    for action in (Malformed("no"), Action("Run", {}), Action(LIST_FILES, {})):
        after = environment.step(initial, action)
        assert after.outcome is Outcome.MALFORMED and after.state == replace(initial, steps=1)


def test_how_episodes_end(tmp_path):
    environment = make_environment(tmp_path, steps=2, seconds=3.5)
    initial = environment.initial_state()
    after = environment.step(initial, final())
    assert after.state.done == "final_answer" and after.outcome is Outcome.NEUTRAL
    with pytest.raises(ValueError, match="ended"):
        environment.step(after.state, final())
    last = environment.step(replace(initial, steps=1), Malformed("no"))
    assert last.state.done == "step_limit"
    late = environment.step(replace(initial, seconds=3.0), execute())
    assert late.state.done == "time_limit"


def test_a_run_gets_no_more_time_than_the_episode_has_left(tmp_path):
    sandbox = PlainSandbox()
    environment = make_environment(tmp_path, sandbox, seconds=8.0)
    initial = environment.initial_state()
    environment.step(initial, execute())
    environment.step(replace(initial, seconds=5.0), execute())
    assert [job.limits.wall_seconds for job in sandbox.jobs] == [8.0, 8.0, 3.0]


def test_any_state_can_be_stepped_from_again(tmp_path):
    environment = make_environment(tmp_path)
    initial = environment.initial_state()
    first = environment.step(initial, edit(script(12.0)))
    environment.step(first.state, edit(script(3.0)))
    other = make_environment(tmp_path / "elsewhere", task=environment.task)
    assert environment.step(initial, edit(script(12.0))) == first
    assert other.step(other.initial_state(), edit(script(12.0))) == first
