"""What cannot be read as the recipe says is told for what it looks like, with the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from residency.core.errors import DataError
from residency.core.part import parse
from residency.corpus import load
from residency.corpus.load import Data

TOKENS = "Fever\tB-SYM\nfor\tO\ndays\tO\n\nNo\tO\ncough\tB-SYM\n"
JSON = '{"text": "Fever for days.", "label": "x"}\n{"text": "No cough.", "label": "y"}\n'
TALK = '{"messages": [{"role": "user", "content": "Fever?"}]}\n'
EXAM = '{"question": "Fever?", "options": {"A": "yes"}, "answer": "A"}\n'


@pytest.mark.parametrize(
    ("content", "asked", "wanted"),
    [
        (TOKENS, "jsonl", "conll"),
        (TOKENS, "prodigy", "conll"),
        (JSON, "conll", "jsonl"),
        (TALK, "conll", "messages"),
        (EXAM, "alpaca", "exam"),
        ("12|t|Fever\n12|a|For days.\n12\t0\t5\tFever\tSYM\n\n", "jsonl", "pubtator"),
        ('{\n "1": {"QUESTION": "Fever?", "final_decision": "yes"}\n}\n', "conll", "pubmedqa"),
    ],
)
def test_a_file_of_another_format_is_told_with_the_setting_that_reads_it(
    tmp_path: Path, content: str, asked: str, wanted: str
) -> None:
    (tmp_path / "notes.txt").write_text(content, "utf-8")
    data: Data = parse(load.Data, {"format": asked, "path": "notes.txt", "lang": "en"}, "data")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"it looks like .*: set format to {wanted}\.$") as error:
        load.read_parts(data, "notes", tmp_path)
    assert "Fever" not in str(error.value)
