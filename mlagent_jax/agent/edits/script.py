"""Reading and changing a starter-like script with libcst: a flat list of statements around `model = ...`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import libcst as cst
from libcst import matchers as m

from mlagent_jax.environment.coder import CoderError

Node = TypeVar("Node", bound=cst.CSTNode)


@dataclass(frozen=True)
class Problem:
    """data: "tabular", "image" or "text". target: "classification" or "regression"."""

    data: str
    target: str

    @property
    def kind(self) -> str:
        """As in `Task.kind`."""
        return f"{self.data} {self.target}"


_REGRESSION_METRICS = ("rmsle", "rmse", "mae", "mse", "r2", "medae", "mape", "spearman", "pearson")


@functools.lru_cache(maxsize=64)  # trees are never changed in place
def parse(text: str) -> cst.Module:
    """Raises CoderError if the text is not Python."""
    try:
        return cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise CoderError(f"the script is not valid Python (line {error.raw_line})") from error


def problem(text: str) -> Problem:
    """Read off the data it loads and the metric it prints. Raises CoderError if it loads none."""
    if "vectorizer" in text:
        data = "text"
    elif "images" in text:
        data = "image"
    elif "features" in text:
        data = "tabular"
    else:
        raise CoderError(
            "the script has neither 'features', 'vectorizer' nor images; it is no starter-like script"
        )
    printed = text.lower().partition("validation ")[2][:20]
    return Problem(data, "regression" if printed.startswith(_REGRESSION_METRICS) else "classification")


def expect(node: object, kind: type[Node]) -> Node:
    """`node`, if it is of this kind. Raises CoderError for a script that is written in another way."""
    if not isinstance(node, kind):
        raise CoderError(
            f"cannot edit this part of the script: found {type(node).__name__}, not {kind.__name__}"
        )
    return node


def expression(source: str) -> cst.BaseExpression:
    return cst.parse_expression(source)


def source_of(node: cst.CSTNode) -> str:
    return cst.Module(body=[]).code_for_node(node)


def is_assignment(node: cst.CSTNode, name: str) -> bool:
    """Whether it is the simple statement `name = ...`."""
    target = m.AssignTarget(target=m.Name(name))
    return m.matches(node, m.SimpleStatementLine(body=[m.Assign(targets=[target])]))


def assigned(module: cst.Module, name: str) -> cst.BaseExpression:
    """Right-hand side of the one top-level `name = ...`. Raises CoderError if there is none, or several."""
    found = [node for node in module.body if is_assignment(node, name)]
    if len(found) != 1:
        raise CoderError(
            f"expected exactly one top-level line '{name} = ...' in the script, found {len(found)}"
        )
    statement = expect(found[0], cst.SimpleStatementLine)
    return expect(statement.body[0], cst.Assign).value


def assign(module: cst.Module, name: str, value: cst.BaseExpression) -> cst.Module:
    """With the right-hand side of the one top-level `name = ...` replaced."""
    old = assigned(module, name)
    index = next(i for i, node in enumerate(module.body) if is_assignment(node, name))
    return replace_in(module, index, old, value)


def replace_in(module: cst.Module, index: int, old: cst.CSTNode, new: cst.CSTNode) -> cst.Module:
    """With a node of the statement at `index` replaced."""
    body: list[cst.CSTNode] = list(module.body)
    body[index] = body[index].deep_replace(old, new)
    return module.with_changes(body=body)


def callee(node: cst.CSTNode) -> str:
    """`f` of `f(...)`, "" for anything else."""
    return node.func.value if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) else ""


def is_method(node: cst.CSTNode, name: str) -> bool:
    """Whether it is the call `something.name(...)`."""
    return m.matches(node, m.Call(func=m.Attribute(attr=m.Name(name))))


def with_keywords(call: cst.Call, values: Mapping[str, str]) -> cst.Call:
    """Keyword arguments set to source texts; keywords stay in alphabetical order, `random_state` last."""
    positional = [arg for arg in call.args if arg.keyword is None]
    named = {arg.keyword.value: arg.value for arg in call.args if arg.keyword is not None}
    named |= {name: expression(text) for name, text in values.items()}
    order = sorted(named, key=lambda name: (name == "random_state", name))
    tight = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    arguments = [cst.Arg(arg.value) for arg in positional]
    arguments += [cst.Arg(named[name], keyword=cst.Name(name), equal=tight) for name in order]
    return call.with_changes(args=arguments)


def statements(source: str) -> Sequence[cst.BaseStatement]:
    module = cst.parse_module(source)
    if not module.header:
        return module.body
    first = module.body[0].with_changes(leading_lines=[*module.header, *module.body[0].leading_lines])
    return [first, *module.body[1:]]


def insert_before(
    module: cst.Module, here: Callable[[cst.CSTNode], bool], source: str, what: str
) -> cst.Module:
    """`source` put before the first statement that is `here`; nothing changes if the script has it already.

    Raises CoderError naming `what` if there is no such statement.
    """
    new = statements(source)
    have = {source_of(node).strip() for node in module.body}
    if all(source_of(node).strip() in have for node in new):
        return module
    for index, node in enumerate(module.body):
        if here(node):
            return module.with_changes(body=[*module.body[:index], *new, *module.body[index:]])
    raise CoderError(f"found no place for the change: the script has no {what}")
