"""`python -m experiments.tasks`, as a user runs it, on toy task folders."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from absl import flags
from absl.testing import flagsaver
from toy import TOML, write_task

from experiments.tasks import READS, main
from mlagent_jax.errors import UserError
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.tasks.suites import suite_names
from mlagent_jax.tasks.task_file import TaskError, find_task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tasks_dir(tmp_path):
    write_task(tmp_path / "tasks" / "toy", "m_init = 2.5\n" + TOML)
    write_task(tmp_path / "tasks" / "paper" / "nested", TOML)
    return tmp_path / "tasks"


@pytest.fixture
def run(tasks_dir, capsys):
    """Runs a command in this process, since starting a program takes a second. Returns what it printed."""

    def command(*arguments, code=0):
        places = {"tasks_dir": tasks_dir, "data_root": tasks_dir.parent / "data"}
        read = READS.get(arguments[0], ()) if arguments else ()
        given = [f"--{name}={path}" for name, path in places.items() if name in read]
        with flagsaver.flagsaver():
            try:
                ended = main(flags.FLAGS(["tasks", *arguments, *given]))
            except UserError as error:  # which `run_program` prints
                ended = print(f"error: {error}") or 1
            assert ended == code, capsys.readouterr()
        printed = capsys.readouterr()
        return printed.out + printed.err

    return command


def test_it_runs_as_a_program():
    command = [sys.executable, "-m", "experiments.tasks", "hop"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    commands = "list, prepare, check, grade, explore, gains, constant, new, metrics"
    assert done.stderr == f"error: 'hop' is not a command; there are {commands}\n"


def test_list_prepare_and_grade(run, tmp_path):
    assert "not prepared" in run("list", "toy")
    assert "public" in run("prepare", "toy")
    listed = run("list")
    assert "60 / 40" in listed
    assert "2.5" in listed
    assert "nested" not in listed  # in a suite of its own
    table = run("list", "toy", "--markdown")
    assert "| toy | held-in | tabular regression | mae ↓ | 2.5 |  | 0.5 | 60 / 40 | 0.0 |" in table
    labels = pd.read_csv(next((tmp_path / "data" / "labels").glob("toy-*.csv")))
    labels.assign(y=labels["y"] + (labels["split"] == "public"))[["id", "y"]].to_csv(
        tmp_path / "mine.csv", index=False
    )
    graded = run("grade", "toy", str(tmp_path / "mine.csv"))
    assert "mae: public 1.000000, private 0.000000, all rows 0.500000" in graded
    (tmp_path / "bad.csv").write_text("id,y\n")
    assert "refused: submission.csv lacks 40 rows" in run("grade", "toy", str(tmp_path / "bad.csv"), code=1)


def test_a_task_that_cannot_be_prepared_keeps_no_other_from_it(run, tasks_dir):
    write_task(tasks_dir / "broken", prepare="def prepare(files):\n    raise ValueError('no')\n")
    printed = run("prepare", "broken", "toy", code=1)
    assert re.search(r"error: .*broken/prepare.py failed: ValueError: no", printed)
    assert "toy: " in printed
    assert "60 / 40" in run("list", "toy")
    assert "starter" not in run("check", "broken", "toy", code=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["hop"],
            "'hop' is not a command; there are list, prepare, check, grade, explore, gains, constant, new, metrics",
        ),
        ([], "'' is not a command"),
        (["list", "none"], "there is no task 'none'; tasks in .*: toy"),
        (["list", ""], "there is no task ''; tasks in .*: toy"),
        (["list", "--suite=none"], "there is no suite 'none'; choose one of all, offline, paper"),
        (["grade", "toy"], "grade takes a task and a submission file"),
        (["grade", "toy", "none.csv"], "not prepared"),
        (["new"], "new takes the folder to create"),
        (["new", "x"], "new needs --csv"),
    ],
)
def test_a_wrong_command_is_answered_in_one_sentence(run, arguments, said):
    assert re.search(f"error: .*{said}", run(*arguments, code=1))


def test_a_suite_is_a_folder_and_its_tasks_have_names_too(tasks_dir):
    assert suite_names("all", tasks_dir) == ["toy"]
    assert suite_names("paper", tasks_dir) == ["nested"]
    assert find_task("nested", tasks_dir) == (tasks_dir / "paper" / "nested").resolve()
    with pytest.raises(TaskError, match="no suite"):
        suite_names("", tasks_dir)


def test_a_task_made_of_a_table_is_prepared_by_its_path(run, tmp_path):
    table = pd.DataFrame({"a": range(100), "b": [f"w{i % 3}" for i in range(100)]})
    table["y"] = table["a"] * 0.5
    table.to_csv(tmp_path / "rows.csv", index=False)
    made = tmp_path / "made" / "mine"
    options = [f"--csv={tmp_path / 'rows.csv'}", "--target=y", "--metric=mae"]
    assert f"experiments.tasks check {made}" in run("new", str(made), *options)
    assert "mine-" in run("prepare", str(made))
    assert "there is already" not in run("list", str(made))


def test_every_metric_is_described(run):
    printed = run("metrics")
    for name in METRICS:
        assert re.search(rf"^{name}: (higher|lower) is better, from .*\n    \S", printed, flags=re.M), name


def test_an_m_init_that_is_not_the_starters_is_marked_with_its_source(run, tasks_dir):
    write_task(tasks_dir / "other", 'm_init = 2.5\nm_init_source = "a paper"\n' + TOML)
    plain, markdown = run("list", "toy", "other"), run("list", "toy", "other", "--markdown")
    for printed in (plain, markdown):
        assert printed.count("2.5 †") == 1
        assert printed.endswith("\n\n† m_init is a paper\n")
    assert "†" not in run("list", "toy")
    printed = run("check", "other", code=1)
    assert re.search(
        r"-    m_init: not applicable because the recorded 2.5 does not come from .* \(\d.*\): a paper",
        printed,
    )
    assert "-    headroom: not applicable because there is no reference solution" in printed
    assert re.search(r"checks failed, 1 tasks; 3 do not apply, for the reasons above", printed)


@pytest.mark.parametrize(("rows", "shown"), [(0.05, "0.01 / 0.05 |"), (0.07, "0.01 / 0.07 ‡ |")])
def test_noise_stands_beside_the_starter_and_is_marked_where_it_is_large(run, tasks_dir, rows, shown):
    """Large is more than 3 % of the way from 2.5 to 0.5."""
    noise = f'\n[noise]\nseeds = 0.01\nrows = {rows}\nsource = "made up"\n'
    write_task(tasks_dir / "noisy", "m_init = 2.5\n" + TOML + noise)
    table = run("list", "noisy", "--markdown")
    assert f"| 2.5 | {shown} 0.5 |" in table
    assert ("\n‡ one standard error of the public rows is more than 3%" in table) == ("‡ |" in shown)


def test_check_runs_the_starter_and_says_what_is_wrong(run):
    printed = run("check", "toy", code=1)
    assert re.search(r"ok   starter: \d", printed)
    assert re.search(r"m_init: starter \d\.\d+, recorded 2\.5", printed)
    assert "FAIL constant submission" in printed  # the toy's starter is itself a constant submission
    assert "checks failed" in printed
    assert "all checks passed, 1 tasks" in run("check", "toy", "--micro")
