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
        fit = script.expect(m.findall(module.body[index], _FIT)[0], cst.Call)
        rows, passes = _read(fit)
        passes[helper] = argument
        module = script.replace_in(module, index, fit, _write(rows, passes))
    return module


def _read(fit: cst.Call) -> tuple[list[str], dict[str, str]]:
    """The plain rows, and the helpers they pass through, each with its third argument, if any."""
    passes: dict[str, str] = {}
    call = fit
    while call.args and call.args[0].star == "*":
        call = script.expect(call.args[0].value, cst.Call)
        name = script.callee(call)
        if name not in _ORDER:
            raise CoderError(
                f"cannot edit '{script.source_of(fit)}': it doesn't know {script.source_of(call.func)!r}"
            )
        more = call.args[1:] if call.args and call.args[0].star else call.args[2:]
        passes[name] = ", ".join(script.source_of(arg.value) for arg in more)
    if len(call.args) < 2:
        raise CoderError(f"cannot edit '{script.source_of(fit)}'; expected model.fit(X_fit, y_fit)")
    return [script.source_of(arg.value) for arg in call.args[:2]], passes


def _write(rows: list[str], passes: dict[str, str]) -> cst.Call:
    inside = ", ".join(rows)
    for helper in sorted(passes, key=_ORDER.index):
        third = f", {passes[helper]}" if passes[helper] else ""
        inside = f"*{helper}({inside}{third})"
    return script.expect(script.expression(f"model.fit({inside})"), cst.Call)
