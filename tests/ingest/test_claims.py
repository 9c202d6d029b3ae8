"""Claims of Vietnamese health insurance: three notes of a visit, joined by its number; every
character of a table is in a note or counted."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from datetime import datetime
from pathlib import Path
from random import Random
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from residency.core.part import parse
from residency.core.progress import Silent
from residency.core.types import RawNote
from residency.ingest.claims import BROKEN, CODES, OTHER, WHO, claims
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.safe_xml import BROKEN as NO_XML
from residency.ingest.safe_xml import ENTITIES
from residency.ingest.sources import Claims, Extract
from residency.ingest.store import Store
from residency.ingest.transfer import take

VI = Claims(kind="claims", path="x")


def row(tag: str, **fields: str) -> str:
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return f"<{tag}>{inside}</{tag}>"


def coded(content: str | bytes) -> str:
    return b64encode(content.encode() if isinstance(content, str) else content).decode()


def file_of(*claims: dict[str, str], day: str = "20260501", raw: bool = False) -> bytes:
    """An envelope; ``claims``: table -> its XML, each put into base64."""
    hosos = "".join(
        "<HOSO>"
        + "".join(
            f"<FILEHOSO><LOAIHOSO>{table}</LOAIHOSO><NOIDUNGFILE>"
            f"{content if raw else coded(content)}</NOIDUNGFILE></FILEHOSO>"
            for table, content in claim.items()
        )
        + "</HOSO>"
        for claim in claims
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?><GIAMDINHHS xmlns:xsi="urn:x"><THONGTINDONVI>'
        "<MACSKCB>79001</MACSKCB></THONGTINDONVI><THONGTINHOSO>"
        f"<NGAYLAP>{day}</NGAYLAP><SOLUONGHOSO>{len(claims)}</SOLUONGHOSO><DANHSACHHOSO>{hosos}"
        "</DANHSACHHOSO></THONGTINHOSO><CHUKYDONVI/></GIAMDINHHS>"
    ).encode()


def visit(number: str = "LK1", patient: str = "BN1", **more: str) -> dict[str, str]:
    """A claim as decision 3176 has it."""
    who = {"MA_BN": patient, "HO_TEN": "Trần Thị An", "SO_CCCD": "079081002345"}
    who |= {"NGAY_SINH": "195002140000", "DIA_CHI": "12 Lê Lợi", "DIEN_THOAI": "0903123456"}
    who |= {"MA_THE_BHYT": "GD4790000000001;HT3790000000002", "MA_KHOA": "K01", "GIOI_TINH": "2"}
    said = {"LY_DO_VV": "Đau ngực", "CHAN_DOAN_RV": "Viêm phổi", "NGAY_RA": "202605031000"}
    tables = {
        "XML1": row("TONG_HOP", MA_LK=number, STT="1", **who, **said, T_TONGCHI_BV="12000.5"),
        "XML2": "<CHITIEU_CHITIET_THUOC><DSACH_CHI_TIET_THUOC>"
        + row("CHI_TIET_THUOC", MA_LK=number, TEN_THUOC="Paracetamol", HAM_LUONG="500mg",
              LIEU_DUNG="1 viên x 3", SO_LUONG="9", DON_VI_TINH="viên", NGAY_YL="202605010830")
        + row("CHI_TIET_THUOC", MA_LK=number, TEN_THUOC="Amoxicilin", CACH_DUNG="uống sau ăn")
        + "</DSACH_CHI_TIET_THUOC></CHITIEU_CHITIET_THUOC>",
        "XML3": "<A><B>" + row("C", MA_LK=number, TEN_DICH_VU="X-quang ngực thẳng", SO_LUONG="1") + "</B></A>",
        "XML5": "<A><B>"
        + row("C", MA_LK=number, STT="1", DIEN_BIEN_LS="Sốt 39 độ\nho đờm", HOI_CHAN="Nội hô hấp",
              THOI_DIEM_DBLS="202605010900", NGUOI_THUC_HIEN="BS01")
        + row("C", MA_LK=number, STT="2", DIEN_BIEN_LS="Hết sốt")
        + "</B></A>",
        "XML7": row("X", MA_LK=number, PP_DIEUTRI="Kháng sinh", GHI_CHU="Nghỉ 3 ngày", TEN_BS="Lê Văn Ba"),
        "XML8": row("X", MA_LK=number, HO_TEN_CHA="Trần Văn Bốn", QT_BENHLY="Ho 5 ngày, <sốt>"),
    }  # fmt: skip
    return tables | more


def read(data: bytes) -> list[RowOutcome]:
    return list(claims(VI, data, "f"))


def notes(data: bytes) -> dict[str, RawNote]:
    return {one.note.kind: one.note for one in read(data) if one.note}


def test_a_visit_is_three_notes_joined_by_its_number() -> None:
    found = notes(file_of(visit()))
    assert {kind: note.text for kind, note in found.items()} == {
        "administrative": "Lý do vào viện: Đau ngực\nChẩn đoán ra viện: Viêm phổi\n"
        "Phương pháp điều trị: Kháng sinh\nGhi chú: Nghỉ 3 ngày\n"
        "Quá trình bệnh lý: Ho 5 ngày, <sốt>",
        "order": "Paracetamol\t500mg\t1 viên x 3\t9\tviên\nAmoxicilin\tuống sau ăn\n"
        "X-quang ngực thẳng\t1",
        "progress": "Diễn biến: Sốt 39 độ\nho đờm\nHội chẩn: Nội hô hấp\nDiễn biến: Hết sốt",
    }
    assert {note.patient for note in found.values()} == {"BN1"}
    assert {note.lang for note in found.values()} == {"vi"}
    assert found["administrative"].written_at == datetime(2026, 5, 3, 10)
    assert found["order"].written_at == datetime(2026, 5, 1, 8, 30)
    assert found["progress"].written_at == datetime(2026, 5, 1, 9)


def test_whoever_a_claim_names_is_looked_for_in_each_of_its_notes() -> None:
    for note in notes(file_of(visit())).values():
        assert set(note.identifiers) == {
            ("account", "LK1"),
            ("record", "BN1"),
            ("name", "Trần Thị An"),
            ("national_id", "079081002345"),
            ("birth_date", "1950-02-14"),
            ("address", "12 Lê Lợi"),
            ("phone", "0903123456"),
            ("insurance", "GD4790000000001"),
            ("insurance", "HT3790000000002"),
            ("clinician", "Lê Văn Ba"),
            ("relative", "Trần Văn Bốn"),
        }


def test_tables_of_decision_4210_are_read_by_their_own_names() -> None:
    tables = {
        "XML1": row("TONG_HOP", MA_LK="7", MA_BN="B7", TEN_BENH="Tăng huyết áp", MA_THE="GD1"),
        "XML4": "<DSACH_CHI_TIET_CLS>"
        + row("CHI_TIET_CLS", MA_LK="7", TEN_CHI_SO="Glucose", GIA_TRI="7,2", KET_LUAN="tăng")
        + "</DSACH_CHI_TIET_CLS>",
        "XML5": "<DSACH_CHI_TIET_DIEN_BIEN_BENH><CHI_TIET_DIEN_BIEN_BENH><MA_LK>7</MA_LK>"
        "<DIEN_BIEN><![CDATA[HA 180/100 <b>]]></DIEN_BIEN><NGAY_YL>201801020304</NGAY_YL>"
        "</CHI_TIET_DIEN_BIEN_BENH></DSACH_CHI_TIET_DIEN_BIEN_BENH>",
    }
    found = notes(file_of(tables))
    assert {kind: note.text for kind, note in found.items()} == {
        "administrative": "Chẩn đoán: Tăng huyết áp",
        "progress": "Glucose\t7,2\ttăng\nDiễn biến: HA 180/100 <b>",
    }


def test_rows_go_to_the_visit_that_they_name() -> None:
    tables = visit("A", "BN1")
    tables["XML5"] = (
        "<L>" + row("C", MA_LK="B", DIEN_BIEN="của B") + row("C", DIEN_BIEN="của A") + "</L>"
    )
    second = {"XML1": row("T", MA_LK="B", MA_BN="BN2", TEN_BENH="ho")}
    found = [
        (one.note.patient, one.note.text)
        for one in read(file_of(tables, second))
        if one.note and one.note.kind == "progress"
    ]
    assert found == [("BN1", "Diễn biến: của A"), ("BN2", "Diễn biến: của B")]


def test_tables_that_stand_there_as_text_or_as_elements_are_read_alike() -> None:
    wanted = notes(file_of(visit()))
    declared = {
        table: f'<?xml version="1.0" encoding="utf-8"?>{xml}' for table, xml in visit().items()
    }
    assert notes(file_of(declared)) == wanted
    assert notes(file_of({t: escape(xml) for t, xml in declared.items()}, raw=True)) == wanted
    assert notes(file_of(visit(), raw=True)) == wanted
    wide = {t.lower().replace("xml", "xml0"): "\ufeff" + xml for t, xml in visit().items()}
    assert notes(file_of(wide)) == wanted


@pytest.mark.parametrize("content", ["!!!", "QUI", coded("<A><B>"), coded(b"\xff\xfe\x00")])
def test_a_table_that_cannot_be_read_is_counted_by_its_name(content: str) -> None:
    data = file_of(visit()).replace(coded(visit()["XML5"]).encode(), content.encode())
    found = read(data)
    assert [one.skipped for one in found if not one.note] == [f"{BROKEN}: XML5"]
    assert {one.note.kind for one in found if one.note} == {"administrative", "order"}


def test_entities_of_a_table_are_not_followed() -> None:
    declared = (
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><A><DIEN_BIEN>&e;</DIEN_BIEN></A>'
    )
    assert [one.skipped for one in read(file_of({"XML5": declared}))] == [f"{BROKEN}: XML5"]
    assert [one.skipped for one in read(b"<!DOCTYPE a><GIAMDINHHS/>")] == [ENTITIES]
    assert [one.skipped for one in read(b"<x/>")] == [NO_XML]


def test_tables_without_notes_are_counted_and_their_people_known() -> None:
    birth = row("X", MA_LK="LK1", HO_TEN_CON="Lê Bé", GHI_CHU="bé khỏe")
    found = read(file_of(visit(XML9=birth)))
    counted: Counter[str] = sum((Counter(one.remarks) for one in found), Counter())
    assert counted[OTHER] == len("békhỏe")
    assert all(("relative", "Lê Bé") in one.note.identifiers for one in found if one.note)


def test_a_claim_that_is_sent_again_is_the_later_version_of_its_notes(tmp_path: Path) -> None:
    first = visit("A") | {"XML5": row("C", MA_LK="A", DIEN_BIEN_LS="cũ")}
    later = visit("A") | {"XML5": row("C", MA_LK="A", DIEN_BIEN_LS="mới")}
    (tmp_path / "in").mkdir()
    (tmp_path / "zone").mkdir()
    (tmp_path / "in/1.xml").write_bytes(file_of(later, day="20260601"))
    (tmp_path / "in/2.xml").write_bytes(file_of(first, day="20260501"))
    (tmp_path / "in/3.xml").write_bytes(file_of(later, day="20260601"))
    store = Store.open(tmp_path / "zone", "t", b"k" * 32)
    done = take(parse(Extract, {"kind": "claims", "path": "in"}, "x"), tmp_path, store, Silent())
    held = [note.text for number in store.numbers(0) for note in store.read(number)]
    store.close()
    assert done.taken == 3 and "Diễn biến: mới" in held and "Diễn biến: cũ" not in held


# Nothing is lost

many = settings(suppress_health_check=list(HealthCheck))
FIELDS = ["MA_LK", "HO_TEN", "DIEN_BIEN_LS", "TEN_THUOC", "SO_LUONG", "T_BHTT", "NGAY_YL"]
FIELDS += ["GHI_CHU", "LA_LAM", "KET_LUAN", "MA_THE_BHYT", "QT_BENHLY"]
SIGNS = "ab đêổ5 9-+\n.,;😀<>&\"'"
LABELS = ["Diễn biến: ", "Ghi chú: ", "Quá trình bệnh lý: "]


def solid(text: str) -> str:
    return "".join(text.split())


SEEDS = st.integers(0, 2**64).map(Random)
"""What examples are made with: drawing each piece by a strategy takes ten times as long."""


def value(chance: Random) -> str:
    """Some text that does not look like HTML."""
    made = "".join(chance.choices(SIGNS, k=chance.randrange(9)))
    return made.replace("<b", "b")


def tables_of(chance: Random) -> list[dict[str, str]]:
    def table() -> str:
        rows = (
            {field: value(chance) for field in chance.sample(FIELDS, chance.randrange(6))}
            for _ in range(chance.randrange(4))
        )
        return f"<A><B>{''.join(row('C', **one) for one in rows)}</B>stray</A>"

    names = [f"XML{number}" for number in range(1, 16)]
    return [
        {name: table() for name in chance.sample(names, chance.randrange(8))}
        for _ in range(chance.randrange(4))
    ]


@many
@given(SEEDS.map(tables_of))
def test_no_character_of_a_table_is_lost(made: list[dict[str, str]]) -> None:
    data = file_of(*made)
    every = "".join(
        "".join(etree.fromstring(b64decode(file.text or "")).itertext())
        for file in etree.fromstring(data).iter("NOIDUNGFILE")
    )
    out, left = "", 0
    for one in read(data):
        text = one.note.text if one.note else ""
        for label in LABELS:
            text = "\n".join(line.removeprefix(label) for line in text.split("\n"))
        out += solid(text)
        left += sum(one.remarks.values())
        assert one.note or one.skipped == NO_TEXT
    assert len(out) + left == len(solid(every))
    assert not Counter(out) - Counter(every)


def test_what_is_left_out_is_counted_by_its_reason() -> None:
    tables = {"XML1": row("T", MA_LK="A1", HO_TEN="Lê An", T_BHTT="1200", GHI_CHU="ho")}
    (found,) = read(file_of(tables))
    assert found.note and found.note.text == "Ghi chú: ho"
    assert found.remarks == {WHO: len("A1LêAn"), CODES: 4}
