"""What goes into a reader of notes comes out of it, or is counted with its reason.

Messages and documents are made of pieces whose reading is known, in every order: no character may
be lost between them. ``RESIDENCY_EXAMPLES`` says how many are made.
"""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path
from random import Random

import hl7
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from residency.core.errors import DataError
from residency.core.progress import Silent
from residency.ingest.ccda import document
from residency.ingest.decode import (
    HIDDEN,
    IN_OBJECT,
    PICTURE,
    STRUCK,
    of_html,
    of_rtf,
    with_powers,
)
from residency.ingest.documents import EMBEDDED
from residency.ingest.hl7 import CANCELLED, REPLACED, WITHDRAWN, message, messages
from residency.ingest.hl7_segments import UNKNOWN_ESCAPE, UNKNOWN_SET
from residency.ingest.office import of_docx
from residency.ingest.pubmed import read_xml
from residency.ingest.rows import RowOutcome
from residency.ingest.sources import Ccda, Hl7
from residency.ingest.store import Store
from residency.ingest.transfer import take

many = settings(suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**64).map(Random)
"""What examples are made with: drawing each piece by a strategy takes ten times as long."""
VI = Hl7(kind="hl7", path="x", lang="vi")
CASES = Path(os.environ.get("RESIDENCY_SHARED_DATA", "/nowhere")).parent / "cases/hl7"
HIS = Path(os.environ.get("RESIDENCY_SHARED_DATA", "/nowhere")) / "his"


def solid(text: str) -> str:
    return "".join(text.split())


# HL7


def file_of(*lines: str, charset: str = "", control: str = "M1", kind: str = "ORU^R01") -> str:
    header = rf"MSH|^~\&|HIS|BV|X|Y|20260102030405||{kind}|{control}|P|2.5||||||{charset}"
    return "\r".join((header, *lines))


def read(data: str | bytes) -> list[RowOutcome]:
    return list(messages(VI, data.encode() if isinstance(data, str) else data, "f"))


def texts(data: str | bytes) -> list[tuple[str, str]]:
    return [(one.note.patient, one.note.text) for one in read(data) if one.note]


PATIENT, ORDER = "PID|1||BN1^^^BV^MR||Le^An", "OBR|1|P1|F1|X^Report"


@pytest.mark.parametrize(
    "line",
    [
        "THA 10 năm",
        "HIV âm tính",
        "AST 40",
        "MSH2 đột biến",
        "PID không rõ",
        "OBX",
        "NTE khác",
        "HIV|âm tính",
        "ZZZ 1",
        "HA 120|80, mạch 90",
    ],
)
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_line_that_begins_no_segment_goes_on_with_the_text(line: str, end: str) -> None:
    data = file_of(PATIENT, ORDER, "OBX|1|TX|X||Tiền sử:", line, "Dị ứng: không||||||F", ORDER)
    assert texts(data.replace("\r", end)) == [("BN1", f"Tiền sử:\n{line}\nDị ứng: không")]


def test_a_line_behind_a_whole_segment_belongs_to_its_text() -> None:
    data = file_of(PATIENT, ORDER, "OBX|1|TX|X||Tiền sử:||||||F", "THA 10 năm", "ho")
    assert texts(data) == [("BN1", "Tiền sử:\nTHA 10 năm\nho")]


def test_a_line_behind_a_segment_without_words_is_counted() -> None:
    (found,) = read(file_of(PATIENT, ORDER, "nói gì đó", "OBX|1|TX|X||a"))
    assert found.note and found.note.text == "a" and sum(found.remarks.values()) == 7


def test_a_segment_of_the_sites_own_ends_the_text() -> None:
    assert texts(file_of(PATIENT, ORDER, "OBX|1|TX|X||a", "ZBV|1|riêng", "OBX|2|TX|X||b")) == [
        ("BN1", "a\nb")
    ]


