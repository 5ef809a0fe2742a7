"""The catalogue: every edit on every starter it suits, in any order, and every wording back to its own edit."""

import ast
import builtins
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quickstart_tasks import STARTERS

from mlagent_jax.agent.edits import catalogue, script
from mlagent_jax.agent.edits.tidy import tidy
from mlagent_jax.environment.coder import CoderError

KINDS = {name: script.problem(text).kind for name, text in STARTERS.items()}

# One entry of each way to change a script.
ONE_OF_EACH_SORT = [
    "all_rows",
    "standardize",
    "select",
    "outliers",
    "correlated",
    "one_hot",
    "raw_categories",
    "forest",
    "neighbors",
    "log_target",
    "refit",
    "clip",
    "strength",
    "rate",
    "tune",
    "bag",
    "average_forest",
    "valid_share",
]

every_starter = pytest.mark.parametrize("name", sorted(STARTERS))


def entries(kind):
    return [edit for edit in catalogue.CATALOGUE if kind in edit.kinds]


def names_of(text):
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def test_the_starters_are_of_the_kinds_that_their_tasks_say():
    for name, kind in KINDS.items():
        told = (Path(__file__).parents[2] / "tasks" / name / "task.toml").read_text()
        assert f'kind = "{kind}"' in told


def test_ids_are_unique_and_the_catalogue_is_large():
    ids = [edit.id for edit in catalogue.CATALOGUE]
    assert len(set(ids)) == len(ids) >= 40
    for kind in KINDS.values():
        assert len(catalogue.ideas(kind)) >= 100
        assert all(len(catalogue.ideas(kind, axis)) >= 40 for axis in catalogue.AXES)


@every_starter
def test_every_idea_makes_another_valid_script(name):
    starter = STARTERS[name]
    for edit in entries(KINDS[name]):
        for line in dict.fromkeys([edit.lines()[-1], edit.lines()[0]]):
            edited = catalogue.apply(starter, line)
            compile(edited, line, "exec")
            assert edited != starter, line
        assert catalogue.apply(edited, line) == edited, f"{line} is not idempotent"


@every_starter
def test_imports_are_what_the_script_uses(name):
    """But for the one entry that forgets its import."""
    for edit in entries(KINDS[name]):
        if edit.id == "row_sums":
            continue
        tree = ast.parse(catalogue.apply(STARTERS[name], edit.lines()[0]))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        bound = [alias.asname or alias.name for node in imports for alias in node.names]
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        defined = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        defined |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        defined |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        assert set(bound) <= used and len(set(bound)) == len(bound), edit.id
        assert used - defined - set(bound) <= set(dir(builtins)), edit.id


def test_an_entry_forgets_its_import_as_it_says():
    text = catalogue.apply(STARTERS["ames"], "Divide each row by its sum")
    assert "normalize" in names_of(text) and "import normalize" not in text


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(STARTERS)), st.data())
def test_edits_compose(name, data):
    """Up to four edits in a row: each applies and gives valid Python, or says why it doesn't."""
    text = STARTERS[name]
    for line in data.draw(st.lists(st.sampled_from(catalogue.ideas(KINDS[name])), min_size=1, max_size=4)):
        try:
            text = catalogue.apply(text, line)
        except CoderError as error:
            assert 10 < len(str(error)) < 200
            continue
        compile(text, line, "exec")
        module = script.parse(text)
        assert script.problem(text).kind == KINDS[name]
        script.assigned(module, "model")
        assert tidy(module) == text


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "ames",
            [
                "One hot encode the categorical columns",
                "Standardize the features",
                "Predict the logarithm of the target",
                "Refit the model on all labelled rows before predicting",
            ],
        ),
        ("ames", ["Use the 20 numeric columns most correlated with the target", "Fill gaps with the median"]),
        (
            "digits8",
            [
                "Deskew the images",
                "Add copies of the images shifted by one pixel",
                "Use an RBF support vector machine with C = 10",
                "Train on all rows of the training data",
            ],
        ),
        (
            "tate",
            [
                "Weight words by TF-IDF",
                "Count pairs of words too",
                "Drop digits from the texts",
                "Read only the first 100 letters of each text",
            ],
        ),
        (
            "foods",
            ["Train on a random 50% of the rows", "Refit the model on all labelled rows before predicting"],
        ),
    ],
)
def test_what_is_independent_commutes(name, lines):
    results = set()
    for order in itertools.permutations(lines):
        text = STARTERS[name]
        for line in order:
            text = catalogue.apply(text, line)
        results.add(text)
    assert len(results) == 1


