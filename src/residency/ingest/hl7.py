"""HL7 version 2: what MDM, ORU and ADT messages say in words, and everyone whom they name.

Segments and fields are those of the standard's chapters 3 (PID, NK1, PV1, MRG, IN1, GT1), 4 (ORC,
OBR), 7 (OBX) and 9 (TXA).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from residency.core.types import RawNote
from residency.ingest.decode import FONTS, Unreadable, by_font, decode_bytes, read
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.sources import Encoding, Hl7

if TYPE_CHECKING:
    import hl7

BROKEN = "the message cannot be read"
WORDS = frozenset({"TX", "FT", "ST"})
"""Types of OBX values that are words."""
CHARSETS: dict[str, Encoding] = {
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "GB 18030-2000": "gb18030",
    "GB18030": "gb18030",
    "8859/1": "latin-1",
    "ASCII": "utf-8",
    "UNICODE": "utf-16",
}
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
    try:
        text = decode_bytes(data, _encoding(settings, data), settings.lang)
    except Unreadable as error:
        yield RowOutcome(skipped=str(error), id=f"\0{name}")
        return
    parts = split(text)
    if not parts:
        yield RowOutcome(skipped=BROKEN, id=f"\0{name}")
    for number, part in enumerate(parts, 1):
        yield from message(settings, part, f"{name}#{number}")


def _encoding(settings: Hl7, data: bytes) -> Encoding:
    """As the settings say, else as the first message header does (MSH-18)."""
    if settings.encoding != "auto":
        return settings.encoding
    found = re.match(rb"[\s\x0b]*MSH(.)([^\r\n]*)", data)
    fields = found[2].split(found[1]) if found else []
    named = (
        fields[16].decode("ascii", "replace").split("~")[0].strip().upper()
        if len(fields) > 16
        else ""
    )
    return CHARSETS.get(named, "auto")


def split(text: str) -> list[str]:
    """Messages of a file: without the frame of MLLP, without batch headers; a line that begins no
    segment goes on with the one before."""
    found: list[list[str]] = []
    for line in re.split(r"\r\n|\r|\n", text.strip("\x0b\x1c\ufeff \r\n\t")):
        line = line.strip("\x0b\x1c")
        if re.match(r"MSH.", line):
            found.append([line])
        elif re.match(r"[A-Z][A-Z0-9]{2}\|?", line) and found:
            if not re.match(r"(?:FHS|BHS|BTS|FTS)", line):
                found[-1].append(line)
        elif found and line.strip():
            sign = found[-1][0][6:7] or "\\"
            found[-1][-1] += f"{sign}.br{sign}{line}"
    return ["\r".join(lines) for lines in found]


def message(settings: Hl7, text: str, id: str) -> Iterator[RowOutcome]:
    """A message as its notes: one for a document (MDM) or a message, one for each order of results
    (ORU)."""
    import hl7

    try:
        parsed = hl7.parse(
            by_font(text, settings.encoding)[0] if settings.encoding in FONTS else text
        )
        kind = _text(parsed, parsed.segment("MSH"), 9, 1)
        pieces = list(_pieces(parsed, kind))
        patient, identifiers = people(parsed, settings.lang)
        when = _time(parsed, ("TXA", 4), ("OBR", 7), ("EVN", 2), ("MSH", 7))
    except Unreadable as error:
        yield RowOutcome(skipped=str(error), id=f"\0{id}")
        return
    except (hl7.HL7Exception, KeyError, IndexError, ValueError, AttributeError, TypeError):
        yield RowOutcome(skipped=BROKEN, id=f"\0{id}")
        return
    if not pieces:
        yield RowOutcome(skipped=NO_TEXT, id=f"\0{id}")
    for number, (title, words) in enumerate(pieces, 1):
        name = id if len(pieces) == 1 else f"{id}.{number}"
        try:
            words = read(words, "utf-8", settings.lang, "auto")[0]
        except Unreadable as error:
            yield RowOutcome(skipped=str(error), id=f"\0{name}")
            continue
        yield RowOutcome(
            note=RawNote(
                id=name,
                patient=patient,
                text=words,
                lang=settings.lang,
                kind=title or kind,
                written_at=when,
                identifiers=identifiers,
            )
        )


def _pieces(parsed: hl7.Message, kind: str) -> Iterator[tuple[str, str]]:
    """(title, words) of what a message says."""
    title = next((_text(parsed, segment, 2, 1) for segment in _segments(parsed, "TXA")), "")
    lines: list[str] = []
    for segment in parsed:
        name = str(segment[0])
        if name == "OBR" and kind == "ORU":
            if lines:
                yield title, "\n".join(lines)
            lines, title = [], _text(parsed, segment, 4, 2) or _text(parsed, segment, 4, 1)
        elif name == "OBX" and _text(parsed, segment, 2) in WORDS:
            lines += [words for words in _repeats(parsed, segment, 5) if words.strip()]
        elif name == "NTE":
            lines += [words for words in _repeats(parsed, segment, 3) if words.strip()]
    if lines:
        yield title, "\n".join(lines)


# Who is named


def people(parsed: hl7.Message, lang: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(patient, known identifiers) of a message."""
    ids = [
        (
            next((ID_KINDS[part] for part in (*id[4:5], *id[3:4]) if part in ID_KINDS), "record"),
            id[0],
        )
        for segment in _segments(parsed, "PID")
        for number in (3, 2, 4)
        for id in _fields(parsed, segment, number)
    ]
    found: list[tuple[str, str]] = []
    for name, rules in NAMED.items():
        for segment in _segments(parsed, name):
            for form, kind, numbers in rules:
                for number in numbers:
                    found += _read(parsed, segment, number, form, kind, lang)
    for name, staff in STAFF.items():
        for segment in _segments(parsed, name):
            for number in staff:
                found += [("clinician", one) for one in _staff(parsed, segment, number, lang)]
    ids = [pair for pair in ids if pair[1]]
    patient = next((value for kind, value in ids if kind == "record"), ids[0][1] if ids else "")
    return patient, tuple(dict.fromkeys(pair for pair in ids + found if len(pair[1].strip()) > 1))