def test_an_escape_that_is_not_known_stays_and_is_counted() -> None:
    words = r"HA 120\80 lúc vào, DỊ ỨNG PENICILLIN, HA 130\85 lúc ra \Zxy\ \C2842\ "
    (found,) = read(file_of(PATIENT, ORDER, f"OBX|1|TX|X||{words}|"))
    assert found.note and found.note.text == words
    assert found.remarks == {UNKNOWN_ESCAPE: 6}


def test_bytes_in_an_escape_are_of_the_messages_encoding() -> None:
    latin = file_of(PATIENT, ORDER, r"OBX|1|TX|X||caf\XE9\ ", charset="8859/1")
    whole = file_of(PATIENT, ORDER, r"OBX|1|TX|X||caf\XC3\\XA9\ \XFF\ ")
    assert texts(latin) == [("BN1", "café ")]
    assert texts(whole) == [("BN1", r"café \XFF\ ")]


def test_a_second_patient_of_a_message_is_another_note() -> None:
    data = file_of(
        PATIENT, ORDER, "OBX|1|TX|X||một", "PID|2||BN2^^^BV^MR||Trần^Ba", ORDER, "OBX|1|TX|X||hai"
    )
    first, second = (one.note for one in read(data))
    assert first and second and first.id != second.id
    assert (first.patient, first.text) == ("BN1", "một")
    assert (second.patient, second.text) == ("BN2", "hai")
    assert not {value for _, value in first.identifiers} & {"BN2", "Trần Ba"}
    assert not {value for _, value in second.identifiers} & {"BN1", "Le An"}


@pytest.mark.parametrize("status", ["W", "D"])
def test_what_the_sender_withdrew_is_counted_with_its_comment(status: str) -> None:
    (found,) = read(
        file_of(
            PATIENT,
            ORDER,
            f"OBX|1|TX|X||HIV dương tính||||||{status}",
            "NTE|1||nhầm",
            "OBX|2|TX|X||Phổi trong||||||F",
        )
    )
    assert found.note and found.note.text == "Phổi trong"
    assert found.remarks == {WITHDRAWN: len("HIVdươngtínhnhầm")}


def test_an_order_that_is_withdrawn_as_a_whole_takes_its_note_back() -> None:
    (before,) = read(file_of(PATIENT, ORDER, "OBX|1|TX|X||HIV dương tính||||||F"))
    (after,) = read(file_of(PATIENT, ORDER, "OBX|1|TX|X||HIV dương tính||||||W", control="M2"))
    assert before.note and after.note is None
    assert (after.id, after.skipped) == (before.note.id, WITHDRAWN)


def txa(number: str, parent: str = "", status: str = "") -> str:
    fields = ["TXA", "1", "Bệnh án", "TX", *[""] * 8, number, parent, *[""] * 5, status]
    return "|".join(fields)


def document_of(event: str, text: str, number: str, parent: str = "", status: str = "") -> str:
    lines = (PATIENT, txa(number, parent, status), f"OBX|1|TX|X||{text}")
    return file_of(*lines, kind=f"MDM^{event}", control=f"{event}{number}")


def test_a_document_that_replaces_another_takes_it_back() -> None:
    (first,) = read(document_of("T02", "sốt", "D1"))
    gone, second = read(document_of("T10", "không sốt", "D2", "D1"))
    assert first.note and second.note and second.note.text == "không sốt"
    assert (gone.id, gone.skipped, gone.rows) == (first.note.id, REPLACED, 0)


@pytest.mark.parametrize(("event", "status"), [("T11", ""), ("T04", "CA"), ("T02", "OB")])
def test_a_document_that_is_cancelled_is_taken_back(event: str, status: str) -> None:
    (first,) = read(document_of("T02", "sốt", "D1"))
    (gone,) = read(document_of(event, "sốt", "D1", status=status))
    assert first.note and (gone.note, gone.id, gone.skipped) == (None, first.note.id, CANCELLED)


