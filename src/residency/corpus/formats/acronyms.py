"""Short forms in a sentence with their full forms, as acrDrAid holds them, and the dictionary of
what each may stand for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import msgspec

from residency.core.errors import DataError
from residency.core.files import NO_JSON, read_text, reason
from residency.core.part import Part
from residency.corpus.conversations import Conversations
from residency.corpus.json_records import Record
from residency.corpus.reader import Row, require


class AcronymColumns(Part):
    """What the columns are called."""

    text: str = "text"
    """The sentence."""
    start: str = "start_char_idx"
    """Where the short form begins, in code points from 0."""
    length: str = "length_acronym"
    """How many code points the short form has."""
    expansion: str = "expansion"
    """What the short form stands for."""


class Acronyms(Conversations):
    """A sentence, where a short form stands in it, and what it stands for. Texts are composed (NFC)
    after the cut."""

    format: Literal["acronyms"]
    columns: AcronymColumns = AcronymColumns()
    dictionary: str = ""
    """A JSON file beside each file: short form -> list of full forms, the choices of a row. Empty:
    all labels are choices."""

    def companions(self, path: Path) -> list[Path]:
        return [path.parent / self.dictionary] if self.dictionary else []

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        columns = [(name, f"columns.{setting}") for setting, name in self.columns]
        require(f"{path}:{line}", "column", record, columns)
        text, start, length, full = (record[name] for name, _ in columns)
        if not isinstance(text, str) or not isinstance(full, str) or not full.strip():
            return Row(line=line, fault="text or expansion is empty or not text")
        if (
            not isinstance(start, int)
            or not isinstance(length, int)
            or not 0 <= start < start + length <= len(text)
        ):
            return Row(line=line, fault="the short form lies outside the text")
        short = normalize("NFC", text[start : start + length]).strip()
        if not short:
            return Row(line=line, fault="the short form is empty")
        full = normalize("NFC", full).strip()
        options: tuple[str, ...] = ()
        if self.dictionary:
            options = read_dictionary(path.parent / self.dictionary).get(short.lower(), ())
        fields = {"text": normalize("NFC", text), "acronym": short, "expansion": full}
        choices = options if not options or full in options else (*options, full)
        about = self.about(record) | {"choices": choices}
        return Row(line=line, text=f"{short}\n{fields['text']}", fields=fields, **about)


@cache
def read_dictionary(path: Path) -> dict[str, tuple[str, ...]]:
    """Short form -> full forms, composed and in lower case."""
    try:
        found = msgspec.json.decode(read_text(path), type=dict[str, list[str]])
    except NO_JSON as error:
        raise DataError(
            f"{path}: is no dictionary of short forms ({reason(error)}); give {{short form: [full "
            "forms]}."
        ) from None
    made: dict[str, dict[str, None]] = {}
    for short, forms in found.items():
        own = made.setdefault(normalize("NFC", short).lower().strip(), {})
        own.update(dict.fromkeys(normalize("NFC", form).strip() for form in forms))
    return {short: tuple(forms) for short, forms in made.items()}
