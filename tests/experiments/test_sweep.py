"""Sweeps: what a suite may be, the runs it becomes, and what happens to runs that fail, are done or are interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from experiments.ablations.suite import get_suite
from experiments.origin import Origin, OriginError
from experiments.sweeps.jobs import Job, plan, settings_of
from experiments.sweeps.runner import Sweep
from experiments.sweeps.suite import Group, Row, Suite, SuiteError, Variant, load_suite
from experiments.workdir import Workdir

ROOT = Path(__file__).parents[2]
SUITE = "experiments/ablations/suite.py"
FULL = "experiments/ablations/full.py"


def group(*variants: str) -> Group:
    return Group("all", "All", "", "", tuple(Row(name, name) for name in variants))


def suite(*variants: Variant, **changes) -> Suite:
    names = [variant.name for variant in variants]
    return Suite(**{"seeds": (0, 1), "variants": variants, "groups": (group(*names),)} | changes)


# Suites.


@pytest.mark.parametrize(
    ("variants", "changes", "said"),
    [
        (("a", "a"), {}, "variant 'a' is given 2 times"),
        (("a", "b"), {"seeds": ()}, "at least one seed"),
        (("a", "b"), {"seeds": (1, 1)}, "seed 1 is given 2 times"),
        (("a", "B c"), {}, "'B c' cannot name a folder"),
        (("a", "b"), {"groups": (group("a", "bb"),)}, "no variant 'bb', only a, b"),
        (("a", "b"), {"groups": (group("a"),)}, "compares nothing"),
        (("a", "b"), {"groups": (replace(group("a", "b"), name="learning"),)}, "another page of results"),
        (
            ("a", "b"),
            {"groups": (replace(group("a", "b"), rows=(Row("x|", "a"), Row("y", "b"))),)},
            r"has a \|",
        ),
    ],
)
def test_a_wrong_suite_is_refused(variants, changes, said):
    with pytest.raises(SuiteError, match=said):
        suite(*(Variant(name, FULL) for name in variants), **changes)


def test_stages_cannot_be_taken_in_a_circle_or_from_nowhere():
    a, b = Variant("a", FULL, takes="b:sft"), Variant("b", FULL, takes="a:sft")
    with pytest.raises(SuiteError, match="takes its stages from itself"):
        suite(a, b)
    with pytest.raises(SuiteError, match="no variant 'c'"):
        suite(a, Variant("b", FULL, takes="c:sft"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file"),
        ("", "has no get_suite"),
        ("def get_suite():\n    return 3", "has no get_suite"),
        ("def get_suite():\n    return 1 / 0", "raises ZeroDivisionError"),
    ],
)
def test_a_file_without_a_suite_is_refused(tmp_path, text, said):
    path = tmp_path / "suite.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SuiteError, match=said):
        load_suite(str(path))


# Runs.


def test_every_variant_of_the_ablations_has_valid_settings_and_takes_what_is_shared(tmp_path):
    """`plan` reads all settings, so that a wrong one does not end a sweep after hours."""
    known = get_suite()
    jobs = plan(known, known.groups, known.seeds, tmp_path)
    assert len(jobs) == len(known.variants) * len(known.seeds)
    for job in jobs:
        flags = [flag for flag in job.command if flag.startswith("--from=")]
        if job.variant.takes:
            variant, stage = job.variant.takes.split(":")
            assert flags == [f"--from={tmp_path}/{variant}/seed_{job.seed}:{stage}"]
            assert jobs.index(job.needs) < jobs.index(job)
        else:
            assert not flags and job.needs is None


def test_a_group_brings_what_it_needs_and_nothing_else(tmp_path):
    known = get_suite()
    jobs = plan(known, [known.group("thought")], [1], tmp_path)
    assert [job.name for job in jobs] == ["full/seed_1", "no_thought/seed_1"]


def test_what_is_taken_is_the_same_by_the_settings_that_matter(tmp_path):
    """Else each run of the sweep would refuse it, hours later."""
    known = get_suite()
    for job in plan(known, known.groups, [0], tmp_path):
        if job.needs is None:
            continue
        origin = Origin(job.needs.workdir, job.variant.takes.split(":")[1])
        theirs, ours = (settings_of(variant, 0) for variant in (job.needs.variant, job.variant))
        origin.check_settings(theirs, ours)
        with pytest.raises(OriginError):
            origin.check_settings(theirs, settings_of(job.variant, 1))


def test_wrong_settings_are_said_before_anything_runs(tmp_path):
    wrong = suite(Variant("a", FULL), Variant("b", FULL, {"ppo.gamma": 7}))
    with pytest.raises(SuiteError, match=r"variant 'b': config\.ppo\.gamma is 7"):
        plan(wrong, wrong.groups, [0], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (Variant("b", FULL, takes="a"), "is not of the form DIR or DIR:STAGE"),
        (Variant("b", FULL, takes="a:sftt"), "stages that can be taken are ideas, collect"),
        (Variant("b", FULL, {"sft.steps": 5}, takes="a:sft"), r"config\.sft\.steps is 200 there, 5 here"),
        (Variant("b", FULL, {"ppo": {"updates": 3}}), "ppo is a section"),
        (Variant("b", "nowhere.py"), "there is no file"),
        (Variant("b", "experiments/configs/learning.py"), "each run of a sweep has one seed"),
        (
            Variant("b", FULL, {"evaluate.agents": ("starter", "sft")}),
            "evaluates starter, sft, but not 'ppo'",
        ),
    ],
)
def test_what_would_end_a_run_after_hours_is_said_before(tmp_path, variant, said):
    wrong = suite(Variant("a", FULL), variant)
    with pytest.raises(SuiteError, match=said):
        plan(wrong, wrong.groups, [0], tmp_path)


@pytest.mark.parametrize("name", ["seed", "seeds", "sandbox.cache_dir"])
def test_what_the_sweep_sets_a_variant_cannot(name):
    with pytest.raises(SuiteError, match="which the sweep sets itself"):
        suite(Variant("a", FULL), Variant("b", FULL, {name: 1}))


def test_a_configuration_is_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text((ROOT / "tests/experiments/tiny.py").read_text())
    monkeypatch.chdir(tmp_path)
    mixed = suite(Variant("a", "mine.py"), Variant("b", FULL))
    mine, shipped = plan(mixed, mixed.groups, [0], tmp_path / "runs")
    assert f"--config={tmp_path}/mine.py" in mine.command and f"--config={ROOT / FULL}" in shipped.command


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_runs_are_done_share_their_stages_and_are_left_alone(tmp_path, capfd):
    """A suite at tiny size, by the commands of a user."""
    (tmp_path / "small.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport tiny\n"
        "from experiments.cli.config_flags import with_changes\n"
        "def get_config():\n    return with_changes(tiny.get_config(), {'tasks.micro': True, 'sft.steps': 2, "
        "'ppo.updates': 1, 'evaluate.agents': ('starter', 'ppo'), 'sandbox.allow_unisolated': True})\n"
    )
    config = str(tmp_path / "small.py")
    small = suite(
        Variant("full", config), Variant("less", config, {"reward.corner": False}, takes="full:sft")
    )
    jobs = plan(small, small.groups, [0], tmp_path / "runs")
    sweep = Sweep(jobs, parallel=1, retries=0)
    sweep.run()
    assert not sweep.failed and all(job.is_done for job in jobs), capfd.readouterr().out
    plan(small, small.groups, [0], tmp_path / "runs")  # they are the suite's
    done = jobs[0].workdir.done("sft")
    done.write_text(
        json.dumps(json.loads(done.read_text()) | {"seconds": 1e9})
    )  # as if it had been run again
    with pytest.raises(SuiteError, match="does not have its stages from"):
        plan(small, small.groups, [0], tmp_path / "runs")


def test_a_suite_that_has_changed_under_its_runs_is_refused(tmp_path):
    before = suite(Variant("a", FULL), Variant("b", FULL))
    (job, _) = plan(before, before.groups, [0], tmp_path)
    with job.workdir.claimed(tiny.settings_with()):
        pass
    with pytest.raises(SuiteError, match=r"variant 'a': .* belongs to a run of another configuration"):
        plan(before, before.groups, [0], tmp_path)


# Running them.

DONE = (
    "import sys, pathlib; place = pathlib.Path(sys.argv[1]) / 'evaluate'; place.mkdir(parents=True); "
    "(place / 'done.json').write_text('{}'); (place.parent / 'report.html').touch()"
)
FAIL = "print('the reason'); raise SystemExit(3)"


def job(folder: Path, name: str, code: str, needs: Job | None = None) -> Job:
    workdir = Workdir.at(str(folder / name / "seed_0"))
    return Job(Variant(name, FULL), 0, workdir, (sys.executable, "-c", code, str(workdir.root)), needs)


def test_all_are_run_in_order_and_only_once(tmp_path, capfd):
    first = job(tmp_path, "a", DONE)
    second = job(
        tmp_path,
        "b",
        f"import pathlib; assert pathlib.Path({str(first.workdir.root)!r}).exists(); {DONE}",
        first,
    )
    sweep = Sweep([second, first], parallel=2, retries=0)
    sweep.run()
    assert not sweep.failed and first.is_done and second.is_done
    assert "[2/2] b/seed_0 is done" in capfd.readouterr().out
    again = Sweep([replace(first, command=(sys.executable, "-c", FAIL)), second], parallel=1, retries=0)
    again.run()
    assert not again.failed


def test_a_run_that_fails_is_tried_again_and_what_needs_it_is_named(tmp_path, capfd):
    bad = job(tmp_path, "bad", FAIL)
    needs_it, other = job(tmp_path, "needs_it", DONE, bad), job(tmp_path, "other", DONE)
    sweep = Sweep([bad, needs_it, other], parallel=1, retries=1)
    sweep.run()
    assert sweep.failed == [bad] and sweep.left_out == [needs_it] and other.is_done
    said = capfd.readouterr().out
    assert said.count("bad/seed_0 failed (exit status 3): the reason") == 2
    assert said.count("it is tried again") == 1


def test_a_run_that_ends_well_without_being_done_has_failed(tmp_path):
    sweep = Sweep([job(tmp_path, "a", "print('?')")], parallel=1, retries=0)
    sweep.run()
    assert [one.name for one in sweep.failed] == ["a/seed_0"]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_that_is_ended_ends_its_runs(tmp_path, by):
    """As an interrupt, so that they end in order."""
    code = (
        "import sys, time, pathlib\n"
        "root = pathlib.Path(sys.argv[1]); root.mkdir(parents=True); (root / 'began').touch()\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    (root / 'ended').touch()\n"
    )
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import test_sweep as t\n"
        f"t.Sweep([t.job(Path(sys.argv[1]), 'a', {code!r})], parallel=1, retries=0).run()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    run = tmp_path / "a" / "seed_0"
    while not (run / "began").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(by)
    process.wait()
    assert (run / "ended").exists()


def test_the_command_prints_what_is_left(tmp_path):
    with Workdir.at(str(tmp_path / "full" / "seed_0")).claimed(settings_of(get_suite().variant("full"), 0)):
        pass
    full = tmp_path / "full" / "seed_0"
    (full / "evaluate").mkdir(parents=True)
    (full / "evaluate" / "done.json").write_text(json.dumps({}))
    (full / "report.html").touch()
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.sweep",
            f"--suite={SUITE}",
            f"--workdir={tmp_path}",
            "--dry_run",
            "--seeds=0",
            "--only=components",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 3 and all(f"--from={tmp_path}/full/seed_0:" in line for line in lines)
