"""A file is there whole or not at all; what cannot be read or written is said in one sentence
without its content."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from residency.core import files
from residency.core.errors import DataError, UserError
from residency.core.types import Span


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "note.txt"
    files.write_text(path, "đau\r\nbụng")
    assert path.read_bytes() == "đau\r\nbụng".encode()
    assert names(path.parent) == ["note.txt"]


def test_an_exception_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.atomic_path(tmp_path / "a") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_an_exception_inside_leaves_the_older_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "rows.jsonl", "old")

    def rows() -> object:
        yield {"id": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_jsonl(tmp_path / "rows.jsonl", rows())  # type: ignore[arg-type]
    assert (tmp_path / "rows.jsonl").read_text() == "old"
    assert names(tmp_path) == ["rows.jsonl"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        files.write_bytes(tmp_path / "model.bin", b"x")
    assert str(caught.value) == (
        f"{tmp_path / 'model.bin'}: cannot be written (No space left on device); "
        "free space or choose another folder, then run again."
    )
    assert caught.value.__suppress_context__
    assert names(tmp_path) == []


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(tmp_path / "runs" / "a" / "b.txt", "x")


def test_json_lines_go_out_and_come_back(tmp_path: Path) -> None:
    spans = [Span(0, 3, "A", quote="đau"), Span(4, 8, "B")]
    assert files.write_jsonl(tmp_path / "spans.jsonl", iter(spans)) == 2
    assert list(files.read_jsonl(tmp_path / "spans.jsonl", Span)) == spans


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json SECRET}", "spans.jsonl:3: is not valid JSON."),
        (
            b'{"start": "SECRET", "end": 1, "label": "A"}',
            "spans.jsonl:3: Expected `int`, got `str` - at `$.start`.",
        ),
        (
            '{"start": 0, "end": 1, "label": "体温"}'.encode("gb18030"),
            "spans.jsonl:3: is not UTF-8 (byte",
        ),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_never_shown(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_bytes(b'{"start": 0, "end": 1, "label": "A"}\n\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        list(files.read_jsonl(path, Span))
    assert message in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "no.json"
    with pytest.raises(
        DataError, match=r"no\.json: cannot be read \(No such file or directory\)\.$"
    ):
        files.read_json(missing, Span)
    with pytest.raises(
        DataError, match=r"no\.json: cannot be read \(No such file or directory\)\.$"
    ):
        list(files.read_jsonl(missing, Span))


def test_equal_values_have_equal_digests() -> None:
    assert (
        files.digest({"a": 1, "b": 2})
        == files.digest({"b": 2, "a": 1})
        != files.digest({"a": 1, "b": 3})
    )
    assert files.digest({"b": 2, "a": 1}) == hashlib.sha256(b'{"a":1,"b":2}').hexdigest()


def test_a_file_is_known_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    assert files.file_digest(tmp_path / "x") == hashlib.sha256(b"1").hexdigest()
