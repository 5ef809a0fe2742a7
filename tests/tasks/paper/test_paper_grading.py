"""Scores and refusals of the paper's tasks against the rules of those who grade them.

MLE-bench's graders are in no package, so what is compared with is `graders`: their rules, not their code. OGB's
evaluator is OGB's own, out of its package.
"""

import io
import runpy
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from graders import MLE_BENCH, OTHERS
from paper_raw import RAW

from mlagent_jax.grading.grade import Graded, Invalid, grade, grade_whole
from mlagent_jax.grading.labels import array_path
from mlagent_jax.grading.metrics import METRICS, Prediction
from mlagent_jax.packages import default_cache_dir, fetch_wheel
from mlagent_jax.tasks.task import Task

PAGES, INSULTS, NOMAD = (
    "denoising-dirty-documents",
    "detecting-insults-in-social-commentary",
    "nomad2018-predict-transparent-conductors",
)


def csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def read(submission: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(submission))


def answers(task: Task) -> pd.DataFrame:
    """The labels as our own submission would have them."""
    return pd.read_csv(task.labels_path)[[task.id_column, *task.target_columns]]


def pixels(task: Task, values: np.ndarray) -> pd.DataFrame:
    """A line for each pixel, as MLE-bench has pages."""
    rows = pd.read_csv(task.labels_path)[task.id_column]
    ids = [f"{row}_{column}" for row in rows for column in range(1, values.shape[1] + 1)]
    return pd.DataFrame({"id": ids, "value": values.ravel()})


def theirs(task: Task, submission: bytes) -> float:
    """The grader's score. Raises what the grader raises."""
    grader = (MLE_BENCH | OTHERS)[task.name]
    if task.name == PAGES:
        clean = np.load(array_path(task.labels_path))
        return grader(pixels(task, np.load(io.BytesIO(submission))), pixels(task, clean))
    given, true = read(submission), answers(task)
    if task.name == INSULTS:  # its submissions have no ids there
        comments = pd.read_csv(task.data_dir / "test.csv").set_index("id")["Comment"].fillna("")
        given, true = (frame.assign(Comment=frame["id"].map(comments)) for frame in (given, true))
    return grader(given, true)


def good(task: Task) -> list[bytes]:
    """Random submissions: with ties, with shuffled rows and columns, and with as many digits as possible."""
    rng = np.random.default_rng(1)
    if task.target_array:
        clean = np.load(array_path(task.labels_path))
        arrays = rng.random(clean.shape), rng.integers(0, 2, clean.shape).astype(np.float32)
        return [npy(array) for array in arrays]
    true, names = answers(task), list(task.target_columns)
    prediction = METRICS[task.metric].prediction
    shape = (len(true), len(names))
    match prediction:
        case Prediction.CLASS:
            drawn = [rng.choice(task.classes, shape) for _ in range(2)]
        case Prediction.RANKING:
            whales = true[names[0]].unique()
            ranked = [[" ".join(rng.permutation(whales)[:size]) for size in rng.integers(1, 6, shape[0])]] * 2
            drawn = [np.array(rows, dtype=object)[:, None] for rows in ranked]
        case Prediction.WHOLE:
            drawn = [rng.integers(1, 7, shape), np.full(shape, 3)]
        case _ if METRICS[task.metric].needs_row_sums(len(names)):
            drawn = [rng.dirichlet(np.ones(shape[1]), shape[0]), np.full(shape, 1 / shape[1])]
        case _:
            drawn = [rng.random(shape), rng.random(shape).round(1)]
    tables = [true.assign(**dict(zip(names, values.T, strict=True))) for values in drawn]
    if task.name != NOMAD:
        tables[0] = tables[0].sample(frac=1, random_state=0)[[*reversed(names), task.id_column]]
    return [csv(table) for table in tables]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_every_task_has_a_grader():
    assert {*MLE_BENCH, *OTHERS, "ogbn-arxiv"} == set(RAW)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("name", [*MLE_BENCH, *OTHERS])
def test_good_submissions_score_what_the_grader_gives(tasks, starters, name):
    task, (submission, printed) = tasks(name), starters(name)
    assert "validation" in printed
    for bytes_ in (submission, *good(task)):
        scores = grade_whole(task, bytes_)
        assert not isinstance(scores, Invalid), scores
        assert scores[task.metric] == pytest.approx(theirs(task, bytes_), abs=1e-6)


def test_insults_are_scored_by_the_papers_accuracy_too(tasks, starters):
    task, (submission, _) = tasks(INSULTS), starters(INSULTS)
    correct = (read(submission)["Insult"] > 0.5) == answers(task)["Insult"]
    assert grade_whole(task, submission)["binary_accuracy"] == pytest.approx(correct.mean())


