"""Reads pickled data frames as pandas 1 and 2 wrote them, without running what the pickle names."""

import pickle

import numpy as np
import pandas as pd
import pytest

from mlagent_jax.tasks.pickled_frames import PickledFrameError, read_pickled_frame


def test_a_pickle_that_would_run_a_command_does_not(tmp_path):
    class Hostile:
        def __reduce__(self):
            import os

            return os.system, (f"touch {tmp_path / 'ran'}",)

    with pytest.raises(PickledFrameError, match=r"names (posix|nt)\.system"):
        read_pickled_frame(pickle.dumps(Hostile()))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [b"builtins\neval", b"builtins\ngetattr", b"pandas.io.pickle\nread_pickle"])
def test_no_callable_but_the_frame_s_own_parts_is_given_out(name):
    with pytest.raises(PickledFrameError, match="refusing it"):
        read_pickled_frame(b"c" + name + b"\n(S'1'\ntR.")


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"a": 1}), pickle.dumps(3)[:-1]])
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(PickledFrameError):
        read_pickled_frame(data)


def frame() -> pd.DataFrame:
    columns = {
        "i": [1, -2, 2**40],
        "f": [1.5, np.nan, -3.0],
        "j": [7, 8, 9],
        "s": np.array(["x", None, "zé\n"], dtype=object),
        "b": [True, False, True],
    }
    made = pd.DataFrame(columns)
    made["s"] = made["s"].astype(object)
    made.columns = made.columns.astype(object)  # plain arrays, as pandas wrote them before its string type
    return made


@pytest.mark.parametrize("protocol", [4, 5])
def test_reads_what_pandas_wrote(protocol):
    read = read_pickled_frame(pickle.dumps(frame(), protocol=protocol))
    pd.testing.assert_frame_equal(read, frame(), check_dtype=False, check_column_type=False)
    assert read["i"].dtype == np.int64
    assert read["f"].dtype == np.float64
    assert read["b"].dtype == np.bool_


def test_a_truncated_frame_is_refused_at_every_length():
    whole = pickle.dumps(frame(), protocol=4)
    for length in range(len(whole)):
        with pytest.raises(PickledFrameError):
            read_pickled_frame(whole[:length])


def test_a_frame_of_types_that_are_not_plain_is_refused():
    with pytest.raises(PickledFrameError):
        read_pickled_frame(pickle.dumps(pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), protocol=4))