def test_a_message_that_is_sent_again_gives_the_same_note_and_a_correction_its_next_version() -> (
    None
):
    def note(*lines: str, **how: str) -> tuple[str, str]:
        (found,) = read(file_of(PATIENT, *lines, **how))
        assert found.note
        return found.note.id, found.note.text

    order = note(ORDER, "OBX|1|TX|X||a")
    assert note(ORDER, "OBX|1|TX|X||a", control="M9") == order
    assert note(ORDER, "OBX|1|TX|X||b", control="M9")[0] == order[0]
    assert note(ORDER.replace("F1", "F2"), "OBX|1|TX|X||a")[0] != order[0]
    # A sender that gives each message the same number loses nothing.
    assert note("OBX|1|TX|X||a") == note("OBX|1|TX|X||a")
    assert note("OBX|1|TX|X||a")[0] != note("OBX|1|TX|X||b")[0]


def at(time: str, data: str) -> str:
    return data.replace("20260102030405", time, 1)


def test_a_store_holds_what_the_messages_leave_standing(tmp_path: Path) -> None:
    """In one file and in several: corrected, replaced, cancelled, withdrawn, sent again."""
    order = (PATIENT, ORDER)
    sent = [
        at("202601010801", document_of("T02", "một", "D1")),
        at("202601010802", document_of("T02", "hai", "D2")),
        at("202601010803", file_of(*order, "OBX|1|TX|X||ba||||||P", control="O1")),
        at("202601010804", file_of(*order, "OBX|1|TX|X||ba rõ||||||F", control="O2")),
        at("202601010804", file_of(*order, "OBX|1|TX|X||ba rõ||||||F", control="O3")),
        at("202601010805", document_of("T10", "hai mới", "D3", "D2")),
        at("202601010806", document_of("T11", "một", "D1")),
        at("202601010807", file_of(PATIENT, "OBX|1|TX|X||bốn", control="O4")),
        at("202601010807", file_of(PATIENT, "OBX|1|TX|X||bốn", control="O4")),
        at("202601010801", document_of("T02", "một", "D1")),
        at("202601010803", file_of(*order, "OBX|1|TX|X||ba||||||P", control="O1")),
    ]
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    for folder, files in ((whole, ["\r".join(sent)]), (apart, sent)):
        (folder / "in").mkdir(parents=True)
        (folder / "zone").mkdir()
        store = Store.open(folder / "zone", "t", b"k" * 32)
        for number, content in enumerate(files):
            (folder / f"in/{number:02}.hl7").write_text(content, "utf-8")
            take(Hl7(kind="hl7", path="in", lang="vi"), folder, store, Silent())
        held = [note.text for number in store.numbers(0) for note in store.read(number)]
        assert sorted(held) == ["ba rõ", "bốn", "hai mới"]
        store.close()


def test_each_message_of_a_batch_is_read_in_its_own_character_set() -> None:
    parts = [
        ("8859/15", "iso8859-15", "prix 5 €, cœur"),
        ("WINDOWS-1258", "cp1258", "Beˆnh nhân đau"),
        ("GB18030", "gb18030", "发热三天，誠"),
        ("UNICODE UTF-8", "utf-8", "bệnh nhân sốt"),
    ]
    made = [
        file_of(PATIENT, f"OBX|1|TX|X||{text}", charset=name, control=name).encode(codec)
        for name, codec, text in parts
    ]
    data = b"\r".join((rb"FHS|^~\&|HIS", rb"BHS|^~\&|HIS", *made, b"BTS|4", b"FTS|1"))
    assert texts(data) == [("BN1", text) for _, _, text in parts]


def test_a_character_set_that_is_not_read_is_refused_where_utf8_does_not_prove_itself() -> None:
    line = "OBX|1|TX|X||é"
    assert texts(file_of(PATIENT, line, charset="ISO IR87")) == [("BN1", "é")]
    (found,) = read(file_of(PATIENT, line, charset="ISO IR87").encode("latin-1"))
    assert (found.note, found.skipped) == (None, UNKNOWN_SET)


