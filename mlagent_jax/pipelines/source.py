"""The form of scripts: imports, helper functions and calls, as ruff would write them."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH = 110

_MODULES = {
    "scipy.ndimage": (
        *("affine_transform", "gaussian_filter", "maximum_filter", "median_filter", "minimum_filter"),
        "uniform_filter",
    ),
    "scipy.sparse": ("coo_array",),
    "scipy.sparse.linalg": ("eigsh",),
    "scipy.stats": ("spearmanr",),
    "sklearn.compose": ("TransformedTargetRegressor", "make_column_selector", "make_column_transformer"),
    "sklearn.decomposition": ("PCA", "TruncatedSVD"),
    "sklearn.ensemble": tuple(
        f"{name}{kind}"
        for name in ("Bagging", "ExtraTrees", "HistGradientBoosting", "RandomForest", "Voting")
        for kind in ("Classifier", "Regressor")
    ),
    "sklearn.feature_extraction.text": ("CountVectorizer", "TfidfVectorizer"),
    "sklearn.feature_selection": ("SelectPercentile", "f_classif", "f_regression"),
    "sklearn.impute": ("SimpleImputer",),
    "sklearn.linear_model": ("Lasso", "LogisticRegression", "Ridge", "RidgeClassifier"),
    "sklearn.metrics": (
        *("accuracy_score", "f1_score", "mean_absolute_error", "roc_auc_score"),
        *("root_mean_squared_error", "root_mean_squared_log_error"),
    ),
    "sklearn.model_selection": ("GridSearchCV", "train_test_split"),
    "sklearn.naive_bayes": ("ComplementNB", "MultinomialNB"),
    "sklearn.neighbors": ("KNeighborsClassifier", "KNeighborsRegressor", "NearestCentroid"),
    "sklearn.neural_network": ("MLPClassifier", "MLPRegressor"),
    "sklearn.pipeline": ("make_pipeline", "make_union"),
    "sklearn.preprocessing": (
        *("FunctionTransformer", "MaxAbsScaler", "MinMaxScaler", "Normalizer", "OneHotEncoder"),
        *("OrdinalEncoder", "QuantileTransformer", "StandardScaler", "TargetEncoder"),
    ),
    "sklearn.svm": ("SVC", "SVR", "LinearSVC", "LinearSVR"),
    "sklearn.tree": ("DecisionTreeClassifier", "DecisionTreeRegressor"),
}
_FROM = {name: module for module, names in _MODULES.items() for name in names}


def names_in(code: str) -> set[str]:
    """The words of code outside of its strings."""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r'"[^"\n]*"', "", code)))


def imports(code: str) -> str:
    """The lines that import what the code uses, in the order of isort."""
    words = names_in(code)
    wanted: dict[str, list[str]] = {}
    for name in words & _FROM.keys():
        wanted.setdefault(_FROM[name], []).append(name)
    lines = [
        f"import {name} as {short}" for short, name in (("np", "numpy"), ("pd", "pandas")) if short in words
    ]
    for module in sorted(wanted):
        names = sorted(wanted[module], key=lambda name: (not name.isupper(), name[0].islower(), name))
        lines.append(_import(module, names))
    return "\n".join(lines)


def _import(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


@dataclass(frozen=True)
class Group:
    """A call or a list: what opens it, its items and what closes it. lines: one item a line even if all fits."""

    opening: str
    items: tuple[str | Group, ...]
    closing: str
    lines: bool = False


def call(name: str, items: Sequence[str | Group], lines: bool = False) -> Group:
    return Group(f"{name}(", tuple(items), ")", lines)


def listed(items: Sequence[str | Group]) -> Group:
    return Group("[", tuple(items), "]")


def lay_out(node: str | Group, indent: int = 0, before: int = 0) -> str:
    """The expression, on one line where it fits, else one item a line. before: width of what stands before it."""
    if isinstance(node, str):
        return node
    flat = _flat(node)
    if flat is not None and indent + before + len(flat) < WIDTH:
        return flat
    pad = " " * (indent + 4)
    inner = "".join(f"{pad}{lay_out(item, indent + 4)},\n" for item in node.items)
    return f"{node.opening}\n{inner}{' ' * indent}{node.closing}"


def _flat(node: str | Group) -> str | None:
    """On one line; None if that is not wanted."""
    if isinstance(node, str):
        return node
    if node.lines:
        return None
    parts = [_flat(item) for item in node.items]
    return None if None in parts else f"{node.opening}{', '.join(parts)}{node.closing}"  # type: ignore[arg-type]


@functools.cache
def helper_sources() -> dict[str, str]:
    """The text of each function in `helpers`."""
    text = Path(__file__).with_name("helpers.py").read_text()
    functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return {one.name: ast.get_source_segment(text, one) or "" for one in functions}


@functools.cache
def _helper_order() -> dict[str, int]:
    return {name: place for place, name in enumerate(helper_sources())}


def helpers(code: str) -> list[str]:
    """The text of each helper that the code uses, in the order of `helpers`."""
    order = _helper_order()
    used = sorted(names_in(code) & order.keys(), key=order.__getitem__)
    return [helper_sources()[name] for name in used]
