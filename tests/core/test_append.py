"""Files that only grow: a line that was cut short stays alone, and only the owner may read what is
private."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

from residency.core.files import append_jsonl, read_unfinished


def test_lines_follow_one_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "folder/rows.jsonl"
    append_jsonl(path, [{"n": 1}], private=True)
    with path.open("ab") as file:
        file.write(b'{"n": 2')
    append_jsonl(path, [{"n": 3}, {"n": 4}], private=True)
    assert path.read_bytes() == b'{"n":1}\n{"n": 2\n{"n":3}\n{"n":4}\n'
    assert [row["n"] for row in read_unfinished(path, dict[str, int])] == [1, 3, 4]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    append_jsonl(tmp_path / "none.jsonl", [])
    assert not (tmp_path / "none.jsonl").exists()


def test_no_line_of_many_writers_is_lost_or_torn(tmp_path: Path) -> None:
    path, each = tmp_path / "rows.jsonl", 50

    def write(who: int) -> None:
        for number in range(each):
            append_jsonl(path, [{"who": who, "number": number}])

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = list(read_unfinished(path, dict[str, int]))
    assert sorted((row["who"], row["number"]) for row in rows) == [
        (who, number) for who in range(4) for number in range(each)
    ]