@pytest.mark.parametrize(
    ("data", "named", "words"),
    [
        (b"{\\rtf1\\ansi s\\'e9dation}", "application^rtf", "sédation"),
        ("<html><body><p>sốt</p></body></html>".encode(), "text^html", "sốt"),
        ("sốt 3 ngày".encode(), "text^plain", "sốt 3 ngày"),
    ],
)
def test_an_embedded_document_that_can_be_read_is(data: bytes, named: str, words: str) -> None:
    line = f"OBX|1|ED|X||HIS^{named}^Base64^{b64encode(data).decode()}"
    assert texts(file_of(PATIENT, ORDER, line)) == [("BN1", words)]


@pytest.mark.parametrize(
    ("data", "name"), [(b"%PDF-1.7 x", "PDF"), (b"PK\x03\x04x", "DOCX"), (b"\xff\xd8\xffx", "JPEG")]
)
def test_an_embedded_document_that_is_not_read_is_counted_by_its_name(
    data: bytes, name: str
) -> None:
    line = f"OBX|1|ED|X||HIS^application^octet^Base64^{b64encode(data).decode()}"
    (alone,) = read(file_of(PATIENT, ORDER, line))
    assert alone.note is None and alone.skipped.startswith(f"{EMBEDDED}: {name}")
    (beside,) = read(file_of(PATIENT, ORDER, line, "OBX|2|TX|X||a"))
    assert beside.note and [why for why in beside.remarks if name in why]


ALPHABETS = {
    name: [
        sign
        for byte in range(0x20, 0x100)
        if (sign := bytes([byte]).decode(codec, "ignore")) and sign not in "|^~\\&\x7f"
    ]
    for name, codec in {"8859/1": "latin-1", "8859/15": "iso8859-15", "CP1258": "cp1258"}.items()
}
ALPHABETS["UNICODE UTF-8"] = [
    *"aăâbcdđeêghiklmnoôơpqrstuưvxy ửữợịệ,.:;()<>#'\"/0123456789",
    "😀",
    "患",
]
ALPHABETS["GB18030"] = [*"abc 0123", *map(chr, range(0x4E00, 0x9FA0, 7))]
CODECS = {"8859/1": "latin-1", "8859/15": "iso8859-15", "CP1258": "cp1258", "GB18030": "gb18030"}
SEQUENCES = [
    (r"\.br\ "[:-1], "\n", 0),
    (r"\F\ "[:-1], "|", 0),
    (r"\S\ "[:-1], "^", 0),
    (r"\E\ "[:-1], "\\", 0),
    (r"\H\ "[:-1], "", 0),
    (r"\X41\ "[:-1], "A", 0),
    (r"\80", r"\80", 1),
    ("\\ ", "\\ ", 1),
    (r"\Zx ", r"\Zx ", 1),
]
HOSTILE = [
    "",
    "THA 10",
    "HIV ",
    "AST 40 ",
    "MSH2 ",
    "PID ",
    "OBX",
    "NTE:",
    "HIV|",
    "Z12 ",
    "MSH|x",
    "FTS ",
]


@dataclass
class Written:
    raw: str
    text: str
    unknown: int


def line_of(chance: Random, alphabet: list[str]) -> Written:
    pieces = [
        ("".join(words), "".join(words), 0)
        if (words := chance.choices(alphabet, k=chance.randrange(9)))
        else chance.choice(SEQUENCES)
        for _ in range(chance.randrange(6))
    ]
    raw, text = ("".join(one[at] for one in pieces) for at in (0, 1))
    return Written(f"{raw}x", f"{text}x", sum(one[2] for one in pieces))


