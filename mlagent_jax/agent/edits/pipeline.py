"""The right-hand side of `model = ...`: target transform, steps and estimator, each changed on its own.

    TransformedTargetRegressor(regressor=make_pipeline(STEP, STEP, ESTIMATOR), func=..., inverse_func=...)

Steps stand in the order of `_STAGES`, at most one a slot, so that edits commute. The estimator may wrap the
innermost one, as do VotingRegressor([("first", Ridge()), ...]), BaggingRegressor(Ridge()) and GridSearchCV.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import libcst as cst

from mlagent_jax.agent.edits import script
from mlagent_jax.environment.coder import CoderError

# Slots in the order of their application, and what fills them.
_STAGES = {
    "dense": "dense",
    "crop": "cropped",
    "deskew": "deskewed",
    "blur": "blurred",
    "resolution": "halved",
    "binarize": "Binarizer",
    "contrast": "contrasted",
    "gradients": "with_gradients",
    "profiles": "with_profiles",
    "encode": "make_column_transformer",
    "impute": "SimpleImputer",
    "log": "logged",
    "cluster": "make_union",
    "unit": "Normalizer normalize",
    "scale": "StandardScaler MinMaxScaler MaxAbsScaler RobustScaler QuantileTransformer",
    "polynomial": "PolynomialFeatures SplineTransformer",
    "select": "SelectKBest VarianceThreshold",
    "reduce": "PCA TruncatedSVD",
    "kernel": "Nystroem",
}
_SLOT = {name: slot for slot, names in _STAGES.items() for name in names.split()}
_ORDER = list(_STAGES)

_LINE = 90  # of an expression; longer ones are broken

_WRAPPERS = ("Voting", "Bagging", "AdaBoost", "GridSearchCV", "OneVsRest", "CalibratedClassifierCV")


@dataclass(frozen=True)
class Pipeline:
    """target: keyword arguments of TransformedTargetRegressor as source texts, empty for none."""

    estimator: cst.Call
    steps: tuple[cst.Call, ...] = ()
    target: Mapping[str, str] | None = None

    def with_step(self, source: str) -> Pipeline:
        """With the step put into its slot, in place of what was there."""
        step = script.expect(script.expression(source), cst.Call)
        others = [old for old in self.steps if _slot(old) != _slot(step)]
        rank = _ORDER.index(_slot(step))
        after = [index for index, old in enumerate(others) if _slot(old) in _ORDER[rank:]]
        place = after[0] if after else len(others)
        return replace(self, steps=(*others[:place], step, *others[place:]))

    def has(self, slot: str) -> bool:
        return any(_slot(step) == slot for step in self.steps)

    def with_estimator(self, source: str) -> Pipeline:
        return replace(self, estimator=script.expect(script.expression(source), cst.Call))

    def wrapped(self, wrapper: str, arguments: str = "") -> Pipeline:
        """With the estimator as first argument of `wrapper`; the same wrapper is replaced, not doubled."""
        inner = self.estimator
        if script.callee(inner) == wrapper:
            inner = script.expect(_first_argument(inner), cst.Call)
        return self.with_estimator(
            f"{wrapper}({script.source_of(inner)}{', ' if arguments else ''}{arguments})"
        )

    def average_with(self, name: str, source: str, voting: str) -> Pipeline:
        """With the estimator averaged with another by `voting`; members stand in the order of their names."""
        members = _members(self.estimator) or {"first": script.source_of(self.estimator)}
        members = dict(
            sorted((members | {name: source}).items(), key=lambda item: (item[0] != "first", item[0]))
        )
        inside = ", ".join(f'("{name}", {source})' for name, source in members.items())
        return self.with_estimator(f"{voting}([{inside}])")

    def core(self) -> cst.Call:
        """The innermost estimator."""
        return _core(self.estimator)

    def map_core(self, change: Callable[[cst.Call], cst.Call]) -> Pipeline:
        core = self.core()
        return replace(
            self, estimator=script.expect(self.estimator.deep_replace(core, change(core)), cst.Call)
        )


def read(module: cst.Module) -> Pipeline:
    """Raises CoderError if there is no single `model = ...`, or its value is no call of a class."""
    value = script.assigned(module, "model")
    target = None
    if script.callee(value) == "TransformedTargetRegressor":
        call = script.expect(value, cst.Call)
        named = {arg.keyword.value: arg.value for arg in call.args if arg.keyword is not None}
        value = named.pop("regressor", value)
        target = {name: script.source_of(node) for name, node in named.items()}
    parts = [arg.value for arg in value.args] if script.callee(value) == "make_pipeline" else [value]  # type: ignore[attr-defined]
    if not parts or not all(script.callee(part) for part in parts):
        raise CoderError(
            f"cannot edit 'model = {script.source_of(value)}'; expected a call such as Ridge(alpha=1.0)"
        )
    *steps, estimator = (script.expect(part, cst.Call) for part in parts)
    return Pipeline(estimator, tuple(steps), target)


def write(module: cst.Module, pipeline: Pipeline) -> cst.Module:
    source = script.source_of(pipeline.estimator)
    if pipeline.steps:
        source = _call("make_pipeline", [*map(script.source_of, pipeline.steps), source])
    if pipeline.target:
        arguments = [f"{name}={text}" for name, text in pipeline.target.items()]
        source = _call("TransformedTargetRegressor", [f"regressor={source}", *arguments])
    return script.assign(module, "model", script.expression(source))


def _call(name: str, arguments: list[str]) -> str:
    """On one line if it is short, else with a line for each argument."""
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= _LINE and "\n" not in line:
        return line
    inside = textwrap.indent(",\n".join(arguments), "    ")
    return f"{name}(\n{inside},\n)"


def _slot(step: cst.Call) -> str:
    name = script.callee(step)
    if name == "FunctionTransformer" and step.args and isinstance(step.args[0].value, cst.Name):
        name = step.args[0].value.value
    return _SLOT.get(name, name)


def _first_argument(call: cst.Call) -> cst.BaseExpression:
    if not call.args:
        raise CoderError(f"cannot edit '{script.source_of(call)}': it names no estimator inside")
    return call.args[0].value


def _members(estimator: cst.Call) -> dict[str, str]:
    """Names and sources of the members of a vote; empty for any other estimator."""
    if not script.callee(estimator).startswith("Voting"):
        return {}
    members = {}
    for element in script.expect(_first_argument(estimator), cst.List).elements:
        name, member = _member(element)
        members[name] = script.source_of(member)
    return members


def _member(element: cst.BaseElement) -> tuple[str, cst.BaseExpression]:
    pair = script.expect(element.value, cst.Tuple).elements
    if len(pair) != 2:
        raise CoderError("cannot edit this vote: each of its members must be a name and an estimator")
    return str(script.expect(pair[0].value, cst.SimpleString).evaluated_value), pair[1].value


def _core(estimator: cst.Call) -> cst.Call:
    if not script.callee(estimator).startswith(_WRAPPERS) or not estimator.args:
        return estimator
    inner = estimator.args[0].value
    if isinstance(inner, cst.List) and inner.elements:  # the first member of a vote
        _, inner = _member(inner.elements[0])
    return _core(inner) if isinstance(inner, cst.Call) else estimator
