"""Edited scripts do run: on small made-up data, and the helper functions do what their names say."""

import re
import runpy
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from quickstart_tasks import STARTERS

from mlagent_jax.agent.edits import catalogue, helpers


def write_tables(name, folder):
    """Made-up rows with the columns that the starter reads."""
    rng = np.random.default_rng(0)
    for part, rows in (("train", 120), ("test", 20)):
        frame = pd.DataFrame({"id": range(rows)})
        if name == "ames":
            for column in (
                "lot_area",
                "gr_liv_area",
                "bedroom_abvgr",
                "full_bath",
                "year_sold",
                "garage_area",
            ):
                frame[column] = rng.integers(1, 100, rows)
            frame["street"] = rng.choice(["a", "b", None], rows)
            target = frame["gr_liv_area"] * 1000 + rng.integers(1, 1000, rows)
        elif name == "digits8":
            target = pd.Series(rng.integers(0, 10, rows))
            images = rng.integers(0, 4, (rows, 8, 8), dtype=np.uint8)
            images[np.arange(rows), target % 8] += 12
            np.save(folder / f"{part}_images.npy", images)
        else:
            frame["artist"] = rng.choice(["Ann", "Bob"], rows)
            frame["title"] = rng.choice(["red boats", "old hills!", "two 2 trees"], rows)
            frame["medium"] = rng.choice(["oil on canvas", "ink on paper", None], rows)
            target = 1900 + 50 * (frame["artist"] == "Ann") + rng.integers(0, 9, rows)
        if part == "train":
            frame[{"ames": "sale_price", "digits8": "digit", "tate": "year"}[name]] = target
        frame.to_csv(folder / f"{part}.csv", index=False)


@pytest.fixture(params=["ames", "digits8", "tate"])
def place(request, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    write_tables(request.param, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return request.param


MIXED = {
    "ames": [
        "Train on all rows of the training data",
        "Leave out the 2% most extreme targets",
        "One hot encode the categorical columns",
        "Use the 5 numeric columns most correlated with the target",
        "Take logarithms of the features",
        "Average the model with a random forest",
        "Predict the logarithm of the target",
        "Clip the predictions to the range of the training target",
        "Refit the model on all labelled rows before predicting",
    ],
    "digits8": [
        "Deskew the images",
        "Blur the images with sigma 0.5",
        "Add histograms of gradients in cells, 2 a side",
        "Add copies of the images shifted by one pixel",
        "Use an RBF support vector machine with C = 10",
        "Bag 5 copies of the model",
        "Refit the model on all labelled rows before predicting",
    ],
    "tate": [
        "Read all text columns",
        "Weight words by TF-IDF with logarithmic counts",
        "Count groups of 2 to 4 letters beside the words",
        "Add the length of each text",
        "Drop punctuation from the texts",
        "Make the word counts a dense array",
        "Use gradient boosted trees with 50 iterations",
        "Hold out 20% of the rows for validation",
    ],
}

# Failures that a person would meet as well; everything else must run on the made-up data.
HONEST = (
    "No module named",
    "name 'normalize' is not defined",
    "[Ss]parse",
    "NaN|missing values",
    "could not convert string",
    "n_components|n_neighbors",
    "[Nn]egative values",
    "least populated class",
    "Unknown label type",
    "does not support sample_weight|doesn't support sample weight",
    "BaseClassifier in AdaBoostClassifier ensemble is worse than random",
    "After pruning, no terms remain|empty vocabulary",
    "The covariance matrix|collinear|full rank",
    "all features|Found array with 0",
    "underlying estimator",
    r"less than \d examples",
)


def run(text, capsys):
    Path("train.py").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path("train.py")
    submission = pd.read_csv("submission.csv")
    assert len(submission) == 20 and submission.columns[0] == "id" and not submission.isna().any().any()
    assert "validation " in capsys.readouterr().out


def test_many_edits_together_run(place, capsys):
    text = STARTERS[place]
    for line in MIXED[place]:
        text = catalogue.apply(text, line)
    run(text, capsys)


@pytest.mark.slow
def test_every_idea_runs_or_fails_honestly(place, capsys):
    kind = {"ames": "tabular regression", "digits8": "image classification", "tate": "text regression"}[place]
    ran = 0
    for edit in catalogue.CATALOGUE:
        if kind not in edit.kinds:
            continue
        text = catalogue.apply(STARTERS[place], edit.lines()[0])
        try:
            run(text, capsys)
            ran += 1
        except Exception as error:
            assert re.search("|".join(HONEST), str(error)), (edit.id, error)
    assert ran >= 40


def images(*pictures):
    return np.array(pictures, float).reshape(len(pictures), -1)


def test_deskewing_makes_a_slanted_line_upright():
    slanted = np.zeros((9, 9))
    slanted[np.arange(1, 8), np.arange(1, 8)] = 1
    upright = helpers.deskewed(images(slanted)).reshape(9, 9)
    columns = (upright * np.arange(9)).sum(axis=1)[2:7] / upright.sum(axis=1)[2:7]
    assert np.ptp(columns) < 0.5
    assert upright.sum() == pytest.approx(slanted.sum(), rel=0.3)


def test_copies_are_shifted_one_pixel_each_way():
    dot = np.zeros((3, 3))
    dot[1, 1] = 1
    X, y = helpers.shifted(images(dot), np.array([7]))
    assert X.shape == (5, 9) and list(y) == [7] * 5
    assert {tuple(np.argwhere(row.reshape(3, 3))[0]) for row in X} == {(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)}


def test_mirrored_copies():
    X, y = helpers.mirrored(images([[1, 0], [0, 0]]), pd.Series(["a"]))
    assert X.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]] and list(y) == ["a", "a"]


def test_shapes_of_image_features():
    X = np.random.default_rng(0).random((3, 64))
    assert helpers.halved(X).shape == (3, 16)
    assert helpers.cropped(X, 2).shape == (3, 16)
    assert helpers.with_profiles(X).shape == (3, 64 + 16)
    assert helpers.with_gradients(X, 2).shape == (3, 64 + 8 * 4)
    np.testing.assert_allclose(helpers.halved(X)[0, 0], X[0].reshape(8, 8)[:2, :2].mean())
    np.testing.assert_allclose(helpers.contrasted(X).std(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(helpers.with_profiles(X)[:, 64:72], X.reshape(3, 8, 8).sum(axis=1))


def test_a_vertical_edge_has_a_horizontal_gradient():
    edge = np.zeros((4, 4))
    edge[:, 2:] = 1
    added = helpers.with_gradients(images(edge), 1)[0, 16:]
    assert np.count_nonzero(added) == 1


def test_rows_are_left_out_by_their_targets():
    X, y = pd.DataFrame({"a": range(100)}), pd.Series(range(100))
    kept, targets = helpers.without_outliers(X, y, 0.1)
    assert len(kept) == len(targets) == 80 and targets.min() == 10 and targets.max() == 89
    X.loc[3, "a"] = np.nan
    assert len(helpers.without_gaps(X, y)[0]) == 98  # row 0 holds a zero
    part, _ = helpers.part_of(X, y, 0.5)
    assert 30 < len(part) < 70


def test_the_most_correlated_columns():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": range(50), "noise": rng.random(50), "y": range(50), "x": range(50, 0, -1)})
    assert helpers.most_correlated(frame, "y", 1) == ["x"]