def hl7_file(chance: Random) -> tuple[bytes, list[str], int]:
    """(bytes, text of each note, unknown escapes) of a file of several messages."""
    end = chance.choice(["\r", "\n", "\r\n"])
    data, expected, unknown = b"", list[str](), 0
    if chance.random() < 0.5:
        data = rf"FHS|^~\&|x{end}BHS|^~\&|x{end}".encode()
    for number in range(chance.randint(1, 3)):
        name = chance.choice(sorted(ALPHABETS))
        befores = ["", *chance.choices(HOSTILE, k=chance.randrange(5))]
        lines = [(before, line_of(chance, ALPHABETS[name])) for before in befores]
        after = chance.choice(["", "||||||F", "|||||||||2026" if len(lines) == 1 else ""])
        value = end.join(before + line.raw for before, line in lines)
        body = [f"PID|1||BN{number}", *f"OBX|1|TX|X||{value}{after}".split(end)]
        whole = file_of(*body, charset=name, control=f"M{number}").replace("\r", end) + end
        data += whole.encode(CODECS.get(name, "utf-8"))
        expected.append("\n".join(before + line.text for before, line in lines))
        unknown += sum(line.unknown for _, line in lines)
    return data, expected, unknown


@many
@given(SEEDS.map(hl7_file))
def test_no_character_of_a_message_is_lost(made: tuple[bytes, list[str], int]) -> None:
    data, expected, unknown = made
    found = read(data)
    assert [one.note.text for one in found if one.note] == expected
    counted = Counter[str]()
    for one in found:
        counted.update(one.remarks)
    assert counted == Counter({UNKNOWN_ESCAPE: unknown} if unknown else {})


@many
@given(st.text(max_size=80), st.sampled_from(HOSTILE))
def test_any_text_at_all_comes_out_of_a_value_whose_signs_are_escaped(
    text: str, before: str
) -> None:
    text = before + text.replace("\ufeff", "").strip("\x0b\x1c \r\n\t") + "x"
    codes = {"\\": "E", "|": "F", "^": "S", "~": "R", "&": "T"}
    raw = "".join(f"\\{codes[sign]}\\" if sign in codes else sign for sign in text)
    data = file_of(PATIENT, f"OBX|1|TX|X||{raw}".replace("\n", "\\.br\\").replace("\r", "\\.br\\"))
    found = message(VI, data.encode("utf-8", "replace").decode(), "f")
    expected = text.encode("utf-8", "replace").decode().replace("\r", "\n")
    if "<" not in expected and "{\\rtf" not in expected:
        assert [one.note.text for one in found if one.note] == [expected]


# HTML, RTF, CDA, PubMed


Runs = list[tuple[str, str]]
"""(kind, text) of the runs of a paragraph."""
KINDS = ["plain", "bold", "struck", "hidden", "raised", "lowered"]


def runs(chance: Random) -> Runs:
    signs = "ab đêổ5 9-+(<>&{}\\.患😀"
    return [
        (chance.choice(KINDS), "".join(chance.choices(signs, k=chance.randint(1, 6))))
        for _ in range(chance.randrange(9))
    ]


def paragraphs_of(chance: Random) -> list[Runs]:
    return [runs(chance) for _ in range(chance.randrange(5))]


def shown(made: Runs, hides: bool = True) -> tuple[str, Counter[str]]:
    """What should be read of runs, and what counted; blanks apart."""
    out, counted = "", Counter[str]()
    for kind, text in made:
        text = solid(text)
        if kind == "struck":
            counted[STRUCK] += len(text)
        elif kind == "hidden" and hides:
            counted[HIDDEN] += len(text)
        else:
            out += text
    return out, +counted


def without_powers(text: str) -> str:
    return solid(text).replace("^", "")


@many
@given(SEEDS.map(paragraphs_of))
def test_no_character_of_html_is_lost(paragraphs: list[Runs]) -> None:
    tags = {
        "plain": ("", ""),
        "bold": ("<b>", "</b>"),
        "struck": ('<span style="text-decoration: line-through">', "</span>"),
        "hidden": ('<span style="DISPLAY : none">', "</span>"),
        "raised": ("<sup>", "</sup>"),
        "lowered": ("<sub>", "</sub>"),
    }
    inside = [
        "".join(tags[kind][0] + escape(text) + tags[kind][1] for kind, text in made)
        for made in paragraphs
    ]
    left = Counter[str]()
    text = of_html("".join(f"<p>{one}</p>" for one in inside), left)
    every = [run for made in paragraphs for run in made]
    assert (without_powers(text), +left) == shown(every)


