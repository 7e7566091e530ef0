"""Files of a run: written whole or not at all."""

from __future__ import annotations

import json

import pytest

from qsgd_core.errors import QSGDError
from qsgd_core.files import write_atomically, write_json, write_json_lines


def test_a_writer_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"new but not all of it")
        raise OSError("No space left on device")

    with pytest.raises(QSGDError, match=r"checkpoint\.pt could not be written.*No space left"):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_file_whose_folder_is_gone_is_an_error_with_the_path(tmp_path):
    with pytest.raises(QSGDError, match="gone"):
        write_atomically(tmp_path / "gone" / "file", lambda file: file.write(b""))


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    write_json(tmp_path / "one.json", {"a": [float("nan"), 1.5], "b": {"c": float("-inf")}})
    assert json.loads((tmp_path / "one.json").read_text()) == {"a": [None, 1.5], "b": {"c": None}}


def test_json_lines_are_one_object_per_line(tmp_path):
    rows = [{"epoch": 1, "λ": 0.1}, {"epoch": 2, "λ": 1e-17}]
    write_json_lines(tmp_path / "m.jsonl", rows)
    text = (tmp_path / "m.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == rows
    assert text.endswith("\n")
