"""Knowledge bases: what is found, what may be quoted when, and that a decision stands on what was
read."""

from __future__ import annotations

import csv
import os
import random
import sqlite3
import time
import unicodedata
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from residency.core.errors import DataError, UserError
from residency.knowledge.passages import Document, KnowledgeBase, passages_of
from residency.knowledge.terms import terms

GUIDE = """# Cổ trướng

Chọc dịch trên 5 lít cần truyền albumin 8 g cho mỗi lít. Không dùng thuốc chống viêm không steroid.

# Theo dõi

Xét nghiệm điện giải mỗi ngày.
"""


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(tmp_path / "liver.kb", "hepatology") as found:
        yield found


def accepted(base: KnowledgeBase, *texts: str, lang: str = "") -> None:
    base.add(
        Document(name=str(number), version="1", text=text, lang=lang)
        for number, text in enumerate(texts)
    )
    base.decide([(one.id, True) for one in base.waiting()], "dr-lan")


def test_passages_are_stretches_of_their_document_under_its_headings() -> None:
    found = [(GUIDE[start:end], title) for start, end, title in passages_of(GUIDE, "vi")]
    assert found == [
        (
            "Chọc dịch trên 5 lít cần truyền albumin 8 g cho mỗi lít. Không dùng thuốc chống viêm "
            "không steroid.",
            "Cổ trướng",
        ),
        ("Xét nghiệm điện giải mỗi ngày.", "Theo dõi"),
    ]
    long = " ".join(f"Sentence number {n} of a long paragraph." for n in range(60))
    cut = [long[start:end] for start, end, _ in passages_of(long, "en")]
    assert " ".join(cut) == long and len(cut) > 2
    assert all(len(one) < 700 and one.endswith(".") for one in cut)


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("Túy", "vi", ["tuý", "_tuy"]),
        ("Đái", "vi", ["đái", "_dai"]),
        ("hòa", "vi", ["hoà", "_hoa"]),
        ("肝硬化 ALT", "zh", ["肝硬", "硬化", "alt", "_alt"]),
        ("痛", "zh", ["痛"]),
        ("肝，胆", "zh", ["肝胆"]),
        ("", "", []),
    ],
)
def test_terms(text: str, lang: str, expected: list[str]) -> None:
    assert terms(text, lang) == expected
    assert terms(unicodedata.normalize("NFD", text), lang) == expected


def test_nothing_is_found_before_it_is_accepted(base: KnowledgeBase) -> None:
    assert base.add([Document(name="ascites", version="1", text=GUIDE, lang="vi")]) == [2]
    assert base.search("albumin") == []
    first, second = base.waiting()
    assert base.decide([(first.id, True), (second.id, False)], "dr-lan") == 2
    assert [one.id for one in base.search("chọc dich")] == [first.id], "one word without its tone"
    assert base.search("điện giải") == []
    assert base.decide([(first.id, True)], "dr-lan") == 0, "the same again changes nothing"


def test_a_new_version_takes_the_place_of_the_old_one_when_it_is_decided_on_as_a_whole(
    base: KnowledgeBase,
) -> None:
    accepted(base, GUIDE)
    changed = GUIDE.replace("8 g", "6 g")
    assert base.add([Document(name="0", version="2", text=changed)]) == [2]
    first, second = base.waiting()
    base.decide([(first.id, True)], "dr-lan")
    assert {one.version for one in base.search("albumin")} == {"1", "2"}
    base.decide([(second.id, True)], "dr-lan")
    assert [one.version for one in base.search("albumin")] == ["2"]
    assert [(one.version, one.replaced, one.accepted) for one in base.standing()] == [
        ("1", 2, 0),
        ("2", 0, 2),
    ]
    base.add([Document(name="0", version="3", text="Albumin is never given.")])
    base.decide([(one.id, False) for one in base.waiting()], "dr-lan")
    assert [one.version for one in base.search("albumin")] == ["2"], "3 was rejected as a whole"


def test_an_expired_document_is_quoted_on_its_last_day_and_not_after(base: KnowledgeBase) -> None:
    base.add([Document(name="a", version="1", text="Albumin is given.", until="2026-05-01")])
    base.decide([(one.id, True) for one in base.waiting()], "dr-lan")
    assert base.search("albumin", day=date(2026, 5, 1))
    assert not base.search("albumin", day=date(2026, 5, 2))
    with pytest.raises(UserError, match="give a day as 2027-12-31"):
        base.add([Document(name="b", version="1", text="Albumin.", until="next year")])


def test_a_text_that_was_changed_after_it_was_accepted_is_not_found(base: KnowledgeBase) -> None:
    accepted(base, "Albumin 8 g a litre.")
    (one,) = base.search("albumin")
    other = sqlite3.connect(base.path)
    with other:
        other.execute("update passages set text = 'Albumin 80 g a litre.'")
    other.close()
    assert base.search("albumin") == []
    assert not base.passage(one.id).as_accepted