@many
@given(SEEDS.map(paragraphs_of))
def test_no_character_of_rtf_is_lost(paragraphs: list[Runs]) -> None:
    words = {
        "plain": "",
        "bold": r"\b ",
        "struck": r"\strike ",
        "hidden": r"\v ",
        "raised": r"\super ",
        "lowered": r"\sub ",
    }

    def written(text: str) -> str:
        signs = (
            f"\\{sign}"
            if sign in "{}\\"
            else sign
            if sign.isascii()
            else "".join(
                rf"\u{int.from_bytes(unit, 'little', signed=True)}?"
                for unit in (
                    sign.encode("utf-16-le")[at : at + 2]
                    for at in range(0, len(sign.encode("utf-16-le")), 2)
                )
            )
            for sign in text
        )
        return "".join(signs)

    body = r"\par ".join(
        "".join(f"{{{words[kind]}{written(text)}}}" for kind, text in made) for made in paragraphs
    )
    left = Counter[str]()
    text = of_rtf(rf"{{\rtf1\ansi{{\fonttbl{{\f0 Arial;}}}} {body}}}", left)
    every = [run for made in paragraphs for run in made]
    assert (without_powers(text), +left) == shown(every)


@many
@given(SEEDS.map(paragraphs_of))
def test_no_character_of_a_word_document_is_lost(paragraphs: list[Runs]) -> None:
    properties = {
        "bold": "<w:b/>",
        "struck": "<w:dstrike/>",
        "hidden": "<w:vanish/>",
        "raised": '<w:vertAlign w:val="superscript"/>',
        "lowered": '<w:vertAlign w:val="subscript"/>',
    }
    body = "".join(
        "<w:p>"
        + "".join(
            f"<w:r><w:rPr>{properties.get(kind, '')}</w:rPr><w:t>{escape(text)}</w:t></w:r>"
            for kind, text in made
        )
        + "</w:p>"
        for made in paragraphs
    )
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        name = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
        whole = f'<w:document xmlns:w="{name}"><w:body>{body}</w:body></w:document>'
        archive.writestr("word/document.xml", whole)
    left = Counter[str]()
    text = of_docx(held.getvalue(), left)
    every = [run for made in paragraphs for run in made]
    assert (without_powers(text), +left) == shown(every)


def test_pictures_are_counted_once_and_the_words_of_embedded_objects_too() -> None:
    left = Counter[str]()
    picture = r"{\*\shppict{\pict\pngblip 89504e47}}{\nonshppict{\pict\wmetafile8 0100}}"
    thing = r"{\object\objemb{\*\objdata 0105}{\result {\rtlch seen}{\pict\wmetafile8 01ff}}}"
    assert of_rtf(rf"{{\rtf1\ansi a{picture} b{thing} c}}", left) == "a b c"
    assert left == {PICTURE: 2, IN_OBJECT: len("seen")}
    left.clear()
    assert of_html("<p>a<img src='x.png'> b</p>", left) == "a b" and left == {PICTURE: 1}
    figure = '<paragraph>a<renderMultiMedia referencedObject="M"/> b</paragraph>'
    found = document(
        Ccda(kind="ccda", path="x"), cda(f"<section><text>{figure}</text></section>"), "f"
    )
    assert found.note and found.note.text == "a b" and found.remarks == {PICTURE: 1}


