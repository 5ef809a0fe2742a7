"""Parses submissions. They are untrusted: their size is bounded, and nothing in them is evaluated or unpickled.

The messages of RefusedSubmission are shown to agents.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mlagent_jax.grading.dtype_inference import BOOLEANS, NA_VALUES, as_number
from mlagent_jax.grading.labels import Truth
from mlagent_jax.grading.metrics import METRICS, SUM_TOLERANCE, Prediction, Values
from mlagent_jax.grading.numeric_csv import read_numeric_csv
from mlagent_jax.grading.spec import GradingSpec

BYTES_PER_VALUE = 256  # generous for any number, id or class name; bounds the size of a submission
MAX_TEXT_CHARS = 256  # of one text, since an array of texts reserves room for the longest in every cell
HEADER_BYTES = 4096  # the longest header of an .npy file that is read


class RefusedSubmission(Exception):
    """Says in one sentence, written for the agent, why a submission is not valid."""


def check_size(spec: GradingSpec, truth: Truth, submission: bytes | None) -> bytes:
    """Returns the submission. Raises RefusedSubmission if there is none, or it is too large."""
    if submission is None:
        raise RefusedSubmission(f"The script wrote no {spec.submission}.")
    cap = HEADER_BYTES + 8 * truth.values.size
    if not spec.target_array:
        cap = BYTES_PER_VALUE * (1 + len(spec.target_columns)) * (len(truth.values) + 1)
    if len(submission) > cap:
        raise RefusedSubmission(f"{spec.submission} has {len(submission):,} bytes; at most {cap:,} are read.")
    return submission


def parse_submission(spec: GradingSpec, truth: Truth, submission: bytes) -> Values:
    """Predictions in the order of `truth`: str where they are text, else float.

    Uses the ids and shapes of `truth`, never its labels. Raises RefusedSubmission, and no other exception for any
    input; `parsers.parse_isolated` does not rely on that.
    """
    predicted = (_parse_array if spec.target_array else _parse_csv)(spec, truth, submission)
    check_predictions(spec, truth, predicted)
    return predicted


def check_predictions(spec: GradingSpec, truth: Truth, predicted: Values) -> None:
    """Checks all predictions together, whoever parsed them. Raises RefusedSubmission."""
    prediction = METRICS[spec.metric].prediction
    if spec.predicts_text:
        valid = np.isin(predicted, spec.classes).all() if prediction is Prediction.CLASS else True
    else:
        low, high = spec.prediction_bounds
        valid = np.isfinite(predicted).all() and predicted.min() >= low and predicted.max() <= high
        if prediction is Prediction.WHOLE:
            valid = valid and (predicted == np.round(predicted)).all()
    if predicted.shape != truth.values.shape or not valid:
        raise RefusedSubmission(
            f"{spec.submission} has a value that is not what was expected: {_expected(spec)}."
        )
    if METRICS[spec.metric].needs_row_sums(len(spec.target_columns)):
        _check_sums(spec, truth, predicted)


def _parse_csv(spec: GradingSpec, truth: Truth, submission: bytes) -> Values:
    n, columns = len(truth.values), (spec.id_column, *spec.target_columns)
    if (numbers := read_numeric_csv(spec, truth, submission)) is not None:
        return numbers
    read_value = _value_reader(spec)
    predicted: np.ndarray = np.empty(truth.values.shape, dtype=object if spec.predicts_text else float)
    seen = np.zeros(n, dtype=bool)
    try:
        reader = csv.reader(io.StringIO(submission.decode("utf-8-sig"), newline=""), strict=True)
        positions = _positions(next(reader, []), columns, spec.submission)
        for number, cells in enumerate(reader, start=1):
            if not cells:
                continue  # a blank line
            if len(cells) != len(columns):
                raise RefusedSubmission(
                    f"Row {number} of {spec.submission} has {_count(len(cells), 'value')};"
                    f" expected {len(columns)}."
                )
            identity = cells[positions[0]].strip()
            row = truth.row_of.get(identity)
            if row is None:
                raise RefusedSubmission(
                    f"{spec.submission} has an id that is not in the test data: {_show(identity)}."
                )
            if seen[row]:
                raise RefusedSubmission(f"{spec.submission} has the id {_show(identity)} more than once.")
            seen[row] = True
            for t, position in enumerate(positions[1:]):
                predicted[row, t] = read_value(columns[1 + t], identity, cells[position])
    except UnicodeDecodeError:
        raise RefusedSubmission(f"{spec.submission} is not UTF-8 text.") from None
    except csv.Error as error:
        raise RefusedSubmission(f"{spec.submission} is not a well-formed CSV file: {error}.") from None
    if not seen.all():
        missing = next(identity for identity, row in truth.row_of.items() if not seen[row])
        raise RefusedSubmission(
            f"{spec.submission} lacks {_count(int((~seen).sum()), 'row')} of {n},"
            f" the first for id {_show(missing)}."
        )
    return predicted.astype(str) if predicted.dtype == object else predicted


def _parse_array(spec: GradingSpec, truth: Truth, submission: bytes) -> Float[np.ndarray, "n t"]:
    expected = (len(truth.values), *truth.row_shape)
    array = _read_npy(spec, submission, expected)
    low, high = spec.prediction_bounds
    valid = np.isfinite(array) & (array >= low) & (array <= high)
    if not valid.all():
        first = np.unravel_index(int(np.argmin(valid)), expected)
        position = ", ".join(str(int(index)) for index in first)
        raise RefusedSubmission(
            f"{spec.submission} has {array[first]:g} at [{position}]; expected {_expected(spec)}."
        )
    return array.reshape(truth.values.shape)


def _read_npy(spec: GradingSpec, submission: bytes, expected: tuple[int, ...]) -> Float[np.ndarray, "n ..."]:
    """The array as float. Its shape and type are checked before any memory is allocated for it."""
    file = io.BytesIO(submission)
    try:
        version = np.lib.format.read_magic(file)
        read: Callable[..., Any] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file, max_header_size=HEADER_BYTES)
    except Exception:  # the header is a Python literal, which can be wrong in any way
        raise RefusedSubmission(f"{spec.submission} is not a file as numpy.save writes it.") from None
    if shape != expected:
        raise RefusedSubmission(f"{spec.submission} has the shape {_show(str(shape))}; expected {expected}.")
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise RefusedSubmission(f"{spec.submission} has the type {_show(str(dtype))}; expected numbers.")
    data = submission[file.tell() :]
    if len(data) != math.prod(expected) * dtype.itemsize:
        raise RefusedSubmission(f"{spec.submission} was not written to its end.")
    return np.frombuffer(data, dtype).reshape(expected, order="F" if fortran else "C").astype(float)


def _check_sums(spec: GradingSpec, truth: Truth, predicted: Float[np.ndarray, "n t"]) -> None:
    """Raises RefusedSubmission unless each row sums to 1."""
    off = np.abs(predicted.sum(axis=1) - 1) > SUM_TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        identity = next(identity for identity, i in truth.row_of.items() if i == row)
        raise RefusedSubmission(
            f"The probabilities of id {_show(identity)} in {spec.submission} sum to"
            f" {predicted[row].sum():.6g}; expected 1."
        )


def _positions(header: list[str], columns: tuple[str, ...], submission: str) -> list[int]:
    """The index of each of `columns` in the header. Raises RefusedSubmission for any other set of columns."""
    names = [name.strip() for name in header]
    if sorted(names) != sorted(columns):
        found = ", ".join(_show(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
        hint = " (write it with index=False)" if names[:1] == [""] and len(names) > 1 else ""
        wanted = ", ".join(columns[:12]) + (f", ... ({len(columns)} in all)" if len(columns) > 12 else "")
        raise RefusedSubmission(f"{submission} needs the columns {wanted}; found {found or 'nothing'}{hint}.")
    return [names.index(column) for column in columns]


def _value_reader(spec: GradingSpec) -> Callable[[str, str, str], float | str]:
    """A function of column, id and cell that returns the value or raises RefusedSubmission."""
    prediction = METRICS[spec.metric].prediction
    find_class = class_finder(spec.classes)
    low, high = spec.prediction_bounds
    whole = prediction is Prediction.WHOLE

    def refused(column: str, identity: str, text: str) -> RefusedSubmission:
        where = f"{column} of id {_show(identity)} is {_show(text)}"
        lost = sorted(NA_VALUES.intersection(spec.classes)) if not text.strip() else []
        hint = f" (pandas reads {lost[0]!r} as missing unless told keep_default_na=False)" if lost else ""
        return RefusedSubmission(f"{where}; expected {_expected(spec)}{hint}.")

    def class_name(column: str, identity: str, text: str) -> str:
        name = find_class(text)
        if name is None:
            raise refused(column, identity, text)
        return name

    def ranking(column: str, identity: str, text: str) -> str:
        text = text.strip()
        if not text or len(text) > MAX_TEXT_CHARS:
            raise refused(column, identity, text)
        return text

    def number(column: str, identity: str, text: str) -> float:
        try:
            value = float(text) if "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high) or (whole and not value.is_integer()):
            raise refused(column, identity, text)
        return value

    return {Prediction.CLASS: class_name, Prediction.RANKING: ranking}.get(prediction, number)


def class_finder(classes: Sequence[str]) -> Callable[[str], str | None]:
    """A function that returns the class named by a cell, or None.

    That is the class with exactly this text. Failing that, it is the only class that differs just in surrounding
    spaces; failing that, the only one that pandas may have read as the same number or boolean. For example, "1" and
    "1.0" name the class "01" if no other class equals 1.
    """
    exact = {name: name for name in classes}
    fallbacks = [_unambiguous(classes, key) for key in (str.strip, _as_inferred)]

    def find(text: str) -> str | None:
        if text in exact or not text.strip():  # an empty cell does not name the class " "
            return exact.get(text)
        for key, names in fallbacks:
            if (found := names.get(key(text))) is not None:
                return found
        return None

    return find


def _unambiguous(
    classes: Sequence[str], key: Callable[[str], Hashable]
) -> tuple[Callable[[str], Hashable], dict[Hashable, str]]:
    """The key function, and the classes by key, without those that share a key."""
    counts = Counter(map(key, classes))
    return key, {key(name): name for name in classes if counts[key(name)] == 1}


def _as_inferred(text: str) -> Hashable:
    """What pandas may read from a cell: a boolean's name, a number, or the text."""
    text = text.strip()
    return text.lower() if text in BOOLEANS else as_number(text) if as_number(text) is not None else text


def _expected(spec: GradingSpec) -> str:
    """What a value must be, in words for the agent."""
    prediction = METRICS[spec.metric].prediction
    if prediction is Prediction.CLASS:
        shown = ", ".join(map(_show_class, spec.classes[:12])) + (", ..." if len(spec.classes) > 12 else "")
        return f"{prediction.value} {shown}"
    low, high = spec.prediction_bounds
    if (low, high) == prediction.bounds:
        return prediction.value
    kind = "whole number" if prediction is Prediction.WHOLE else "number"
    return f"a {kind} from {low:g} to {high:g}"


def _show_class(name: str) -> str:
    """The name, quoted if it has surrounding spaces or invisible characters."""
    return name if name == name.strip() and name.isprintable() and name else repr(name)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _show(text: str) -> str:
    """The agent's own text, shortened and with control characters escaped."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
