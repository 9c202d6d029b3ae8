"""Short forms in a sentence with their full forms, as acrDrAid holds them, and the dictionary of
what each may stand for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import msgspec

from residency.core.errors import DataError
from residency.core.files import reason
from residency.core.part import Part
from residency.corpus.conversations import Conversations, Said
from residency.corpus.jsonl import INVALID
from residency.corpus.reader import Row, missing, whole


class AcronymColumns(Part):
    """What the columns are called."""

    text: str = "text"
    start: str = "start_char_idx"
    """Where the short form begins, in code points from 0."""
    length: str = "length_acronym"
    expansion: str = "expansion"


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

    def rows(self, path: Path) -> Iterator[Row]:
        known = meanings(path.parent / self.dictionary) if self.dictionary else {}
        for line, record in self.records(path):
            if isinstance(record, dict):
                yield self._short_form(record, line, f"{path}:{line}", known)
            else:
                yield Row(
                    line=line,
                    fault="is not valid JSON" if record is INVALID else "is not a JSON object",
                )

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        raise NotImplementedError  # rows have columns, which a card puts into words

    def _short_form(
        self, record: dict[str, Any], line: int, where: str, known: dict[str, tuple[str, ...]]
    ) -> Row:
        columns = self.columns
        for setting, name in columns:
            if name not in record:
                raise missing(where, "column", name, record, f"columns.{setting}")
        text, start, length, full = (record[name] for _, name in columns)
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
        options = known.get(short.lower(), ())
        fields = {"text": normalize("NFC", text), "acronym": short, "expansion": full}
        about = self._about(record) | {
            "choices": options if not options or full in options else (*options, full)
        }
        return Row(line=line, text=f"{short}\n{fields['text']}", fields=fields, **about)


@cache
def meanings(path: Path) -> dict[str, tuple[str, ...]]:
    """Short form -> full forms, composed and in lower case."""
    try:
        found = msgspec.json.decode(whole(path), type=dict[str, list[str]])
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path}: is no dictionary of short forms ({reason(error)}); give {{short form: [full "
            "forms]}."
        ) from None
    made: dict[str, dict[str, None]] = {}
    for short, forms in found.items():
        own = made.setdefault(normalize("NFC", short).lower().strip(), {})
        own.update(dict.fromkeys(normalize("NFC", form).strip() for form in forms))
    return {short: tuple(forms) for short, forms in made.items()}