def test_a_document_is_added_once_and_changed_only_as_a_version(base: KnowledgeBase) -> None:
    one = Document(name="a", version="1", text="Albumin.")
    assert (base.add([one]), base.add([one])) == ([1], [0])
    with pytest.raises(DataError, match="give the changed one a version of its own"):
        base.add([Document(name="a", version="1", text="Other.")])
    with pytest.raises(DataError, match="holds no words"):
        base.add([Document(name="b", version="1", text=" \n ")])
    assert len(base.standing()) == 1


def test_bases_of_departments_are_files_of_their_own(tmp_path: Path) -> None:
    """1,000 questions to one department: no passage of another."""
    subjects = ("albumin", "insulin", "heparin", "warfarin")
    for department in ("liver", "heart"):
        with KnowledgeBase(tmp_path / f"{department}.kb", department) as base:
            accepted(base, *(f"In {department}, {one} is given." for one in subjects * 25))
    with KnowledgeBase(tmp_path / "liver.kb", "liver") as base:
        for number in range(1000):
            found = base.search(f"heart {subjects[number % 4]} given")
            assert found and all("In liver" in one.text for one in found)
    with pytest.raises(UserError, match="is the base of liver, not of heart"):
        KnowledgeBase(tmp_path / "liver.kb", "heart")


def test_what_is_no_base_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="begin one with residency kb add"):
        KnowledgeBase(tmp_path / "x.kb")
    assert not (tmp_path / "x.kb").exists()
    with pytest.raises(UserError, match=r"NAME\.kb"):
        KnowledgeBase(tmp_path / "x.sqlite", "liver")
    (tmp_path / "y.kb").write_text("words, words, words" * 100)
    with pytest.raises(UserError, match="is no knowledge base"):
        KnowledgeBase(tmp_path / "y.kb", "liver")
    sqlite3.connect(tmp_path / "z.kb").execute("create table t (x)").connection.close()
    with pytest.raises(UserError, match="is no knowledge base"):
        KnowledgeBase(tmp_path / "z.kb", "liver")


def test_a_patients_records_are_forgotten_with_what_they_said(base: KnowledgeBase) -> None:
    for name, patient in (("finch", "p1"), ("wren", "p2"), ("heron", "p1")):
        text = f"The {name} was given albumin."
        base.add([Document(name=name, version="1", text=text, kind="record", patient=patient)])
    base.decide([(one.id, True) for one in base.waiting()], "dr-lan")
    assert base.records(["p1"]) == ["finch", "heron"]
    assert base.forget([""]) == 0
    assert base.forget(["p1"]) == 2
    assert [one.document for one in base.search("albumin")] == ["wren"]
    assert base.search("finch heron") == []
    content = base.path.read_bytes()
    assert b"The finch" not in content and b"heron" not in content and b"The wren" in content


# Measured on real texts

SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))


def damaged(name: str, drawn: random.Random) -> str:
    """A name as somebody types it: words left out, often without tones, letters that changed
    places."""
    kept = [word for word in name.split() if drawn.random() > 0.35] or name.split()[:1]
    if drawn.random() < 0.6:
        apart = unicodedata.normalize("NFD", " ".join(kept).replace("đ", "d").replace("Đ", "D"))
        kept = "".join(one for one in apart if not unicodedata.combining(one)).split()
    for number, word in enumerate(kept):
        if len(word) > 3 and drawn.random() < 0.15:
            at = drawn.randrange(len(word) - 1)
            kept[number] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(kept)


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the public corpora are not here")
def test_recall_on_real_names_and_questions(tmp_path: Path, record_property: object) -> None:
    """recall@5: 12,219 Vietnamese names of ICD-10, asked as they are typed (n = 1,500), beside
    FTS5's own tokenisers; 7,803 Chinese questions to their answers (n = 1,000)."""
    import json

    drawn = random.Random(1)
    with (SHARED / "vi/icd10/icd10_diseases_simple.csv").open(encoding="utf-8-sig") as file:
        names = [row["vietnamese_name"] for row in csv.DictReader(file)]
    asked = [(n, damaged(names[n], drawn)) for n in drawn.sample(range(len(names)), 1500)]
    lines = (SHARED / "zh/huatuo/general_qa.jsonl").read_text("utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    chinese = [(n, pairs[n]["instruction"]) for n in drawn.sample(range(len(pairs)), 1000)]
    for lang, texts, queries, least in (
        ("vi", names, asked, 0.84),
        ("zh", [one["output"] for one in pairs], chinese, 0.47),
    ):
        with KnowledgeBase(tmp_path / f"{lang}.kb", lang) as base:
            accepted(base, *texts, lang=lang)
            begun = time.process_time()
            found = [{one.document for one in base.search(query)} for _, query in queries]
            took = 1000 * (time.process_time() - begun) / len(queries)
            right = sum(str(n) in got for (n, _), got in zip(queries, found, strict=True))
            print(f"{lang}: recall@5 {right / len(queries):.3f}, {took:.1f} ms a query")
            assert right / len(queries) >= least