@every_starter
def test_every_idea_is_recognised_as_its_own_edit(name):
    problem = script.problem(STARTERS[name])
    for edit in entries(KINDS[name]):
        for values in edit.offers():
            assert catalogue.recognise(edit.line(values), problem) == (edit, values)
            assert catalogue.recognise(f"{edit.line(values).upper()}.", problem) == (edit, values)


@pytest.mark.parametrize(
    ("name", "instruction", "id", "values"),
    [
        ("ames", "Replace the model with a RandomForestRegressor of 300 trees", "forest", {"n": 300}),
        ("ames", "replace Ridge by a random forest of 300 trees", "forest", {"n": 300}),
        ("ames", "try gradient boosting", "boosting", {"n": 200}),
        ("ames", "log-transform the target", "log_target", {}),
        ("ames", "use one-hot encoding for categoricals", "one_hot", {}),
        ("ames", "impute missing values with the median", "median", {}),
        ("ames", "use 7 nearest neighbours", "neighbors", {"k": 7}),
        ("digits8", "switch to an SVM with C=5", "svm", {"c": 5}),
        ("digits8", "reduce to 30 PCA components", "components", {"k": 30}),
        ("digits8", "train the model again (refit) on every labelled row", "refit", {}),
        ("foods", "use tfidf features", "tfidf", {}),
        ("foods", "keep only the 2,000 most frequent words", "most_frequent", {"n": 2000}),
        ("foods", "add bigrams", "pairs", {}),
        ("tate", "regularise with strength 5", "strength", {"s": 5}),
    ],
)
def test_other_words_for_the_same(name, instruction, id, values):
    problem = script.problem(STARTERS[name])
    edit, read = catalogue.recognise(instruction, problem)
    assert (edit.id, dict(read)) == (id, values)


def test_every_wording_is_recognised_by_its_keywords_alone():
    """So that a wording that is almost right means the same edit and no other of that kind."""
    for kind in set(KINDS.values()):
        for edit in entries(kind):
            text = catalogue.normalise(edit.lines()[0])
            assert [other.id for other in entries(kind) if other.loose(text)] == [edit.id], text


def test_two_instructions_in_one_line():
    both = catalogue.apply(STARTERS["ames"], "Standardize the features; use 5 nearest neighbors")
    assert "StandardScaler()" in both and "KNeighborsRegressor(n_neighbors=5)" in both
    assert catalogue.apply(STARTERS["ames"], "use 5 nearest neighbors and standardize the features") == both


@pytest.mark.parametrize(
    ("name", "instruction", "message"),
    [
        ("ames", "Make it better", "does not understand 'Make it better'; it can do things like"),
        ("ames", "", "does not understand"),
        ("ames", "x" * 500, "does not understand 'xxx"),
        ("ames", "Use 0 nearest neighbors", "k is 0, expected a whole number from 1 to"),
        ("ames", "Use 99999999999999999999 nearest neighbors", "k is 9999"),
        ("ames", "Use a random forest with 2.5 trees", "n is 2.5, expected a whole number"),
        ("ames", "Deskew the images", "suits no tabular regression script"),
        ("digits8", "Weight words by TF-IDF", "suits no image classification script"),
    ],
)
def test_what_cannot_be_done_is_said(name, instruction, message):
    with pytest.raises(CoderError, match=message) as error:
        catalogue.apply(STARTERS[name], instruction)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "not valid Python"),
        ("print('hello')\n", "no starter-like script"),
        (
            STARTERS["ames"].replace("model = Ridge(alpha=1.0)\n", ""),
            "exactly one top-level line 'model = ...'",
        ),
        (STARTERS["ames"].replace("Ridge(alpha=1.0)", "1"), "expected a call"),
        ("", "no starter-like script"),
    ],
)
def test_scripts_that_are_no_starters(text, message):
    with pytest.raises(CoderError, match=message):
        catalogue.apply(text, "Standardize the features")


