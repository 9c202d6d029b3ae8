"""HL7 version 2: what MDM, ORU and ADT messages say in words, and everyone whom they name.

Segments and fields are those of the standard's chapters 3 (PID, NK1, PV1, MRG, IN1, GT1), 4 (ORC,
OBR), 7 (OBX) and 9 (TXA).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256

from msgspec.structs import replace

from residency.core.types import RawNote
from residency.ingest.decode import FONTS, UNREADABLE, Unreadable, by_font, read
from residency.ingest.documents import ELSEWHERE, words_of
from residency.ingest.hl7_segments import Message, cut, patients, split, stray, text_of
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.sources import Hl7

BROKEN = "the message cannot be read"
BEFORE = "text before the first message header"
WITHDRAWN = "characters left out: withdrawn or deleted by the sender (OBX-11)"
CANCELLED = "the document is cancelled or obsolete (MDM^T11, TXA-19)"
REPLACED = "the document is replaced by another (MDM^T10)"
NO_WORDS = "characters left out: values that are no words (OBX-2)"
BESIDE = "characters left out: units, range and flags of words (OBX-6 to OBX-8)"
WORDS = frozenset({"TX", "FT", "ST"})
"""Types of OBX values that are words."""
ID_KINDS = {
    **dict.fromkeys(("SS", "NI", "NNVNM", "NNCHN", "PPN"), "national_id"),
    **dict.fromkeys(("HC", "MC", "MA", "MI", "NIIP", "SN"), "insurance"),
    **dict.fromkeys(("AN", "BA"), "account"),
    "VN": "admission",
    "DL": "other",
}
"""Table 0203's type of an identifier -> our kind; every other is a record number."""
NAMED: dict[str, tuple[tuple[str, str, tuple[int, ...]], ...]] = {
    "PID": (
        ("first", "account", (18,)),
        ("first", "national_id", (19,)),
        ("name", "name", (5, 9)),
        ("name", "relative", (6,)),
        ("birth", "birth_date", (7,)),
        ("address", "address", (11, 12)),
        ("phone", "phone", (13, 14, 40)),
    ),
    "NK1": (
        ("name", "relative", (2, 26, 30)),
        ("address", "address", (4, 32)),
        ("phone", "phone", (5, 6, 7, 31)),
    ),
    "GT1": (
        ("name", "relative", (3, 4)),
        ("address", "address", (5,)),
        ("phone", "phone", (6, 7)),
        ("first", "national_id", (12,)),
    ),
    "IN1": (
        ("name", "relative", (16,)),
        ("address", "address", (19,)),
        ("every", "insurance", (36, 49)),
    ),
    "PV1": (("first", "admission", (19,)),),
    "MRG": (("every", "record", (1, 4)), ("name", "name", (7,))),
    "OBR": (("result_staff", "clinician", (32, 33, 34, 35)),),
}
"""Segment -> how its fields are read, what they identify, and which they are."""
STAFF = {
    "PV1": (7, 8, 9, 17, 52),
    "PV2": (13,),
    "OBR": (10, 16, 28),
    "ORC": (10, 11, 12, 19),
    "TXA": (5, 9, 10, 11, 22),
    "OBX": (16, 25),
    "PD1": (4,),
    "EVN": (5,),
    "ROL": (4,),
    "PRT": (5,),
    "NTE": (5,),
    "DG1": (16,),
    "PR1": (8, 11, 12),
}
"""Where clinicians are named (XCN)."""


def messages(settings: Hl7, data: bytes, name: str) -> Iterator[RowOutcome]:
    """What became of each message of a file."""
    encoding: str = settings.encoding
    if encoding == "utf-16" or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            data, encoding = data.decode("utf-16").encode("utf-8", "surrogatepass"), "utf-8"
        except UnicodeDecodeError:
            yield RowOutcome(skipped=UNREADABLE, id=f"\0{name}")
            return
    before, parts = cut(data.removeprefix(b"\xef\xbb\xbf"))
    if not parts:
        yield RowOutcome(skipped=BROKEN, id=f"\0{name}")
        return
    if stray(before):
        yield RowOutcome(skipped=BEFORE, id=f"\0{name}")
    for number, part in enumerate(parts, 1):
        try:
            text, codec = text_of(part, encoding, settings.lang)
        except Unreadable as error:
            yield RowOutcome(skipped=str(error), id=f"\0{name}#{number}")
            continue
        left: Counter[str] = Counter()
        for whole in split(text, left):
            yield from message(settings, whole, f"{name}#{number}", codec, left)