def test_the_evaluator_of_ogb_gives_the_same_accuracy(tasks, starters, tmp_path, monkeypatch):
    """Read from OGB's package, since importing it needs PyTorch and asks the network for newer versions."""
    wheel = fetch_wheel(
        "ogb",
        "1.3.6",
        "29ab84078c66a7846bf137c9be9545978616a053e734c032a2ff731d026bb5e9",
        default_cache_dir() / "data",
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path, [f"ogb/nodeproppred/{name}" for name in ("evaluate.py", "master.csv")])
    monkeypatch.setitem(sys.modules, "torch", None)
    evaluator = runpy.run_path(str(tmp_path / "ogb" / "nodeproppred" / "evaluate.py"))["Evaluator"](
        "ogbn-arxiv"
    )
    task = tasks("ogbn-arxiv")
    true = answers(task).sort_values("id")
    for submission in (starters("ogbn-arxiv")[0], csv(answers(task)), *good(task)):
        given = read(submission).sort_values("id")
        pair = {"y_true": true[["label"]].to_numpy(), "y_pred": given[["label"]].to_numpy()}
        assert grade_whole(task, submission)["accuracy"] == pytest.approx(
            evaluator.eval(pair)["acc"], abs=1e-12
        )


def faults(task: Task) -> dict[str, tuple[bytes, str]]:
    """Common mistakes in otherwise valid submissions, and what our refusal says about each."""
    right = answers(task)
    target = task.target_columns[0]

    def with_cell(column: str, value: object) -> bytes:
        wrong = right.astype({column: object})
        wrong.loc[1, column] = value  # a row that is scored, in jigsaw too
        return csv(wrong)

    found = {
        "a row is missing": (csv(right[1:]), "lacks 1 row"),
        "a row twice": (csv(pd.concat([right, right[:1]])), "more than once"),
        "a strange id": (with_cell(task.id_column, "nobody"), "not in the test data: 'nobody'"),
        "no target column": (csv(right.drop(columns=target)), "needs the columns"),
        "a column too many": (csv(right.assign(more=1)), "needs the columns"),
        "an empty cell": (with_cell(target, ""), f"{target} of id"),
        "nothing but a header": (csv(right[:0]), "lacks"),
    }
    if not METRICS[task.metric].prediction.is_text:
        found |= {
            "a word": (with_cell(target, "many"), "is 'many'"),
            "infinity": (with_cell(target, "inf"), "is 'inf'"),
            "above 1": (with_cell(target, 7.5), "is '7.5'"),
            "below 0": (with_cell(target, -0.5), "is '-0.5'"),
        }
    if METRICS[task.metric].needs_row_sums(len(task.target_columns)):
        values = right[list(task.target_columns)]
        found["sums of 0.9"] = (csv(right.assign(**(values * 0.9))), "sum to 0.9; expected 1")
    return found


ALWAYS = {"a row is missing", "a row twice", "a strange id", "no target column", "nothing but a header"}
BESIDES = {
    **{
        name: {"above 1", "below 0", "infinity", "a word"}
        for name in MLE_BENCH
        if name.startswith(("aerial", "dogs", "detecting", "statoil"))
    },
    "spooky-author-identification": {"above 1", "below 0", "sums of 0.9"},
    "leaf-classification": {"above 1", "below 0", "sums of 0.9"},
    NOMAD: {"below 0", "an empty cell", "infinity"},
    "learning-agency-lab-automated-essay-scoring-2": {"above 1", "below 0", "an empty cell"},  # fractions
    "us-patent-phrase-to-phrase-matching": {"infinity", "a word", "an empty cell"},
    "plant-pathology-2020-fgvc7": {"a column too many", "infinity", "an empty cell"},
    "jigsaw-toxic-comment-classification-challenge": {"infinity", "an empty cell"},
}
"""What graders refuse besides, so that this list can't shrink unseen."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in MLE_BENCH if name != PAGES])
def test_what_the_grader_refuses_is_refused(tasks, name):
    task = tasks(name)
    refused = set()
    for fault, (submission, said) in faults(task).items():
        try:
            score = theirs(task, submission)
        except Exception:
            score = np.nan
        if np.isfinite(score) and fault not in ALWAYS:
            continue
        refused |= set() if np.isfinite(score) else {fault}
        mine = grade(task, submission)
        assert isinstance(mine, Invalid), fault
        assert said in mine.reason
    assert refused >= (ALWAYS | BESIDES.get(name, set())) - ({"a strange id"} if name == NOMAD else set())


@pytest.mark.parametrize("name", OTHERS)
def test_the_usual_faults_are_refused_elsewhere_too(tasks, name):
    for fault, (submission, said) in faults(tasks(name)).items():
        mine = grade(tasks(name), submission)
        if fault in ("above 1", "below 0"):
            assert isinstance(mine, Graded)
        else:
            assert isinstance(mine, Invalid), fault
            assert said in mine.reason


def test_arrays_with_the_usual_faults_are_refused(tasks):
    task = tasks(PAGES)
    clean = np.load(array_path(task.labels_path))
    for said, submission in {
        "has the shape": npy(clean[1:]),
        "expected a finite number": npy(np.where(clean == clean[0, 0], np.nan, clean)),
        "has the type": npy(clean.astype(np.complex64)),
        "was not written to its end": npy(clean)[:-1],
        "not a file as numpy.save writes it": b"id,value\n",
        "wrote no submission.npy": None,
    }.items():
        refused = grade(task, submission)
        assert isinstance(refused, Invalid)
        assert said in refused.reason