def test_the_model_keeps_its_steps_when_it_is_replaced():
    text = STARTERS["ames"]
    for line in (
        "Standardize the features",
        "Predict the logarithm of the target",
        "Use 5 nearest neighbors",
    ):
        text = catalogue.apply(text, line)
    assert "StandardScaler(), KNeighborsRegressor(n_neighbors=5)" in text
    assert "func=np.log1p" in text and "Ridge" not in text


def test_a_knob_turns_inside_an_ensemble():
    text = catalogue.apply(STARTERS["ames"], "Average the model with a random forest")
    text = catalogue.apply(text, "Set the regularization strength to 100")
    assert '("first", Ridge(alpha=100))' in text


def test_a_knob_that_the_model_lacks():
    text = catalogue.apply(STARTERS["ames"], "Use 5 nearest neighbors")
    with pytest.raises(
        CoderError, match="KNeighborsRegressor has no regularization strength to set, as Ridge"
    ):
        catalogue.apply(text, "Set the regularization strength to 10")


def test_tables_are_scaled_for_models_that_need_it():
    assert "StandardScaler" in catalogue.apply(STARTERS["ames"], "Use 5 nearest neighbors")
    ranked = catalogue.apply(STARTERS["ames"], "Replace the features by their ranks")
    assert "StandardScaler" not in catalogue.apply(ranked, "Use 5 nearest neighbors")
    assert "StandardScaler" not in catalogue.apply(STARTERS["foods"], "Use 5 nearest neighbors")


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(sorted(STARTERS)), st.data())
def test_any_instruction_edits_or_is_refused(name, data):
    """Idea lines with words left out, doubled or replaced: what a small model might say."""
    line = data.draw(st.sampled_from(catalogue.ideas(None)))
    words = line.split()
    for _ in range(data.draw(st.integers(0, 3))):
        index = data.draw(st.integers(0, len(words)))
        words[index : index + 1] = data.draw(
            st.lists(
                st.sampled_from([*words, "and", ";", "0", "-1", "1e9", "99", ""]) | st.text(max_size=8),
                max_size=2,
            )
        )
    try:
        compile(catalogue.apply(STARTERS[name], " ".join(words)), "edited", "exec")
    except CoderError as error:
        assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.fit(X_fit, y_fit)", "model.fit(X=X_fit, y=y_fit)"),
        ("model.fit(X_fit, y_fit)", "model.fit(*balanced(X_fit, y_fit))"),
        ("model.fit(X_fit, y_fit)", "model.fit()"),
        ("model.fit(X_fit, y_fit)", "model.fit(*[X_fit, y_fit])"),
        ("model.fit(X_fit, y_fit)", "if True:\n    model.fit(X_fit, y_fit)"),
        ("model = Ridge(alpha=1.0)", "model = sklearn.linear_model.Ridge()"),
        ("model = Ridge(alpha=1.0)", "model = VotingRegressor(members)"),
        ("model = Ridge(alpha=1.0)", "model = BaggingRegressor()"),
        ("model = Ridge(alpha=1.0)", "model = VotingRegressor([])"),
        ("model = Ridge(alpha=1.0)", "model = VotingRegressor([(Ridge(),)])"),
        ("model = Ridge(alpha=1.0)", "model = VotingRegressor()"),
        ("model = Ridge(alpha=1.0)", "model = make_pipeline()"),
        ("model = Ridge(alpha=1.0)", "model = make_pipeline(*steps)"),
        ("model = Ridge(alpha=1.0)", "model: Ridge = Ridge()"),
        ("train = pd.read_csv", "train = other = pd.read_csv"),
        ("predictions = np.clip", "result = np.clip"),
        ("from sklearn.linear_model import Ridge", "from sklearn.linear_model import *"),
        ("import numpy as np", "import numpy as np, os.path"),
    ],
)
def test_scripts_written_in_another_way_are_edited_or_refused(old, new):
    text = STARTERS["ames"]
    assert old in text
    changed = text.replace(old, new, 1)
    for edit in entries("tabular regression"):
        if edit.id not in ONE_OF_EACH_SORT:
            continue
        try:
            compile(catalogue.apply(changed, edit.lines()[0]), edit.id, "exec")
        except CoderError as error:
            assert len(str(error)) < 300
