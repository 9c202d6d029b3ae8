"""From identified notes to notes that are not: everything known is gone, spans hold, dates keep
their distances, nothing is said aloud."""

from __future__ import annotations

import itertools
import os
import re
from datetime import date
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.core.errors import GateRefused, UserError
from residency.core.types import RawNote, Span
from residency.deid.dates import find_dates
from residency.deid.engine import (
    REFUSED_DATE,
    REFUSED_EMPTY,
    REFUSED_RESIDUAL,
    DeidentifiedNote,
    Deidentifier,
    Refused,
)
from residency.deid.engine import normal_form as normalized
from residency.deid.find import Finding
from residency.deid.known import known_finder
from residency.deid.options import Deid
from residency.deid.surrogates import LEAST_WEEKS, MOST_WEEKS, Surrogates
from residency.deid.vault import NAME, Vault, key_from
from residency.deid.view import plain
from residency.synth.hospital_notes import notes

KEY = bytes(range(32))
LANGUAGES = ("vi", "zh", "en")
SECRET = "Zyxwvutsrq"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path, KEY)


def engine(vault: Vault, **chosen: object) -> Deidentifier:
    return Deidentifier(Deid.model_validate(chosen), vault)


def note(
    text: str,
    lang: str = "vi",
    spans: tuple[Span, ...] = (),
    identifiers: tuple[tuple[str, str], ...] = (),
) -> RawNote:
    return RawNote(
        id="n1", patient="p1", text=text, lang=lang, spans=spans, identifiers=identifiers
    )


def squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", plain(normalize("NFC", text)))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_known_identifier_comes_out_and_every_surviving_span_is_its_entity(
    vault: Vault, lang: str
) -> None:
    made = engine(vault)
    refused = 0
    for planted in notes(lang, 150, seed=11):
        done = made.process(planted.note)
        if isinstance(done, Refused):
            refused += 1
            continue
        out = squeezed(done.note.text)
        for kind, value in planted.note.identifiers:
            if kind not in ("birth_date", "address"):
                assert squeezed(value) not in out
        assert all(done.note.text[span.start : span.end] == span.quote for span in done.note.spans)
        kept = [normalize("NFC", span.quote) for span in planted.note.spans]
        marks = [(mark.start, mark.end) for mark in planted.marks]
        touched = [
            s for s in planted.note.spans if any(a < s.end and s.start < b for a, b in marks)
        ]
        assert len(done.note.spans) + len(done.destroyed) == len(kept)
        assert len(done.destroyed) <= len(touched) + 1
        assert {span.quote for span in done.note.spans} <= set(kept) | {
            span.quote for span in done.note.spans if span.label == "time"
        }
    assert refused == 0


WAYS = [
    (
        "Nguyễn Văn Bảo An",
        [
            "NGUYỄN VĂN BẢO AN",
            "nguyen van bao an",
            "Nguyễn-Văn-Bảo-An",
            "NguyễnVănBảoAn",
            "N.V.B.A",
            "An Nguyễn Văn Bảo",
            normalize("NFD", "Nguyễn Văn Bảo An"),
            "Ｎguyễn Văn Bảo An",
        ],
    ),
]


@pytest.mark.parametrize(("name", "ways"), WAYS)
def test_a_name_is_found_however_it_is_written(name: str, ways: list[str]) -> None:
    finder = known_finder((("name", name),), "vi")
    for way in ways:
        text = normalize("NFC", f"Hôm qua {way} đã về.")
        assert [text[f.start : f.end] for f in finder.find(text, "vi")], way
    assert not list(finder.find("Bệnh nhân an toàn, văn bảo quản.", "vi"))


@pytest.mark.parametrize(
    "way",
    [
        "0912345678",
        "0912.345.678",
        "0912 345 678",
        "+84 912 345 678",
        "84912345678",
        "０９１２３４５６７８",
        "091-234-5678",
    ],
)
def test_a_number_is_found_however_it_is_parted(way: str) -> None:
    finder = known_finder((("phone", "0912345678"),), "vi")
    (found,) = {
        (f.start, f.end) for f in finder.find(f"gọi {way}, ngay", "vi") if f.end - f.start >= 9
    } and [max(finder.find(f"gọi {way}, ngay", "vi"), key=lambda f: f.end - f.start)]
    assert f"gọi {way}, ngay"[found.start : found.end].lstrip("+") in (way, way.lstrip("+"))
    assert not list(finder.find("10912345678", "vi"))