def message(
    settings: Hl7, text: str, id: str, codec: str = "utf-8", left: Counter[str] | None = None
) -> Iterator[RowOutcome]:
    """A message as its notes: for each patient one for a document (MDM) or a message, one for each
    order of results (ORU). What was counted in ``left`` while it was read goes with the first."""
    try:
        if settings.encoding in FONTS:
            text = by_font(text, settings.encoding)[0]
        found = [
            outcome
            for part in patients(text)
            for outcome in _outcomes(settings, Message(part, codec))
        ]
    except (Unreadable, IndexError, ValueError) as error:
        why = str(error) if isinstance(error, Unreadable) else BROKEN
        yield RowOutcome(skipped=why, id=f"\0{id}")
        return
    ids: Counter[str] = Counter()
    for number, outcome in enumerate(found, 1):
        name = id if len(found) == 1 else f"{id}.{number}"
        remarks = {**outcome.remarks, **(left or {})} if number == 1 else outcome.remarks
        if outcome.note is None:
            yield replace(outcome, id=outcome.id or f"\0{name}", remarks=remarks)
            continue
        own = outcome.note.id or name
        ids[own] += 1
        own += f".{ids[own]}" if ids[own] > 1 else ""
        yield replace(outcome, note=replace(outcome.note, id=own), remarks=remarks)


@dataclasses.dataclass
class _Piece:
    """What a message says of one document or order."""

    title: str
    order: tuple[str, ...] = ()
    """What tells the order or document from others of its patient and sender."""
    lines: list[str] = dataclasses.field(default_factory=list)
    left: Counter[str] = dataclasses.field(default_factory=Counter)
    """Reason -> characters that are left out."""


def _outcomes(settings: Hl7, parsed: Message) -> Iterator[RowOutcome]:
    """What becomes of what a message says of one patient; notes have an id where the message says
    by what its document, or the message itself, is known (TXA-12, OBR-3, MSH-10). A row without a
    note that has such an id takes that note back."""
    header = parsed.segments[0]
    kind = _text(parsed, header, 9)
    event = _text(parsed, header, 9, 2) or _text(parsed, header, 9, 3)[4:]
    patient, identifiers = people(parsed, settings.lang)
    parsed.unescape.unknown.clear()
    when = _time(parsed, ("TXA", 4), ("OBR", 7), ("EVN", 2), ("MSH", 7))
    said = re.match(r"\d{8,17}", _text(parsed, header, 7))
    version = said[0].ljust(17, "0") if said else ""
    sender = (_text(parsed, header, 3), _text(parsed, header, 4), patient)
    document = next(iter(parsed.named("TXA")), [])
    number, parent = _text(parsed, document, 12), _text(parsed, document, 13)
    if event == "T11" or _text(parsed, document, 19) in ("CA", "OB"):
        own = note_id("hl7", *sender, "document", number) if number else ""
        yield RowOutcome(skipped=CANCELLED, id=own, version=version, deleted=bool(own))
        return
    if event in ("T09", "T10") and parent:
        own = note_id("hl7", *sender, "document", parent)
        yield RowOutcome(skipped=REPLACED, id=own, rows=0, version=version, deleted=True)
    without: Counter[str] = Counter()
    given = 0
    for piece in _pieces(parsed, kind, settings.lang):
        own = note_id("hl7", *sender, *piece.order) if piece.order else ""
        if not piece.lines:
            without += piece.left
            if own and WITHDRAWN in piece.left:
                given += 1
                yield RowOutcome(skipped=WITHDRAWN, id=own, version=version, deleted=True)
            continue
        given += 1
        try:
            words = read("\n".join(piece.lines), "utf-8", settings.lang, "auto", piece.left)[0]
        except Unreadable as error:
            yield RowOutcome(skipped=str(error), remarks=dict(piece.left))
            continue
        control = _text(parsed, header, 10)
        if not own and control:
            own = note_id("hl7", *sender, "message", control, piece.title, words)
        note = RawNote(
            id=own,
            patient=patient,
            text=words,
            lang=settings.lang,
            kind=piece.title or kind,
            written_at=when,
            identifiers=identifiers,
        )
        remarks = dict(piece.left + without)
        yield RowOutcome(note=note, remarks=remarks, version=version if own else "")
        without.clear()
    if not given:
        told = (why for why in without if why not in (NO_WORDS, BESIDE))
        yield RowOutcome(skipped=next(told, NO_TEXT), remarks=dict(without))


