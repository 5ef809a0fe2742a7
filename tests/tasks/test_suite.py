"""The offline tasks have real data, starters that leave headroom, and no leaks.

Those of the quickstart are tested always; the others, whose packages are 210 MB, among the slow tests.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from quickstart_tasks import QUICKSTART
from sklearn.datasets import load_digits

from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.packages import default_cache_dir
from mlagent_jax.sandbox.interface import Job, Status
from mlagent_jax.sandbox.open import open_sandbox
from mlagent_jax.tasks import checks as task_checks
from mlagent_jax.tasks import leak_checks
from mlagent_jax.tasks.listing import markdown_table, summaries
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.suites import suite_names
from mlagent_jax.tasks.task_file import list_tasks, read_task_file

ROOT = Path(__file__).parents[2]
TASKS_DIR = ROOT / "tasks"
NAMES = list_tasks(TASKS_DIR)


@pytest.fixture(scope="module")
def data_root():
    """The user's own cache, so that nothing is downloaded twice."""
    root = default_cache_dir() / "data"
    (root / "public").mkdir(parents=True, exist_ok=True)
    return root


@pytest.fixture(scope="module")
def sandbox(data_root):
    opened = open_sandbox("auto", 1, data_root / "public", allow_unisolated=False, writes_free_code=False)
    yield opened
    opened.close()


@pytest.fixture
def task(request, data_root):
    prepare_task(request.param, TASKS_DIR, data_root)
    return load_task(request.param, TASKS_DIR, data_root)


