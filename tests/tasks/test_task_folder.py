"""For every mistake in a task folder, the error is one sentence that names the file and the field."""

import shutil

import pytest
from toy import TOML, write_task

from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.task import Board, Noise
from mlagent_jax.tasks.task_file import TaskError, read_task_file


def test_reads_every_field(tmp_path):
    task = read_task_file("toy", write_task(tmp_path / "tasks" / "toy").parent)
    assert (task.name, task.metric, task.m_best, task.target_columns) == ("toy", "mae", 0.5, ("y",))
    assert task.limits == Limits(wall_seconds=5.5)
    assert task.description.startswith("# Toy")
    assert "submission.csv" in task.starter


def without(field: str) -> str:
    return "".join(line for line in TOML.splitlines(keepends=True) if not line.startswith(f"{field} ="))


def with_value(field: str, value: str) -> str:
    return "".join(
        f"{field} = {value}\n" if line.startswith(f"{field} =") else line
        for line in TOML.splitlines(keepends=True)
    )


FIELDS = [line.split(" = ")[0] for line in TOML.splitlines() if " = " in line and "wall_seconds" not in line]


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(tmp_path, field):
    with pytest.raises(TaskError, match=f"lacks the field '{field}'"):
        read_task_file(write_task(tmp_path / "toy", without(field)), tmp_path)


BOARD = """
[board]
gold = 0.1
silver = 0.2
bronze = 0.3
median = 0.4
teams = 1234
source = "made up"
"""
NOISE = """
[noise]
seeds = 0
rows = 0.25
source = "made up"
"""


def test_reads_the_optional_fields(tmp_path):
    extra = 'also_metrics = ["rmse"]\nprediction_range = [0, 9]\nm_init = 2\nneeds_gpu = true\n'
    task = read_task_file(write_task(tmp_path / "toy", extra + TOML + BOARD + NOISE), tmp_path)
    assert (task.also_metrics, task.prediction_range) == (("rmse",), (0.0, 9.0))
    assert (task.m_init, task.needs_gpu) == (2.0, True)
    assert task.board == Board(0.1, 0.2, 0.3, 0.4, 1234, "made up")
    assert task.noise == Noise(0, 0.25, "made up")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("colour = 3\n" + TOML, "unknown field 'colour'"),
        (TOML.replace("[limits]", "[limits]\nram = 3"), "limits.ram is not a setting"),
        (TOML.replace("5.5", "-5.5"), "limits.wall_seconds is -5.5, but must be a number above 0"),
        (TOML.replace("5.5", "true"), "limits.wall_seconds is True"),
        (TOML.replace("5.5", "inf"), "limits.wall_seconds is inf"),
        (
            TOML.replace("wall_seconds = 5.5", "threads = 1.5"),
            "limits.threads is 1.5, but must be a whole number",
        ),
        (TOML.replace("[limits]\nwall_seconds = 5.5", ""), "lacks the field 'limits'"),
        (TOML + "\n[", "not valid TOML"),
        (with_value("m_best", '"best"'), "'m_best' is 'best', expected a number"),
        (with_value("m_best", "true"), "'m_best' is True, expected a number"),
        (with_value("m_best", "-1"), "'m_best' is -1.0, expected a mae from 0.0 to inf"),
        (with_value("m_best", "nan"), "'m_best' is nan"),
        (with_value("metric", '"speed"'), "'metric' is 'speed', expected one of accuracy"),
        (with_value("split", '"both"'), "'split' is 'both', expected held_in or held_out"),
        (with_value("target_columns", '"y"'), "'target_columns' is 'y', expected a list of strings"),
        (with_value("target_columns", "[3]"), r"'target_columns' is \[3\]"),
        (with_value("target_columns", "[]"), "expected distinct names"),
        (with_value("target_columns", '["id"]'), "expected distinct names"),
        (with_value("show_public_score", "1"), "'show_public_score' is 1, expected true or false"),
        (with_value("title", '""'), "'title' is '', expected one line of text"),
        (with_value("brief", f'"{"x" * 241}"'), "'brief' has 241 characters, at most 240"),
        (
            TOML.replace('metric = "mae"', 'metric = "auc"').replace('["y"]', '["y", "z"]'),
            "names 2 columns, but auc takes one",
        ),
        ("also_metrics = ['speed']\n" + TOML, "'also_metrics' is 'speed', expected one of accuracy"),
        ("also_metrics = [1]\n" + TOML, r"'also_metrics' is \[1\], expected a list of strings"),
        ("also_metrics = ['accuracy']\n" + TOML, "one submission cannot be both"),
        ("prediction_range = [3, 1]\n" + TOML, r"'prediction_range' is \[3, 1\], expected the smallest"),
        ("prediction_range = [3]\n" + TOML, "'prediction_range' is"),
        ("m_init = 0.4\n" + TOML, "expected a better mae than m_init, 0.4"),
        ("m_init = -1\n" + TOML, "'m_init' is -1.0, expected a mae from 0.0 to inf"),
        ("m_init_source = 'a paper'\n" + TOML, "has an 'm_init_source' but no 'm_init'"),
        ("m_init = 2\nm_init_source = 3\n" + TOML, "'m_init_source' is 3, expected a string"),
        ("needs_gpu = 1\n" + TOML, "'needs_gpu' is 1, expected true or false"),
        ("target_array = 'clean'\n" + TOML, "has both 'target_columns' and 'target_array'"),
        ("target_array = '../x'\n" + with_value("target_columns", "[]"), "'target_array' is '../x'"),
        (
            "target_array = 'x'\n" + with_value("target_columns", "[]").replace('"mae"', '"rmsle"'),
            "has a 'target_array', but rmsle takes one target column",
        ),
        (with_value("metric", '"psnr"'), "has 'target_columns', but psnr takes a target array"),
        (TOML + BOARD.replace("gold = 0.1\n", ""), "'board' must have gold, silver, .*; check 'gold'"),
        (TOML + NOISE.replace("rows", "row"), "'noise' must have seeds, rows, source and nothing else"),
        (TOML + NOISE.replace("0.25", "-1"), "'noise' is .*, expected numbers of at least 0"),
        (TOML + BOARD.replace("0.1", "'x'"), "'board.gold' is 'x', expected a number"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, toml, said):
    with pytest.raises(TaskError, match=said) as caught:
        read_task_file(write_task(tmp_path / "toy", toml), tmp_path)
    assert "task.toml" in str(caught.value)