def test_the_same_patient_has_the_same_surrogate_in_all_notes_and_another_has_another(
    vault: Vault,
) -> None:
    made = engine(vault)
    texts = []
    for patient in ("p1", "p1", "p2"):
        done = made.process(
            RawNote(id=patient, patient=patient, text="BN Trần Thị Hoài, ĐT 0912345678.", lang="vi")
        )
        assert isinstance(done, DeidentifiedNote)
        texts.append(done.note.text)
    assert texts[0] == texts[1] != texts[2]
    assert "Hoài" not in texts[0] and "0912345678" not in texts[0]
    assert "Thị" in texts[0]  # a woman stays a woman


@settings(max_examples=40)
@given(
    st.lists(st.dates(date(1950, 1, 1), date(2024, 12, 31)), min_size=2, max_size=6),
    st.sampled_from(LANGUAGES),
    st.binary(min_size=32, max_size=32),
)
def test_intervals_and_weekdays_stay(days: list[date], lang: str, secret: bytes) -> None:
    moved = [Surrogates(secret, lang).shift(day) for day in days]
    assert {(a - b).days for a, b in zip(days, moved, strict=True)} <= {
        7 * w for w in range(LEAST_WEEKS, MOST_WEEKS + 1)
    }
    assert [(b - a).days for a, b in itertools.pairwise(days)] == [
        (b - a).days for a, b in itertools.pairwise(moved)
    ]
    assert [day.weekday() for day in days] == [day.weekday() for day in moved]


def test_dates_of_a_note_move_together_and_keep_their_form(vault: Vault) -> None:
    done = engine(vault).process(
        note("Vào viện 12/03/2024, mổ ngày 15 tháng 3 năm 2024, ra viện 2024-03-20.")
    )
    assert isinstance(done, DeidentifiedNote)
    first, second, third = (mention.value for mention in find_dates(done.note.text, "vi"))
    assert first and second and third
    assert ((second - first).days, (third - second).days) == (3, 5)
    assert re.fullmatch(
        r"Vào viện \d\d/\d\d/\d{4}, mổ ngày \d+ tháng \d+ năm \d{4}, ra viện \d{4}-\d\d-\d\d\.",
        done.note.text,
    )


def test_safe_harbor_leaves_years_and_caps_ages(vault: Vault) -> None:
    text = "Cụ 93 tuổi, vào viện 12/03/2024, tái khám ngày 15/4."
    done = engine(vault, profile="safe-harbor").process(note(text))
    assert isinstance(done, DeidentifiedNote)
    assert done.note.text == "Cụ 90 tuổi, vào viện 2024, tái khám [ngày]."
    assert done.note.profile == "safe-harbor"


def test_safe_harbor_leaves_no_year_that_tells_of_an_age_over_89(vault: Vault) -> None:
    text = "Sinh 02/05/1931, mổ 03/06/1990, vào viện 12/03/2024."
    done = engine(vault, profile="safe-harbor").process(note(text))
    assert isinstance(done, DeidentifiedNote)
    assert done.note.text == "Sinh [ngày], mổ 1990, vào viện 2024."


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("vi", "BN nữ, sinh ⟦1937⟧, THA."),
        ("vi", "Năm sinh: ⟦1948⟧"),
        ("vi", "sinh năm ⟦48⟧, sinh con 1975"),
        ("vi", "NS: ⟦1 952⟧"),
        ("vi", "Họ tên: Lê Văn Minh (⟦1950⟧)"),
        ("vi", "Tên\tNăm sinh\tCĐ\nA\t⟦1948⟧\tTHA"),
        ("vi", "nữ, ⟦1961⟧, vào viện năm 2010, sinh non 2000 g"),
        ("zh", "⟦1948⟧年生，2010年手术"),
        ("zh", "患者生于⟦一九四八⟧年"),
        ("zh", "出生年份：⟦1948⟧"),
        ("zh", "|姓名|出生年|诊断|\n|张三|⟦1948⟧年|肺炎|"),
        ("zh", "女，⟦1955⟧年，1970年生育一子"),
        ("en", "b. ⟦1948⟧, TKR 2010"),
        ("en", "DOB ⟦l948⟧"),
        ("en", "born in the year ⟦1948⟧ in 2000 g"),
        ("en", "| DOB | dx |\n| 1 | x |\n\nBed|DOB|MI\n4|⟦1948⟧|2010"),
        ("en", "born '⟦48⟧; baby born 2000 g, born at 2010 hours"),
        ("en", "Mr Alan Reyes, ⟦1948⟧, M/⟦1950⟧."),
    ],
)
def test_safe_harbor_leaves_no_year_of_birth_that_stands_alone(
    vault: Vault, lang: str, text: str
) -> None:
    told = note(re.sub("[⟦⟧]", "", text), lang)
    done = engine(vault, profile="safe-harbor").process(told)
    assert isinstance(done, DeidentifiedNote)
    years = sorted(re.findall(r"(?<!\d)\d{4}(?!\d)", re.sub("⟦.*?⟧", "", text)))
    assert sorted(re.findall(r"(?<!\d)\d{4}(?!\d)", done.note.text)) == years
    assert not [one for one in re.findall("⟦(.*?)⟧", text) if one in done.note.text]
    other = engine(vault).process(told)
    assert isinstance(other, DeidentifiedNote)  # where dates are moved a year tells nobody
    assert all(one in other.note.text for one in re.findall("⟦(.*?)⟧", text))