@many
@given(SEEDS.map(runs), SEEDS.map(paragraphs_of))
def test_no_character_of_an_abstract_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
    title: Runs,
    parts: list[Runs],
) -> None:
    tags = {"bold": "b", "raised": "sup", "lowered": "sub"}

    def written(made: Runs) -> str:
        pieces = ((tags.get(kind, "i"), escape(text)) for kind, text in made)
        return "".join(f"<{tag}>{text}</{tag}>" for tag, text in pieces)

    parts = parts or [[]]
    abstract = "".join(f"<AbstractText>x{written(made)}</AbstractText>" for made in parts)
    path = tmp_path_factory.getbasetemp() / "abstract.xml"
    path.write_text(
        "<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>"
        f"T{written(title)}t</ArticleTitle><Abstract>{abstract}</Abstract></Article>"
        "</MedlineCitation></PubmedArticle></PubmedArticleSet>",
        "utf-8",
    )
    expected = "T" + "".join(text for _, text in title) + "t"
    expected += "".join("x" + "".join(text for _, text in made) for made in parts)
    assert [without_powers(one.text) for one in read_xml(path)] == [without_powers(expected)]


def cda(body: str) -> bytes:
    return (
        '<ClinicalDocument xmlns="urn:hl7-org:v3"><recordTarget><patientRole><id '
        f'extension="BN1"/></patientRole></recordTarget><component>{body}</component>'
        "</ClinicalDocument>"
    ).encode()


@many
@given(SEEDS.map(paragraphs_of))
def test_no_character_of_a_cda_narrative_is_lost(paragraphs: list[Runs]) -> None:
    tags = {
        "struck": ('<content revised="delete">', "</content>"),
        "raised": ("<sup>", "</sup>"),
        "lowered": ("<sub>", "</sub>"),
    }
    body = "".join(
        "<paragraph>"
        + "".join(
            f"{start}{escape(text)}{end}"
            for kind, text in made
            for start, end in [tags.get(kind, ("<content>", "</content>"))]
        )
        + "</paragraph>"
        for made in paragraphs
    )
    found = document(
        Ccda(kind="ccda", path="x"),
        cda(
            "<structuredBody><component><section><title>T</title>"
            f"<text>{body}</text></section></component></structuredBody>"
        ),
        "f",
    )
    every = [run for made in paragraphs for run in made]
    assert found.note
    out, counted = shown([("plain", "T"), *every], hides=False)
    assert (without_powers(found.note.text), Counter(found.remarks)) == (out, counted)


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        ("10\ufdd09\ufdd1/L", "10^9/L"),
        ("10\ufdd0-3\ufdd1", "10^-3"),
        ("m\ufdd02\ufdd1", "m^2"),
        ("Ca\ufdd02+\ufdd1", "Ca^2+"),
        ("CD4\ufdd0+\ufdd1", "CD4+"),
        ("4\ufdd0th\ufdd1", "4th"),
        ("\ufdd099m\ufdd1Tc", "99mTc"),
        ("10\ufdd0n\ufdd1", "10^n"),
    ],
)
def test_raised_numbers_are_powers(raised: str, text: str) -> None:
    assert with_powers(raised) == text


def test_powers_are_written_alike_wherever_they_come_from(tmp_path: Path) -> None:
    assert of_html("<p>BC 10<sup>9</sup>/L</p>") == "BC 10^9/L"
    assert of_rtf(r"{\rtf1\ansi BC 10\super 9\nosupersub /L}") == "BC 10^9/L"
    section = "<section><text>BC 10<sup>9</sup>/L</text></section>"
    found = document(Ccda(kind="ccda", path="x"), cda(section), "f")
    assert found.note and found.note.text == "BC 10^9/L"
    path = tmp_path / "p.xml"
    path.write_text(
        "<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>T"
        "</ArticleTitle><Abstract><AbstractText>BC 10<sup>9</sup>/L <i>x</i></AbstractText>"
        "</Abstract></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
    )
    assert [one.text for one in read_xml(path)] == ["T\nBC 10^9/L x"]


@pytest.mark.parametrize("cut", [0, 20])
def test_a_packed_file_of_pubmed_is_read_whole_or_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "p.xml.gz"
    packed = gzip.compress(
        b"<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>T"
        b"</ArticleTitle><Abstract><AbstractText>Fever.</AbstractText></Abstract></Article>"
        b"</MedlineCitation></PubmedArticle></PubmedArticleSet>"
    )
    path.write_bytes(packed[: len(packed) - cut])
    if not cut:
        assert [one.text for one in read_xml(path)] == ["T\nFever."]
        return
    with pytest.raises(DataError, match=r"Export it from PubMed anew"):
        list(read_xml(path))


