"""The form of scripts: imports, helper functions and calls, as ruff would write them."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH = 110

# What scripts import, beside what their helpers need.
_IMPORTS = """
from scipy.stats import spearmanr
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, VotingClassifier, VotingRegressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectPercentile, f_classif, f_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, roc_auc_score
from sklearn.metrics import root_mean_squared_error, root_mean_squared_log_error
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, Normalizer, OneHotEncoder
from sklearn.preprocessing import OrdinalEncoder, QuantileTransformer, StandardScaler, TargetEncoder
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
"""
_HELPERS = Path(__file__).with_name("helpers.py")


def names_in(code: str) -> set[str]:
    """The words of code outside of its strings."""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r'"[^"\n]*"', "", code)))


def imports(code: str) -> str:
    """The lines that import what the code uses, in the order of isort."""
    words = names_in(code)
    wanted: dict[str, list[str]] = {}
    modules = _modules()
    for name in words & modules.keys():
        wanted.setdefault(modules[name], []).append(name)
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
    parts = [part for part in map(_flat, node.items) if part is not None]
    if len(parts) < len(node.items):
        return None
    return f"{node.opening}{', '.join(parts)}{node.closing}"


@functools.cache
def _modules() -> dict[str, str]:
    """Where each name is imported from."""
    nodes = ast.parse(_IMPORTS + _HELPERS.read_text()).body
    found = (node for node in nodes if isinstance(node, ast.ImportFrom))
    return {name.name: node.module or "" for node in found for name in node.names}


@functools.cache
def helper_sources() -> dict[str, str]:
    """The text of each function in `helpers`."""
    text = _HELPERS.read_text()
    functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return {one.name: ast.get_source_segment(text, one) or "" for one in functions}


def helpers(code: str) -> list[str]:
    """The text of each helper that the code uses, in the order of `helpers`."""
    used = names_in(code)
    return [text for name, text in helper_sources().items() if name in used]
