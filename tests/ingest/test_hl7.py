"""HL7 v2 messages: their words, and everyone whom they name."""

from __future__ import annotations

from datetime import datetime

import pytest

from residency.ingest.hl7 import message, messages, moment, order_name, split
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.sources import Hl7

SETTINGS = Hl7(kind="hl7", path="x", lang="vi")
MDM = "\r".join(
    (
        r"MSH|^~\&|HIS|BV|RIS|BV|20240501080000||MDM^T02|M1|P|2.5",
        "PID|1||BN00123^^^BV^MR~079088001234^^^BCA^NI~DN4790123456789^^^BHXH^HC||Nguyễn^An^Văn^^^^L~Trần^Ba||19880214|M|||12 Lê Lợi&Phường 1^^Quận 1^TP HCM^700000||0912345678^PRN^PH~an@example.com^NET^Internet",
        "NK1|1|Lê^Hoa^Thị|SPO|||0987654321",
        "PV1|1|I|||||D7^Phạm^Dũng^Quốc||||||||||||V5551",
        "TXA|1|Bệnh án|TX|20240430101500|D9^Võ^Mai",
        r"OBX|1|TX|||Bệnh nhân sốt\.br\đau đầu",
        r"OBX|2|FT|||Na\T\K bình thường~mạch 80\X0A\đều \H\rõ\N\ ",
        "OBX|3|NM|||38.5",
    )
)


def only(text: str, settings: Hl7 = SETTINGS) -> RowOutcome:
    (found,) = message(settings, text, "f#1")
    return found


def test_text_segments_are_joined_and_escapes_resolved() -> None:
    note = only(MDM).note
    assert note and note.text == "Bệnh nhân sốt\nđau đầu\nNa&K bình thường\nmạch 80\nđều rõ "
    assert (note.kind, note.patient, note.written_at) == (
        "Bệnh án",
        "BN00123",
        datetime(2024, 4, 30, 10, 15),
    )


def test_everyone_who_is_named_is_a_known_identifier() -> None:
    note = only(MDM).note
    assert note
    assert set(note.identifiers) == {
        ("record", "BN00123"),
        ("national_id", "079088001234"),
        ("insurance", "DN4790123456789"),
        ("name", "Nguyễn Văn An"),
        ("name", "Trần Ba"),
        ("birth_date", "1988-02-14"),
        ("address", "12 Lê Lợi Phường 1, Quận 1, TP HCM, 700000"),
        ("address", "12 Lê Lợi Phường 1"),
        ("phone", "0912345678"),
        ("email", "an@example.com"),
        ("relative", "Lê Thị Hoa"),
        ("phone", "0987654321"),
        ("clinician", "Phạm Quốc Dũng"),
        ("clinician", "Võ Mai"),
        ("admission", "V5551"),
    }


def test_results_are_a_note_for_each_order() -> None:
    oru = "\r".join(
        (
            r"MSH|^~\&|LAB|BV|||20240501||ORU^R01|M2|P|2.5",
            "PID|1||77001",
            "OBR|1|||CT^CT ngực|||20240501090000",
            "OBX|1|TX|||Không u",
            "NTE|1||Đã hội chẩn",
            "OBR|2|||HH^Huyết học|||20240501",
            "OBX|1|ST|||Bình thường",
            "OBX|2|CE|||x^y",
        )
    )
    found = [
        (item.note.kind, item.note.text) for item in message(SETTINGS, oru, "f#2") if item.note
    ]
    assert found == [("CT ngực", "Không u\nĐã hội chẩn"), ("Huyết học", "Bình thường")]


def test_a_message_without_words_is_accounted_for() -> None:
    assert only("MSH|^~\\&|HIS|BV|||20240501||ADT^A01|M3|P|2.5\rPID|1||77001") == RowOutcome(
        skipped=NO_TEXT, id="\0f#1"
    )


@pytest.mark.parametrize("text", ["MSH", "MSH|^~\\&", "MSH|^~\\&|x\rOBX|1|TX"])
def test_a_broken_message_is_accounted_for(text: str) -> None:
    (found,) = message(SETTINGS, text, "f#1")
    assert found.note is None and found.skipped


def test_separators_are_those_that_the_message_names() -> None:
    note = only(
        "MSH#*!%@#HIS#BV###20240501##MDM*T02#M1#P#2.5\rPID#1##X991*a**b*MR##An*Bình\rOBX#1#TX###một %F% hai!ba"
    ).note
    assert note and note.text == "một # hai\nba" and ("name", "An Bình") in note.identifiers


def test_files_may_hold_batches_frames_and_lines_that_a_system_broke() -> None:
    one = "MSH|^~\\&|A\rOBX|1|TX|||x"
    assert split(f"FHS|^~\\&\rBHS|^~\\&\r{one}\r{one}\rBTS|2\rFTS|1") == [one, one]
    assert split(f"\x0b{one}\r\x1c\r") == [one]
    assert split(one.replace("\r", "\r\n")) == [one]
    assert split(f"{one}\nand more") == [f"{one}\\.br\\and more"]


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("UNICODE UTF-8", "utf-8"),
        ("GB 18030-2000", "gb18030"),
        ("8859/1", "latin-1"),
        ("", "utf-8"),
    ],
)
def test_bytes_are_read_as_the_header_says(charset: str, encoding: str) -> None:
    words = "é" if encoding == "latin-1" else "发热"
    text = f"MSH|^~\\&|HIS|BV|||20240501||MDM^T02|M1|P|2.5||||||{charset}\rPID|1||77001\rOBX|1|TX|||{words}"
    (found,) = messages(SETTINGS, text.encode(encoding), "f")
    assert found.note and found.note.text == words


@pytest.mark.parametrize(
    ("lang", "name"), [("vi", "Nguyễn Văn An"), ("zh", "NguyễnAn"), ("en", "An Văn Nguyễn")]
)
def test_names_are_written_in_the_order_of_the_language(lang: str, name: str) -> None:
    assert order_name("Nguyễn", "An", "Văn", lang) == name


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("19880214", datetime(1988, 2, 14)),
        ("198802140730+0700", datetime(1988, 2, 14, 7, 30)),
        ("1988", None),
        ("19881399", None),
        ("x", None),
    ],
)
def test_times_are_read_to_the_minute_or_not_at_all(text: str, day: datetime | None) -> None:
    assert moment(text) == day


def test_names_and_words_in_a_font_encoding_are_both_letters() -> None:
    settings = Hl7(kind="hl7", path="x", lang="vi", encoding="tcvn3")
    text = "MSH|^~\\&|HIS|BV|||20240501||MDM^T02|M1|P|2.5\rPID|1||77001||NguyÔn^Tó^V¨n\rOBX|1|TX|||BÖnh nh©n sèt"
    (found,) = messages(settings, text.encode("cp1252"), "f")
    assert (
        found.note
        and found.note.text == "Bệnh nhân sốt"
        and ("name", "Nguyễn Văn Tú") in found.note.identifiers
    )
