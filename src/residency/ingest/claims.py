"""Claims of Vietnamese health insurance: what a visit says in words, as three notes.

The envelope GIAMDINHHS and its tables are those of decision 4210/QĐ-BYT and of 130, 4750 and
3176/QĐ-BYT. A claim (``HOSO``) holds tables, each in base64, whose rows are joined by ``MA_LK``.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from residency.core.types import RawNote
from residency.ingest.decode import Unreadable, read
from residency.ingest.hl7 import moment, note_id
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.safe_xml import root_of
from residency.ingest.sources import Claims

KINDS = {
    **dict.fromkeys(("XML1", "XML7", "XML8", "XML13", "XML14"), "administrative"),
    **dict.fromkeys(("XML2", "XML3"), "order"),
    **dict.fromkeys(("XML4", "XML5"), "progress"),
}
"""Table -> the note that its words go to: what the visit was for and how it ended; drugs and
services ordered; results and clinical course."""
LISTS = ("XML2", "XML3", "XML4")
"""Tables of which a row is a line; of others each field is one."""
BROKEN = "a table of the claim cannot be read"
CODES = "characters left out: codes, dates and amounts of the claim"
WHO = "characters left out: identifiers of the claim (they are looked for in its notes)"
OTHER = "characters left out: tables of the claim that hold no notes (XML6, XML9 to XML12, XML15)"
STRAY = "characters left out: text between the fields of a claim"
PERSONS: tuple[tuple[str, str], ...] = (
    (r"HO_TEN", "name"),
    (r"HO_?TEN_NGUOI_HT|TEN_BS|NGUOI_DAI_DIEN|NGUOI_DO_DE|NGUOI_GHI_PHIEU", "clinician"),
    (r"HO_?TEN_\w+|NGUOI_GIAM_HO|MA_CHA|MA_ME", "relative"),
    (r"MA_BN|MA_HSBA|SO_LUU_TRU|MA_YTE|SO_KCB", "record"),
    (r"MA_LK", "account"),
    (r"SO_CCCD\w*", "national_id"),
    (r"MA_THE\w*|MA_BHXH\w*", "insurance"),
    (r"NGAY_?SINH\w*", "birth_date"),
    (r"DIA_CHI|NOI_CU_TRU\w*", "address"),
    (r"DIEN_THOAI", "phone"),
    (r"(?:TEN_)?DON_?VI|GIAY_CHUYEN_TUYEN|SO_CHUYENTUYEN|SO_SERI", "other"),
)
"""Fields that say who somebody is, and the kind of identifier that they hold."""
CODED = re.compile(
    r"STT|MA_\w+|T_\w+|NGAY\w*|SO_(?!LUONG$)\w+|SO|QUYEN_SO|GT_THE\w*|DON_GIA\w*|THANH_TIEN\w*|TY_?LE\w*|"
    r"MUC_HUONG|GIOI_TINH\w*|PHAM_VI|KET_QUA_DTRI|TINH_TRANG_RV|NAM_QT|THANG_QT|CAN_NANG\w*|TT_THAU|"
    r"GOI_VTYT|VET_THUONG_TP|PP_VO_CAM|VI_TRI_TH_DVKT|NGUON\w*|THOI_?(?:DIEM|GIAN)_\w+|TUOI_THAI|"
    r"NGUOI_THUC_HIEN|NAM_NAM_LIEN_TUC|TAI_SU_DUNG|DUONG_DUNG|NHOM_MAU|NGOAITRU_\w+|TEKT"
)
"""Fields of codes, numbers, dates and money; every other is words."""
NAMES = {
    "LY_DO_VV": "Lý do vào viện",
    "LY_DO_VNT": "Lý do vào nội trú",
    "CHAN_DOAN_VAO": "Chẩn đoán vào viện",
    "CHAN_DOAN_RV": "Chẩn đoán ra viện",
    "TEN_BENH": "Chẩn đoán",
    "DAU_HIEU_LS": "Dấu hiệu lâm sàng",
    "QT_BENHLY": "Quá trình bệnh lý",
    "TOMTAT_KQ": "Tóm tắt kết quả",
    "PP_DIEUTRI": "Phương pháp điều trị",
    "PP_DIEU_TRI": "Phương pháp điều trị",
    "HUONG_DIEU_TRI": "Hướng điều trị",
    "NGUYENNHAN_DINHCHI": "Nguyên nhân đình chỉ thai",
    "GHI_CHU": "Ghi chú",
    "DIEN_BIEN": "Diễn biến",
    "DIEN_BIEN_LS": "Diễn biến",
    "GIAI_DOAN_BENH": "Giai đoạn bệnh",
    "HOI_CHAN": "Hội chẩn",
    "PHAU_THUAT": "Phẫu thuật",
}
"""Field -> how its line begins."""


@dataclass
class _Visit:
    """What the tables of a claim say of one visit (``MA_LK``)."""

    number: str
    tables: set[str] = field(default_factory=set)
    first: dict[str, str] = field(default_factory=dict)
    """Field -> its first value."""
    identifiers: dict[tuple[str, str], None] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, Counter[str]] = field(default_factory=dict)
    times: dict[str, datetime] = field(default_factory=dict)


def claims(settings: Claims, data: bytes, name: str) -> Iterator[RowOutcome]:
    """What became of the visits of a file, up to three notes each, and of tables that cannot be
    read."""
    try:
        root = root_of(data, "GIAMDINHHS")
    except Unreadable as error:
        yield RowOutcome(skipped=str(error), id=f"\0{name}")
        return
    made = re.sub(r"\D", "", root.findtext(".//{*}NGAYLAP") or "")
    hospital = (root.findtext(".//{*}MACSKCB") or "").strip()
    visits: list[_Visit] = []
    for number, claim in enumerate(root.iter("{*}HOSO"), 1):
        here: dict[str, _Visit] = {}
        for at, file in enumerate(claim.iter("{*}FILEHOSO"), 1):
            named = (file.findtext("{*}LOAIHOSO") or "").strip().upper()
            table = re.sub(r"^XML0+(?=\d)", "XML", named)
            try:
                rows = _rows(file.find("{*}NOIDUNGFILE"))
            except Unreadable:
                told = table if re.fullmatch(r"XML\d{1,2}", table) else "without a name"
                why = f"{BROKEN}: {told}"
                yield RowOutcome(skipped=why, id=f"\0{name}#{number}.{at}")
                continue
            for row in rows:
                _take(settings, row, table, _visit(row, table, here, visits))
    for visit in visits:
        yield from _outcomes(settings, visit, hospital, made)


def _rows(content: Any) -> list[list[tuple[str, str]]]:
    """(field, value) of the rows of a table, which stands there in base64, as text or as elements;
    raises ``Unreadable``."""
    if content is None:
        return []
    if len(content):
        roots = list(content)
    elif text := (content.text or "").strip().removeprefix("\ufeff"):
        if not text.startswith("<"):
            try:
                data = b64decode("".join(text.split()), validate=True)
            except (Error, ValueError):
                raise Unreadable(BROKEN) from None
        else:  # text holds no bytes for a declaration to be true of
            data = re.sub(r"^<\?xml[^>]*\?>", "", text).encode()
        roots = [root_of(data, "")]
    else:
        return []
    rows: dict[Any, list[tuple[str, str]]] = {}
    for root in roots:
        for element in root.iter():
            tag = element.tag.rpartition("}")[2]
            around = ("" if len(element) == 0 else element.text or "") + (element.tail or "")
            row = rows.setdefault(element if element is root else element.getparent(), [])
            row += [(tag, element.text or "")] if not len(element) else []
            row += [("", around)] if around.strip() else []
    return [row for row in rows.values() if any(value.strip() for _, value in row)]


def _visit(
    row: list[tuple[str, str]], table: str, here: dict[str, _Visit], visits: list[_Visit]
) -> _Visit:
    """The visit that a row belongs to: by its number, else that of its claim. A claim whose table
    an earlier one has for the same visit was sent again, and is one of its own."""
    number = next((value.strip() for tag, value in row if tag == "MA_LK" and value.strip()), "")
    number = number or next(iter(here), "")
    if number not in here:
        before = next((one for one in reversed(visits) if one.number == number and number), None)
        if before is None or table in before.tables:
            before = _Visit(number)
            visits.append(before)
        here[number] = before
    here[number].tables.add(table)
    return here[number]


def _take(settings: Claims, row: list[tuple[str, str]], table: str, visit: _Visit) -> None:
    """Take up a row: its words, whom it names, and how many characters are neither."""
    kind = KINDS.get(table, "")
    left = visit.left.setdefault(kind or "administrative", Counter())
    cells = []
    for tag, value in row:
        who = next((of for pattern, of in PERSONS if re.fullmatch(pattern, tag)), "")
        visit.first.setdefault(tag, value.strip())
        if who:
            visit.identifiers |= dict.fromkeys(_identifiers(settings, who, value))
        if (why := _why_left(tag, who, kind)) or not value.strip():
            _count(value, why, left)
            continue
        try:
            words = read(value, settings.encoding, "vi", "auto", left)[0].strip()
        except Unreadable as error:
            _count(value, f"characters left out: {error}", left)
            continue
        named = NAMES.get(tag, "") if table not in LISTS else ""
        cells.append(f"{named}: {words}" if named else words)
    if cells:
        visit.lines.setdefault(kind, []).append(("\t" if table in LISTS else "\n").join(cells))
    for tag, value in row:
        if tag in ("THOI_DIEM_DBLS", "NGAY_YL", "NGAY_KQ") and (when := moment(value.strip())):
            visit.times.setdefault(kind, when)


def _why_left(tag: str, who: str, kind: str) -> str:
    """Why a field is no part of a note; the empty string where it is."""
    if who:
        return WHO
    if not tag:
        return STRAY
    if not kind:
        return OTHER
    return CODES if CODED.fullmatch(tag) else ""


def _count(value: str, why: str, left: Counter[str]) -> None:
    if count := len("".join(value.split())):
        left[why] += count


def _identifiers(settings: Claims, kind: str, value: str) -> Iterator[tuple[str, str]]:
    """(kind, value) of a field; several cards stand with semicolons between."""
    try:
        value = read(value, settings.encoding, "vi", "plain")[0]
    except Unreadable:
        return
    for one in value.split(";") if kind == "insurance" else [value]:
        told = one.strip()
        if kind == "birth_date":
            when = moment(told)
            told = when.date().isoformat() if when else ""
        if len(told) > 1:
            yield kind, told


def _outcomes(settings: Claims, visit: _Visit, hospital: str, made: str) -> Iterator[RowOutcome]:
    number, first = visit.number, visit.first
    hospital = first.get("MA_CSKCB") or hospital
    told = [kind for kind in dict.fromkeys(KINDS.values()) if kind in visit.left]
    for kind in told:
        own = note_id("claim", hospital, number, kind) if number else ""
        version = made.ljust(14, "0") if made and own else ""
        remarks = dict(visit.left[kind])
        if not (lines := visit.lines.get(kind)):
            id = own or f"\0{note_id('claim', hospital, kind, *first.values())}"
            yield RowOutcome(skipped=NO_TEXT, id=id, version=version, remarks=remarks)
            continue
        whole = ("NGAY_RA", "NGAY_TTOAN", "NGAY_VAO")
        dates = (moment(first.get(tag, "")) for tag in whole)
        note = RawNote(
            id=own or note_id("claim", hospital, kind, *lines),
            patient=next((first[tag] for tag in ("MA_BN", "MA_YTE") if first.get(tag)), number),
            text="\n".join(lines),
            lang=settings.lang or "vi",
            kind=kind,
            department=first.get("MA_KHOA", ""),
            written_at=visit.times.get(kind) or next((one for one in dates if one), None),
            identifiers=tuple(visit.identifiers),
        )
        yield RowOutcome(note=note, version=version, remarks=remarks)