def of(names):
    marked = [name if name in QUICKSTART else pytest.param(name, marks=pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("task", marked, indirect=True)


every_task = of(NAMES)


def test_the_suite_has_nine_held_in_and_ten_held_out_of_the_papers_kinds():
    tasks = [read_task_file(name, TASKS_DIR) for name in suite_names("offline", TASKS_DIR)]
    assert [task.split for task in tasks] == ["held_in"] * 9 + ["held_out"] * 10
    assert {task.kind for task in tasks} == {
        "image classification",
        "tabular regression",
        "tabular classification",
        "text classification",
        "text regression",
        "text similarity",
        "graph node classification",
        "series classification",
        "image-to-image",
    }
    assert {task.name for task in tasks} == set(NAMES) - {"foods", "diamonds"}


def test_the_quickstart_has_three_held_in_and_three_held_out_of_each_sort():
    tasks = [read_task_file(name, TASKS_DIR) for name in QUICKSTART]
    for split in ("held_in", "held_out"):
        kinds = sorted(task.kind.split()[0] for task in tasks if task.split == split)
        assert kinds == ["image", "tabular", "text"]


# What a script may see of each task, so that a column that gives the answer away cannot come back unnoticed:
# the order of the source (rownames), the museum's ids, which grow with the year, and the products' numbers.
COLUMNS = {
    "ames": 73,
    "hotel_rates": 27,
    "digits8": set(),
    "mnist5k": set(),
    "foods": {"review"},
    "diamonds": {"carat", "cut", "color", "clarity", "depth", "table", "x", "y", "z"},
    "tate": {"artist", "title", "medium"},
    "computers": {"speed", "hd", "ram", "screen", "cd", "multi", "premium", "ads", "trend"},
    "crowd_tweets": {"text"},
    "deliveries": 30,
    "dirty_pages": set(),
    "election_tweets": {"text"},
    "emoji32": set(),
    "grants": 273,
    "hpc_jobs": {"protocol", "compounds", "input_fields", "iterations", "num_pending", "hour", "day"},
    "lastfm_genres": {"album_count", "listeners", "plays", "first_album", "last_album"},
    "mlc_churn": 19,
    "osu_leaf": set(),
    "reuters_topics": {"story"},
    "textures10": set(),
    "word_pairs": {"first", "second", "collection"},
}
TRAPS = {"confidence", "artist name", "Source URL", "rownames", "product", "split", "", "Unnamed: 0"}


@every_task
def test_only_the_columns_meant_to_be_seen_are_there(task):
    train, test = (set(pd.read_csv(task.data_dir / f"{part}.csv").columns) for part in ("train", "test"))
    targets = set(task.target_columns)
    assert targets <= train
    assert not targets & test
    features = test - {"id"}
    assert features == train - targets - {"id"}
    assert not features & TRAPS
    expected = COLUMNS[task.name]
    assert (len(features) if isinstance(expected, int) else features) == expected


@every_task
def test_no_row_stands_in_both_parts_and_neither_order_nor_one_feature_tells_the_answer(task):
    for find in (leak_checks.hidden_labels, leak_checks.shared_rows, leak_checks.by_position):
        check = find(task)
        assert check.passed, check
    if not list(task.data_dir.glob("*.npy")):  # hundreds of pixels: left to `experiments.tasks check`
        check = leak_checks.best_single_feature(task)
        assert check.passed, check


@every_task
def test_the_starter_runs_within_its_limits_and_is_graded(task, sandbox):
    job = Job({"train.py": task.starter.encode()}, "train.py", task.data_dir, task.data_digest, task.limits)
    result = sandbox.run(job)
    assert result.status is Status.OK, result.output
    assert re.fullmatch(rf"validation {task.metric}: -?\d+\.\d{{4}}\n", result.output)
    graded = grade(task, result.files[task.submission])
    assert isinstance(graded, Graded), graded
    assert task.m_init is not None
    assert abs(graded.public - task.m_init) <= 0.05 * abs(task.m_best - task.m_init)
    better = max if METRICS[task.metric].higher_is_better else min
    assert better(graded.public, task.m_best) == task.m_best
    # The starter beats an uninformed guess.
    for submission in (task_checks.constant_submission(task), task_checks.shuffled_submission(task)):
        nothing = grade(task, submission)
        assert isinstance(nothing, Graded)
        assert better(graded.public, nothing.public) == graded.public
        assert better(graded.private, nothing.private) == graded.private


@every_task
def test_the_brief_says_what_the_agent_must_know(task):
    direction = "higher" if METRICS[task.metric].higher_is_better else "lower"
    assert task.kind in task.brief.lower()
    assert f"Metric {task.metric}, {direction} is better." in task.brief
    assert (task.target_array or task.target_columns[0]) in task.brief
    assert "train.py" not in task.brief
    assert task.metric in task.description
    for part in ("train", "test"):
        assert f"{len(pd.read_csv(task.data_dir / f'{part}.csv')):,}" in task.description
    assert f"experiments.tasks check {task.name}" in task.m_best_source
    assert task.noise is not None and task.noise.rows > 0 and f"check {task.name}" in task.noise.source


def whole(task):
    """Train and test rows with their labels."""
    train, test = (pd.read_csv(task.data_dir / f"{part}.csv") for part in ("train", "test"))
    return pd.concat([train, test.merge(pd.read_csv(task.labels_path).drop(columns="split"), on="id")])


@pytest.mark.parametrize("task", ["ames"], indirect=True)
def test_ames_is_the_data_set_that_was_published(task):
    rows = whole(task)
    assert len(rows) == 2930
    assert rows["sale_price"].mean() == pytest.approx(180_796.06, abs=0.01)
    assert rows["sale_price"].agg(["min", "median", "max"]).tolist() == [12_789, 160_000, 755_000]


@pytest.mark.parametrize("task", ["digits8"], indirect=True)
def test_digits_are_those_that_scikit_learn_loads(task):
    images = np.concatenate([np.load(task.data_dir / f"{part}_images.npy") for part in ("train", "test")])
    ours = sorted(zip(map(bytes, images.reshape(len(images), -1)), whole(task)["digit"], strict=True))
    theirs = load_digits()
    expected = sorted(zip(map(bytes, theirs.data.astype(np.uint8)), theirs.target, strict=True))
    assert ours == expected


@pytest.mark.parametrize("task", ["mnist5k"], indirect=True)
def test_mnist_has_five_hundred_of_each_digit(task):
    assert whole(task)["digit"].value_counts().to_dict() == dict.fromkeys(range(10), 500)


@every_task
def test_the_manifest_says_where_data_come_from_and_all_is_pinned(task, data_root):
    manifest = json.loads((data_root / "manifests" / f"{task.data_dir.name}.json").read_text())
    assert manifest["source"]
    assert manifest["licence"]
    assert {"train", "public", "private"} <= manifest["rows"].keys()
    pins = {"sha256", "wheel_sha256", "tarball_sha256"}
    assert manifest["read"]
    assert all(pins & source.keys() for source in manifest["read"])


@every_task
def test_the_micro_version_is_small_and_its_starter_runs(task, sandbox, data_root):
    prepare_task(task.name, TASKS_DIR, data_root, micro=True)
    micro = load_task(task.name, TASKS_DIR, data_root, micro=True)
    rows = [len(pd.read_csv(micro.data_dir / f"{part}.csv")) for part in ("train", "test")]
    assert max(rows) <= 100
    assert 50 <= sum(rows) <= 200
    assert not [check for check in task_checks.check_micro(micro, sandbox) if not check.passed]


@of(["election_tweets"])
def test_tweets_have_no_links_that_would_tell_who_wrote_them(task):
    assert not whole(task)["text"].str.contains("https?://", regex=True).any()


@of(["lastfm_genres"])
def test_the_graph_is_that_of_the_package(task):
    edges, rows = pd.read_csv(task.data_dir / "edges.csv"), whole(task)
    assert len(edges) == 3949
    assert (edges["id_a"] < edges["id_b"]).all()
    assert edges.max().max() < len(rows)
    # Linked artists share their genre much more often than others do.
    genre = rows.set_index("id")["genre"]
    same = (edges["id_a"].map(genre) == edges["id_b"].map(genre)).mean()
    assert same > 2 * (genre.value_counts(normalize=True) ** 2).sum()


@of(["dirty_pages"])
def test_pages_are_black_on_white_and_the_stained_ones_darker(task):
    clean = np.load(task.data_dir / "train_clean.npy")
    dirty = np.load(task.data_dir / "train_dirty.npy")
    assert clean.shape == dirty.shape == (48, 96, 160)
    assert (np.median(clean, axis=(1, 2)) == 255).all()
    assert clean.min() < 40
    assert dirty.mean() < clean.mean() - 20
    # Ink stays ink: what is dark on a clean page is darker than the page around it on the stained one.
    for page, stained in zip(clean, dirty, strict=True):
        assert stained[page < 100].mean() < stained[page == 255].mean() - 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_check_passes_on_the_whole_suite_references_and_all():
    command = [sys.executable, "-m", "experiments.tasks", "check", "--suite=offline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok   headroom: ") == 19
    assert "\nall checks passed, 19 tasks" in done.stdout
    assert not re.findall(r"^  -    (.*)$", done.stdout, flags=re.M), "every check applies"


@pytest.mark.slow
def test_the_table_in_the_page_of_tasks_is_what_list_prints(data_root):
    names = suite_names("offline", TASKS_DIR)
    for name in names:
        prepare_task(name, TASKS_DIR, data_root)
    assert markdown_table(summaries(names, TASKS_DIR, data_root)) in (ROOT / "tasks/README.md").read_text()
