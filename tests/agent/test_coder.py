"""The scripted coder behind the Coder interface."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.environment.coder import CoderError

TASKS = Path(__file__).parents[2] / "tasks"


def starter(name):
    return (TASKS / name / "train.py").read_text()


def test_it_writes_no_free_code():
    assert ScriptedCoder().writes_free_code is False


def test_an_edit():
    edited = ScriptedCoder().edit(starter("ames"), "Use 5 nearest neighbors")
    assert "model = make_pipeline(StandardScaler(), KNeighborsRegressor(n_neighbors=5))" in edited
    assert "from sklearn.neighbors import KNeighborsRegressor" in edited and "Ridge" not in edited


def test_an_edit_that_cannot_be():
    with pytest.raises(CoderError, match="it can do things like"):
        ScriptedCoder().edit(starter("ames"), "Ask a friend")


def test_from_many_threads():
    """CPython 3.11 cannot parse in two threads at once."""
    coder = ScriptedCoder()
    lines = [f"Use a random forest with {trees} trees" for trees in range(1, 120)]
    with ThreadPoolExecutor(8) as pool:
        edited = list(pool.map(lambda line: coder.edit(starter("ames"), line), lines))
    assert all(f"n_estimators={trees}," in text for trees, text in enumerate(edited, 1))


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("ames", ("tabular regression", '"gr_liv_area"', "Ridge(alpha=1.0)", "validation rmsle")),
        ("digits8", ("image classification", "pixels", "DecisionTreeClassifier", "validation accuracy")),
        ("foods", ("text classification", "CountVectorizer", "LogisticRegression", "validation macro_f1")),
        ("tate", ("text regression", "CountVectorizer", "Ridge", "validation mae")),
    ],
)
def test_it_understands_a_starter(name, facts):
    told = ScriptedCoder().understand(starter(name), "what is the model?")
    assert all(fact in told for fact in facts) and len(told) < 400


def test_it_understands_what_it_edited():
    coder, text = ScriptedCoder(), starter("ames")
    for line in (
        "Train on all rows of the training data",
        "Standardize the features",
        "Standardize the target",
    ):
        text = coder.edit(text, line)
    told = coder.understand(text, "")
    assert "on all rows" in told and "after StandardScaler()" in told and "transformed target" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,a,b\n1,2,3\n4,5,6\n", "A table of 2 rows and 3 columns: id, a, b."),
        (",".join(f"c{i}" for i in range(99)) + "\n1\n", "c11, ...."),
        ("only one line", "1 lines of text."),
        ("", "0 lines of text."),
        ("import os\nprint(1)\n", "2 lines of text."),
    ],
)
def test_other_files_are_described_by_their_form(text, told):
    assert told in ScriptedCoder().understand(text, "what is this?")


def test_a_script_that_has_lost_its_model():
    text = starter("ames").replace("model = Ridge(alpha=1.0)\n", "")
    with pytest.raises(CoderError, match="model"):
        ScriptedCoder().understand(text, "what is the model?")
