"""Rules: every one finds what its own examples say, and nothing in its counter-examples."""

from __future__ import annotations

import pytest

from residency.deid.find import KINDS, Finding, resolve
from residency.deid.packs import FOLDER, language_of, read_pack
from residency.deid.rules import IdentifierRule, rules, rules_of
from residency.deid.view import narrow, plain, small

PACKS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
CASES = [
    (pack, rule, example) for pack in PACKS for rule in rules(pack) for example in rule.positive
]
COUNTER = [
    (pack, rule, example) for pack in PACKS for rule in rules(pack) for example in rule.negative
]


def found(pack: str, rule: IdentifierRule, text: str) -> list[str]:
    lang = "en" if language_of(pack) == "common" else language_of(pack)
    by = f"rule:{pack}/{rule.id}"
    places = {(one.start, one.end) for one in rules_of(lang).find(text, lang) if one.by == by}
    whole = [
        one
        for one in places
        if not any(a <= one[0] and one[1] <= b and (a, b) != one for a, b in places)
    ]
    return [text[start:end] for start, end in sorted(whole)]


@pytest.mark.parametrize(
    ("pack", "rule", "example"), CASES, ids=[f"{p}-{r.id}-{i}" for i, (p, r, _) in enumerate(CASES)]
)
def test_a_rule_finds_what_its_examples_mark(pack: str, rule: IdentifierRule, example: str) -> None:
    before, _, rest = example.partition("[")
    value, _, after = rest.partition("]")
    assert found(pack, rule, before + value + after) == [value]


@pytest.mark.parametrize(
    ("pack", "rule", "example"),
    COUNTER,
    ids=[f"{p}-{r.id}-{i}" for i, (p, r, _) in enumerate(COUNTER)],
)
def test_a_rule_leaves_its_counter_examples(pack: str, rule: IdentifierRule, example: str) -> None:
    assert found(pack, rule, example) == []


def test_every_rule_has_both_kinds_of_examples_and_a_known_kind() -> None:
    for pack in PACKS:
        for rule in rules(pack):
            assert rule.positive and rule.negative, rule.id
            assert rule.kind in KINDS


NAMED = [
    ("vi", "BN Nguyễn Thị Lan, nữ, 45 tuổi, đau ngực.", ["Nguyễn Thị Lan"]),
    ("vi", "HỌ TÊN: PHẠM VĂN HÙNG - Khoa Nội", ["PHẠM VĂN HÙNG"]),
    ("vi", "họ và tên nguyen van an, 30 tuổi", ["nguyen van an"]),
    ("vi", "Mẹ bé, chị Hoa, kể lại. BS. Lê Minh Tuấn", ["Hoa", "Lê Minh Tuấn"]),
    ("vi", "TỜ ĐIỀU TRỊ. LÝ DO VÀO VIỆN: ho. Cao huyết áp, Kim tiêm, Dương tính.", []),
    ("vi", "TS: ĐTĐ, THA. BS: Chưa ghi nhận. Hashimoto, Parkinson.", []),
    (
        "zh",
        "患者张伟，男，45岁。其妻王秀英。请李主任会诊。主治医师：欧阳志强",
        ["张伟", "王秀英", "李", "欧阳志强"],
    ),
    ("zh", "患者黄疸明显，查体：黄染。主任医师查房，高血压，何首乌。", []),
    (
        "en",
        "Mr. John A. Smith was seen by Emily Carter, MD. Daughter Anna called.",
        ["John A. Smith", "Emily Carter", "Anna"],
    ),
    (
        "zh",
        "交班：【常秀云】平稳；大嫂梁惠珍在场；执行：尹桂兰。护工次仁德吉陪床。",
        ["常秀云", "梁惠珍", "尹桂兰", "次仁德吉"],
    ),
    ("zh", "口服利福平、利可君、山茱萸；常规检查，应当复查，患者生存率提高，勿去游泳池。", []),
    ("zh", "既往：有IDA史四年，否认高血压。记录人：王四年", ["王四年"]),
    ("en", "Hodgkin disease, Parkinson Disease, Grace period; patient reports heartburn.", []),
]


@pytest.mark.parametrize(("lang", "text", "names"), NAMED)
def test_names_are_found_by_the_words_around_them_and_clinical_words_are_left(
    lang: str, text: str, names: list[str]
) -> None:
    findings = resolve(
        one
        for one in rules_of(lang).find(text, lang)
        if one.kind in ("name", "relative", "clinician")
    )
    assert [text[one.start : one.end] for one in findings] == names


def test_findings_that_overlap_become_one_that_covers_all_of_them() -> None:
    findings = [
        Finding(0, 5, "name", "a"),
        Finding(3, 9, "address", "b", 2),
        Finding(9, 12, "phone", "c"),
        Finding(20, 22, "age", "d"),
    ]
    assert [(f.start, f.end, f.kind) for f in resolve(findings)] == [
        (0, 9, "address"),
        (9, 12, "phone"),
        (20, 22, "age"),
    ]


@pytest.mark.parametrize(
    "text", ["Nguyễn Đình Ánh", "ＡＢＣ１２３　：", "İstanbul ẞ", "张伟 🙂 e\u0301"]
)
def test_folded_texts_keep_every_offset(text: str) -> None:
    assert len(plain(text)) == len(narrow(text)) == len(small(text)) == len(text)
    assert plain("Nguyễn Đình Ánh") == "nguyen dinh anh"
    assert narrow("ＡＢＣ１２３") == "ABC123"


def test_every_word_of_the_packs_is_text() -> None:
    from residency.deid.names.lists import name_data

    def leaves(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for one in value.values() for leaf in leaves(one)]
        return (
            [leaf for one in value for leaf in leaves(one)] if isinstance(value, list) else [value]
        )

    for lang in ("vi", "zh", "en"):
        words = leaves(name_data(lang)) + leaves(read_pack(lang).get("words", {}))
        assert [
            word for word in words if not isinstance(word, str)
        ] == []  # YAML reads a bare yes or no as a truth
