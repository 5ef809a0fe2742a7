"""The type checker that `conftest` installs: beartype, for annotations with the shape of an array."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

import jax
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_CONTAINERS = {Union, UnionType, tuple, list, dict, Iterable, Sequence, Mapping}
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def check_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks arguments and results that are arrays or containers of arrays.

    NumPy's arrays pass for JAX's, as JAX itself accepts them; their shapes and dtypes are checked. All else is left to
    mypy, so that tests may pass objects of their own. `function` is a copy of the signature that jaxtyping made, so its
    annotations may be changed.
    """
    hints = function.__annotations__
    function.__annotations__ = {
        name: _or_numpy(hint) if _has_array(hint) else Any for name, hint in hints.items()
    }
    return _check(function) if any(map(_has_array, hints.values())) else function


def _is_array(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)


def _has_array(hint: Any) -> bool:
    return _is_array(hint) or (get_origin(hint) in _CONTAINERS and any(map(_has_array, get_args(hint))))


def _or_numpy(hint: Any) -> Any:
    """The same hint with `jax.Array | np.ndarray` for `jax.Array`."""
    if hint is jax.Array:
        return jax.Array | np.ndarray
    if _is_array(hint):
        return hint.dtype[jax.Array | np.ndarray, hint.dim_str] if hint.array_type is jax.Array else hint
    origin, arguments = get_origin(hint), tuple(map(_or_numpy, get_args(hint)))
    if origin not in _CONTAINERS:
        return hint
    return Union[arguments] if origin in (Union, UnionType) else origin[arguments]  # noqa: UP007
