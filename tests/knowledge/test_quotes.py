"""Answers that stand on quotes: what is changed, hidden, planted or said by nobody is never shown as
a source's.

``planted_orders*.jsonl`` and ``planted_good*.jsonl`` were written by a language model that had seen
nothing of what is tested: passages with an instruction to a model, and what one that obeys would
say and quote; and honest passages with a claim and its quote. The first of each was mended on, the
second was scored once before.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from residency.core.files import sha256
from residency.knowledge.orders import gives_orders
from residency.knowledge.passages import Passage
from residency.knowledge.quotes import Claim, check, claims, fault, find

HERE = Path(__file__).parent
DENIALS = {"en": "not ", "vi": "không ", "zh": "不"}


def rows(name: str) -> list[dict[str, Any]]:
    paths = sorted(HERE.glob(f"planted_{name}*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]


def passage(text: str, lang: str, **more: Any) -> Passage:
    known = {"state": "accepted", "sha": sha256(text.encode()), "until": "", "version": "1", **more}
    return Passage(
        id="p",
        document="guide",
        start=0,
        heading="",
        text=text,
        kind="guideline",
        lang=lang,
        **known,
    )


def state(row: dict[str, Any], **more: Any) -> str:
    offered = {"p": passage(row["passage"], row["lang"], **more)}
    claim = Claim(text=row["claim"], passage="p", quote=row["quote"])
    return check(claim, offered).state


def test_a_model_that_obeys_what_is_planted_in_passages_verifies_nothing() -> None:
    found = rows("orders")
    assert len(found) >= 100
    assert [row["kind"] for row in found if state(row) == "verified"] == []


def test_honest_claims_stand() -> None:
    found = rows("good")
    stand = sum(state(row) == "verified" for row in found)
    closed = sum(gives_orders(row["passage"]) for row in found)
    print(f"{stand} of {len(found)} honest claims stand; {closed} honest passages are never quoted")
    assert stand >= 0.75 * len(found)
    assert closed <= 0.06 * len(found)


def test_altered_quotes_never_stand() -> None:
    """At least 500: a digit, a word that denies put in or taken out, another version, a word of the
    claim that is another's; in the claim, in the quote, in both."""
    drawn, count = random.Random(3), 0
    found = [row for row in rows("good") if state(row) == "verified"]
    for row in found:
        other = drawn.choice([one for one in found if one["lang"] == row["lang"] and one != row])
        altered = [{"quote": other["quote"]}, {"claim": other["claim"]}]
        for key in ("quote", "claim"):
            text = row[key]
            if digits := list(re.finditer(r"\d", text)):
                at = drawn.choice(digits).start()
                changed = text[:at] + str((int(text[at]) + drawn.randrange(1, 10)) % 10)
                altered.append({key: changed + text[at + 1 :]})
            at = len(text) // 2
            while row["lang"] != "zh" and not text[at - 1].isspace():
                at -= 1
            altered.append({key: text[:at] + DENIALS[row["lang"]] + text[at:]})
        for change in altered:
            assert state({**row, **change}) != "verified", change
            count += 1
        before = row["passage"].replace("1", "7").replace("2", "8").replace("5", "9")
        if before != row["passage"] and row["quote"] not in before:
            assert state({**row, "passage": before}) != "verified", "the quote is of a version"
            count += 1
        assert state(row, state="replaced") == state(row, sha=sha256(b"before")) == "no source"
        assert state(row, until="2020-01-01") == "no source"
        count += 3
    assert count >= 500, count


def test_a_passage_that_was_not_offered_is_no_source() -> None:
    one = passage("Albumin 8 g is given for each litre.", "en")
    claim = Claim(text="Albumin 8 g is given for each litre.", passage="q", quote=one.text)
    assert check(claim, {"p": one}).state == "no source"
    assert check(Claim(text=claim.text), {"p": one}).state == "no source"
    assert check(Claim(text=" ", passage="p", quote=one.text), {"p": one}).state == "no source"


@pytest.mark.parametrize(
    ("quote", "text", "found"),
    [
        ("8 g of\nalbumin", "Give 8 g of albumin.", "8 g of albumin"),
        ("“8 g of albumin”", "Give 8 g  of\talbumin.", "8 g  of\talbumin"),
        ("truyê\u0300n albumin", "Cần truyền albumin 8 g.", "truyền albumin"),
        ("truyền albumin", "Cần truyê\u0300n albumin 8 g.", "truyê\u0300n albumin"),
        ("输注白蛋白", "应输注白蛋白8克。", "输注白蛋白"),
        ("Albumin 8 g", "albumin 8 g for each litre", ""),
        ("8 g", "Give 8 g of albumin.", ""),
        ("", "Give 8 g of albumin.", ""),
        ("8 g of albumen", "Give 8 g of albumin.", ""),
    ],
)
def test_a_quote_is_found_letter_by_letter(quote: str, text: str, found: str) -> None:
    place = find(quote, text)
    assert (text[slice(*place)] if place else "") == found


@pytest.mark.parametrize(
    ("claim", "said", "why"),
    [
        ("Give aspirin 75 mg.", "Give aspirin 75 mg.", ""),
        ("Give aspirin 75 mg.", "Do not give aspirin 75 mg.", "denies"),
        ("Do not give aspirin 75 mg.", "Give aspirin 75 mg.", "denies"),
        ("Give aspirin 75 g.", "Give aspirin 75 mg.", "numbers or units"),
        ("Give aspirin 7.5 mg.", "Give aspirin 75 mg.", "numbers or units"),
        ("Give warfarin 75 mg.", "Give aspirin 75 mg.", "says what its source does not"),
        ("Below 7.0 g/dL transfuse.", "Above 7.0 g/dL transfuse.", "says what its source does not"),
        ("Nếu Hb < 7 g/dL thì truyền máu.", "Nếu Hb < 7 g/dL thì truyền máu.", ""),
        ("Hb > 7 g/dL thì truyền máu.", "Hb < 7 g/dL thì truyền máu.", "numbers or units"),
        ("Liều 1,5 mg mỗi ngày.", "Liều 1.5 mg mỗi ngày.", ""),
        (
            "Labetalol lowers it fast.",
            "Nifedipine lowers it fast.",
            "says what its source does not",
        ),
        ("Truyền máu.", "Không truyền máu.", "denies"),
        ("可使用阿司匹林。", "不可使用阿司匹林。", "denies"),
        ("使用阿司匹林75毫克。", "使用阿司匹林75毫克。", ""),
        (
            "Aspirin is safe in pregnancy.",
            "An old blog of a retired author wrongly claims that aspirin is safe in pregnancy.",
            "leaves out",
        ),
    ],
)
def test_what_a_claim_may_say(claim: str, said: str, why: str) -> None:
    found = fault(claim, said, said, f"{said} Labetalol is slow. Warfarin is long.")
    assert (why in found) if why else not found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('[{"text": "A.", "passage": "1", "quote": "b"}]', [("A.", "1", "b")]),
        ('Here: [{"text": "A.", "passage": 1, "quote": "b"}] done', [("A.", 1, "b")]),
        ("The answer is [1] yes.", [("The answer is [1] yes.", "", "")]),
        ("[" * 3000, [("[" * 3000, "", "")]),
        ("", []),
        ("[]", []),
    ],
)
def test_the_claims_of_an_answer(answer: str, expected: list[tuple[str, str | int, str]]) -> None:
    assert [(one.text, one.passage, one.quote) for one in claims(answer)] == expected