def test_a_less_than_sign_that_begins_no_element_is_text() -> None:
    assert of_html("<p>nếu K<bình thường và Na>135</p><p>HA <90</p>") == (
        "nếu K<bình thường và Na>135\nHA <90"
    )


@pytest.mark.parametrize(
    ("media", "inside", "words"),
    [
        ("text/plain", "Sốt ba ngày.", "Sốt ba ngày."),
        ("text/rtf", b64encode(rb"{\rtf1\ansi fever}").decode(), "fever"),
    ],
)
def test_a_cda_body_that_is_no_xml_is_read(media: str, inside: str, words: str) -> None:
    coded = ' representation="B64"' if media == "text/rtf" else ""
    body = f'<nonXMLBody><text mediaType="{media}"{coded}>{inside}</text></nonXMLBody>'
    found = document(Ccda(kind="ccda", path="x"), cda(body), "f")
    assert found.note and found.note.text == words


def test_a_cda_body_of_a_kind_that_is_not_read_is_refused_by_its_name() -> None:
    data = b64encode(b"%PDF-1.4").decode()
    body = f'<nonXMLBody><text mediaType="application/pdf" representation="B64">{data}</text></nonXMLBody>'
    found = document(Ccda(kind="ccda", path="x"), cda(body), "f")
    assert found.note is None and found.skipped.startswith(f"{EMBEDDED}: PDF")


# What was tried from outside

WANTED = {
    "continuation_line.hl7": [
        "Tien su:\nTHA 10 nam, HIV am tinh\nDi ung: penicillin\nChan doan: viem phoi"
    ],
    "backslash.hl7": [r"BP 120\80 on admission, ALLERGIC TO PENICILLIN, BP 130\85 later"],
    "two_patients.hl7": ["Note of the first patient", "Note of the second patient"],
    "withdrawn.hl7": ["Chest clear"],
}


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(WANTED))
def test_the_cases_that_were_tried_from_outside(name: str) -> None:
    if not (CASES / name).is_file():
        pytest.skip("the cases are not on this machine")
    assert [text for _, text in texts((CASES / name).read_bytes())] == WANTED[name]


@pytest.mark.data
def test_samples_of_hl7_give_what_python_hl7_finds_in_them() -> None:
    paths = sorted((HIS / "hl7v2").glob("*.hl7"))
    if not paths:
        pytest.skip("the samples are not on this machine")
    for path in paths:
        parsed = hl7.parse(
            path.read_text("utf-8").strip().replace("\r\n", "\r").replace("\n", "\r")
        )
        words = [
            parsed.unescape(str(one))
            for segment in parsed
            for value in [
                5 if str(segment[0]) == "OBX" and str(segment[2]) in ("TX", "FT", "ST") else 0,
                3 if str(segment[0]) == "NTE" else 0,
            ]
            if value and len(segment) > value
            for one in str(segment[value]).split("~")
            if one.strip()
        ]
        found = [text for _, text in texts(path.read_bytes())]
        assert "\n".join(found) == "\n".join(words)


@pytest.mark.data
def test_samples_of_cda_give_the_characters_of_their_narrative() -> None:
    paths = sorted((HIS / "ccda").glob("*.ccda"))
    if not paths:
        pytest.skip("the samples are not on this machine")
    v3 = "{urn:hl7-org:v3}"
    for path in paths:
        root = etree.fromstring(path.read_bytes(), etree.XMLParser(remove_comments=True))
        words = [
            "".join(element.itertext())
            for section in root.iter(f"{v3}section")
            for name in ("title", "text")
            for element in section.findall(f"{v3}{name}")
        ]
        found = document(Ccda(kind="ccda", path="x", lang="en"), path.read_bytes(), "f")
        assert found.note and not found.remarks
        assert without_powers(found.note.text) == without_powers("".join(words))