def _read(
    parsed: hl7.Message, segment: Any, number: int, form: str, kind: str, lang: str
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


def _staff(parsed: hl7.Message, segment: Any, number: int, lang: str) -> Iterator[str]:
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


def _segments(parsed: hl7.Message, name: str) -> list[Any]:
    return [segment for segment in parsed if str(segment[0]) == name]


def _repeats(parsed: hl7.Message, segment: Any, number: int) -> list[str]:
    """The repetitions of a field as text."""
    if len(segment) <= number:
        return []
    field = segment[number]
    return [unescape(parsed, str(one)) for one in (field if _nested(field) else [field])]


def _fields(parsed: hl7.Message, segment: Any, number: int, parts: bool = False) -> list[list[str]]:
    """The repetitions of a field, each as its components; of a component with parts the first one,
    or all (``parts``), NUL between."""
    if len(segment) <= number:
        return []
    separators = str(parsed.segment("MSH")[2]) if len(parsed.segment("MSH")) > 2 else "^~\\&"
    component, repeat = separators[0], separators[1]
    part = separators[3] if len(separators) > 3 else "&"
    return [
        [
            "\0".join(
                unescape(parsed, inner) for inner in piece.split(part)[: None if parts else 1]
            )
            for piece in one.split(component)
        ]
        for one in str(segment[number]).split(repeat)
        if one
    ]


def _nested(field: Any) -> bool:
    import hl7

    return isinstance(field, hl7.Field)


def _text(parsed: hl7.Message, segment: Any, number: int, component: int = 1) -> str:
    fields = _fields(parsed, segment, number)
    return fields[0][component - 1].strip() if fields and len(fields[0]) >= component else ""


def _padded(parts: Sequence[str], count: int) -> list[str]:
    return [*parts, *[""] * (count - len(parts))]


def unescape(parsed: hl7.Message, text: str) -> str:
    r"""A text without escape sequences: ``\F\`` and its like, ``\.br\`` and ``\.sp\`` as line ends,
    ``\Xdd..\`` as UTF-8, others left out."""
    sign = str(parsed.segment("MSH")[2])[2:3] or "\\"
    if sign not in text:
        return text
    mark = re.escape(sign)
    return re.sub(
        f"{mark}([^{mark}]{{1,200}}){mark}", lambda found: _escape(parsed, found[1], sign), text
    )


def _escape(parsed: hl7.Message, code: str, sign: str) -> str:
    separators = str(parsed.segment("MSH")[2])
    field = str(parsed.segment("MSH")[1])
    plain = {
        "F": field,
        "S": separators[0],
        "R": separators[1],
        "E": sign,
        "T": separators[3:4] or "&",
        "P": "#",
    }
    if code in plain:
        return plain[code]
    if found := re.fullmatch(r"\.(?:br|sp(\d*)|ce|sp\+(\d+))", code):
        return "\n" * max(1, int(found[1] or found[2] or 1))
    if found := re.fullmatch(r"\.(?:in|ti|sk)[+-]?(\d*)", code):
        return " "
    if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", code):
        return bytes.fromhex(code[1:]).decode("utf-8", "replace").replace("\r", "\n")
    return ""


def moment(text: str) -> datetime | None:
    """A time (DTM) to the minute; None where it is none."""
    found = re.match(r"(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?", text)
    if not found or not found[2] or not found[3]:
        return None
    try:
        return datetime(*(int(part or 0) for part in found.groups()))  # type: ignore[arg-type]
    except ValueError:
        return None


def _time(parsed: hl7.Message, *places: tuple[str, int]) -> datetime | None:
    for name, number in places:
        for segment in _segments(parsed, name)[:1]:
            if when := moment(_text(parsed, segment, number)):
                return when
    return None