def note_id(form: str, *parts: str) -> str:
    """The id of a note that may be sent again, corrected or cancelled, whatever file it is in."""
    return f"{form}-{sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _pieces(parsed: Message, kind: str, lang: str) -> Iterator[_Piece]:
    """What a message says in words, by document or order."""
    document = next(iter(parsed.named("TXA")), [])
    number = _text(parsed, document, 12)
    piece = _Piece(_text(parsed, document, 2), ("document", number) if number else ())
    withdrawn = False
    for segment in parsed.segments:
        if segment[0] == "OBR" and kind == "ORU":
            yield _counted(parsed, piece)
            order = _text(parsed, segment, 3) or _text(parsed, segment, 2)
            when = _text(parsed, segment, 7)
            code = _text(parsed, segment, 4)
            title = _text(parsed, segment, 4, 2) or code
            piece = _Piece(title, ("order", order, code, when) if order else ())
            withdrawn = False
        elif segment[0] == "OBX":
            withdrawn = _text(parsed, segment, 11) in ("W", "D")
            _value(parsed, segment, withdrawn, lang, piece)
        elif segment[0] == "NTE":
            _add(_repeats(parsed, segment, 3), piece, WITHDRAWN if withdrawn else "")
    yield _counted(parsed, piece)


def _counted(parsed: Message, piece: _Piece) -> _Piece:
    """A piece with the escape characters that were met since the last one."""
    piece.left.update(parsed.unescape.unknown)
    parsed.unescape.unknown.clear()
    return piece


def _value(parsed: Message, segment: list[str], withdrawn: bool, lang: str, piece: _Piece) -> None:
    """Take up the value of an observation, or count why it is left out."""
    kind, values = _text(parsed, segment, 2), _repeats(parsed, segment, 5)
    if withdrawn:
        _add(values, piece, WITHDRAWN)
    elif kind in WORDS:
        _add(values, piece)
        _add([_text(parsed, segment, number) for number in (6, 7, 8)], piece, BESIDE)
    elif kind == "ED":
        for one in segment[5:6]:
            parts = _padded(one.split(parsed.unescape.signs[:1] or "^"), 5)
            data = parsed.unescape("^".join(parts[4:]))
            try:
                words = words_of(data, parts[3], f"{parts[1]}/{parts[2]}", lang, piece.left)
                _add([words], piece)
            except Unreadable as error:
                piece.left[str(error)] += 1
    elif kind == "RP":
        piece.left[ELSEWHERE] += 1
    else:
        _add(values, piece, NO_WORDS)


def _add(values: Sequence[str], piece: _Piece, why: str = "") -> None:
    """Add lines to a piece, or count their characters where there is a reason to leave them out."""
    if not why:
        piece.lines += [words for words in values if words.strip()]
    elif count := sum(len("".join(words.split())) for words in values):
        piece.left[why] += count


# Who is named


