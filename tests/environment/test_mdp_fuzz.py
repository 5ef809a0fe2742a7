"""Invariants after any actions: no exception, no partial state, and the same result when repeated."""

import tempfile
from dataclasses import replace
from pathlib import Path

from fakes import PlainSandbox, edit, execute, final, make_environment, make_task, script
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import Action, Malformed, Outcome
from mlagent_jax.environment.tools import COPY_FILE, INSPECT, LIST_FILES, TOOLS, UNDERSTAND
from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.sandbox.interface import Result, Status


class ScriptedSandbox(PlainSandbox):
    """A run that ends as the first line of the script says; a number in it becomes the prediction."""

    def run(self, job):
        word = job.files[job.script].decode().partition("\n")[0]
        files = {**job.files, "seen.txt": word.encode()}
        if word in set(Status):
            return Result(Status(word), exit_code=1, wall_seconds=2.0, files=files, error="ours")
        predicted = f"id,y\n{''.join(f'{i},{word}' + chr(10) for i in range(4))}"
        return Result(
            Status.OK, 0, output=word, wall_seconds=2.0, files={**files, "submission.csv": predicted.encode()}
        )


PATHS = st.sampled_from(
    ["train.py", "a.py", "data", "data/train.csv", "submission.csv", "..", "", "d/b.py", "seen.txt"]
)
WORDS = st.sampled_from(["12", "9.5", "nan", "x", *Status])
ANYTHING = st.text(max_size=20) | st.integers() | st.none() | st.lists(st.integers(), max_size=2)
ARGUMENTS = st.dictionaries(st.text(max_size=5), ANYTHING, max_size=3)
CALLS = st.one_of(
    st.builds(lambda p: Action(LIST_FILES, {"dir_path": p}), PATHS | st.text(max_size=9)),
    st.builds(lambda a, b: Action(COPY_FILE, {"source": a, "destination": b}), PATHS, PATHS | st.text()),
    st.builds(
        lambda p, a, n: Action(INSPECT, {"script_name": p, "start_line_number": a, "end_line_number": a + n}),
        PATHS,
        st.integers(),
        st.integers(-1, 101),
    ),
    st.builds(lambda p: Action(UNDERSTAND, {"file_name": p, "things_to_look_for": "x"}), PATHS),
    st.builds(execute, PATHS),
    st.builds(lambda w, n, s: edit(w + "\n" + script(1.0), s, n), WORDS, PATHS, PATHS),
    st.sampled_from([edit("impossible"), edit("unavailable"), final(), Malformed("no")]),
    st.builds(Action, st.sampled_from([*TOOLS, "Run"]), ARGUMENTS),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(CALLS, max_size=8))
def test_any_actions(actions):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        task = make_task(root, starter="15\n")
        environment = make_environment(root, ScriptedSandbox(), task)
        store = SnapshotStore(root / "snapshots")
        state = environment.initial_state()
        for action in actions:
            if state.done:
                break
            after = environment.step(state, action)
            assert environment.step(state, action) == after
            assert after.m_before == state.public_score and after.m_after == after.state.public_score
            if after.outcome is Outcome.INFRASTRUCTURE:
                assert after.state == state
                continue
            assert after.state.steps == state.steps + 1
            assert (after.outcome is Outcome.MALFORMED) <= (
                after.state == replace(state, steps=state.steps + 1)
            )
            assert (after.outcome is Outcome.SUCCESS) <= (bool(after.diff) and after.status == "ok")
            assert after.feedback or after.state.done or after.outcome is Outcome.NEUTRAL
            after.feedback.encode()
            files = store.get(after.state.snapshot)
            # The submission in a workspace is the one whose scores the state has.
            graded = grade(task, files["submission.csv"])
            assert graded == Graded(after.state.public_score, after.state.private_score)
            state = after.state
