"""Files of JSON lines: one rule for a torn last line, whoever reads or writes."""

import json
import os

import pytest

from mlagent_jax import jsonl
from mlagent_jax.errors import UserError
from mlagent_jax.jsonl import JsonlError, append_jsonl, drop_after, read_jsonl

WHOLE = b'{"step": 1}\n{"step": 2, "text": "\xc3\xbc"}\n'
TORN = [b"{", b'{"step": 3}', b"\0" * 40, b"x" * 200_000]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_line_is_neither_read_nor_continued(tmp_path, caplog, torn):
    path = tmp_path / "m.jsonl"
    path.write_bytes(WHOLE + torn)
    assert [record["step"] for record in read_jsonl(path)] == [1, 2]
    assert path.read_bytes() == WHOLE + torn  # a reader changes nothing
    assert f"{path}: line 3 is torn" in caplog.text
    append_jsonl(path, [{"step": 3}, {"step": 4}])
    assert path.read_bytes() == WHOLE + b'{"step": 3}\n{"step": 4}\n'
    assert f"dropped {len(torn)} bytes" in caplog.text


def test_a_file_of_one_torn_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"st')
    assert list(read_jsonl(path)) == []
    append_jsonl(path, [{"step": 1}])
    assert path.read_bytes() == b'{"step": 1}\n'


def test_drop_after_keeps_the_steps_up_to_the_checkpoint(tmp_path):
    path = tmp_path / "m.jsonl"
    drop_after(path, 1)
    assert not path.exists()
    path.write_bytes(WHOLE + b'{"step": 3}\n{"ste')
    drop_after(path, 2)
    assert list(map(json.loads, path.read_text().splitlines())) == [{"step": 1}, {"step": 2, "text": "ü"}]
    path.write_bytes(b'{"loss": 1}\n')
    with pytest.raises(JsonlError, match=r"line 1 has no whole number as step; delete that line"):
        drop_after(path, 2)
    assert path.read_bytes() == b'{"loss": 1}\n'


def test_a_file_that_is_not_there(tmp_path):
    assert list(read_jsonl(tmp_path / "absent", missing_ok=True)) == []
    with pytest.raises(JsonlError, match=r"cannot read .*absent: No such file"):
        list(read_jsonl(tmp_path / "absent"))
    with pytest.raises(JsonlError, match=r"cannot read .*: Is a directory"):
        list(read_jsonl(tmp_path, missing_ok=True))
    assert issubclass(JsonlError, UserError)


def test_an_append_that_fails_halfway_leaves_the_lines_before(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    path.write_bytes(WHOLE)
    write = os.write

    def full_disk(file, data):
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(file, data[:7])

    monkeypatch.setattr(jsonl.os, "write", full_disk)
    with pytest.raises(JsonlError, match=r"cannot write .*m\.jsonl: No space left"):
        append_jsonl(path, [{"step": 3, "text": "long enough"}])
    assert path.read_bytes() == WHOLE


def test_nothing_is_written_of_records_that_json_cannot_hold(tmp_path):
    path = tmp_path / "m.jsonl"
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_jsonl(path, [{"step": 1}, {"loss": float("inf")}])
    assert not path.exists()
