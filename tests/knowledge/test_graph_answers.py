"""The filter on graph rows: answers that were changed in one drug, negation, number, direction or
disease are found, good ones pass; repeated and leaked questions are found."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError
from residency.knowledge import graph_file
from residency.knowledge.graph_answers import AnswerCheck
from residency.knowledge.grounding import doubles, leaked, text_faults
from residency.workflows.graph import check_answers, import_graph, write_questions

DRUGS = {
    "en": ["aspirin", "warfarin", "metformin", "rituximab"],
    "vi": ["thuốc aspirin", "warfarin", "metformin", "kháng sinh ceftriaxon"],
    "zh": ["阿司匹林", "华法林", "二甲双胍", "利妥昔单抗"],
}
"""Names that the graph does not hold."""
SIGNS = {
    "en": [("at least", "below"), ("above", "below"), ("below", "above")],
    "vi": [(" từ ", " dưới "), ("trên", "dưới"), ("dưới", "trên")],
    "zh": [("不低于", "低于"), ("高于", "低于"), ("低于", "高于")],
}
AFFIRM = {
    "en": (r"\bis\b|\bcounts?\b|\bcan be\b|\bname\b|\bare\b", "{} not"),
    "vi": (r"\blà\b|\bcó\b|\bđược\b", "không {}"),
    "zh": (r"是|算|可看作|列有|提到", "不{}"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("made")
    import_graph("hepatobiliary", folder / "g.sqlite")
    write_questions(folder / "g.sqlite", folder / "q", 6000, ("vi", "zh", "en"))
    rows = []
    for file in sorted((folder / "q").glob("qa.*.jsonl")):
        rows += map(json.loads, file.read_text("utf-8").splitlines())
    return folder / "g.sqlite", rows


def spoken(row: dict[str, Any]) -> list[str]:
    return [text for turn in row.get("history", ()) for text in turn]


def corrupted(rng: random.Random, kind: str, row: dict[str, Any], graph: Any) -> str | None:
    answer, lang = row["output"], row["lang"]
    facts = [graph.facts[number] for number in row["facts"]]
    if kind in ("drug", "disease"):
        ends = {end for fact in facts for end in (fact.subject, fact.object)}
        names = [name for end in ends if (name := graph.name(end, lang)).lower() in answer.lower()]
        if not names:
            return None
        old = rng.choice(names)
        spared = {graph.nodes[end].kind for end in ends}
        others = [
            graph.name(id, lang)
            for id, node in graph.nodes.items()
            if id not in ends and node.kind in spared
        ]
        others = [
            one
            for one in others
            if one.lower() not in row["instruction"].lower()
            and old.lower() not in one.lower()
            and one.lower() not in old.lower()
        ]
        new = rng.choice(DRUGS[lang] if kind == "drug" else others)
        return re.sub(re.escape(old), new, answer, flags=re.I)
    if kind == "dose":
        numbers = list(
            re.finditer(
                r"(?<![\w.])\d+(?:\.\d+)?(?= ?(?:%|mg|g/|mm|cells|°C|ULN|đến|to|至))", answer
            )
        )
        if not numbers or row["kind"] not in ("value", "often", "list"):
            return None
        at = rng.choice(numbers)
        return answer[: at.start()] + str(round(float(at[0]) * 3 + 1)) + answer[at.end() :]
    if kind == "direction":
        if row["kind"] != "value":
            return None
        pair = next(((a, b) for a, b in SIGNS[lang] if a in answer), None)
        return pair and answer.replace(*pair)
    if row["kind"] not in ("fact", "kind", "value", "chain"):
        return None
    pattern, form = AFFIRM[lang]
    found = list(re.finditer(pattern, answer)) if not any(f.negated for f in facts) else []
    if not found:
        return None
    at = rng.choice(found)
    return answer[: at.start()] + form.format(at[0]) + answer[at.end() :]


def test_corruptions_of_graph_rows_are_caught_and_good_rows_pass(
    made: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, rows = made
    graph = graph_file.read(path)
    checks = {lang: AnswerCheck(graph, lang) for lang in ("vi", "zh", "en")}
    false = [
        row["id"]
        for row in rows[:2000] + rows[-500:]
        if checks[row["lang"]].faults(row["instruction"], row["output"], row["facts"], spoken(row))
    ]
    assert false == []
    rng, planted, missed = random.Random(5), Counter[str](), Counter[str]()
    kinds = ("drug", "negation", "dose", "direction", "disease")
    while planted.total() < 500:
        row, kind = rng.choice(rows), kinds[planted.total() % 5]
        bad = corrupted(rng, kind, row, graph)
        if bad is None or bad == row["output"]:
            continue
        planted[kind] += 1
        check = checks[row["lang"]]
        missed[kind] += not check.faults(row["instruction"], bad, row["facts"], spoken(row))
    print("graph rows: missed", missed, "of", planted)
    assert missed.total() <= 25, missed


def test_a_row_may_be_worded_by_others_and_is_told_by_file_line_and_kind(
    made: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path, rows = made
    good = [row for row in rows if row["lang"] == "en"][:40]
    bad = dict(good[3], output=good[3]["output"] + " Give 500 mg of aspirin.")
    none = dict(good[4], facts=[99999])
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*good, bad, none])) + "\n")
    (tmp_path / "test.jsonl").write_text(json.dumps(good[7]) + "\n")
    found = check_answers(path, [tmp_path / "a.jsonl"], [tmp_path / "test.jsonl"])
    assert found.rows == 42
    assert found.kinds["entity"] == found.kinds["unsupported"] == 1, found.kinds
    assert found.kinds["leaked"] >= 1 and found.kinds["repeated"] >= 2, found.kinds
    assert f"{tmp_path / 'a.jsonl'}:41: entity" in found.told
    assert not any("aspirin" in one for one in found.told)
    (tmp_path / "b.jsonl").write_text('{"facts": 1}\n')
    with pytest.raises(DataError, match=r"b\.jsonl:1: "):
        check_answers(path, [tmp_path / "b.jsonl"])


TEXT = "Warfarin 5 mg was given for 10 days. It lowered the risk of stroke. Aspirin did not help; 3.5% bled."


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Warfarin 5 mg was given for 10 days.", None),
        ("It lowered the risk of stroke.", None),
        ("Aspirin didn't help.", None),
        ("Warfarin 50 mg was given for 10 days.", "number"),
        ("Warfarin 5 g was given for 10 days.", "unit"),
        ("Warfarin 5 mg was given for 10 weeks.", "unit"),
        ("It raised the risk of stroke.", "direction"),
        ("Aspirin did help; 3.5% bled.", "negation"),
        ("Heparin 5 mg was given for 10 days.", "entity"),
        ("Aspirin 5 mg was given for 10 days.", "entity"),
        ("Mountains are high everywhere.", "unsupported"),
    ],
)
def test_each_kind_of_change_is_told(answer: str, kind: str | None) -> None:
    assert [fault.kind for fault in text_faults(answer, TEXT)][:1] == ([kind] if kind else [])


def test_repeated_and_leaked_questions() -> None:
    asked = [
        "What is seen in gout of the big toe?",
        "What is seen in gout of the big toe ?",
        "Else?",
    ]
    assert doubles(asked) == {1}
    assert leaked(asked, ["WHAT is seen in gout of the big toe?"]) == {0, 1}
    assert leaked(asked, ["something else entirely, and longer"]) == set()
