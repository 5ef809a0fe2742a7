"""From a script back to its pipeline.

What stands at the places where a pipeline has its choices is parsed as Python; then the script must be, letter for
letter, what the pipeline found so renders to. So a script that says anything else is refused, never half understood.
"""

from __future__ import annotations

import ast
import functools
from itertools import zip_longest
from typing import Any

from mlagent_jax.pipelines.metrics import SCORES, problem_type
from mlagent_jax.pipelines.option import Option
from mlagent_jax.pipelines.options import OPTIONS
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Facts, Pipeline, PipelineError
from mlagent_jax.pipelines.rendering import ARRAYS, render

_COLUMNS = {"table": "features", "text": "text_columns", "graph": "columns"}
_SHOWN = 70


class _NotThereError(Exception):
    """A part that every pipeline's script has is not in this one."""


@functools.lru_cache(maxsize=1024)  # episodes come back to the same scripts
def read(text: str) -> Pipeline:
    """Raises PipelineError if the script is not one that a pipeline renders to."""
    try:
        found = _Script(text).pipeline()
        same = render(found)
    except _NotThereError as error:
        raise PipelineError(f"the script is no pipeline that can be edited: it has no {error}") from None
    except (KeyError, ValueError, AttributeError, IndexError, TypeError, SyntaxError, RecursionError):
        raise PipelineError(
            "the script is no pipeline that can be edited: a part of it is of another form"
        ) from None
    if same != text:
        raise PipelineError(f"the script is no pipeline that can be edited: {_difference(text, same)}")
    return found


def _difference(text: str, same: str) -> str:
    pairs = enumerate(zip_longest(text.splitlines(), same.splitlines(), fillvalue=""), 1)
    number, (line, other) = next((pair for pair in pairs if pair[1][0] != pair[1][1]), (1, (text, same)))
    return f"line {number} is {line[:_SHOWN]!r} where a pipeline has {other[:_SHOWN]!r}"


