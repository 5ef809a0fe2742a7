"""What the scripted expert knows by itself: first things to try, follies, and what to do about an error."""

from __future__ import annotations

import re

_FIRST = ("Train on all rows of the training data",)
_LAST = ("Refit the model on all labelled rows before predicting",)
_OWN = {
    "tabular": (
        "Use the 20 numeric columns most correlated with the target",
        "One hot encode the categorical columns",
        "Use gradient boosted trees with 200 iterations",
        "Use a random forest with 100 trees",
        "Predict the logarithm of the target",
    ),
    "image": (
        "Use a random forest with 100 trees",
        "Use an RBF support vector machine with C = 10",
        "Deskew the images",
        "Add copies of the images shifted by one pixel",
        "Standardize the features",
    ),
    "text": (
        "Count the 1000 most frequent words",
        "Read all text columns",
        "Weight words by TF-IDF with logarithmic counts",
        "Use a linear support vector machine with C = 0.01",
        "Use ridge regression with alpha = 10",
    ),
}
_BAD = (
    "Train on the first 80 rows only",
    "Use a single decision tree of depth 3",
    "Reduce the features to 2 components",
)

# A pattern of the last lines of a failed run, and the edit that mends it.
_REPAIRS = (
    (r"contains NaN|missing values", "Fill gaps with the median"),
    (r"could not convert string", "One hot encode the categorical columns"),
    (r"Negative values", "Scale the features to the range 0 to 1"),
    (r"[Ss]parse (data|matrices|input)", "Make the word counts a dense array"),
    (r"n_components=\d+ must be", "Reduce the features to 2 components"),
    (r"'normalize' is not defined", "Scale each row to unit length"),
)


def own_ideas(kind: str) -> tuple[str, ...]:
    """In the order in which they are tried. A kind of data that is not known has few."""
    return (*_FIRST, *_OWN.get(kind.split()[0], ()), *_LAST)


def bad_ideas(kind: str) -> tuple[str, ...]:
    return _BAD


def repair(output: str) -> str:
    """The instruction that mends a script which ended with this output; "" if none is known."""
    return next((edit for pattern, edit in _REPAIRS if re.search(pattern, output[-400:])), "")