def test_a_date_that_cannot_be_read_fails_closed(vault: Vault) -> None:
    text = "sinh 31/02/1980"
    done = engine(vault).process(note(text))
    assert isinstance(done, DeidentifiedNote) and done.note.text == "sinh [ngày]"
    assert engine(vault, unreadable_dates="refuse").process(note(text)) == Refused(
        "n1", REFUSED_DATE
    )


def test_spans_move_with_the_text_and_are_destroyed_only_where_an_identifier_cuts_them(
    vault: Vault,
) -> None:
    text = "BN Trần Thị Hoài bị hen phế quản từ 12/03/2024."
    a, b = text.index("hen"), text.index("Hoài bị")
    spans = (
        Span(start=a, end=a + 12, label="x", quote="hen phế quản"),
        Span(start=b, end=b + 7, label="y", quote="Hoài bị"),
    )
    done = engine(vault).process(note(text, spans=spans))
    assert isinstance(done, DeidentifiedNote)
    assert [(s.quote, done.note.text[s.start : s.end]) for s in done.note.spans] == [
        ("hen phế quản", "hen phế quản")
    ]
    assert [s.label for s in done.destroyed] == ["y"]


class Blind(Deidentifier):
    """An engine whose rules see nothing."""

    def findings(self, *_: object) -> list[Finding]:  # type: ignore[override]
        return []


def test_a_note_in_which_an_identifier_is_left_is_refused_without_a_word_of_it(
    vault: Vault,
) -> None:
    raw = note(f"BN {SECRET} Hoài", identifiers=(("name", f"{SECRET} Hoài"),))
    refused = Blind(Deid(), vault).process(raw)
    assert refused == Refused("n1", REFUSED_RESIDUAL)
    assert SECRET not in repr(refused)
    assert engine(vault).process(RawNote(id="n2", patient="", text="x")) == Refused(
        "n2", REFUSED_EMPTY
    )


def test_plug_ins_are_asked_too(vault: Vault) -> None:
    class Wards:
        name = "wards"

        def find(self, text: str, lang: str) -> list[Finding]:
            at = text.find("Ward 9")
            return [Finding(at, at + 6, "other", "plugin:wards")] if at >= 0 else []

    done = Deidentifier(Deid(), vault, [Wards()]).process(note("seen on Ward 9 today", "en"))
    assert isinstance(done, DeidentifiedNote) and "Ward 9" not in done.note.text


# The vault


def test_a_secret_is_drawn_once_and_the_same_after_reopening(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path, KEY)
    first, other = vault.secret("p1"), vault.secret("p2")
    vault.close()
    again = Vault.open(tmp_path, KEY)
    assert (again.secret("p1"), len(again), len(first)) == (first, 2, 32)
    assert first != other
    assert (tmp_path / NAME).stat().st_mode & 0o077 == 0
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert first not in raw and b"p1" not in raw


def test_a_wrong_key_and_a_damaged_vault_are_one_sentence(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path, KEY)
    vault.secret("p1")
    vault.close()
    with pytest.raises(GateRefused, match="cannot be opened with this key"):
        Vault.open(tmp_path, os.urandom(32))
    (tmp_path / NAME).write_bytes(b"not a database " * 100)
    with pytest.raises(GateRefused, match="is not a vault"):
        Vault.open(tmp_path, KEY)


def test_a_secret_moved_to_another_patient_is_noticed(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path, KEY)
    vault.secret("p1"), vault.secret("p2")
    one, two = vault.database.execute(
        "SELECT patient, secret FROM secrets WHERE patient != ?", (b"check",)
    ).fetchall()
    vault.database.execute("UPDATE secrets SET secret = ? WHERE patient = ?", (one[1], two[0]))
    vault.close()
    with pytest.raises(GateRefused):
        other = Vault.open(tmp_path, KEY)
        other.secret("p1"), other.secret("p2")


def test_a_destroyed_vault_leaves_only_its_record(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path, KEY)
    vault.secret("p1")
    record = vault.destroy()
    assert record.patients == 1
    assert [path.name for path in tmp_path.iterdir()] == ["vault.destroyed.json"]


