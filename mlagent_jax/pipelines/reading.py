"""From a script back to its pipeline.

What stands at the places where a pipeline has its choices is parsed as Python; then the script must be, letter for
letter, what the pipeline found so renders to. So a script that says anything else is refused, never half understood.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from mlagent_jax.pipelines.metrics import SCORES
from mlagent_jax.pipelines.option import Option
from mlagent_jax.pipelines.options import OPTIONS
from mlagent_jax.pipelines.pipeline import EVERY, NUMERIC, Choice, Facts, Pipeline, PipelineError
from mlagent_jax.pipelines.rendering import ARRAYS, render

_COLUMNS = {"table": "features", "text": "text_columns", "graph": "columns"}
# Where choices of inputs begin and end. No more than choices is parsed, as parsing takes most of the time.
_INPUTS = {
    **dict.fromkeys((*ARRAYS, "pair"), (("\ndef features(", "\n\n\n"),)),
    "text": (("\ny = train[target]", "\n\n"),),
    "graph": (("\nfeatures = ", "\nX, X_test"),),
}
_SHOWN = 70
_Callees = Mapping[str, Sequence[tuple[Option, frozenset[str]]]]


class _NotThereError(Exception):
    """A part that every pipeline's script has is not in this one."""


@functools.lru_cache(maxsize=1024)  # episodes come back to the same scripts
def read(text: str) -> Pipeline:
    """Raises PipelineError if the script is not one that a pipeline renders to."""
    try:
        found = _Script(text).pipeline()
        same = render(found)
    except _NotThereError as error:
        problem = f"it has no {error}"
    except (KeyError, ValueError, AttributeError, IndexError, TypeError, SyntaxError, RecursionError):
        problem = "a part of it is of another form"
    else:
        if same == text:
            return found
        problem = _difference(text, same)
    raise PipelineError(f"the script is no pipeline that can be edited: {problem}")


def _difference(text: str, same: str) -> str:
    pairs = enumerate(zip_longest(text.splitlines(), same.splitlines(), fillvalue=""), 1)
    number, (line, other) = next((pair for pair in pairs if pair[1][0] != pair[1][1]), (1, (text, same)))
    return f"line {number} is {line[:_SHOWN]!r} where a pipeline has {other[:_SHOWN]!r}"


class _Script:
    """One script that is being read."""

    def __init__(self, text: str) -> None:
        self._text = text

    def pipeline(self) -> Pipeline:
        text, kind = self._text, self._kind()
        facts = self._facts(kind)
        places = (*_INPUTS.get(kind, ()), ("\nX_fit, X_valid", "\n\n"), ("\nmodel = ", "\nmodel.fit("))
        code = "".join(start + self._between(start, end) for start, end in places)
        found = list(_choices(ast.parse(code), _callees(kind, facts.goal)))
        pixels = "some_pixels(features(X_fit), y_fit, "
        head = self._between('train = pd.read_csv("data/train.csv")', "\n")
        return Pipeline(
            facts=facts,
            rows=ast.literal_eval(head.removeprefix(".head(").removesuffix(")")) if head else None,
            columns=self._columns(kind),
            views=tuple(choice for slot, choice in found if slot == "views"),
            holdout=ast.literal_eval(self._between("test_size=", ",")),
            refit=text.count("\nmodel.fit(") > 1,
            pixels=ast.literal_eval(self._between(pixels, ")")) if pixels in text else None,
            **{slot: choice for slot, choice in found if slot != "views"},
        )

    def _between(self, start: str, end: str) -> str:
        """What stands between the first `start` and the `end` that follows."""
        begin = self._text.find(start)
        stop = self._text.find(end, begin + len(start))
        if begin < 0 or stop < 0:
            raise _NotThereError(repr(start.strip()))
        return self._text[begin + len(start) : stop]

    def _kind(self) -> str:
        marks = {kind: f"\ndef features({name}):" for kind, name in ARRAYS.items()}
        marks |= {"pair": "\ndef features(frame, part):", "text": "\ntext_columns = ", "graph": "\nlinks = "}
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


def _choices(node: ast.AST | None, callees: _Callees) -> Iterator[tuple[str, Choice]]:
    """The choices that the calls in a statement or an expression stand for, each with its slot."""
    inner: Sequence[ast.AST | None] = []
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in callees:
            options = callees[name]  # several differ by fixed keywords, second models by a name
            same = [one for one, fixed in options if len(options) > 1 and _fixed(node, one) == fixed]
            option = same[0] if same else options[0][0]
            given = ((one.arg or "", one.value) for one in node.keywords if one.arg in option.params)
            params = tuple((name, ast.literal_eval(value)) for name, value in given)
            if option.second:
                (_, own), (other, _) = (pair.elts for pair in node.args[0].elts)  # type: ignore[attr-defined]
                yield option.slot, Choice(f"with_{other.value.removesuffix('_2')}")
                inner = [own]
            else:
                yield option.slot, Choice(option.name, params)
                inner = node.args if option.slot in ("target", "ensemble") else []
        case ast.Call(args=inner) | ast.List(elts=inner) | ast.Tuple(elts=inner):
            pass
        case ast.Module(body=inner) | ast.FunctionDef(body=inner):
            pass
        case ast.Assign(value=value) | ast.Return(value=value) | ast.Subscript(value=value):
            inner = [value]
    for each in inner:
        yield from _choices(each, callees)


@functools.cache
def _callees(kind: str, learnt: str) -> _Callees:
    """Options by what they call, each with the keywords that it always has."""
    found: dict[str, list[tuple[Option, frozenset[str]]]] = {}
    for option in OPTIONS:
        if option.supports(kind, learnt):
            fixed = frozenset(part.replace('"', "'") for part in option.fixed.split("; ") if part)
            found.setdefault(option.callee(learnt), []).append((option, fixed))
    return found


def _fixed(node: ast.Call, option: Option) -> frozenset[str]:
    others = (one for one in node.keywords if one.arg not in option.params)
    return frozenset(f"{one.arg}={ast.unparse(one.value)}" for one in others)
