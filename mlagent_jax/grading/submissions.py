"""Reads what an agent submitted. It is untrusted: read with a size cap, never evaluated or unpickled."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from mlagent_jax.grading.dtype_inference import BOOLEANS, MISSING, as_number
from mlagent_jax.grading.labels import Truth
from mlagent_jax.grading.metrics import METRICS, SUM_TOLERANCE, Prediction
from mlagent_jax.grading.numeric_csv import read_plain
from mlagent_jax.grading.spec import GradingSpec

BYTES_PER_VALUE = 256  # generous for any number, id or class name; bounds a submission's size
MOST_CHARS = 256  # of one text: an array of texts has room for the longest in each of its cells
HEADER_BYTES = 4096  # of an .npy file


class RefusedSubmission(Exception):
    """Says in one sentence, written for the agent, why a submission does not count."""


def check_size(spec: GradingSpec, truth: Truth, submission: bytes | None) -> bytes:
    """The submission, if there is one and it is not too large to be read. Raises RefusedSubmission."""
    if submission is None:
        raise RefusedSubmission(f"The script wrote no {spec.submission}.")
    cap = HEADER_BYTES + 8 * truth.values.size
    if not spec.target_array:
        cap = BYTES_PER_VALUE * (1 + len(spec.target_columns)) * (len(truth.values) + 1)
    if len(submission) > cap:
        raise RefusedSubmission(f"{spec.submission} has {len(submission):,} bytes; at most {cap:,} are read.")
    return submission


def parse_submission(spec: GradingSpec, truth: Truth, submission: bytes) -> np.ndarray:
    """Predictions [n, t] in the order of `truth`: str where they are text, else float.

    Of `truth`, all but the labels are looked at. Raises RefusedSubmission, and nothing else whatever the bytes
    are; but see `parsers.parse_apart`, which does not rely on that.
    """
    predicted = (_parse_array if spec.target_array else _parse_csv)(spec, truth, submission)
    check_predictions(spec, truth, predicted)
    return predicted


def check_predictions(spec: GradingSpec, truth: Truth, predicted: np.ndarray) -> None:
    """Looks at what was read as a whole, whoever read it. Raises RefusedSubmission.

    Args:
        predicted: [n, t], str or float.
    """
    prediction = METRICS[spec.metric].prediction
    if prediction.is_text:
        fine = np.isin(predicted, spec.classes).all() if prediction is Prediction.CLASS else True
    else:
        low, high = spec.prediction_bounds
        fine = np.isfinite(predicted).all() and predicted.min() >= low and predicted.max() <= high
        if prediction is Prediction.WHOLE:
            fine = fine and (predicted == np.round(predicted)).all()
    if predicted.shape != truth.values.shape or not fine:
        raise RefusedSubmission(
            f"{spec.submission} has a value that is not what was expected: {_expected(spec)}."
        )
    if METRICS[spec.metric].needs_row_sums(len(spec.target_columns)):
        _check_sums(spec, truth, predicted)


def _parse_csv(spec: GradingSpec, truth: Truth, submission: bytes) -> np.ndarray:
    n, columns = len(truth.values), (spec.id_column, *spec.target_columns)
    if (plain := read_plain(spec, truth, submission)) is not None:
        return plain
    read_value = _value_reader(spec)
    predicted: np.ndarray = np.empty(
        truth.values.shape, dtype=object if METRICS[spec.metric].prediction.is_text else float
    )
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


def _parse_array(spec: GradingSpec, truth: Truth, submission: bytes) -> np.ndarray:
    expected = (len(truth.values), *truth.row_shape)
    array = _read_npy(spec, submission, expected)
    low, high = spec.prediction_bounds
    fine = np.isfinite(array) & (array >= low) & (array <= high)
    if not fine.all():
        where = np.unravel_index(int(np.argmin(fine)), expected)
        place = ", ".join(str(int(index)) for index in where)
        raise RefusedSubmission(
            f"{spec.submission} has {array[where]:g} at [{place}]; expected {_expected(spec)}."
        )
    return array.reshape(truth.values.shape)


def _read_npy(spec: GradingSpec, submission: bytes, expected: tuple[int, ...]) -> np.ndarray:
    """The array as float. Shape and type are checked before any room is made for it."""
    file = io.BytesIO(submission)
    try:
        version = np.lib.format.read_magic(file)
        read: Callable[..., Any] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file, max_header_size=HEADER_BYTES)
    except Exception:  # the header is a Python literal that may be wrong in any way
        raise RefusedSubmission(f"{spec.submission} is not a file as numpy.save writes it.") from None
    if shape != expected:
        raise RefusedSubmission(f"{spec.submission} has the shape {_show(str(shape))}; expected {expected}.")
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise RefusedSubmission(f"{spec.submission} has the type {_show(str(dtype))}; expected numbers.")
    data = submission[file.tell() :]
    if len(data) != math.prod(expected) * dtype.itemsize:
        raise RefusedSubmission(f"{spec.submission} was not written to its end.")
    return np.frombuffer(data, dtype).reshape(expected, order="F" if fortran else "C").astype(float)


def _check_sums(spec: GradingSpec, truth: Truth, predicted: np.ndarray) -> None:
    off = np.abs(predicted.sum(axis=1) - 1) > SUM_TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        identity = next(identity for identity, i in truth.row_of.items() if i == row)
        raise RefusedSubmission(
            f"The probabilities of id {_show(identity)} in {spec.submission} sum to"
            f" {predicted[row].sum():.6g}; expected 1."
        )


def _positions(header: list[str], columns: tuple[str, ...], submission: str) -> list[int]:
    """Where each of `columns` stands in the header."""
    names = [name.strip() for name in header]
    if sorted(names) != sorted(columns):
        found = ", ".join(_show(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
        hint = " (write it with index=False)" if names[:1] == [""] and len(names) > 1 else ""
        wanted = ", ".join(columns[:12]) + (f", ... ({len(columns)} in all)" if len(columns) > 12 else "")
        raise RefusedSubmission(f"{submission} needs the columns {wanted}; found {found or 'nothing'}{hint}.")
    return [names.index(column) for column in columns]


def _value_reader(spec: GradingSpec) -> Callable[[str, str, str], float | str]:
    """A function of column, id and cell text that gives the value, or refuses it."""
    prediction = METRICS[spec.metric].prediction
    find_class = class_finder(spec.classes)
    low, high = spec.prediction_bounds
    whole = prediction is Prediction.WHOLE

    def refused(column: str, identity: str, text: str) -> RefusedSubmission:
        where = f"{column} of id {_show(identity)} is {_show(text)}"
        lost = sorted(MISSING.intersection(spec.classes)) if not text.strip() else []
        hint = f" (pandas reads {lost[0]!r} as missing unless told keep_default_na=False)" if lost else ""
        return RefusedSubmission(f"{where}; expected {_expected(spec)}{hint}.")

    def class_name(column: str, identity: str, text: str) -> str:
        name = find_class(text)
        if name is None:
            raise refused(column, identity, text)
        return name

    def ranking(column: str, identity: str, text: str) -> str:
        text = text.strip()
        if not text or len(text) > MOST_CHARS:
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
    """A function of a cell that gives the class which it names, or None.

    That is the class of just this text; else the only one that differs in outer spaces alone; else the only one that
    data frames may have read as the same number or boolean: "1" and "1.0" name the class "01", if there is no other
    1 among the classes.
    """
    exact = {name: name for name in classes}
    looser = [_only(classes, key) for key in (str.strip, _as_data_frames_read)]

    def find(text: str) -> str | None:
        if text in exact or not text.strip():  # nothing is not the class " "
            return exact.get(text)
        for key, names in looser:
            if (found := names.get(key(text))) is not None:
                return found
        return None

    return find


def _only(
    classes: Sequence[str], key: Callable[[str], Hashable]
) -> tuple[Callable[[str], Hashable], dict[Hashable, str]]:
    """The key, and the classes that no other one shares it with."""
    counts = Counter(map(key, classes))
    return key, {key(name): name for name in classes if counts[key(name)] == 1}


def _as_data_frames_read(text: str) -> Hashable:
    text = text.strip()
    return text.lower() if text in BOOLEANS else as_number(text) if as_number(text) is not None else text


def _expected(spec: GradingSpec) -> str:
    """What a value must be, in words."""
    prediction = METRICS[spec.metric].prediction
    if prediction is Prediction.CLASS:
        shown = ", ".join(map(_class, spec.classes[:12])) + (", ..." if len(spec.classes) > 12 else "")
        return f"{prediction.value} {shown}"
    low, high = spec.prediction_bounds
    if (low, high) == prediction.bounds:
        return prediction.value
    kind = "whole number" if prediction is Prediction.WHOLE else "number"
    return f"a {kind} from {low:g} to {high:g}"


def _class(name: str) -> str:
    """As it is, or quoted where one would not see it."""
    return name if name == name.strip() and name.isprintable() and name else repr(name)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _show(text: str) -> str:
    """An agent's own text, short and with control characters escaped."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
