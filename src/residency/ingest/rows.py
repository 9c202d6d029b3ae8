"""From a row with columns to a note, or to the reason why it is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec.structs import replace

from residency.core.edits import Edits
from residency.core.errors import DataError
from residency.core.types import RawNote, Span, Value
from residency.ingest.decode import FONTS, Unreadable, read
from residency.ingest.sources import TableSource

Labels = dict[str, list[tuple[int, int, str]]]
"""Note -> (start, stop, label)."""
NO_ID = "the row has no id"
NO_TEXT = "the note has no text"
SAME_LINE = "two lines of the note have one number, or one has none"
DELETED = "deleted at the source"
NOT_SET = frozenset(["", "0", "f", "n", "no", "none", "null", "false"])
"""What a column that marks deleted notes holds where they are not."""


class RowOutcome(Value, frozen=True):
    """What became of a row, or of several that share a reason."""

    note: RawNote | None = None
    skipped: str = ""
    """Why there is no note."""
    id: str = ""
    """What tells a row that was skipped; the empty string for several rows, which are counted each
    time."""
    rows: int = 1
    mark: tuple[str, str] | None = None
    """How far the source was read."""
    file: tuple[str, bytes] | None = None
    """A file that was read to its end, by name and keyed content; such an item stands for no
    row."""
    left: int = 0
    """Labels that were left out, as their offsets count a text that was taken apart."""
    remarks: dict[str, int] = {}
    """Reason -> characters of the note that are left out of it, or kept as they stand."""
    version: str = ""
    """Which version of the note it is; the empty string where the source does not say."""
    deleted: bool = False
    """Whether the source says that the note with this id is no longer."""


def note_of(
    row: Mapping[str, Any],
    settings: TableSource,
    place: str = "",
    labelled: Labels | None = None,
    mark: tuple[str, str] | None = None,
) -> RowOutcome:
    """A row as a note; ``place`` tells a row without an id. Raises ``DataError`` for labels outside
    their text."""
    columns = settings.columns
    if row[columns.id] in (None, ""):
        return RowOutcome(skipped=NO_ID, id=f"\0{place}", mark=mark)
    id = str(row[columns.id])
    version = str(row[columns.version] or "") if columns.version else ""
    fonts = settings.encoding in FONTS

    def plain(column: str) -> str:
        value = row[column]
        if type(value) is str and not fonts:
            return value
        return read(value, settings.encoding, lang, "plain")[0]

    if columns.deleted and str(row[columns.deleted] or "").strip().casefold() not in NOT_SET:
        return RowOutcome(skipped=DELETED, id=id, mark=mark, version=version, deleted=True)
    lang = str(row[columns.lang] or "") if columns.lang else settings.lang
    left: Counter[str] = Counter()
    try:
        text, edits = read(row[columns.text], settings.encoding, lang, columns.format, left)
        identifiers = tuple(
            (kind, value) for kind, column in settings.columns_of if (value := plain(column))
        )
        patient = plain(columns.patient)
    except Unreadable as error:
        return RowOutcome(skipped=str(error), id=id, mark=mark, version=version)
    if not text.strip():
        return RowOutcome(skipped=NO_TEXT, id=id, mark=mark, version=version)
    labels = (labelled or {}).get(id, ())
    spans = spans_of(labels, text, edits) if labels and edits else ()
    note = RawNote(
        id=id,
        patient=patient,
        text=text,
        lang=lang,
        kind=str(row[columns.kind] or "") if columns.kind else "",
        department=str(row[columns.department] or "") if columns.department else "",
        written_at=when(row[columns.written_at]) if columns.written_at else None,
        spans=spans,
        identifiers=identifiers,
    )
    return RowOutcome(
        note=note, mark=mark, left=len(labels) - len(spans), version=version, remarks=dict(left)
    )


def note_of_lines(
    rows: Sequence[Mapping[str, Any]],
    settings: TableSource,
    place: str = "",
    labelled: Labels | None = None,
) -> RowOutcome:
    """The rows of one id as a note, their texts joined in the order of ``columns.line``; what else
    it needs is taken of the first."""
    columns = settings.columns
    try:
        numbers = [Decimal(str(row[columns.line])) for row in rows]
    except InvalidOperation:
        numbers = []
    if len(set(numbers)) < len(rows):
        id = str(rows[0][columns.id] or f"\0{place}")
        return RowOutcome(skipped=SAME_LINE, id=id, rows=len(rows))
    ordered = [rows[number] for number in sorted(range(len(rows)), key=numbers.__getitem__)]
    texts = [row[columns.text] for row in ordered]
    bytes_ = [one for one in texts if isinstance(one, bytes | bytearray | memoryview)]
    text: object = "\n".join(str(one or "") for one in texts)
    if bytes_:
        text = b"\n".join(bytes(one) for one in bytes_)
    found = note_of({**ordered[0], columns.text: text}, settings, place, labelled)
    return replace(found, rows=len(rows))


def version_key(version: str) -> tuple[bool, Decimal, str]:
    """Versions in their order: numbers as numbers, times as ISO 8601 has them."""
    try:
        return False, Decimal(version), ""
    except InvalidOperation:
        return True, Decimal(0), version


def spans_of(labels: Sequence[tuple[int, int, str]], text: str, edits: Edits) -> tuple[Span, ...]:
    """Labels of the stored text as spans of the text that was made of it; those that an edit cut
    are left out."""
    spans = []
    for start, stop, label in labels:
        if not 0 <= start < stop <= edits.source_length:
            raise DataError(
                f"extract.labels: a label of a note lies outside its text (characters {start} to "
                f"{stop} of {edits.source_length}); check the offsets."
            )
        if place := edits.project(start, stop):
            spans.append(
                Span(start=place[0], end=place[1], label=label, quote=text[place[0] : place[1]])
            )
    return tuple(spans)


def when(value: object) -> datetime | None:
    """A time in any of the forms in which databases and files give one; None where it is none."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    try:
        return datetime.fromisoformat(str(value).strip()) if value else None
    except ValueError:
        return None
