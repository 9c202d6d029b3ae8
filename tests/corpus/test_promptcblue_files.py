"""PromptCBLUE's files: rows in, a submission and its scores out, every fault one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError
from residency.corpus.formats.promptcblue import PromptCblue
from residency.corpus.load import load
from residency.corpus.promptcblue_rows import rows, score, write_submission

KINDS = {
    "input": "搜索：胃痛\n类型选项：治疗方案，病因分析",
    "type": "KUAKE-QIC",
    "answer_choices": ["治疗方案", "病因分析"],
}
ENTITIES = {
    "input": "找出疾病，药物实体：肺炎用青霉素",
    "type": "CMeEE-V2",
    "answer_choices": "疾病，药物",
}


def row(id: str, target: str, **more: Any) -> dict[str, Any]:
    return {**KINDS, "sample_id": id, "target": target, **more}


GOLD = [
    row("1", "治疗方案"),
    row("2", "非上述类型"),
    row("1", "上述句子中的实体包含：\n疾病实体：肺炎\n药物实体：青霉素", **ENTITIES),
]


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")
    return path


def test_each_task_of_the_file_is_scored_in_both_modes(tmp_path: Path) -> None:
    gold = lines(tmp_path / "gold.json", GOLD)
    said = [GOLD[2] | {"target": "疾病实体：肺炎\n没有别的"}, GOLD[1], GOLD[0] | {"target": "乱写"}]
    predictions = lines(tmp_path / "said.json", said)
    found = {one.task: one for one in score(gold, predictions, "official")}
    # two labels of gold and the invented one: F1 0, 1, 0
    assert found["KUAKE-QIC"].score == pytest.approx(1 / 3)
    assert (found["KUAKE-QIC"].metric, found["KUAKE-QIC"].rows, found["KUAKE-QIC"].unread) == (
        "Macro-F1",
        2,
        1,
    )
    assert found["CMeEE-V2"].score == pytest.approx(2 / 3)  # 1 of 2 found, none invented
    safe = {one.task: one for one in score(gold, predictions, "safe")}
    assert safe["KUAKE-QIC"].score == pytest.approx(1 / 2)  # the mean is over the labels of gold
    assert (safe["CMeEE-V2"].score, safe["CMeEE-V2"].repaired) == (pytest.approx(2 / 3), 1)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (GOLD[:2], r"1 of 3 rows of .* have no prediction \(the first is 1 of CMeEE-V2\)"),
        ([*GOLD, GOLD[0]], r"said.json:4: has the sample_id of line 1; ids must be unique"),
        ([*GOLD, row("9", "x")], r"row 9 of KUAKE-QIC is not in .*gold.json"),
        (
            [GOLD[0], row("2", "x", type="CHIP-CTC"), GOLD[2]],
            r"row 2 is of task CHIP-CTC, in .* of KUAKE-QIC; give the gold",
        ),
        (
            [*GOLD[:2], row("3", "x", type="CMeEE")],
            r"said.json:3: its type is not a task of PromptCBLUE; .*did you mean CMeEE-V2",
        ),
        ([*GOLD[:2], {"input": "x"}], r"said.json:3: has no text in target"),
        ([*GOLD[:2], 5], r"said.json:3: is not a JSON object"),
    ],
)
def test_rows_that_are_missing_double_or_of_another_task_are_one_sentence(
    tmp_path: Path, said: list[Any], words: str
) -> None:
    gold, predictions = lines(tmp_path / "gold.json", GOLD), lines(tmp_path / "said.json", said)
    with pytest.raises(DataError, match=words) as refused:
        score(gold, predictions, "safe")
    assert len(str(refused.value).splitlines()) == 1


def test_gold_of_another_task_is_one_sentence(tmp_path: Path) -> None:
    gold = lines(tmp_path / "gold.json", [row("1", "肺炎", type="CHIP-CDEE", answer_choices=None)])
    with pytest.raises(DataError, match="row 1: its target is not in the form of CHIP-CDEE"):
        score(gold, gold, "safe")


def test_a_submission_is_the_rows_with_what_was_answered(tmp_path: Path) -> None:
    asked = lines(tmp_path / "test.json", [one | {"target": "", "extra": 1} for one in GOLD])
    answers = [
        {"id": "1", "labels": ["治疗方案"], "scores": [0.9]},
        {"id": "2", "failure": "the answer is empty"},
        {"id": "1", "facts": [["疾病", "肺炎"]]},
    ]
    out = tmp_path / "out.json"
    assert write_submission(asked, lines(tmp_path / "answers.jsonl", answers), out) == 3
    made = rows(out)
    assert [one["target"] for one in made] == [
        "治疗方案",
        "",
        "上述句子中的实体包含：\n疾病实体：肺炎",
    ]
    assert [{**one, "target": ""} for one in made] == rows(asked)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            [{"id": "1", "answer": "x"}],
            r"answers.jsonl:2: is not the answer to row 2; predict .* --text input",
        ),
        ([{"id": "7", "answer": "x"}], r"answers.jsonl:1: is not the answer to row 1"),
        (
            [{"id": i, "answer": "x"} for i in ("1", "2", "1", "4")],
            r"answers.jsonl:4: there are more answers than rows",
        ),
        (
            [
                {"id": "1", "facts": [["a", "b", "c", "d"]]},
                {"id": "2", "answer": "x"},
                {"id": "1", "facts": [["a", "b", "c"]]},
            ],
            r"not one to task",
        ),
    ],
)
def test_answers_to_other_rows_make_no_submission(
    tmp_path: Path, answers: list[Any], words: str
) -> None:
    asked, out = lines(tmp_path / "test.json", GOLD), tmp_path / "out.json"
    with pytest.raises(DataError, match=words):
        write_submission(asked, lines(tmp_path / "answers.jsonl", answers), out)
    assert not out.exists()


def test_the_reader_takes_one_task_with_the_choices_of_each_row(tmp_path: Path) -> None:
    lines(tmp_path / "train.json", GOLD)
    corpus = load(
        PromptCblue(format="promptcblue", train="train.json", task="CMeEE-V2"), "x", tmp_path, 0
    )
    (note,) = corpus.notes
    assert (note.kind, note.choices, note.turns[0].text) == (
        "CMeEE-V2",
        ("疾病", "药物"),
        ENTITIES["input"],
    )
    whole = load(
        PromptCblue(format="promptcblue", train="train.json", names={"id": ""}), "x", tmp_path, 0
    )
    assert len(whole.notes) == 3
