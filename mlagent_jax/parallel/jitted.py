"""The type of a jitted function with known arguments and result."""

from __future__ import annotations

from typing import Any, ParamSpec, Protocol, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Jitted(Protocol[P, R]):
    """`jax.stages.Wrapped` with types: a result of `jax.jit` for a function from P to R."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        """Arguments may be `jax.ShapeDtypeStruct`s."""
        ...

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Arguments may be `jax.ShapeDtypeStruct`s."""
        ...
