"""Which rows the model is fitted to: helper functions around the arguments of every `model.fit(...)`.

    model.fit(*shifted(*part_of(X_fit, y_fit, 0.5)))

Rows are left out before copies are added, whatever the order of the edits. The validation rows stay.
"""

from __future__ import annotations

import libcst as cst
from libcst import matchers as m

from mlagent_jax.agent.edits import script
from mlagent_jax.environment.coder import CoderError

_ORDER = ("without_gaps", "without_outliers", "part_of", "shifted", "mirrored", "noisy")


def is_fit(node: cst.CSTNode) -> bool:
    return m.matches(node, m.SimpleStatementLine(body=[m.Expr(_FIT)]))


_FIT = m.Call(func=m.Attribute(value=m.Name("model"), attr=m.Name("fit")))


def fit_on(module: cst.Module, helper: str, argument: str = "") -> cst.Module:
    """With every fit's rows passed through `helper`, whose third argument is `argument`, if any.

    Raises CoderError if the script fits no model.
    """
    fits = [index for index, node in enumerate(module.body) if is_fit(node)]
    if not fits:
        raise CoderError("found no 'model.fit(X_fit, y_fit)' in the script")
    for index in fits:
        fit = cst.ensure_type(m.findall(module.body[index], _FIT)[0], cst.Call)
        rows, passes = _read(fit)
        passes[helper] = argument
        module = script.replace_in(module, index, fit, _write(rows, passes))
    return module


def _read(fit: cst.Call) -> tuple[list[str], dict[str, str]]:
    """The plain rows, and the helpers they pass through with their third argument."""
    passes: dict[str, str] = {}
    call = fit
    while len(call.args) and call.args[0].star == "*":
        call = cst.ensure_type(call.args[0].value, cst.Call)
        passes[script.callee(call)] = ", ".join(
            script.source_of(arg.value) for arg in call.args if not arg.star
        )
        if not call.args[0].star:
            passes[script.callee(call)] = ", ".join(script.source_of(arg.value) for arg in call.args[2:])
    return [script.source_of(arg.value) for arg in call.args[:2]], passes


def _write(rows: list[str], passes: dict[str, str]) -> cst.Call:
    inside = ", ".join(rows)
    for helper in sorted(passes, key=_ORDER.index):
        third = f", {passes[helper]}" if passes[helper] else ""
        inside = f"*{helper}({inside}{third})"
    return cst.ensure_type(script.expression(f"model.fit({inside})"), cst.Call)