@pytest.mark.parametrize("value", ["", "abc", "g" * 64, SECRET])
def test_a_missing_or_bad_key_is_one_sentence_that_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RESIDENCY_KEY", value)
    with pytest.raises(UserError) as refused:
        key_from("RESIDENCY_KEY")
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize("key", [KEY])
def test_a_truncated_vault_and_one_of_another_version_are_one_sentence(
    tmp_path: Path, key: bytes
) -> None:
    vault = Vault.open(tmp_path, key)
    for number in range(500):
        vault.secret(f"p{number}")
    vault.database.execute(
        "UPDATE secrets SET secret = ? WHERE patient = ?",
        (vault._sealed(b"residency vault 9", b"check"), b"check"),
    )
    vault.close()
    with pytest.raises(GateRefused, match="another residency version"):
        Vault.open(tmp_path, key)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[: len(whole) // 3])
    with pytest.raises(GateRefused, match=r"is not a vault|is damaged"):
        again = Vault.open(tmp_path, key)
        for number in range(500):
            again.secret(f"p{number}")


UNREADABLE = [
    ("vi", "sinh 31/02/1980, khỏe", ["31", "02", "1980"]),
    ("vi", "cúng rằm tháng 7 âm lịch", ["7"]),
    ("vi", "ngày mười hai tháng ba năm hai nghìn không trăm hai mươi tư", ["mười", "ba", "nghìn"]),
    ("zh", "农历八月十五出院", ["八月", "十五"]),
    ("zh", "2023年2月30日入院", ["2023", "30"]),
    ("en", "seen on the third of March 2024", ["third", "March", "2024"]),
]


@pytest.mark.parametrize(("lang", "text", "parts"), UNREADABLE)
def test_nothing_of_a_date_that_cannot_be_read_is_left_and_a_note_with_one_can_be_refused(
    vault: Vault, lang: str, text: str, parts: list[str]
) -> None:
    done = engine(vault).process(note(text, lang))
    assert isinstance(done, DeidentifiedNote)
    assert not [part for part in parts if part in done.note.text]
    assert engine(vault, unreadable_dates="refuse").process(note(text, lang)) == Refused(
        "n1", REFUSED_DATE
    )


@pytest.mark.parametrize("lang", LANGUAGES)
def test_under_safe_harbor_no_element_of_a_date_but_the_year_and_no_age_over_89_is_left(
    vault: Vault, lang: str
) -> None:
    made = engine(vault, profile="safe-harbor")
    for planted in notes(lang, 150, seed=4):
        done = made.process(planted.note)
        assert isinstance(done, DeidentifiedNote)
        assert find_dates(done.note.text, lang) == ()
        ages = [
            int(age)
            for age in re.findall(
                r"(?<!\d)(\d{2,3})(?: tuổi|岁|-year-old| years old)", done.note.text
            )
        ]
        assert max(ages, default=0) <= 90
        assert done.note.written_at is None or (
            done.note.written_at.month,
            done.note.written_at.day,
        ) == (1, 1)


def test_a_name_that_touches_a_date_is_not_kept_with_it(vault: Vault) -> None:
    class Wide:
        name = "wide"

        def find(self, text: str, lang: str) -> list[Finding]:
            return [Finding(0, len(text), "other", "plugin:wide")]

    done = Deidentifier(Deid(), vault, [Wide()]).process(
        note("Ferdinand 12/03/2024 Isabella", "en")
    )
    assert isinstance(done, DeidentifiedNote)
    assert "Ferdinand" not in done.note.text and "Isabella" not in done.note.text


@pytest.mark.sample
@pytest.mark.parametrize("lang", LANGUAGES)
def test_over_many_notes_every_known_identifier_is_found_and_no_entity_is_destroyed_without_need(
    vault: Vault, lang: str
) -> None:
    made, refused = engine(vault), 0
    for planted in notes(lang, 1500, seed=17):
        done = made.process(planted.note)
        if isinstance(done, Refused):
            refused += 1
            continue
        nfc = normalized(planted.note.text)
        text = nfc.apply(planted.note.text)
        covered = {i for one in done.findings for i in range(one.start, one.end)}
        for mark in planted.marks:
            place = nfc.project(mark.start, mark.end)
            if mark.known and place:
                assert all(i in covered for i in range(*place) if text[i].isalnum())
        for span in planted.note.spans:
            if not any(a.start < span.end and span.start < a.end for a in planted.marks):
                assert done.edits.project(span.start, span.end) is not None
    assert refused <= 0.005 * 1500
