"""Scripts that leave unusable files: the episode continues, and the agent is told what was not kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import DictatedCoder, make_task, script
from fakes import edit as edit_action
from sandboxes import FEW_MODULES, open_backend

from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.environment.state import INVALID_OUTPUT, Outcome
from mlagent_jax.grading.grade import grade
from mlagent_jax.sandbox.interface import Limits

LIMITS = Limits(wall_seconds=10, workspace_mb=64)
UNUSABLE = {
    "folder": (
        "import os\nos.mkdir('submission.csv')\nopen('submission.csv/x', 'w').close()\n",
        "1 that is no file where",
    ),
    "link": ("import os\nos.symlink('elsewhere', 'submission.csv')\n", "1 that is no file where"),
    "pipe": ("import os\nos.mkfifo('submission.csv')\n", "1 that is no file where"),
    "socket": (
        "import socket\nsocket.socket(socket.AF_UNIX).bind('submission.csv')\n",
        "1 that is no file where",
    ),
    "long name": (r"open(b'\xff' * 255, 'w').close()" + "\n", "1 with names"),
    "two alike": (
        'import os\nopen("x\\ny", "w").close()\nos.mkdir("x\\\\ny")\nopen("x\\\\ny/f", "w").close()\n',
        "2 with names",
    ),
    "many": ("for i in range(300): open(f'{i:03}', 'w').close()\n", "102 beyond 200 files"),
    "header": (
        "import os\nfor _ in range(15):\n    os.mkdir(b'\\xff' * 255)\n    os.chdir(b'\\xff' * 255)\n"
        "for i in range(900): open(b'%03d' % i + b'\\xff' * 200, 'w').close()\n",
        "1 with names",
    ),
}


@pytest.fixture(scope="module", params=["bubblewrap", "docker"])
def environment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    root = tmp_path_factory.mktemp("episodes")
    (root / "data").mkdir()
    root.chmod(0o755)
    task = make_task(root / "data", limits=LIMITS)
    with open_backend(request.param, root / "data", preload=FEW_MODULES) as sandbox:
        yield Environment(task, sandbox, SnapshotStore(root / "snapshots"), DictatedCoder(), grade)


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_files_do_not_affect_later_steps(environment: Environment, name: str) -> None:
    source, message = UNUSABLE[name]
    spoiled = environment.step(environment.initial_state(), edit_action(source, "spoil.py"), "episode")
    assert spoiled.outcome in (Outcome.ERROR, Outcome.SUCCESS)  # it submits nothing, but is never masked
    assert f"Files not kept: {message}" in spoiled.feedback, spoiled.feedback
    assert {"train.py", "spoil.py"} <= environment._store.get(spoiled.state.snapshot).keys()
    after = environment.step(spoiled.state, edit_action(script(12.0), "better.py"), "episode")
    assert (after.outcome, after.m_after) == (Outcome.SUCCESS, 2.0), after.feedback
    assert "Files not kept" not in after.feedback


def test_kept_files_are_bounded(environment: Environment) -> None:
    state = environment.initial_state()
    store = environment._store
    for number in range(3):
        noise = f"import os\nfor i in range(4): open(f'n{number}{{i}}', 'wb').write(os.urandom(6 << 20))\n"
        after = environment.step(state, edit_action(noise + script(12.0), "noise.py"), "noise")
        assert after.outcome is Outcome.SUCCESS, after.feedback
        assert "beyond 16 MB" in after.feedback
        state = after.state
        assert sum(map(len, store.get(state.snapshot).values())) < 17 << 20


def test_an_invalid_submission_is_not_a_status_of_the_sandbox(environment: Environment) -> None:
    after = environment.step(
        environment.initial_state(), edit_action("open('submission.csv', 'w').write('id\\n')\n", "bad.py")
    )
    assert (after.status, after.outcome) == (INVALID_OUTPUT, Outcome.ERROR)
    assert "SubmissionError: submission.csv needs the columns" in after.feedback


def test_a_claim_is_an_error_and_a_refusal_is_a_corner_case(environment: Environment, tmp_path: Path) -> None:
    start = environment.initial_state()
    claim = environment.step(start, edit_action("raise MemoryError\n", "claim.py"), "claims")
    assert (claim.outcome, claim.status) == (Outcome.ERROR, "failed")
    refused = environment.step(start, edit_action("x = bytearray(100 << 30)\n", "refused.py"), "claims")
    assert (refused.outcome, refused.status) == (Outcome.CORNER, "oom")