class _Script:
    """One script that is being read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._slots: dict[str, Choice] = {}
        self._views: list[Choice] = []

    def pipeline(self) -> Pipeline:
        text, kind = self._text, self._kind()
        facts = self._facts(kind)
        learnt = problem_type(facts.metric)
        self._callees = _callees(kind, learnt)
        self._note(ast.parse(f"({', '.join(self._expressions(kind))},)", mode="eval").body)
        others: dict[str, Any] = {}
        if "some_pixels(features(X_fit)" in text:
            others["pixels"] = ast.literal_eval(self._between("some_pixels(features(X_fit), y_fit, ", ")"))
        head = self._between('train = pd.read_csv("data/train.csv")', "\n")
        return Pipeline(
            facts=facts,
            rows=ast.literal_eval(head.removeprefix(".head(").removesuffix(")")) if head else None,
            columns=self._columns(kind),
            views=tuple(self._views),
            holdout=ast.literal_eval(self._between("test_size=", ",")),
            refit=text.count("\nmodel.fit(") > 1,
            **{"estimator": self._slots["estimator"], **self._slots, **others},
        )

    def _between(self, start: str, end: str) -> str:
        """What stands between the first `start` and the `end` that follows."""
        begin = self._text.find(start)
        stop = self._text.find(end, begin + len(start))
        if begin < 0 or stop < 0:
            raise _NotThereError(repr(start.strip()))
        return self._text[begin + len(start) : stop]

    def _kind(self) -> str:
        for kind, name in ARRAYS.items():
            if f"\ndef features({name}):" in self._text:
                return kind
        marks = {"pair": "\ndef features(frame, part):", "text": "\ntext_columns = ", "graph": "\nlinks = "}
        return next((kind for kind, mark in marks.items() if mark in self._text), "table")

    def _facts(self, kind: str) -> Facts:
        title, metric = self._between('"""', '"""'), self._between('\nprint(f"validation ', ":")
        if metric not in SCORES:
            raise _NotThereError(f"metric of the suite but {metric!r}")
        array, scale = "", 1
        if kind in ARRAYS:
            array, _, over = self._between('\nX_test = np.load("data/test_', "\n").partition('.npy")')
            scale = ast.literal_eval(over.removeprefix(" / ")) if over else 1
        if kind == "image_to_image":
            target = self._between('\ny = np.load("data/train_', '.npy")')
            return Facts(kind, title, metric, target, array=array, scale=scale)
        if kind == "pair":
            array = " ".join(ast.literal_eval(self._between("\nfirst, second, group = ", "\n")))
        target = ast.literal_eval(self._between("\ntarget = ", "\n"))
        identity = ast.literal_eval(self._between("\nsubmission = pd.DataFrame({", ":"))
        return Facts(kind, title, metric, target, identity, array, scale)

    def _columns(self, kind: str) -> tuple[str, ...] | str:
        if kind not in _COLUMNS:
            return ()
        said = self._between(f"\n{_COLUMNS[kind]} = ", "\nX" if kind != "graph" else "\ny = ")
        if said.startswith("["):
            return tuple(ast.literal_eval(said))
        return NUMERIC if "select_dtypes" in said else EVERY

    def _expressions(self, kind: str) -> list[str]:
        """The code in which choices stand."""
        found = [self._between("\nmodel = ", "\nmodel.fit(")]
        if kind in ARRAYS or kind == "pair":
            body = self._between("\ndef features(", "\n\n\n")
            found.append(body.partition("\n    return ")[2])
            name = ARRAYS.get(kind, "frame")
            found += [
                line.partition(" = ")[2] for line in body.split("\n") if line.startswith(f"    {name} = ")
            ]
        elif kind == "graph":
            found.append(self._between("\nfeatures = ", "\nX, X_test"))
        elif kind == "text" and "\nX, X_test = " in self._text:
            found.append(self._between("\nX, X_test = ", ","))
        split = self._between("\nX_fit, X_valid", "\n\n").split("\n")
        return found + [line.partition(" = ")[2] for line in split[1:]]

    def _note(self, node: ast.AST) -> None:
        """Notes the choices that the calls in an expression stand for."""
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name.startswith("Voting"):
                first, second = node.args[0].elts  # type: ignore[attr-defined]
                self._slots["ensemble"] = Choice(f"with_{second.elts[0].value.removesuffix('_2')}")
                return self._note(first.elts[1])
            if name in self._callees:
                option = next(one for one in self._callees[name] if _fixed(node, one) == _fixed_of(one.fixed))
                self._choose(option, node)
                if option.slot not in ("target", "ensemble"):
                    return None
            for argument in node.args:
                self._note(argument)
        elif isinstance(node, ast.List | ast.Tuple):
            for item in node.elts:
                self._note(item)
        elif isinstance(node, ast.Subscript):
            self._note(node.value)
        return None

    def _choose(self, option: Option, node: ast.Call) -> None:
        given = ((one.arg or "", one.value) for one in node.keywords if one.arg in option.params)
        choice = Choice(option.name, tuple((name, ast.literal_eval(value)) for name, value in given))
        if option.slot == "views":
            self._views.append(choice)
        else:
            self._slots[option.slot] = choice


@functools.cache
def _callees(kind: str, learnt: str) -> dict[str, list[Option]]:
    found: dict[str, list[Option]] = {}
    for option in OPTIONS:
        if option.supports(kind, learnt):
            found.setdefault(option.callee(learnt), []).append(option)
    return found


def _fixed(node: ast.Call, option: Option) -> frozenset[str]:
    others = (one for one in node.keywords if one.arg not in option.params)
    return frozenset(f"{one.arg}={ast.unparse(one.value)}" for one in others)


@functools.cache
def _fixed_of(fixed: str) -> frozenset[str]:
    return frozenset(part.replace('"', "'") for part in fixed.split("; ") if part)