def people(parsed: Message, lang: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(patient, known identifiers) of a message."""
    ids = [
        (
            next((ID_KINDS[part] for part in (*id[4:5], *id[3:4]) if part in ID_KINDS), "record"),
            id[0],
        )
        for segment in parsed.named("PID")
        for number in (3, 2, 4)
        for id in _fields(parsed, segment, number)
    ]
    found: list[tuple[str, str]] = []
    for name, rules in NAMED.items():
        for segment in parsed.named(name):
            for form, kind, numbers in rules:
                for number in numbers:
                    found += _read(parsed, segment, number, form, kind, lang)
    for name, staff in STAFF.items():
        for segment in parsed.named(name):
            for number in staff:
                found += [("clinician", one) for one in _staff(parsed, segment, number, lang)]
    ids = [pair for pair in ids if pair[1]]
    patient = next((value for kind, value in ids if kind == "record"), ids[0][1] if ids else "")
    return patient, tuple(dict.fromkeys(pair for pair in ids + found if len(pair[1].strip()) > 1))


def _read(
    parsed: Message, segment: list[str], number: int, form: str, kind: str, lang: str
) -> Iterator[tuple[str, str]]:
    """(kind, value) of what a field identifies someone by, read in one of the forms of
    ``NAMED``."""
    fields = _fields(parsed, segment, number, parts=form in ("address", "result_staff"))
    if form == "birth" and (born := moment(_text(parsed, segment, number))):
        yield kind, born.date().isoformat()
    for field in fields[: 1 if form == "first" else None]:
        if form in ("first", "every") and field[0]:
            yield kind, field[0]
        elif form == "name":  # XPN
            family, given, more, *_ = _padded(field, 3)
            yield kind, order_name(family, given, more, lang)
        elif form == "result_staff":  # NDL: the person is one component, number & family & given
            _, family, given, more, *_ = _padded(field[0].split("\0"), 4)
            if family and given:
                yield kind, order_name(family, given, more, lang)
        elif form == "address":
            yield from ((kind, line) for line in _address(field))
        elif form == "phone":
            yield from _phone(field)


def _address(field: Sequence[str]) -> Iterator[str]:
    """An address (XAD) as a whole, and the line with a number in it."""
    pieces = (" ".join(map(str.strip, filter(str.strip, one.split("\0")))) for one in field[:5])
    lines = [line for line in pieces if line]
    if len(lines) > 1:
        yield ", ".join(lines)
    if lines and re.search(r"\d", lines[0]) and re.search(r"[^\W\d]{2}", lines[0]):
        yield lines[0]


def _phone(field: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Ways to call or write (XTN)."""
    parts = _padded(field, 12)
    yield from (("email", part) for part in (parts[0], parts[3]) if "@" in part)
    for part in (parts[0], parts[11]):
        if len(re.sub(r"\D", "", part)) > 5:
            yield "phone", part
    if len(local := f"{parts[5]}{parts[6]}") > 5:
        yield "phone", local


def _staff(parsed: Message, segment: list[str], number: int, lang: str) -> Iterator[str]:
    """Names (XCN: number, family, given, further) of a field; a bare text is a name too."""
    for one in _fields(parsed, segment, number):
        first, family, given, more, *_ = _padded(one, 4)
        if family.strip() and given.strip():  # a lone word may be any word
            yield order_name(family, given, more, lang)
        elif not family.strip() and re.search(r"[^\W\d]\s+[^\W\d]", first):
            yield first


def order_name(family: str, given: str, more: str, lang: str) -> str:
    """A name in its language's order."""
    if lang == "zh":
        return f"{family}{given}".strip()
    order = (family, more, given) if lang == "vi" else (given, more, family)
    return " ".join(part.strip() for part in order if part.strip())


# Fields


def _repeats(parsed: Message, segment: list[str], number: int) -> list[str]:
    """The repetitions of a field as text."""
    repeat = parsed.unescape.signs[1:2] or "~"
    return [parsed.unescape(one) for one in "".join(segment[number : number + 1]).split(repeat)]


def _fields(
    parsed: Message, segment: list[str], number: int, parts: bool = False
) -> list[list[str]]:
    """The repetitions of a field, each as its components; of a component with parts the first one,
    or all (``parts``), NUL between."""
    if len(segment) <= number:
        return []
    signs = parsed.unescape.signs
    component, repeat, part = signs[0:1] or "^", signs[1:2] or "~", signs[3:4] or "&"
    return [
        [
            "\0".join(parsed.unescape(inner) for inner in piece.split(part)[: None if parts else 1])
            for piece in one.split(component)
        ]
        for one in segment[number].split(repeat)
        if one
    ]


def _text(parsed: Message, segment: list[str], number: int, component: int = 1) -> str:
    fields = _fields(parsed, segment, number)
    return fields[0][component - 1].strip() if fields and len(fields[0]) >= component else ""


def _padded(parts: Sequence[str], count: int) -> list[str]:
    return [*parts, *[""] * (count - len(parts))]


def moment(text: str) -> datetime | None:
    """A time (DTM) to the minute; None where it is none."""
    found = re.match(r"(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?", text)
    if not found or not found[2] or not found[3]:
        return None
    try:
        return datetime(*(int(part or 0) for part in found.groups()))  # type: ignore[arg-type]
    except ValueError:
        return None


def _time(parsed: Message, *places: tuple[str, int]) -> datetime | None:
    for name, number in places:
        for segment in parsed.named(name)[:1]:
            if when := moment(_text(parsed, segment, number)):
                return when
    return None