@pytest.mark.parametrize("name", ["task.toml", "description.md", "train.py", "prepare.py"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_task(tmp_path / "toy")
    (folder / name).unlink()
    with pytest.raises(TaskError, match=f"lacks {name}"):
        read_task_file(folder, tmp_path)


def test_a_starter_that_is_not_python_is_named(tmp_path):
    folder = write_task(tmp_path / "toy")
    (folder / "train.py").write_text("print(")
    with pytest.raises(TaskError, match=r"train\.py is not valid Python"):
        read_task_file(folder, tmp_path)


def test_an_unknown_task_names_what_there_is(tmp_path):
    write_task(tmp_path / "toy")
    write_task(tmp_path / "other")
    with pytest.raises(TaskError, match=r"no task 'tyo'.*: other, toy"):
        load_task("tyo", tmp_path, tmp_path / "data")


def test_a_task_that_is_not_prepared_says_how(tmp_path):
    write_task(tmp_path / "toy")
    with pytest.raises(TaskError, match=r"not prepared .* run `python -m experiments.tasks prepare toy"):
        load_task("toy", tmp_path, tmp_path / "data")


def test_a_folder_anywhere_works_like_one_in_the_suite(tmp_path):
    inside = write_task(tmp_path / "tasks" / "toy")
    elsewhere = tmp_path / "my work" / "toy"
    shutil.copytree(inside, elsewhere)
    for name in ("toy", str(elsewhere), elsewhere):
        prepare_task(name, tmp_path / "tasks", tmp_path / "data")
    by_name = load_task("toy", tmp_path / "tasks", tmp_path / "data")
    assert load_task(str(elsewhere), tmp_path / "tasks", tmp_path / "data") == by_name
    assert by_name.classes == ()
